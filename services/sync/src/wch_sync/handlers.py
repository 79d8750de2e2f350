"""The batch handler of product requests: as few catalog calls as possible, and a result for each request."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING

import structlog

from wch_common.contract.event import Event
from wch_common.errors import IdReused, LeaseLost
from wch_common.events.sync import ProductFailed, ProductRequested
from wch_common.outcome import Reject, Retry, Throttled
from wch_sync.catalog import CatalogWriter
from wch_sync.mapping import ShopProduct, item_id, items
from wch_sync.plan import BatchPlan, changes_and_failures

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from wch_common.integrations.shops import Shops
    from wch_common.runtime.job import BatchResult
    from wch_common.store.leases import Lease
    from wch_sync.catalog import Catalogs
    from wch_sync.catalog_state import CatalogState
    from wch_sync.settings import SyncShop
    from wch_sync.shop import Reading, ShopReaders

log = structlog.get_logger(__name__)

Requested = Event[ProductRequested]

# Longer than a call can take effect, so that the process that acquires an expired lease sends after that call.
_LEASE_SECONDS = CatalogWriter.CALL_SECONDS * 2
# Together below the time limit of 300 s: a batch that exceeds it uses an attempt of every event.
_LEASE_WAIT_SECONDS = 30.0
_READING_SECONDS = 110.0
_SENDING_SECONDS = 150.0
_BUSY_PAUSE_SECONDS = 10.0
_MOST_RESENT = 200


class ProductSync:
    """The batch handler of `sync.product.requested`."""

    def __init__(
        self,
        shops: Shops[SyncShop],
        readers: ShopReaders,
        catalogs: Catalogs,
        state: CatalogState,
        *,
        may_write: Callable[[str], bool],
        left_out: Callable[[int], None],
    ) -> None:
        self._shops = shops
        self._may_write = may_write
        self._left_out = left_out
        self._readers = readers
        self._catalogs = catalogs
        self._state = state

    async def __call__(self, events: Sequence[Requested]) -> list[BatchResult]:
        """Sync the products of all events and return a result for each, in order; shops do not affect each other."""
        by_shop: dict[str | None, list[Requested]] = defaultdict(list)
        for event in events:
            by_shop[event.shop].append(event)
        found = await asyncio.gather(*(self._shop_results(name, requests) for name, requests in by_shop.items()))
        results = {id(event): result for one in found for event, result in one}
        return [results[id(event)] for event in events]

    async def _shop_results(self, name: str | None, events: Sequence[Requested]) -> list[tuple[Requested, BatchResult]]:
        """Return the results of one shop's events; of two events with one id and different data, the second is refused."""
        first: dict[tuple[str, str], Requested] = {}
        for event in events:
            first.setdefault((event.source, event.id), event)
        reused = {
            id(event): IdReused(f"{event.source} has used the id {event.id} twice, with different content")
            for event in events
            if event.canonical != first[event.source, event.id].canonical
        }
        try:
            found = await self._sync_shop(self._shops.named(name), list(first.values()))
        except LeaseLost as lost:
            busy = Throttled(str(lost), scope="", after=_BUSY_PAUSE_SECONDS)
            found = dict.fromkeys(first, busy)
        except (Retry, Throttled, Reject) as outcome:
            found = dict.fromkeys(first, outcome)
        return [(event, reused.get(id(event)) or found[event.source, event.id]) for event in events]

    async def _sync_shop(self, shop: SyncShop, events: Sequence[Requested]) -> dict[tuple[str, str], BatchResult]:
        """Sync one shop's events under the lease of its catalog, so that the newest state is sent last."""
        if not self._may_write(shop.catalog.id):
            self._left_out(len(events))
            return {(event.source, event.id): None for event in events}
        seen = await self._state.seen(events)
        results: dict[tuple[str, str], BatchResult] = dict.fromkeys(seen.done) | dict(seen.reused)
        todo = [event for event in events if (event.source, event.id) not in results]
        if not todo:
            return results
        async with self._state.lease(
            shop.catalog.id, seconds=_LEASE_SECONDS, wait_seconds=_LEASE_WAIT_SECONDS
        ) as lease:
            if lease is None:
                busy = Throttled("another replica is updating the catalog", scope="", after=_BUSY_PAUSE_SECONDS)
                return results | {(event.source, event.id): busy for event in todo}
            failed = await self._sync_products(shop, lease, todo)
        return results | {(event.source, event.id): failed.get(event.data.product_id) for event in todo}

    async def _sync_products(
        self, shop: SyncShop, lease: Lease, events: Sequence[Requested]
    ) -> Mapping[int, Exception]:
        """Read, map and send the products, and commit the outcome; returns the failed products with their outcomes."""
        wanted = {event.data.product_id for event in events}
        resent = await self._state.in_flight(shop.catalog.id, _MOST_RESENT)
        reader = self._readers.of(shop)
        reading = await reader.read(wanted | resent, within_seconds=_READING_SECONDS)
        plan = await self._plan(shop, reading, await reader.currency())
        await self._state.begin(shop.catalog.id, plan.sends, lease)
        result = await self._catalogs.of(shop).send(plan.requests, lease, within_seconds=_SENDING_SECONDS)
        changes, failed = changes_and_failures(plan, result)
        changes.product_of = {id_: reading.parents.get(id_, id_) for id_ in wanted}
        missing = Retry("the product was neither sent nor deleted")
        failed |= {one: missing for one in changes.product_of.values() if one not in plan.sends and one not in failed}
        failed_requests = {id_: failed[one] for id_, one in changes.product_of.items() if one in failed}
        done = [event for event in events if event.data.product_id not in failed_requests]
        # A product that could not be read stays in flight, and so does one whose call may still take effect.
        settled = set(plan.sends) - {plan.product_of[item] for item in result.unknown}
        await self._state.finish(shop.catalog.id, lease, changes, settled=settled, done=done)
        log.info(
            "products_synced",
            done=len(done),
            failed=len(failed_requests),
            items=len(plan.requests),
            resent=len(resent),
        )
        return failed_requests

    async def _plan(self, shop: SyncShop, reading: Reading, currency: str) -> BatchPlan:
        plan = BatchPlan(failed=dict(reading.failed))
        before = await self._state.sent(shop.catalog.id, [*reading.found, *reading.gone])
        for id_ in reading.gone:
            plan.add(id_, [], before.get(id_, set()) | {item_id(ShopProduct(id=id_), shop)})
        for id_, (product, variations) in reading.found.items():
            try:
                new = items(product, variations, shop, currency)
                surplus = before.get(id_, set()) | (set() if new else {item_id(product, shop)})
                plan.add(id_, new, surplus)
            except Reject as outcome:
                plan.failed[id_] = outcome
        plan.keep_moved_items()
        return plan


def product_failed(event: Requested, reason: str) -> ProductFailed:
    """Return the fact for a product whose request is dead-lettered."""
    return ProductFailed(product_id=event.data.product_id, reason=reason[:1000])
