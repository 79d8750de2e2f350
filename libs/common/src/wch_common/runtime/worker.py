"""One queue at work: slots that take deliveries, and the path of each from decoding to settlement."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict, deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog

from wch_common import headers as wch
from wch_common.envelope import decode
from wch_common.errors import DatabaseAway, Interrupted, ShuttingDown, WchError
from wch_common.event import ASKER_PATTERN
from wch_common.logs import bound
from wch_common.outcome import Retry
from wch_common.policy import KILLED_PROCESS_DELIVERIES, ToDeadLetters, ToParking, ToRung, Verdict, judge
from wch_common.redact import error_text
from wch_common.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from wch_common.engine.consuming import Delivery
    from wch_common.event import Event, EventData
    from wch_common.metrics import QueueMetrics
    from wch_common.runtime.gate import Gate
    from wch_common.runtime.job import Job
    from wch_common.runtime.settlement import Settlement

log = structlog.get_logger(__name__)

_SLOW_SECONDS = 10.0
# Of what was done lately so many times the prefetch is remembered: no more than one prefetch can be handed out again.
_REMEMBERED = 4
_LET_GO_SECONDS = 5.0
_MOST_REPEATS = 10
# RabbitMQ takes a delivery back after 30 minutes; a thread cannot be stopped, so the process ends before that.
_BROKER_LIMIT_SECONDS = 29 * 60.0


class TimeLimitExceeded(WchError):
    """The handler ran longer than its queue's time limit and was cancelled."""


class KilledProcess(WchError):
    """The message ended its process again and again."""


class HandlerStuck(WchError):
    """A blocking handler outlived the broker's limit on unacknowledged deliveries; the process must end."""


class Slot:
    """One place in which a handler runs."""

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.since = 0.0
        """When the handler began; 0 while none runs."""
        self.busy = False
        """Whether it holds deliveries, settlement included."""
        self.overdue = False


