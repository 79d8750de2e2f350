"""Background loops: advance campaigns when they are due, count them for metrics, and delete old recipients."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from wch_broadcast import queries
from wch_broadcast.campaign import SERVICE, locked
from wch_broadcast.steps import STUCK, advance
from wch_common.errors import Contended, Interrupted
from wch_common.observability.redact import error_text
from wch_common.store.due_rows import DueRows
from wch_common.store.maintenance import periodic, retention

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wch_broadcast.metrics import CampaignMetrics
    from wch_broadcast.steps import Pace
    from wch_common.store.database import Row
    from wch_common.store.maintenance import Loop
    from wch_common.store.store import Store

log = structlog.get_logger(__name__)

_LEASE_SECONDS = 30.0
_LIMIT = 20
_COUNT_SECONDS = 5.0


class Maintenance:
    """The background loops; every replica runs them, and a lease gives each campaign to one of them at a time."""

    def __init__(self, store: Store, pace: Pace, metrics: CampaignMetrics, *, keep_days: float) -> None:
        self._store = store
        self._pace = pace
        self._metrics = metrics
        self._keep_days = keep_days
        self._due = DueRows(
            store.database,
            queries.CLAIM_CAMPAIGNS,
            self._advance,
            lease=_LEASE_SECONDS,
            limit=_LIMIT,
            next_due=queries.NEXT_CAMPAIGN_DUE,
        )

    @property
    def background(self) -> list[Loop]:
        """The loops to run."""
        return [
            self._due.run,
            periodic("count_campaigns", self._count, _COUNT_SECONDS),
            retention(self._store.database, queries.DELETE_OLD, {"days": self._keep_days}),
        ]

    def nudge(self) -> None:
        """Check again which campaign is due next."""
        self._due.nudge()

    async def _advance(self, rows: Sequence[Row]) -> None:
        for row in rows:
            try:
                async with self._store.transaction() as tx:
                    if (campaign := await locked(tx, row["id"])) is not None:
                        await advance(tx, campaign, self._pace)
            except Contended:
                log.info("campaign_contended", key=str(row["id"]))  # it is claimed again after its lease
            except Interrupted:
                raise
            except Exception as error:  # noqa: BLE001 - a campaign that fails must not block the others
                log.error("campaign_step_failed", key=str(row["id"]), error=error_text(error))

    async def _count(self) -> None:
        database = self._store.database
        rows = await database.rows(queries.COUNT_CAMPAIGNS)
        (stopped,) = await database.rows(queries.COUNT_STOPPED, {"service": SERVICE})
        (batches,) = await database.rows(queries.COUNT_UNANSWERED)
        (cancelling,) = await database.rows(queries.COUNT_STUCK_CANCELLING)
        counts = {(row["state"], row["cause"]): row["campaigns"] for row in rows}
        stuck = cancelling["campaigns"] + sum(number for (_, cause), number in counts.items() if cause == STUCK)
        self._metrics.counted(counts, stuck=stuck, stopped=stopped["campaigns"], batches=batches["batches"])
