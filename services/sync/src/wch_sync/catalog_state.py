"""What the service stores about its catalogs: items sent, products in flight, and the outcome of a batch."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from wch_common.events.sync import ProductRequested, ProductSynced
from wch_sync import queries

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from wch_common.contract.event import Event
    from wch_common.store.inbox import Seen
    from wch_common.store.leases import Lease
    from wch_common.store.store import Store, Transaction
    from wch_sync.plan import CatalogChanges


class CatalogState:
    """The service's tables, with the inbox and the outbox."""

    def __init__(self, store: Store, source: str) -> None:
        self._store = store
        self._source = source

    async def seen(self, events: Iterable[Event[ProductRequested]]) -> Seen:
        """Return which events are done already."""
        return await self._store.seen(events)

    def lease(self, catalog: str, *, seconds: float, wait_seconds: float) -> AbstractAsyncContextManager[Lease | None]:
        """Acquire the lease of a catalog; its holder reads the shop afterwards, so that the newest state is sent last."""
        return self._store.lease(f"catalog/{catalog}", seconds=seconds, wait_seconds=wait_seconds)

    async def in_flight(self, catalog: str, limit: int) -> set[int]:
        """Return up to `limit` products whose last call has no known result."""
        rows = await self._store.database.rows(queries.IN_FLIGHT, {"catalog": catalog, "limit": limit})
        return {row["product_id"] for row in rows}

    async def sent(self, catalog: str, products: Iterable[int]) -> Mapping[int, set[str]]:
        """Return the items that the catalog has from this service, by product."""
        found: dict[int, set[str]] = defaultdict(set)
        parameters = {"catalog": catalog, "products": list(products)}
        for row in await self._store.database.rows(queries.SENT_ITEMS, parameters):
            found[row["product_id"]].add(row["item_id"])
        return found

    async def begin(self, catalog: str, sends: Mapping[int, Sequence[str]], lease: Lease) -> None:
        """Record, before the call, the products in flight and the items that the call may leave in the catalog."""
        parameters = {"catalog": catalog, "products": sorted(sends), "token": lease.token}
        async with self._store.transaction() as tx:
            await tx.rows(queries.ADD_IN_FLIGHT, parameters)
            await self._add_sent_items(tx, catalog, sends)

    async def _add_sent_items(self, tx: Transaction, catalog: str, sends: Mapping[int, Sequence[str]]) -> None:
        product_of = {item: product for product, ids in sends.items() for item in ids}
        if product_of:
            items = sorted(product_of)
            products = [product_of[item] for item in items]
            await tx.rows(queries.ADD_SENT_ITEMS, {"catalog": catalog, "items": items, "products": products})

    async def finish(
        self,
        catalog: str,
        lease: Lease,
        changes: CatalogChanges,
        *,
        settled: Iterable[int],
        done: Sequence[Event[ProductRequested]],
    ) -> None:
        """Commit the changes, the inbox rows of the events `done`, and their facts.

        `settled` are the products whose call has a known result, successful or not.
        """
        parameters = {"catalog": catalog, "products": sorted(settled), "token": lease.token}
        async with self._store.transaction() as tx:
            await tx.rows(queries.DELETE_IN_FLIGHT, parameters)
            await self._add_sent_items(tx, catalog, changes.sent)
            if deleted := sorted(item for ids in changes.deleted.values() for item in ids):
                await tx.rows(queries.DELETE_SENT_ITEMS, {"catalog": catalog, "items": deleted})
            if done:
                new = await tx.first_times(done)
                for event in _one_per_product_and_requester(event for event in done if (event.source, event.id) in new):
                    tx.emit(self._fact(event, changes))

    def _fact(self, event: Event[ProductRequested], changes: CatalogChanges) -> Event[ProductSynced]:
        id_ = event.data.product_id
        product = changes.product_of[id_]
        sent, deleted = changes.sent.get(product, []), changes.deleted.get(product, [])
        fact = ProductSynced(
            product_id=id_,
            action="updated" if sent else "deleted",
            items_sent=len(sent),
            items_deleted=len(deleted),
        )
        return event.derive(fact, self._source, key=str(id_))


def _one_per_product_and_requester(events: Iterable[Event[ProductRequested]]) -> list[Event[ProductRequested]]:
    """Return one event for each product and requester: ten requests for a product are answered by one fact."""
    return list({(event.data.product_id, event.requester): event for event in events}.values())
