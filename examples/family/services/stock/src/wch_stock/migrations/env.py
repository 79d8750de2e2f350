"""Runs the stock service's migrations."""

from wch_common.store.migrate import run_environment

run_environment()
