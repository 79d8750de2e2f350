"""What the service remembers of its catalogs: items sent, products under way; and the outcome of a batch."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from wch_common.events.sync import ProductRequested, ProductSynced

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from wch_common.contract.event import Event
    from wch_common.store.inbox import Seen
    from wch_common.store.leases import Lease
    from wch_common.store.store import Store, Transaction

_SENT = "SELECT product_id, item_id FROM sent_items WHERE catalog_id = %(catalog)s AND product_id = ANY(%(products)s)"
_UNDER_WAY = "SELECT product_id FROM under_way WHERE catalog_id = %(catalog)s ORDER BY since LIMIT %(limit)s"
_BEGIN = """
INSERT INTO under_way (catalog_id, product_id, token)
SELECT %(catalog)s, unnest(%(products)s::bigint[]), %(token)s
ON CONFLICT (catalog_id, product_id) DO UPDATE SET token = excluded.token, since = now()
"""
# Only what was begun under one's own lease: a late holder must not clear what its successor records.
_END = """
DELETE FROM under_way WHERE catalog_id = %(catalog)s AND product_id = ANY(%(products)s) AND token = %(token)s
"""
_REMEMBER = """
INSERT INTO sent_items (catalog_id, item_id, product_id)
SELECT %(catalog)s, item_id, product_id FROM unnest(%(items)s::text[], %(products)s::bigint[]) AS new (item_id, product_id)
ON CONFLICT (catalog_id, item_id) DO UPDATE SET product_id = excluded.product_id, sent_at = now()
"""
_FORGET = "DELETE FROM sent_items WHERE catalog_id = %(catalog)s AND item_id = ANY(%(items)s)"


class Outcome:
    """What one batch changed: per product the items now in the catalog, and those deleted from it."""

    def __init__(self) -> None:
        self.sent: dict[int, list[str]] = {}
        self.deleted: dict[int, list[str]] = {}
        self.product_of: dict[int, int] = {}
        """The product each asked id belongs to: itself, or a variation's parent."""


class Ledger:
    """The service's tables, and the inbox and outbox beside them."""

    def __init__(self, store: Store, source: str) -> None:
        self._store = store
        self._source = source

    async def seen(self, events: Iterable[Event[ProductRequested]]) -> Seen:
        """Return which events are done already."""
        return await self._store.seen(events)

    def lease(self, catalog: str, *, seconds: float, wait_seconds: float) -> AbstractAsyncContextManager[Lease | None]:
        """Hold the catalog: who holds it reads the shop after it was given, so the newest state is sent last."""
        return self._store.lease(f"catalog/{catalog}", seconds=seconds, wait_seconds=wait_seconds)

    async def under_way(self, catalog: str, limit: int) -> set[int]:
        """Return the products whose last call has no known outcome."""
        rows = await self._store.database.rows(_UNDER_WAY, {"catalog": catalog, "limit": limit})
        return {row["product_id"] for row in rows}

    async def sent(self, catalog: str, products: Iterable[int]) -> Mapping[int, set[str]]:
        """Return the items each product has in the catalog by our doing."""
        found: dict[int, set[str]] = defaultdict(set)
        for row in await self._store.database.rows(_SENT, {"catalog": catalog, "products": list(products)}):
            found[row["product_id"]].add(row["item_id"])
        return found

    async def begin(self, catalog: str, sends: Mapping[int, Sequence[str]], lease: Lease) -> None:
        """Record, before the call, what is under way, and the items it may leave in the catalog."""
        parameters = {"catalog": catalog, "products": sorted(sends), "token": lease.token}
        async with self._store.transaction() as tx:
            await tx.rows(_BEGIN, parameters)
            await self._remember(tx, catalog, sends)

    async def _remember(self, tx: Transaction, catalog: str, sends: Mapping[int, Sequence[str]]) -> None:
        kept = {item: product for product, ids in sends.items() for item in ids}
        if kept:
            items = sorted(kept)
            await tx.rows(_REMEMBER, {"catalog": catalog, "items": items, "products": [kept[item] for item in items]})

    async def finish(
        self,
        catalog: str,
        lease: Lease,
        outcome: Outcome,
        *,
        settled: Iterable[int],
        done: Sequence[Event[ProductRequested]],
    ) -> None:
        """Commit a batch's outcome in one transaction: what was sent, inbox rows of the events done, and their facts.

        `settled` are the products whose call has a known outcome, good or bad.
        """
        parameters = {"catalog": catalog, "products": sorted(settled), "token": lease.token}
        async with self._store.transaction() as tx:
            await tx.rows(_END, parameters)
            await self._remember(tx, catalog, outcome.sent)
            if deleted := sorted(item for ids in outcome.deleted.values() for item in ids):
                await tx.rows(_FORGET, {"catalog": catalog, "items": deleted})
            if done:
                new = await tx.first_times(done)
                for event in _one_per_product_and_requester(event for event in done if (event.source, event.id) in new):
                    tx.emit(self._fact(event, outcome))

    def _fact(self, event: Event[ProductRequested], outcome: Outcome) -> Event[ProductSynced]:
        id_ = event.data.product_id
        product = outcome.product_of[id_]
        sent, deleted = outcome.sent.get(product, []), outcome.deleted.get(product, [])
        fact = ProductSynced(
            product_id=id_,
            action="updated" if sent else "deleted",
            items_sent=len(sent),
            items_deleted=len(deleted),
        )
        return event.derive(fact, self._source, key=str(id_))


def _one_per_product_and_requester(events: Iterable[Event[ProductRequested]]) -> list[Event[ProductRequested]]:
    """Ten requests for one product are one piece of news, for each who asked."""
    return list({(event.data.product_id, event.requester): event for event in events}.values())
