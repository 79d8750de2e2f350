"""Cleaning up: expired carts are deleted in chunks, by whichever replica has the run's lease; a run that died goes on."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

import psycopg
import structlog

from wch_carts.carts import SOURCE
from wch_common.contract.event import new_event
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
_ADD = """
INSERT INTO cleanups (id, shop, older_than_hours, dry_run, requester, correlationid, causationid, due_at)
VALUES (%(id)s, %(shop)s, %(older_than_hours)s, %(dry_run)s, %(requester)s, %(correlationid)s, %(causationid)s, now())
"""
_CLAIM = """
UPDATE cleanups SET due_at = now() + %(lease)s * interval '1 second'
WHERE id IN (SELECT id FROM cleanups WHERE due_at <= now() ORDER BY due_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
RETURNING id
"""
_RUN = "SELECT * FROM cleanups WHERE id = %(id)s AND ended_at IS NULL FOR UPDATE"
# By the moment at which it was asked for: what expires meanwhile is the next run's.
EXPIRED = """
shop = %(shop)s AND status = 'active' AND expires_at < %(asked_at)s
AND (%(older_than_hours)s::float8 IS NULL OR updated_at <= %(asked_at)s - %(older_than_hours)s * interval '1 hour')
"""
_COUNT = f"SELECT count(*) AS carts FROM carts WHERE {EXPIRED}"  # noqa: S608 - words of this module
# One that is being changed at this moment is not waited for: it has not expired when that is done.
DELETE = f"""
WITH gone AS (DELETE FROM carts WHERE id = ANY(ARRAY(
  SELECT id FROM carts WHERE {EXPIRED} ORDER BY expires_at LIMIT %(chunk)s FOR UPDATE SKIP LOCKED)) RETURNING 1)
SELECT count(*) AS carts FROM gone
"""  # noqa: S608 - words of this module
_NOTE = """
UPDATE cleanups SET deleted = deleted + %(deleted)s, due_at = clock_timestamp() + %(lease)s * interval '1 second' WHERE id = %(id)s
"""
_END = """
UPDATE cleanups SET ended_at = clock_timestamp(), due_at = NULL, kept = greatest(0, (
  SELECT count(*) FROM carts WHERE shop = %(shop)s AND status IN ('active', 'completed', 'abandoned')
) - CASE WHEN dry_run THEN deleted ELSE 0 END)
WHERE id = %(id)s RETURNING *, extract(epoch FROM ended_at - asked_at)::float8 AS seconds
"""


class Cleanup:
    """The handler that begins a run, and the loop that works runs off."""

    def __init__(self, store: Store, shops: Shops[CartsShop]) -> None:
        self._store = store
        self._shops = shops
        self.runs = DueRows(store.database, _CLAIM, self._work, lease=_LEASE_SECONDS, limit=_RUNS)

    async def requested(self, event: Event[CleanupRequested], tx: Transaction) -> None:
        """Begin a run."""
        names = {"shop": self._shops.key(event.shop), "requester": event.requester, "causationid": event.id}
        names |= {"id": str(uuid.uuid4()), "correlationid": event.correlationid or event.id}
        await tx.rows(_ADD, names | event.data.model_dump())
        tx.then(self.runs.nudge)

    async def _work(self, rows: Sequence[Row]) -> None:
        for row in rows:
            try:
                while await self._chunk(row["id"]):
                    pass
            except Interrupted:
                raise
            except psycopg.Error as error:  # it is tried again after its lease, and holds up no other
                log.error("cleanup_goes_on_later", run=str(row["id"]), error=error_text(error))

    async def _chunk(self, id_: uuid.UUID) -> bool:
        """Delete a chunk in a transaction of its own; returns whether there may be more."""
        async with self._store.transaction() as tx:
            for run in await tx.rows(_RUN, {"id": id_}):
                statement = _COUNT if run["dry_run"] else DELETE
                (found,) = await tx.rows(statement, run | {"chunk": CHUNK})
                await tx.rows(_NOTE, {"id": id_, "deleted": found["carts"], "lease": _LEASE_SECONDS})
                if found["carts"] == CHUNK and not run["dry_run"]:
                    return True
                await _end(tx, run)
        return False


async def _end(tx: Transaction, run: Row) -> None:
    """Keep the result, and tell it."""
    (done,) = await tx.rows(_END, run)
    told = CleanupCompleted(
        deleted=done["deleted"], kept=done["kept"], duration_seconds=max(0.0, done["seconds"]), dry_run=done["dry_run"]
    )
    event = new_event(
        told,
        SOURCE,
        id=str(uuid.uuid5(run["id"], told.TYPE)),
        shop=run["shop"] or None,
        requester=run["requester"],
        correlationid=run["correlationid"],
    )
    tx.emit(replace(event, causationid=run["causationid"]))
    log.info("cleanup_completed", shop=run["shop"], deleted=done["deleted"], kept=done["kept"], dry_run=done["dry_run"])
