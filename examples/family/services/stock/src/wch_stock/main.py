"""Composes the stock service."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wch_common.events.stock import LevelRequested
from wch_common.runtime.job import Job
from wch_common.runtime.service import Platform, run_service
from wch_common.store.migrate import MigrationSet
from wch_stock.levels import set_level
from wch_stock.settings import StockSettings
from wch_stock.tables import METADATA
from wch_stock.topology import LEVELS

if TYPE_CHECKING:
    from collections.abc import Sequence

MIGRATIONS = (MigrationSet("wch_stock:migrations", "stock_version", METADATA),)


async def compose(platform: Platform[StockSettings]) -> Sequence[Job]:
    """Connect to the database and return the jobs."""
    store = await platform.open_store(platform.settings.database_url.get_secret_value(), MIGRATIONS)
    return [Job.in_transaction(platform.queue(LEVELS), {LevelRequested: set_level}, store)]


def main() -> int:
    """Run the service and return its exit code."""
    return run_service("stock", StockSettings, compose)
