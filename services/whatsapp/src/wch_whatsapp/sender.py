"""Sends messages from one number: under a lease, with several calls at a time, from committed intent to written outcome."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import psycopg
import structlog

from wch_common.backoff import backoff_seconds, until_success
from wch_common.errors import Contended, Interrupted
from wch_common.events.failure_reasons import failure_reason
from wch_common.observability.redact import error_text
from wch_whatsapp.bodies import call_body
from wch_whatsapp.call_outcomes import OUTAGE, CallOutcome, Pause, decide_outcome
from wch_whatsapp.claims import Claim, add_number, claim
from wch_whatsapp.cloud import InDoubt, RefusedByMeta, Unsent
from wch_whatsapp.identity import Tag
from wch_whatsapp.outcomes import put_back, write

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wch_common.store.database import Row
    from wch_common.store.leases import Lease
    from wch_common.store.store import Store
    from wch_whatsapp.cloud import CloudApi
    from wch_whatsapp.decide import Send
    from wch_whatsapp.limits import Limits
    from wch_whatsapp.metrics import WhatsAppMetrics

log = structlog.get_logger(__name__)

_LEASE_WAIT_SECONDS = 5.0
_MOST_CLAIMED = 100
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.002, 0.5
_OUTAGE_FAILURES = 5
_LONGEST_THROTTLE = 60.0


@dataclass
class LocalPause:
    """A pause by this process's clock; it holds from the reply on, before the pause is written to the database."""

    until: float = 0.0

    @property
    def is_on(self) -> bool:
        """Whether no call may begin now."""
        return time.monotonic() < self.until

    def extend(self, seconds: float) -> None:
        """Begin no call for so many seconds."""
        self.until = max(self.until, time.monotonic() + seconds)


@dataclass
class ShopState:
    """What the numbers of one shop share: a pause, and the list of them."""

    senders: list[str] = field(default_factory=list)
    pause: LocalPause = field(default_factory=LocalPause)


@dataclass(frozen=True)
class FinishedCall:
    """A finished call, which occupies its slot until its outcome is written."""

    outcome: CallOutcome
    call: asyncio.Task[CallOutcome | None]


