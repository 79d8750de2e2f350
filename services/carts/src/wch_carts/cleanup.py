"""Cleanup of expired carts in chunks, each in its own transaction.

A run is a row with a lease: one replica works on it at a time, and another continues it if that replica dies.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

import psycopg
import structlog

from wch_carts import queries
from wch_carts.topology import SOURCE
from wch_common.contract.event import new_event
from wch_common.contract.identity import derived_id
from wch_common.errors import Interrupted
from wch_common.events.carts import CleanupCompleted
from wch_common.observability.redact import error_text
from wch_common.store.due_rows import DueRows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wch_carts.settings import CartsShop
    from wch_common.contract.event import Event
    from wch_common.events.carts import CleanupRequested
    from wch_common.integrations.shops import Shops
    from wch_common.store.database import Row
    from wch_common.store.store import Store, Transaction

log = structlog.get_logger(__name__)

CHUNK = 1000
_LEASE_SECONDS = 10.0
_RUNS = 4


class Cleanup:
    """The handler that adds a run, and the loop that works on runs."""

    def __init__(self, store: Store, shops: Shops[CartsShop]) -> None:
        self._store = store
        self._shops = shops
        self.runs = DueRows(store.database, queries.CLAIM_CLEANUPS, self._work, lease=_LEASE_SECONDS, limit=_RUNS)

    async def requested(self, event: Event[CleanupRequested], tx: Transaction) -> None:
        """Add a run, which starts with the commit."""
        names = {"shop": self._shops.key(event.shop), "requester": event.requester, "causationid": event.id}
        names |= {"id": str(uuid.uuid4()), "correlationid": event.correlationid or event.id}
        await tx.rows(queries.ADD_CLEANUP, names | event.data.model_dump())
        tx.then(self.runs.nudge)

    async def _work(self, rows: Sequence[Row]) -> None:
        for row in rows:
            try:
                while await self._chunk(row["id"]):
                    pass
            except Interrupted:
                raise
            except psycopg.Error as error:  # it is claimed again after its lease, and the other runs continue
                log.error("cleanup_failed", run=str(row["id"]), error=error_text(error))

    async def _chunk(self, id_: uuid.UUID) -> bool:
        """Delete one chunk in one transaction; returns whether there may be more."""
        async with self._store.transaction() as tx:
            for run in await tx.rows(queries.LOCK_CLEANUP, {"id": id_}):
                statement = queries.COUNT_EXPIRED_OF_SHOP if run["dry_run"] else queries.DELETE_EXPIRED
                (found,) = await tx.rows(statement, run | {"chunk": CHUNK})
                deleted = {"id": id_, "deleted": found["carts"], "lease": _LEASE_SECONDS}
                await tx.rows(queries.ADD_DELETED, deleted)
                if found["carts"] == CHUNK and not run["dry_run"]:
                    return True
                await _end(tx, run)
        return False


async def _end(tx: Transaction, run: Row) -> None:
    """Store the result of a run and publish it."""
    (done,) = await tx.rows(queries.END_CLEANUP, run)
    fact = CleanupCompleted(
        deleted=done["deleted"], kept=done["kept"], duration_seconds=max(0.0, done["seconds"]), dry_run=done["dry_run"]
    )
    event = new_event(
        fact,
        SOURCE,
        id=str(derived_id(run["id"], fact.TYPE)),
        shop=run["shop"] or None,
        requester=run["requester"],
        correlationid=run["correlationid"],
    )
    tx.emit(replace(event, causationid=run["causationid"]))
    log.info("cleanup_completed", shop=run["shop"], deleted=done["deleted"], kept=done["kept"], dry_run=done["dry_run"])
