"""Product sync: collected requests in, as few catalog calls as possible, an answer for each request."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog

from wch_common.contract.event import Event
from wch_common.errors import IdReused, LeaseLost
from wch_common.events.sync import ProductFailed, ProductRequested
from wch_common.outcome import Reject, Retry, Throttled
from wch_sync.catalog import CatalogWriter
from wch_sync.ledger import Outcome
from wch_sync.mapping import ShopProduct, item_id, items

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from wch_common.integrations.shops import Shops
    from wch_common.runtime.job import BatchResult
    from wch_common.store.leases import Lease
    from wch_sync.catalog import CatalogBatchResult, Catalogs
    from wch_sync.ledger import Ledger
    from wch_sync.settings import SyncShop
    from wch_sync.shop import Reading, ShopReaders

log = structlog.get_logger(__name__)

Requested = Event[ProductRequested]

# Longer than a call can take effect, so that who takes an expired lease over sends after it.
_LEASE_SECONDS = CatalogWriter.CALL_SECONDS * 2
# Together less than the time limit of 300 s: a batch that runs into it spends a try of every event.
_LEASE_WAIT_SECONDS = 30.0
_READING_SECONDS = 110.0
_SENDING_SECONDS = 150.0
_BUSY_PAUSE_SECONDS = 10.0
_MOST_TAKEN_OVER = 200


@dataclass
class _Plan:
    """What a batch asks of the catalog: requests, and which product each item belongs to."""

    requests: list[dict[str, Any]] = field(default_factory=list)
    product_of: dict[str, int] = field(default_factory=dict)
    sends: dict[int, list[str]] = field(default_factory=dict)
    deletes: dict[int, list[str]] = field(default_factory=dict)
    failed: dict[int, Exception] = field(default_factory=dict)

    def add(self, product_id: int, new: Sequence[dict[str, Any]], surplus: Iterable[str]) -> None:
        """Ask for a product's items, and for the deletion of those it has no more."""
        new = list({item["id"]: item for item in new}.values())  # rows move between a shop's pages: one may come twice
        self.sends[product_id] = [item["id"] for item in new]
        self.deletes[product_id] = sorted(set(surplus) - set(self.sends[product_id]))
        self.requests += [{"method": "UPDATE", "data": item} for item in new]
        self.requests += [{"method": "DELETE", "data": {"id": id_}} for id_ in self.deletes[product_id]]
        self.product_of |= dict.fromkeys((*self.sends[product_id], *self.deletes[product_id]), product_id)

    def spare_moved_items(self) -> None:
        """Delete nothing that another product sends: a variation may have moved between parents."""
        sent = {item: product for product, ids in self.sends.items() for item in ids}
        self.requests = [one for one in self.requests if one["method"] != "DELETE" or one["data"]["id"] not in sent]
        self.deletes = {product: [item for item in ids if item not in sent] for product, ids in self.deletes.items()}
        self.product_of |= sent