class NumberSender:
    """Claims the due messages of one number and sends them, until cancelled."""

    def __init__(  # noqa: PLR0913 - its collaborators, each by name
        self,
        store: Store,
        api: CloudApi,
        limits: Limits,
        shop: ShopState,
        metrics: WhatsAppMetrics,
        *,
        calls: int,
        settle_seconds: float,
        lease_seconds: float,
    ) -> None:
        self._store = store
        self._api = api
        self._limits = limits
        self._shop = shop
        self._metrics = metrics
        self._calls = calls
        self._settle_seconds = settle_seconds
        self._lease_seconds = lease_seconds
        self._pause = LocalPause()
        self._nudged = asyncio.Event()
        self._running: set[asyncio.Task[CallOutcome | None]] = set()
        self._finished: list[FinishedCall] = []
        self._failures = self._throttles = 0

    def nudge(self) -> None:
        """Check for messages now; ignored while the number is paused."""
        if not self._is_paused:
            self._nudged.set()

    @property
    def in_flight(self) -> int:
        """How many calls have no written outcome yet."""
        return len(self._running)

    async def run(self) -> None:
        """Send while this process holds the number's lease; a database outage is logged and waited for."""
        await until_success(self._add_number, Interrupted, lambda _failures, error: self._log_interruption(error))
        failures = 0
        while True:
            try:
                async with self._store.lease(
                    f"sender/{self._limits.sender}", seconds=self._lease_seconds, wait_seconds=_LEASE_WAIT_SECONDS
                ) as lease:
                    if lease is not None:
                        failures = 0
                        await self._send_while_held(lease)
            except (Interrupted, psycopg.Error) as interruption:
                failures += 1
                self._log_interruption(interruption)
                await asyncio.sleep(backoff_seconds(failures))
            await self._write_finished()

    async def finish(self, grace_seconds: float) -> None:
        """Begin no more calls, and wait up to `grace_seconds` for the outcomes of those in flight."""
        self._pause.extend(10 * grace_seconds + 3600)
        deadline = time.monotonic() + grace_seconds
        while self._running and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        if self._running:
            log.warning("calls_left_in_doubt", sender_calls=len(self._running))

    def _log_interruption(self, error: BaseException) -> None:
        log.warning("sender_interrupted", reason=error_text(error))

    # -- claiming

    async def _add_number(self) -> None:
        await add_number(self._store, self._limits)

    async def _send_while_held(self, lease: Lease) -> None:
        log.info("sending_started", number=self._limits.sender)
        while True:
            lease.check()
            if not self._finished and len(self._running) >= self._calls:
                await self._until_nudged(_LONGEST_PAUSE)
                continue
            paused = self._is_paused
            try:
                claimed = await self._turn(lease, paused=paused)
            except Contended:
                await self._write_finished()
                continue
            self._begin(claimed)
            # A probe whose messages all end unsent continues with the next messages at once.
            if paused or (claimed.probe and (claimed.sends or not claimed.examined)):
                await self._until_nudged(_LONGEST_PAUSE)
            elif not claimed.examined:
                await self._until_nudged(min(_LONGEST_PAUSE, max(_SHORTEST_PAUSE, claimed.next_claim_seconds)))

    async def _turn(self, lease: Lease, *, paused: bool) -> Claim:
        """Write the outcomes of finished calls and claim messages for the free slots, in one transaction."""
        finished, self._finished = self._finished, []
        free = 0 if paused else min(self._calls - len(self._running) + len(finished), _MOST_CLAIMED)
        rows: Sequence[Row] = ()
        try:
            async with self._store.transaction(reserved=True) as tx:
                if finished:
                    rows = await write(tx, [one.outcome for one in finished], self._limits, self._shop.senders)
                # Also with no free slot, because it reports pauses to batches.
                claimed = await claim(tx, self._limits, lease, free)
        except BaseException:
            self._finished = finished + self._finished
            raise
        self._end(finished, rows)
        return claimed

    def _end(self, finished: Sequence[FinishedCall], rows: Sequence[Row]) -> None:
        """Free the slots of calls whose outcomes are written."""
        self._metrics.ended(rows)
        for one in finished:
            self._running.discard(one.call)

    async def _until_nudged(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._nudged.wait(), seconds)
        self._nudged.clear()

    @property
    def _is_paused(self) -> bool:
        return self._pause.is_on or self._shop.pause.is_on

    def _begin(self, claimed: Claim) -> None:
        if claimed.probe and claimed.sends:
            log.info("probing", number=self._limits.sender)
        for row, send in claimed.sends:
            task = asyncio.create_task(self._send_one(row, send, probe=claimed.probe))
            self._running.add(task)
            task.add_done_callback(self._called)

    def _called(self, task: asyncio.Task[CallOutcome | None]) -> None:
        """Queue the outcome of a call for writing; without one, maintenance settles the intent from the ledger."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("send_failed", error=error_text(error))
        if task.cancelled() or error is not None or (outcome := task.result()) is None:
            self._running.discard(task)
        else:
            self._finished.append(FinishedCall(outcome, task))
        self._nudged.set()

    # -- one message, from its intent to its outcome

    async def _send_one(self, row: Row, send: Send, *, probe: bool) -> CallOutcome | None:
        """Call Meta for a message whose intent is committed, and decide the outcome, which the next turn writes."""
        attempt = row["attempt"] + 1
        if self._is_paused:
            await self._put_back(row, attempt, send)
            return None
        started = time.monotonic()
        reply = await self._api.send(call_body(send.to, str(Tag(row["id"], attempt)), send.content))
        outcome = decide_outcome(row, attempt, send, probe=probe, reply=reply, settle_seconds=self._settle_seconds)
        outcome = self._paced(outcome)
        self._metrics.called(outcome, time.monotonic() - started)
        return outcome

    async def _put_back(self, row: Row, attempt: int, send: Send) -> None:
        """Queue a message again whose number was paused between the intent and the call."""
        with contextlib.suppress(Interrupted):  # otherwise the message becomes in doubt, and maintenance settles it
            async with self._store.transaction() as tx:
                await put_back(tx, row, attempt, send, self._limits)

    def _paced(self, outcome: CallOutcome) -> CallOutcome:
        """Pause calls at once if the outcome asks for it, before it is written; repeated throttles pause longer."""
        pause = outcome.pause
        unreachable = isinstance(outcome.reply, (Unsent, InDoubt)) or (
            outcome.policy is not None and failure_reason(outcome.policy.reason).outage
        )
        self._failures = self._failures + 1 if unreachable else 0
        if self._failures >= _OUTAGE_FAILURES:
            pause = OUTAGE
        if pause is not None and pause.cause == "number_too_fast":
            self._throttles += not self._pause.is_on  # calls that were in flight together count as one throttle
            pause = replace(pause, seconds=max(pause.seconds, min(_LONGEST_THROTTLE, 2.0**self._throttles)))
        elif not isinstance(outcome.reply, RefusedByMeta):
            self._throttles = 0
        if pause is not None:
            self._pause_calls(pause)
        return replace(outcome, pause=pause)

    def _pause_calls(self, pause: Pause) -> None:
        place = self._shop.pause if pause.shop else self._pause
        if not place.is_on:
            log.error(
                "number_paused",
                number=self._limits.sender,
                cause=pause.cause,
                seconds=pause.seconds,
                whole_shop=pause.shop,
            )
        place.extend(pause.seconds)

    # -- outcomes that no turn has written

    async def _write_finished(self) -> None:
        """Write the outcomes of finished calls without claiming; if the process dies first, the messages are in doubt."""
        while self._finished:
            await until_success(self._try_to_write, Interrupted, self._log_unwritten)

    async def _try_to_write(self) -> None:
        finished, self._finished = self._finished, []
        try:
            await self._write(finished)
        except Interrupted:
            self._finished = finished + self._finished
            raise

    def _log_unwritten(self, _failures: int, error: BaseException) -> None:
        log.warning("outcomes_not_written", calls=len(self._finished), error=error_text(error))

    async def _write(self, finished: Sequence[FinishedCall]) -> None:
        try:
            async with self._store.transaction() as tx:
                rows = await write(tx, [one.outcome for one in finished], self._limits, self._shop.senders)
        except Interrupted:
            raise
        except Exception as error:  # noqa: BLE001 - an outcome that the database refuses must not block the others
            log.error("outcomes_refused_by_database", calls=len(finished), error=error_text(error))
            if len(finished) > 1:
                for one in finished:
                    await self._write([one])
            else:
                self._end(finished, ())
        else:
            self._end(finished, rows)
