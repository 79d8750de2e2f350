"""Work beside the senders: settles calls in doubt, expires messages, publishes updates of batches, deletes old rows."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from wch_common.errors import Contended
from wch_common.events.failure_reasons import parking_reasons
from wch_common.store.due_rows import DueRows
from wch_common.store.maintenance import periodic, retention
from wch_whatsapp import queries_sending as queries
from wch_whatsapp.changes import Change, StateReason
from wch_whatsapp.ledger import apply, publish_update
from wch_whatsapp.people import release_numbers
from wch_whatsapp.queries import LONG_WAIT_SECONDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wch_common.store.database import Row
    from wch_common.store.maintenance import Loop
    from wch_common.store.store import Store
    from wch_whatsapp.metrics import WhatsAppMetrics

log = structlog.get_logger(__name__)

_LEASE_SECONDS = 30.0
_LIMIT = 200
_COUNT_SECONDS = 5.0
_RELEASE_SECONDS = 600.0
NO_STATUS_SECONDS: Final = 3600.0
"""After this time Meta has usually reported that a message was sent."""


class Maintenance:
    """The loops beside the senders; every replica runs them, and each row is processed by one replica at a time."""

    def __init__(
        self,
        store: Store,
        metrics: WhatsAppMetrics,
        *,
        settle_seconds: float,
        resend_utility: bool,
        budgets: Mapping[str, int],
    ) -> None:
        self._store = store
        self._metrics = metrics
        self._settle_seconds = settle_seconds
        self._resend_utility = resend_utility
        self._budgets = budgets
        self._without_status = 0
        self.waiting: dict[str, int] = {}
        """How many messages are due and not sent yet, by shop."""

    @property
    def background(self) -> list[Loop]:
        """The loops to run."""
        database = self._store.database
        rows = (
            DueRows(database, queries.CLAIM_OPEN, self._settle, lease=_LEASE_SECONDS, limit=_LIMIT),
            DueRows(database, queries.FIND_EXPIRED, self._expire, lease=_LEASE_SECONDS, limit=_LIMIT),
            DueRows(database, queries.CLAIM_UPDATES, self._publish_updates, lease=_LEASE_SECONDS, limit=_LIMIT),
        )
        count = periodic("count", self._count, _COUNT_SECONDS)
        release = periodic("release_numbers", partial(release_numbers, self._store), _RELEASE_SECONDS)
        return [*(one.run for one in rows), count, release, retention(database, queries.DELETE_OLD)]

    async def _settle(self, rows: Sequence[Row]) -> None:
        changes = [self._settled(row) for row in rows]
        async with self._store.transaction() as tx:
            changed = await apply(tx, changes, before=("sending", "in_doubt"))
        self._metrics.ended(changed)
        for row in changed:
            log.warning("message_in_doubt" if row["state"] == "in_doubt" else "message_unknown", message=str(row["id"]))

    def _settled(self, row: Row) -> Change:
        if row["state"] == "sending":
            reason = StateReason("process_died")
            defers = self._settle_seconds > LONG_WAIT_SECONDS
            return Change(row["id"], "in_doubt", self._settle_seconds, row["attempt"], defers=defers, reason=reason)
        is_resendable = row["category"] != "marketing" and row["doubted_attempt"] is None and row["is_wanted"]
        if is_resendable and self._resend_utility:
            # Only once: if no statuses arrive at all, each further attempt could be another copy.
            reason = StateReason("resent_after_doubt")
            return Change(row["id"], "queued", 0.0, row["attempt"], marks_doubt=True, reason=reason)
        return Change(row["id"], "unknown", attempt=row["attempt"], reason=StateReason("no_status"))

    async def _expire(self, rows: Sequence[Row]) -> None:
        async with self._store.transaction() as tx:
            expired = [Change(row["id"], "failed", reason=StateReason("expired")) for row in rows]
            changed = await apply(tx, expired, before=("queued",))
        self._metrics.ended(changed)

    async def _publish_updates(self, rows: Sequence[Row]) -> None:
        for row in rows:
            try:
                async with self._store.transaction() as tx:
                    await publish_update(tx, row["id"])
            except Contended:
                # Another transaction has locked messages and waits for the batch; the update is due again after the lease.
                log.info("batch_update_delayed", batch=str(row["id"]))

    async def _count(self) -> None:
        rows = await self._store.database.rows(queries.COUNT_OPEN)
        paused = await self._store.database.rows(queries.COUNT_PAUSED, {"causes": parking_reasons()})
        self.waiting = {row["shop"]: row["rows"] for row in rows if row["state"] == "queued"}
        counts = {row["state"]: row["rows"] for row in rows if row["state"] != "queued"}
        counts["queued"] = sum(self.waiting.values())
        self._metrics.counted(counts, {row["cause"]: row["rows"] for row in paused})
        await self._count_charges()
        await self._count_without_status()

    async def _count_charges(self) -> None:
        rows = await self._store.database.rows(queries.COUNT_CHARGES)
        by_kind, by_sender = Counter[str](), Counter[str]()
        for row in rows:
            by_kind[row["kind"]] += row["messages"]
            by_sender[row["sender"]] += row["messages"]
        used = [by_sender[sender] / max(1, budget) for sender, budget in self._budgets.items() if budget >= 0]
        self._metrics.charged(by_kind, max(used, default=0.0))

    async def _count_without_status(self) -> None:
        """Count messages that Meta accepted, and of which it has reported nothing since: it may not deliver them."""
        found = await self._store.database.rows(queries.COUNT_WITHOUT_STATUS, {"seconds": NO_STATUS_SECONDS})
        messages = found[0]["messages"]
        if messages and not self._without_status:
            log.error(
                "statuses_missing",
                messages=messages,
                remedy="check the webhook's subscription, and the payment method of the account at Meta",
            )
        self._without_status = messages
        self._metrics.without_status(messages)