class ProductSync:
    """The batch handler of `sync.product.requested`."""

    def __init__(self, shops: Shops[SyncShop], readers: ShopReaders, catalogs: Catalogs, ledger: Ledger) -> None:
        self._shops = shops
        self._readers = readers
        self._catalogs = catalogs
        self._ledger = ledger

    async def __call__(self, events: Sequence[Requested]) -> list[BatchResult]:
        """Sync the products of all events and answer for each, in order; one shop's trouble is no other's."""
        by_shop: dict[str | None, list[Requested]] = defaultdict(list)
        for event in events:
            by_shop[event.shop].append(event)
        given = await asyncio.gather(*(self._answered(name, asked) for name, asked in by_shop.items()))
        answers = {id(event): answer for one in given for event, answer in one}
        return [answers[id(event)] for event in events]

    async def _answered(self, name: str | None, events: Sequence[Requested]) -> list[tuple[Requested, BatchResult]]:
        """Results for one shop's events: an id that came twice with other content is refused the second time."""
        first: dict[tuple[str, str], Requested] = {}
        for event in events:
            first.setdefault((event.source, event.id), event)
        reused = {
            id(event): IdReused(f"{event.source} used the id {event.id} twice, for different data")
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
        """Sync one shop's events under the lease of its catalog; the newest state wins whatever two replicas do."""
        seen = await self._ledger.seen(events)
        answers: dict[tuple[str, str], BatchResult] = dict.fromkeys(seen.done) | dict(seen.reused)
        todo = [event for event in events if (event.source, event.id) not in answers]
        if not todo:
            return answers
        async with self._ledger.lease(
            shop.catalog.id, seconds=_LEASE_SECONDS, wait_seconds=_LEASE_WAIT_SECONDS
        ) as lease:
            if lease is None:
                busy = Throttled("another replica works on the catalog", scope="", after=_BUSY_PAUSE_SECONDS)
                return answers | {(event.source, event.id): busy for event in todo}
            failed = await self._sync_products(shop, lease, todo)
        return answers | {(event.source, event.id): failed.get(event.data.product_id) for event in todo}

    async def _sync_products(
        self, shop: SyncShop, lease: Lease, events: Sequence[Requested]
    ) -> Mapping[int, Exception]:
        """Read, map, send, and commit the outcome; returns the products that failed, each with its outcome."""
        wanted = {event.data.product_id for event in events}
        taken_over = await self._ledger.under_way(shop.catalog.id, _MOST_TAKEN_OVER)
        reader = self._readers.of(shop)
        reading = await reader.read(wanted | taken_over, within_seconds=_READING_SECONDS)
        plan = await self._plan(shop, reading, await reader.currency())
        await self._ledger.begin(shop.catalog.id, plan.sends, lease)
        result = await self._catalogs.of(shop).send(plan.requests, lease, within_seconds=_SENDING_SECONDS)
        outcome, failed = _decide(plan, result)
        outcome.product_of = {id_: reading.parents.get(id_, id_) for id_ in wanted}
        lost = Retry("the product was neither sent nor deleted")
        failed |= {one: lost for one in outcome.product_of.values() if one not in plan.sends and one not in failed}
        failed_asked = {id_: failed[one] for id_, one in outcome.product_of.items() if one in failed}
        done = [event for event in events if event.data.product_id not in failed_asked]
        # A product that could not be read stays under way; so does one whose call may still take effect.
        settled = set(plan.sends) - {plan.product_of[item] for item in result.unknown}
        await self._ledger.finish(shop.catalog.id, lease, outcome, settled=settled, done=done)
        log.info(
            "products_synced",
            done=len(done),
            failed=len(failed_asked),
            items=len(plan.requests),
            taken_over=len(taken_over),
        )
        return failed_asked

    async def _plan(self, shop: SyncShop, reading: Reading, currency: str) -> _Plan:
        plan = _Plan(failed=dict(reading.failed))
        before = await self._ledger.sent(shop.catalog.id, [*reading.found, *reading.gone])
        for id_ in reading.gone:
            plan.add(id_, [], before.get(id_, set()) | {item_id(ShopProduct(id=id_), shop)})
        for id_, (product, variations) in reading.found.items():
            try:
                new = items(product, variations, shop, currency)
                surplus = before.get(id_, set()) | (set() if new else {item_id(product, shop)})
                plan.add(id_, new, surplus)
            except Reject as outcome:
                plan.failed[id_] = outcome
        plan.spare_moved_items()
        return plan


def _decide(plan: _Plan, result: CatalogBatchResult) -> tuple[Outcome, dict[int, Exception]]:
    """Turn what became of items into what became of products: one refused item fails its product, with the reason."""
    failed: dict[int, Exception] = dict(plan.failed)
    reasons: dict[int, list[str]] = defaultdict(list)
    for item, reason in result.refused.items():
        if item in plan.product_of:
            reasons[plan.product_of[item]].append(f"{item}: {reason}")
    for id_, texts in reasons.items():
        failed[id_] = Reject("the catalog refused " + "; ".join(sorted(texts)))
    for item, error in result.failed.items():
        failed.setdefault(plan.product_of[item], error)
    outcome = Outcome()
    untouched = set(result.failed) | set(result.refused)
    for id_, sent in plan.sends.items():
        outcome.sent[id_] = [item for item in sent if item not in untouched]
        outcome.deleted[id_] = [item for item in plan.deletes[id_] if item not in untouched]
    return outcome, failed


def product_failed(event: Requested, reason: str) -> ProductFailed:
    """Tell that a request was given up."""
    return ProductFailed(product_id=event.data.product_id, reason=reason[:1000])
