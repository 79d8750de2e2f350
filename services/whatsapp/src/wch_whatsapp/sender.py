"""Sends from one number: under a lease, so many calls at a time, each begun after its intent and ended by its outcome."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import psycopg
import structlog

from wch_common.backoff import backoff_seconds
from wch_common.errors import Contended, Interrupted
from wch_common.observability.redact import error_text
from wch_whatsapp.bodies import call
from wch_whatsapp.claims import Claim, add_number, claim
from wch_whatsapp.cloud import InDoubt, Refused, Unsent
from wch_whatsapp.identity import Tag
from wch_whatsapp.outcomes import OUTAGE, Outcome, Pause, judged, put_back, write

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wch_common.store.database import Row
    from wch_common.store.leases import Lease
    from wch_common.store.store import Store
    from wch_whatsapp.claims import Limits
    from wch_whatsapp.cloud import CloudApi
    from wch_whatsapp.decide import Send
    from wch_whatsapp.metrics import WhatsAppMetrics

log = structlog.get_logger(__name__)

_LEASE_WAIT_SECONDS = 5.0
_MOST_CLAIMED = 100
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.002, 0.5
_OUTAGE_FAILURES = 5
_LONGEST_THROTTLE = 60.0


@dataclass
class Rest:
    """When calls may go again, by this process's clock: what a reply said holds before it is written."""

    until: float = 0.0

    @property
    def is_on(self) -> bool:
        """Whether no call may be begun now."""
        return time.monotonic() < self.until

    def take(self, seconds: float) -> None:
        """Begin no call for so long."""
        self.until = max(self.until, time.monotonic() + seconds)


@dataclass
class ShopState:
    """What the numbers of one shop share: its token's rest, and who they are."""

    senders: list[str] = field(default_factory=list)
    rest: Rest = field(default_factory=Rest)


@dataclass(frozen=True)
class Over:
    """A call that is over, and whose place is taken until its outcome is written."""

    outcome: Outcome
    call: asyncio.Task[Outcome | None]


