"""Processes that start quickly: forked from a process that has already imported the libraries."""

from __future__ import annotations

import multiprocessing
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from support.families import services

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from multiprocessing.process import BaseProcess

# Importing them takes one to two seconds of CPU time, and the tests start hundreds of processes. tests/e2e/test_release.py
# shows that they start as installed.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    [
        "alembic.autogenerate",
        "alembic.command",
        "runpy",
        "sqlalchemy.dialects.postgresql",
        "uvloop",
        "wch_common.cli.app",
        *(f"wch_{service}.main" for service in services()),
    ]
)


def fork(
    main: Callable[[], object], arguments: Sequence[str], environment: Mapping[str, str], files: Sequence[Path]
) -> BaseProcess:
    """Start a process with its own arguments, environment and standard streams."""
    process = _FORKS.Process(target=_be, args=(main, list(arguments), dict(environment), list(files)))
    process.start()
    return process


def _be(main: Callable[[], object], arguments: list[str], environment: dict[str, str], files: list[Path]) -> None:
    append = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    for number, (path, mode) in enumerate(zip(files, (os.O_RDONLY, append, append), strict=True)):
        os.dup2(os.open(path, mode, 0o600), number)
    sys.stdin = os.fdopen(0)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = arguments
    main()
