"""Composes the sync service."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
from prometheus_client import Counter

from wch_common.runtime.job import Job
from wch_common.runtime.service import Platform, run_service
from wch_common.store.migrate import MigrationSet
from wch_sync.catalog import Catalogs
from wch_sync.catalog_state import CatalogState
from wch_sync.handlers import ProductSync, product_failed
from wch_sync.settings import SyncSettings
from wch_sync.shop import ShopReaders
from wch_sync.tables import METADATA
from wch_sync.topology import PRODUCTS

if TYPE_CHECKING:
    from collections.abc import Sequence

log = structlog.get_logger(__name__)

MIGRATIONS = (MigrationSet("wch_sync:migrations", "sync_version", METADATA),)


async def compose(platform: Platform[SyncSettings]) -> Sequence[Job]:
    """Build the clients and the handler, and return the jobs."""
    settings = platform.settings
    store = await platform.open_store(settings.database_url.get_secret_value(), MIGRATIONS)
    shops = settings.shops()
    readers = await platform.resources.enter_async_context(ShopReaders(settings.shop_concurrency))
    catalogs = await platform.resources.enter_async_context(
        Catalogs(poll_seconds=settings.catalog_poll_seconds, wait_seconds=settings.catalog_wait_seconds)
    )
    only = settings.sync_only_catalogs
    if only is not None:
        log.warning("only_listed_catalogs", catalogs=list(only))
    effect = f"writes to no catalog but {', '.join(only)}" if only else "writes to no catalog"
    await store.set_switches({} if only is None else {"WCH_SYNC_ONLY_CATALOGS": effect})
    left_out = Counter(
        "wch_sync_products_left_out",
        "Requests for products of catalogs that are not in WCH_SYNC_ONLY_CATALOGS.",
        registry=platform.metrics.registry,
    )

    def may_write(catalog: str) -> bool:
        return only is None or catalog in only

    state = CatalogState(store, platform.source)
    sync = ProductSync(shops, readers, catalogs, state, may_write=may_write, left_out=left_out.inc)
    return [Job.with_batch_handler(platform.queue(PRODUCTS), sync, on_dead_letter=product_failed)]


def main() -> int:
    """Run the service and return its exit code."""
    return run_service("sync", SyncSettings, compose)
