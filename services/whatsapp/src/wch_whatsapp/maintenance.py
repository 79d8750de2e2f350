"""What time does to the ledger: calls in doubt are settled, messages expire, bundles are told, old rows go."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import psycopg
import structlog

from wch_common.errors import Contended, Interrupted
from wch_common.observability.redact import error_text
from wch_common.store.due_rows import DueRows
from wch_whatsapp.claims import PARKING
from wch_whatsapp.ledger import TOLD_WAIT_SECONDS, Change, Why, apply, bundle

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from wch_common.store.database import Row
    from wch_common.store.store import Store
    from wch_whatsapp.metrics import WhatsAppMetrics

log = structlog.get_logger(__name__)

_LEASE_SECONDS = 30.0
_LIMIT = 200
# A call whose process died is in doubt from its deadline on; one in doubt long enough stays unknown.
_CLAIM_OPEN = """
UPDATE messages SET due_at = now() + %(lease)s * interval '1 second'
WHERE id IN (SELECT id FROM messages WHERE state IN ('sending', 'in_doubt') AND due_at <= now()
             ORDER BY due_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
RETURNING id, state, attempt, category, doubted, cancelled IS NULL AND expires_at > now() AND phone IS NOT NULL AS is_wanted
"""
# Not moved on: who expires them first changes their state, and the others find nothing to change.
_CLAIM_EXPIRED = """
SELECT id FROM messages WHERE state = 'queued' AND expires_at <= now()
ORDER BY expires_at LIMIT %(limit)s
"""
_CLAIM_BUNDLES = """
UPDATE batches SET due_at = now() + %(lease)s * interval '1 second'
WHERE id IN (SELECT id FROM batches WHERE due_at <= now() ORDER BY due_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
RETURNING id
"""
# Two counts, as each has an index of its own.
_COUNTS = """
SELECT state, '' AS shop, count(*) AS rows FROM messages WHERE state IN ('sending', 'in_doubt') GROUP BY state
UNION ALL SELECT 'queued', shop, count(*) FROM messages WHERE state = 'queued' AND due_at <= now() GROUP BY shop
"""
# A rest that is over keeps its cause until a call succeeds; only what a person has to end is told for as long.
_PAUSED = """
SELECT cause, count(*) AS rows FROM numbers WHERE cause IS NOT NULL AND (paused_until > now() OR cause = ANY(%(parking)s)) GROUP BY cause
"""
_COUNT_SECONDS = 5.0
# Longer than the inbox remembers, and so than any replay: within it a key is never sent twice.
LEDGER_DAYS = 40
_RETENTION_SECONDS = 3600.0
_CHUNK = 5000
_RETAIN = tuple(
    f"DELETE FROM {table} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {table} WHERE {old} LIMIT {_CHUNK})) RETURNING 1"  # noqa: S608 - words of this module
    for table, old in (
        ("messages", f"due_at IS NULL AND updated_at < now() - interval '{LEDGER_DAYS} days'"),
        (
            "batches",
            f"due_at IS NULL AND (completed_at IS NOT NULL OR NOT asked) AND created_at < now() - interval '{LEDGER_DAYS} days'",
        ),
        ("windows", "open_until < now()"),
        ("pairs", "slots_from < now() - interval '1 day'"),
        ("reached", "at < now() - interval '1 day'"),
        ("suppressions", f"lifted_at < now() - interval '{LEDGER_DAYS} days'"),
    )
)


class Maintenance:
    """The loops beside the senders; any replica runs them, and rows are taken up by one at a time."""

    def __init__(self, store: Store, metrics: WhatsAppMetrics, *, settle_seconds: float, resend_utility: bool) -> None:
        self._store = store
        self._metrics = metrics
        self._settle_seconds = settle_seconds
        self._resend_utility = resend_utility
        self.waiting: dict[str, int] = {}
        """How many messages are due and wait to be sent, by shop."""

    @property
    def background(self) -> list[Callable[[], Awaitable[None]]]:
        """The loops to be run."""
        database = self._store.database
        rows = (
            DueRows(database, _CLAIM_OPEN, self._settle, lease=_LEASE_SECONDS, limit=_LIMIT),
            DueRows(database, _CLAIM_EXPIRED, self._expire, lease=_LEASE_SECONDS, limit=_LIMIT),
            DueRows(database, _CLAIM_BUNDLES, self._bundle, lease=_LEASE_SECONDS, limit=_LIMIT),
        )
        return [*(one.run for one in rows), self._count, self._retain]

    async def _settle(self, rows: Sequence[Row]) -> None:
        changes = [self._settled(row) for row in rows]
        async with self._store.transaction() as tx:
            changed = await apply(tx, changes, before=("sending", "in_doubt"))
        self._metrics.ended(changed)
        for row in changed:
            log.warning("message_in_doubt" if row["state"] == "in_doubt" else "message_unknown", message=str(row["id"]))

    def _settled(self, row: Row) -> Change:
        if row["state"] == "sending":
            reason = "process_died"
            defers = self._settle_seconds > TOLD_WAIT_SECONDS
            return Change(row["id"], "in_doubt", self._settle_seconds, row["attempt"], defers=defers, why=Why(reason))
        if row["category"] != "marketing" and self._resend_utility and row["doubted"] is None and row["is_wanted"]:
            # Once: where no status arrives at all, each further one would be another copy.
            why = Why("resent_after_doubt")
            return Change(row["id"], "queued", 0.0, row["attempt"], doubts=True, why=why)
        return Change(row["id"], "unknown", attempt=row["attempt"], why=Why("no_status"))

    async def _expire(self, rows: Sequence[Row]) -> None:
        async with self._store.transaction() as tx:
            expired = [Change(row["id"], "failed", why=Why("expired")) for row in rows]
            changed = await apply(tx, expired, before=("queued",))
        self._metrics.ended(changed)

    async def _bundle(self, rows: Sequence[Row]) -> None:
        for row in rows:
            try:
                async with self._store.transaction() as tx:
                    await bundle(tx, row["id"])
            except Contended:
                # Somebody who holds one of its messages waits for the batch: after its lease it is told.
                log.info("bundle_waits")

    async def _count(self) -> None:
        while True:
            try:
                rows = await self._store.database.rows(_COUNTS)
                resting = await self._store.database.rows(_PAUSED, {"parking": sorted(PARKING)})
                paused = {row["cause"]: row["rows"] for row in resting}
            except (Interrupted, psycopg.Error) as error:
                log.warning("messages_not_counted", error=error_text(error))
            else:
                self.waiting = {row["shop"]: row["rows"] for row in rows if row["state"] == "queued"}
                counts = {row["state"]: row["rows"] for row in rows if row["state"] != "queued"}
                self._metrics.counted(counts | {"queued": sum(self.waiting.values())}, paused)
            await asyncio.sleep(_COUNT_SECONDS)

    async def _retain(self) -> None:
        """Delete what outlived its use, in chunks, once an hour."""
        while True:
            try:
                for statement in _RETAIN:
                    while len(await self._store.database.rows(statement)) == _CHUNK:
                        await asyncio.sleep(0.1)  # between chunks, so that others get at the table
            except (Interrupted, psycopg.Error) as error:
                log.warning("retention_waits", error=error_text(error))
            await asyncio.sleep(_RETENTION_SECONDS)