class NumberSender:
    """Takes due messages of one number and sends them, until cancelled."""

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
        self._rest = Rest()
        self._nudged = asyncio.Event()
        self._running: set[asyncio.Task[Outcome | None]] = set()
        self._over: list[Over] = []
        self._failures = self._throttles = 0

    def nudge(self) -> None:
        """Look for messages now; while the number rests there is nothing to look for."""
        if not self._is_resting:
            self._nudged.set()

    @property
    def in_flight(self) -> int:
        """How many calls are under way, or wait for their outcome to be written."""
        return len(self._running)

    async def run(self) -> None:
        """Send whenever the number's lease can be had; an outage of the database is waited for."""
        await self._until_known()
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
                log.warning("sender_interrupted", reason=error_text(interruption))
                await asyncio.sleep(backoff_seconds(failures))
            await self._write_alone()

    async def finish(self, grace_seconds: float) -> None:
        """Begin nothing more and let what is under way come to its outcome."""
        self._rest.take(10 * grace_seconds + 3600)
        deadline = time.monotonic() + grace_seconds
        while self._running and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        if self._running:
            log.warning("calls_left_in_doubt", sender_calls=len(self._running))

    # -- taking up

    async def _until_known(self) -> None:
        failures = 0
        while True:
            try:
                return await add_number(self._store, self._limits.sender)
            except Interrupted:
                failures += 1
                await asyncio.sleep(backoff_seconds(failures))

    async def _send_while_held(self, lease: Lease) -> None:
        log.info("sending", number=self._limits.sender)
        while True:
            lease.check()
            if not self._over and len(self._running) >= self._calls:
                await self._until_nudged(_LONGEST_PAUSE)
                continue
            resting = self._is_resting
            try:
                taken = await self._turn(lease, resting=resting)
            except Contended:
                await self._write_alone()
                continue
            self._begin(taken)
            # A probe that met only messages which are not to be sent goes on to the next of them.
            if resting or (taken.probe and (taken.sends or not taken.looked)):
                await self._until_nudged(_LONGEST_PAUSE)
            elif not taken.looked:
                await self._until_nudged(min(_LONGEST_PAUSE, max(_SHORTEST_PAUSE, taken.again_seconds)))

    async def _turn(self, lease: Lease, *, resting: bool) -> Claim:
        """End the calls that are over and take up as many messages as there are places, in one transaction."""
        over, self._over = self._over, []
        free = 0 if resting else min(self._calls - len(self._running) + len(over), _MOST_CLAIMED)
        rows: Sequence[Row] = ()
        try:
            async with self._store.transaction() as tx:
                if over:
                    rows = await write(tx, [one.outcome for one in over], self._limits, self._shop.senders)
                # Also where nothing may go: batches are told what they wait for.
                taken = await claim(tx, self._limits, lease, free)
        except BaseException:
            self._over = over + self._over
            raise
        self._end(over, rows)
        return taken

    def _end(self, over: Sequence[Over], rows: Sequence[Row]) -> None:
        """A call's place is free when its outcome is written."""
        self._metrics.ended(rows)
        for one in over:
            self._running.discard(one.call)

    async def _until_nudged(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._nudged.wait(), seconds)
        self._nudged.clear()

    @property
    def _is_resting(self) -> bool:
        return self._rest.is_on or self._shop.rest.is_on

    def _begin(self, taken: Claim) -> None:
        if taken.probe and taken.sends:
            log.info("probing", number=self._limits.sender)
        for row, send in taken.sends:
            task = asyncio.create_task(self._one(row, send, probe=taken.probe))
            self._running.add(task)
            task.add_done_callback(self._called)

    def _called(self, task: asyncio.Task[Outcome | None]) -> None:
        """Let the outcome of a call be written; one without leaves its intent in the ledger, and is settled from there."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("send_failed", error=error_text(error))
        if task.cancelled() or error is not None or (outcome := task.result()) is None:
            self._running.discard(task)
        else:
            self._over.append(Over(outcome, task))
        self._nudged.set()

    # -- one message, from its intent to its outcome

    async def _one(self, row: Row, send: Send, *, probe: bool) -> Outcome | None:
        """The whole path of one message whose intent is committed: call, and judge; its outcome is written with the next turn."""
        attempt = row["attempt"] + 1
        if self._is_resting:
            await self._put_back(row, attempt, send)
            return None
        started = time.monotonic()
        reply = await self._api.send(call(row["phone"], str(Tag(row["id"], attempt)), send.content))
        outcome = judged(row, attempt, send, probe=probe, reply=reply, settle_seconds=self._settle_seconds)
        outcome = self._paced(outcome)
        self._metrics.called(outcome, time.monotonic() - started)
        return outcome

    async def _put_back(self, row: Row, attempt: int, send: Send) -> None:
        """Give a message back whose number came to rest between its intent and its call."""
        with contextlib.suppress(Interrupted):  # else it is found in doubt and settled from there
            async with self._store.transaction() as tx:
                await put_back(tx, row, attempt, send, self._limits)

    def _paced(self, outcome: Outcome) -> Outcome:
        """Come to rest at once where the reply asks for it, before it is written; growing rests for repeated throttles."""
        pause = outcome.pause
        unreachable = isinstance(outcome.reply, (Unsent, InDoubt)) or (
            outcome.policy is not None and outcome.policy.reason in {"meta_unavailable", "meta_failed"}
        )
        self._failures = self._failures + 1 if unreachable else 0
        if self._failures >= _OUTAGE_FAILURES:
            pause = OUTAGE
        if pause is not None and pause.cause == "number_too_fast":
            self._throttles += not self._rest.is_on  # calls that were under way together are one throttle
            pause = replace(pause, seconds=max(pause.seconds, min(_LONGEST_THROTTLE, 2.0**self._throttles)))
        elif not isinstance(outcome.reply, Refused):
            self._throttles = 0
        if pause is not None:
            self._come_to_rest(pause)
        return replace(outcome, pause=pause)

    def _come_to_rest(self, pause: Pause) -> None:
        place = self._shop.rest if pause.shop else self._rest
        if not place.is_on:
            log.error("number_rests", number=self._limits.sender, cause=pause.cause, seconds=pause.seconds)
        place.take(pause.seconds)

    async def _write_alone(self) -> None:
        """Write outcomes where that could not be done while taking up; a process that dies before leaves them in doubt."""
        failures = 0
        while self._over:
            over, self._over = self._over, []
            try:
                await self._write(over)
            except Interrupted as interruption:
                self._over = over + self._over
                failures += 1
                log.warning("outcomes_not_written", calls=len(over), error=error_text(interruption))
                await asyncio.sleep(backoff_seconds(failures))

    async def _write(self, over: Sequence[Over]) -> None:
        try:
            async with self._store.transaction() as tx:
                rows = await write(tx, [one.outcome for one in over], self._limits, self._shop.senders)
        except Interrupted:
            raise
        except Exception as error:  # noqa: BLE001 - one outcome the database refuses must not hold up the others
            log.error("outcomes_refused", calls=len(over), error=error_text(error))
            if len(over) > 1:
                for one in over:
                    await self._write([one])
            else:
                self._end(over, ())
        else:
            self._end(over, rows)