class Worker:
    """Handles the deliveries of one queue, so many at a time, until stopped."""

    # How many slots there are; 0 takes the queue's concurrency.
    SLOTS = 0

    def __init__(self, job: Job, settlement: Settlement, metrics: QueueMetrics, gate: Gate) -> None:
        self._job = job
        self._queue = job.queue
        self._policy = job.queue.policy
        self._registry = Registry(job.queue.models)
        self._settlement = settlement
        self._metrics = metrics
        self._gate = gate
        # Bound once: finding the logger out for each event costs more than a line that is not wanted.
        self._log = log.bind(queue=job.queue.name)
        self._tells_each = self._log.is_enabled_for(logging.DEBUG)
        self._arrived: deque[Delivery] = deque()
        self._idle: deque[asyncio.Future[None]] = deque()
        self._slots = [Slot() for _ in range(self.SLOTS or self._policy.concurrency)]
        self._done: OrderedDict[tuple[str, str, int, int, int], None] = OrderedDict()
        self.stopping = False

    # -- taking deliveries

    def deliver(self, delivery: Delivery) -> None:
        """Take a delivery from the subscription."""
        self._arrived.append(delivery)
        while self._idle:
            waiter = self._idle.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def start(self) -> list[asyncio.Task[None]]:
        """Start the slots and the watch over their time; the tasks end by `stop`, or fail for the process to end."""
        for slot in self._slots:
            slot.task = asyncio.create_task(self._work(slot), name=f"{self._queue.name} slot")
        watch = asyncio.create_task(self._watch_time(), name=f"{self._queue.name} watch")
        return [watch, *(slot.task for slot in self._slots if slot.task)]

    def give_back_waiting(self) -> None:
        """Return everything no handler has begun on to its queue."""
        self.stopping = True
        while self._arrived:
            self._arrived.popleft().give_back()

    async def interrupt(self) -> None:
        """Cancel what still runs and wait until it has let go; its deliveries go back unspent."""
        tasks = [slot.task for slot in self._slots if slot.task]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_LET_GO_SECONDS)

    @property
    def running(self) -> int:
        """How many slots handle or settle deliveries."""
        return sum(slot.busy for slot in self._slots)

    @property
    def held(self) -> int:
        """How many deliveries wait for a slot."""
        return len(self._arrived)

    async def _next(self) -> Delivery:
        """Wait for the next delivery that is still ours, and for the gate to be open."""
        while True:
            while not self._arrived or self._settlement.stuck or not self._gate.is_open:
                if self._arrived:
                    await asyncio.sleep(0.05)  # paused: the gate opens by a probe, not by a delivery
                    continue
                waiter = asyncio.get_running_loop().create_future()
                self._idle.append(waiter)
                await waiter
            delivery = self._arrived.popleft()
            if delivery.is_held:
                return delivery

    async def _work(self, slot: Slot) -> None:
        while not self.stopping:
            delivery = await self._next()
            slot.busy = True
            await self.process(slot, delivery)
            slot.busy = False

    # -- the path of one delivery

    async def process(self, slot: Slot, delivery: Delivery) -> None:
        """The whole path: decode, handle, and then acknowledge, or decide and settle."""
        slot.since = started = time.monotonic()
        event: Event[EventData] | None = None
        try:
            event = self._decode(delivery)
            if not self._is_done(delivery, event):
                await self._handle(slot, event, delivery)
        except Interrupted as interruption:
            delivery.give_back()
            outcome = "interrupted"
            log.info("handler_interrupted", queue=self._queue.name, reason=error_text(interruption))
        except Exception as error:  # noqa: BLE001 - whatever a handler raises is an outcome
            slot.since = 0.0
            outcome = await self._settle_failure(delivery, event, error)
        else:
            outcome = "done"
            self._acknowledge(delivery, event)
        slot.since = 0.0
        self._tell(event, outcome, time.monotonic() - started)

    def _decode(self, delivery: Delivery) -> Event[EventData]:
        if delivery.redelivered and delivery.delivery_count >= KILLED_PROCESS_DELIVERIES:
            raise KilledProcess(f"handed out {delivery.delivery_count} times and never settled: it ends its process")
        message = delivery.message
        return decode(
            message,
            self._registry,
            exchange=delivery.exchange,
            routing_key=delivery.routing_key,
            queue=self._queue.name,
            attempt=wch.attempts_made(message) + 1,
            replay=wch.replay_count(message),
        )

    async def _handle(self, slot: Slot, event: Event[EventData], delivery: Delivery) -> None:
        with bound(event):
            await self._until_through(slot, delivery, lambda: self._job.each[event.type](event))

    async def _until_through(self, slot: Slot, delivery: Delivery, run: Callable[[], Awaitable[None]]) -> None:
        """Run the handler, again at once after an interruption that has passed (the database answers again)."""
        repeats = 0
        while True:
            try:
                await self._within_limit(slot, run())
            except ShuttingDown:
                raise
            except Interrupted as interruption:
                slot.since = 0.0
                await self._gate.wait_open(interruption)
                repeats += not isinstance(interruption, DatabaseAway)
                if not delivery.is_held or self.stopping:
                    raise
                if repeats > _MOST_REPEATS:
                    raise Retry(f"interrupted {repeats} times in a row: {error_text(interruption)}") from interruption
                slot.since = time.monotonic()
            else:
                return

    async def _within_limit(self, slot: Slot, work: Awaitable[None]) -> None:
        """Await the handler; a cancellation is the time limit's, the shutdown's, or the handler's own failure."""
        task = slot.task
        try:
            await work
        except asyncio.CancelledError:
            if slot.overdue:
                raise TimeLimitExceeded(f"over its time limit of {self._policy.time_limit_seconds:g} s") from None
            if task is not None and task.cancelling():
                raise ShuttingDown("the process is stopping") from None
            raise RuntimeError("the handler was cancelled from inside") from None
        finally:
            # Whatever a handler made of the cancellation, the next one begins without it.
            slot.overdue = False
            while task is not None and task.cancelling():
                task.uncancel()

    async def _settle_failure(self, delivery: Delivery, event: Event[EventData] | None, error: Exception) -> str:
        """Decide and carry out; returns the outcome's name."""
        verdict = self._verdict(delivery, event, error)
        answer = self._answer(verdict, event, error)
        try:
            safe = await self._settlement.settle(delivery, error, verdict, answer=answer)
        except Exception as failure:  # noqa: BLE001 - what a table refuses still has a rung
            log.error("settlement_by_rung_instead", queue=self._queue.name, error=error_text(failure))
            verdict = ToRung(self._policy.rungs[-1], counted=False)
            safe = await self._settlement.settle(delivery, error, verdict, answer=answer)
        outcome = _outcome_name(verdict)
        with bound(event):
            log.warning(
                "event_not_done",
                outcome=outcome if safe else "lost_delivery",
                queue=self._queue.name,
                wait_seconds=getattr(verdict, "seconds", None),
                kind=getattr(verdict, "kind", None),
                error=f"{type(error).__name__}: {error_text(error)}",
            )
        return outcome if safe else "lost_delivery"

    def _answer(self, verdict: Verdict, event: Event[EventData] | None, error: Exception) -> Event[EventData] | None:
        """Return the fact that tells that an event was given up, where the family has one."""
        if not isinstance(verdict, ToDeadLetters) or event is None or self._job.given_up is None:
            return None
        try:
            data = self._job.given_up(event, error_text(error))
        except Exception as failure:  # noqa: BLE001 - the dead letter matters more than the news of it
            log.error("given_up_fact_failed", queue=self._queue.name, error=error_text(failure))
            return None
        return (
            event.derive(data, self._job.source, key="given_up", asker=_who_asked(event)) if data is not None else None
        )

    def _verdict(self, delivery: Delivery, event: Event[EventData] | None, error: Exception) -> Verdict:
        if isinstance(error, KilledProcess):
            return ToDeadLetters("killed_process")
        standing = wch.standing(delivery.message, event)
        return judge(error, standing, self._policy, can_park=self._settlement.can_park)

    def _acknowledge(self, delivery: Delivery, event: Event[EventData]) -> None:
        """Acknowledge, and remember the event: where the acknowledgement is lost, its redelivery is only acknowledged."""
        delivery.ack()
        self._done[_known_by(event)] = None
        if len(self._done) > _REMEMBERED * self._policy.prefetch:
            self._done.popitem(last=False)

    def _is_done(self, delivery: Delivery, event: Event[EventData]) -> bool:
        return delivery.redelivered and _known_by(event) in self._done

    def _tell(self, event: Event[EventData] | None, outcome: str, seconds: float) -> None:
        type_ = event.type if event is not None else "undecodable"
        age = (datetime.now(UTC) - event.time).total_seconds() if event is not None and event.time else None
        self._metrics.tell(type_, outcome, seconds=seconds, age_seconds=age)
        if outcome == "done" and event is not None and (self._tells_each or seconds > _SLOW_SECONDS):
            tell = self._log.info if seconds > _SLOW_SECONDS else self._log.debug
            with bound(event):
                tell("event_done", seconds=round(seconds, 3))

    # -- time

    async def _watch_time(self) -> None:
        """Cancel handlers over their limit; one look a second costs less than a timer per event."""
        limit = self._policy.time_limit_seconds
        while True:
            await asyncio.sleep(min(1.0, limit / 10))
            now = time.monotonic()
            for slot in self._slots:
                if not slot.since or now - slot.since < limit or slot.overdue:
                    continue
                if not self._job.blocking:
                    slot.overdue = True
                    if slot.task:
                        slot.task.cancel()
                elif now - slot.since > _BROKER_LIMIT_SECONDS:
                    raise HandlerStuck(f"{self._queue.name}: a blocking handler runs for {now - slot.since:.0f} s")
                else:
                    log.warning("handler_over_time_limit", queue=self._queue.name, seconds=round(now - slot.since))


def _known_by(event: Event[EventData]) -> tuple[str, str, int, int, int]:
    """Return what tells a handled event from others, also from one of the same id and other content, which is refused."""
    return event.source, event.id, event.attempt, event.replay, hash(event.canonical)


def _who_asked(event: Event[EventData]) -> str | None:
    """Return whom a refusal is told to: of a signed request its AMQP user, whoever else the envelope names."""
    if not event.data.SIGNED:
        return None
    return event.user if event.user is not None and ASKER_PATTERN.match(event.user) else ""


def _outcome_name(verdict: Verdict) -> str:
    if isinstance(verdict, ToDeadLetters):
        return "dead_lettered"
    if isinstance(verdict, ToParking) or not verdict.counted:
        return "parked"
    return "retried"
