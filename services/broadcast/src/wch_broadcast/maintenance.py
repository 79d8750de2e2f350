"""What time does to campaigns: they are looked at when they are due, counted, and their recipients deleted in the end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import psycopg
import structlog

from wch_broadcast.answers import BY_ITSELF
from wch_broadcast.campaign import locked
from wch_broadcast.steps import STUCK, advance
from wch_common.errors import Contended, Interrupted
from wch_common.observability.redact import error_text
from wch_common.store.due_rows import DueRows

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from wch_broadcast.metrics import CampaignMetrics
    from wch_broadcast.steps import Pace
    from wch_common.store.database import Row
    from wch_common.store.store import Store

log = structlog.get_logger(__name__)

_LEASE_SECONDS = 30.0
_LIMIT = 20
_CLAIM = """
UPDATE campaigns SET due_at = now() + %(lease)s * interval '1 second'
WHERE id IN (SELECT id FROM campaigns WHERE due_at <= now() ORDER BY due_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
RETURNING id
"""
_NEXT_DUE = "SELECT extract(epoch FROM min(due_at) - now()) AS seconds FROM campaigns WHERE due_at IS NOT NULL"
# A reason that a person gave is no label.
_CAMPAIGNS = """
SELECT state, CASE WHEN state IN ('waiting', 'running') THEN cause ELSE '' END AS cause, count(*) AS campaigns
FROM campaigns WHERE ended_at IS NULL GROUP BY 1, 2
"""
# A cancelled one waits for answers; without any for long it is stuck as well.
_CANCELLING = "SELECT count(*) AS campaigns FROM campaigns WHERE state = 'cancelling' AND taken_up_at IS NOT NULL"
_STOPPED = f"""
SELECT count(*) AS campaigns FROM campaigns WHERE (state = 'paused' AND said_by = '{BY_ITSELF}')
OR (state = 'failed' AND ended_at > now() - interval '1 day')
"""  # noqa: S608 - a word of this package
_BATCHES = "SELECT count(*) AS batches FROM batches WHERE answered_at IS NULL"
_COUNT_SECONDS = 5.0
_RETENTION_SECONDS = 3600.0
_CHUNK = 5000
# A list is marked before it is emptied, so that no campaign goes to a part of it. The counts of batches, and so every
# summary, are kept for good.
_RETAIN = (
    """
    DELETE FROM outcomes WHERE ctid = ANY(ARRAY(SELECT o.ctid FROM campaigns AS c JOIN outcomes AS o ON o.campaign = c.id
    WHERE c.ended_at < now() - %(days)s * interval '1 day' LIMIT %(chunk)s)) RETURNING 1
    """,
    """
    UPDATE lists SET deleted_at = now() WHERE id = ANY(ARRAY(SELECT l.id FROM lists AS l
    WHERE l.deleted_at IS NULL AND l.created_at < now() - %(days)s * interval '1 day' AND NOT EXISTS (
      SELECT 1 FROM campaigns AS c WHERE c.list = l.id
      AND (c.ended_at IS NULL OR c.ended_at >= now() - %(days)s * interval '1 day'))
    LIMIT %(chunk)s)) RETURNING 1
    """,
    """
    DELETE FROM recipients WHERE ctid = ANY(ARRAY(SELECT r.ctid FROM lists AS l JOIN recipients AS r ON r.list = l.id
    WHERE l.deleted_at IS NOT NULL LIMIT %(chunk)s)) RETURNING 1
    """,
)


class Maintenance:
    """The loops beside the queues; any replica runs them, and a campaign is looked at by one at a time."""

    def __init__(self, store: Store, pace: Pace, metrics: CampaignMetrics, *, keep_days: float) -> None:
        self._store = store
        self._pace = pace
        self._metrics = metrics
        self._keep_days = keep_days
        self._due = DueRows(store.database, _CLAIM, self._look, lease=_LEASE_SECONDS, limit=_LIMIT, next_due=_NEXT_DUE)

    @property
    def background(self) -> list[Callable[[], Awaitable[None]]]:
        """The loops to be run."""
        return [self._due.run, self._count, self._retain]

    def nudge(self) -> None:
        """See anew which campaign is due next."""
        self._due.nudge()

    async def _look(self, rows: Sequence[Row]) -> None:
        for row in rows:
            try:
                async with self._store.transaction() as tx:
                    if (campaign := await locked(tx, row["id"])) is not None:
                        await advance(tx, campaign, self._pace)
            except Contended:
                log.info("campaign_waits")  # for somebody who waits for it: after its lease it is looked at again
            except Interrupted:
                raise
            except Exception as error:  # noqa: BLE001 - one campaign that cannot go on must not hold up the others
                log.error("campaign_not_looked_at", key=str(row["id"]), error=error_text(error))

    async def _count(self) -> None:
        database = self._store.database
        while True:
            try:
                rows = await database.rows(_CAMPAIGNS)
                (stopped,), (batches,) = await database.rows(_STOPPED), await database.rows(_BATCHES)
                (cancelling,) = await database.rows(_CANCELLING)
            except (Interrupted, psycopg.Error) as error:
                log.warning("campaigns_not_counted", error=error_text(error))
            else:
                counts = {(row["state"], row["cause"]): row["campaigns"] for row in rows}
                stuck = cancelling["campaigns"] + sum(n for (_, cause), n in counts.items() if cause == STUCK)
                self._metrics.counted(counts, stuck=stuck, stopped=stopped["campaigns"], batches=batches["batches"])
            await asyncio.sleep(_COUNT_SECONDS)

    async def _retain(self) -> None:
        """Delete recipients and their outcomes that were kept long enough, in chunks, once an hour."""
        names = {"days": self._keep_days, "chunk": _CHUNK}
        while True:
            try:
                for statement in _RETAIN:
                    while len(await self._store.database.rows(statement, names)) == _CHUNK:
                        await asyncio.sleep(0.1)  # between chunks, so that others get at the table
            except (Interrupted, psycopg.Error) as error:
                log.warning("retention_waits", error=error_text(error))
            await asyncio.sleep(_RETENTION_SECONDS)
