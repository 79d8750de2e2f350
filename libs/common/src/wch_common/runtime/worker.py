"""One queue at work: slots that take deliveries, and the path of each from decoding to settlement."""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections import OrderedDict, deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog

from wch_common.broker import headers as wch
from wch_common.contract.envelope import decode
from wch_common.contract.event import REQUESTER_PATTERN
from wch_common.contract.registry import Registry
from wch_common.errors import DatabaseAway, DatabaseSlow, Interrupted, ShuttingDown, WchError
from wch_common.observability.logs import bound
from wch_common.observability.redact import error_text
from wch_common.outcome import Retry, Throttled
from wch_common.runtime.retry_decision import (
    KILLED_PROCESS_DELIVERIES,
    RetryDecision,
    ToDeadLetters,
    ToDelayQueue,
    ToParking,
    decide,
)
from wch_common.runtime.slot import Slot

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from wch_common.broker.aio.subscription import Delivery
    from wch_common.contract.event import Event, EventData
    from wch_common.observability.metrics import QueueMetrics
    from wch_common.runtime.gate import Gate
    from wch_common.runtime.job import Job, OneEvent
    from wch_common.runtime.settlement import Settlement

log = structlog.get_logger(__name__)

_SLOW_SECONDS = 10.0
# Finished events that a worker remembers, in prefetches: no more than one prefetch can be redelivered.
_REMEMBERED = 4
_CANCEL_SECONDS = 5.0
_MOST_REPEATS = 10
_MOST_SLOW = 2
# A handler that has not ended so long after it was cancelled will not end by itself.
_STUCK_SECONDS = 60.0
_REPORT_SECONDS = 30.0
_CANCEL_AGAIN_SECONDS = 1.0
# RabbitMQ takes a delivery back after 30 minutes; a thread cannot be stopped, so the process ends before that.
_BROKER_LIMIT_SECONDS = 29 * 60.0


class TimeLimitExceeded(WchError):
    """The handler ran longer than its queue's time limit and was cancelled."""


class KilledProcess(WchError):
    """The message has ended its process again and again."""


class HandlerStuck(WchError):
    """A blocking handler outlived the broker's limit on unacknowledged deliveries; the process must end."""


@dataclass(frozen=True)
class QueueContext:
    """The dependencies of a queue's worker; `source` is the CloudEvents source of what it publishes."""

    job: Job
    source: str
    settlement: Settlement
    metrics: QueueMetrics
    gate: Gate


class Worker(ABC):
    """Handles the deliveries of one queue in a number of slots until stopped; subclasses say how many at a time."""

    def __init__(self, context: QueueContext, *, slots: int | None = None, blocking: bool = False) -> None:
        self._job = context.job
        self._source = context.source
        self._queue = context.job.queue
        self._policy = context.job.queue.policy
        self._registry = Registry(context.job.queue.models)
        self._settlement = context.settlement
        self._metrics = context.metrics
        self._gate = context.gate
        self._blocking = blocking
        # Bound once: finding the logger for each event costs more than a debug line that is not written.
        self._log = log.bind(queue=self._queue.name)
        self._logs_each = self._log.is_enabled_for(logging.DEBUG)
        self._arrived: deque[Delivery] = deque()
        self._idle: deque[asyncio.Future[None]] = deque()
        self._slots = [Slot() for _ in range(slots or self._policy.concurrency)]
        self._done: OrderedDict[tuple[str, str, int, int, int], None] = OrderedDict()
        self.stopping = False

    @abstractmethod
    async def _work(self, slot: Slot) -> None:
        """Take deliveries and process them until stopped."""

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
        """Start the slots and the watch over their time limits; a task that fails ends the process."""
        for slot in self._slots:
            slot.task = asyncio.create_task(self._fill(slot), name=f"{self._queue.name} slot")
        watch = asyncio.create_task(self._watch_time(), name=f"{self._queue.name} watch")
        return [watch, *(slot.task for slot in self._slots if slot.task)]

    async def _fill(self, slot: Slot) -> None:
        slot.count_waits()
        await self._work(slot)

    def requeue_waiting(self) -> None:
        """Return every delivery that no handler has started to its queue."""
        self.stopping = True
        while self._arrived:
            self._arrived.popleft().requeue()

    async def interrupt(self) -> None:
        """Cancel running handlers and wait until they have ended; their deliveries are requeued without using an attempt."""
        tasks = [slot.task for slot in self._slots if slot.task]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_CANCEL_SECONDS)

    @property
    def running(self) -> int:
        """How many slots are handling or settling deliveries."""
        return sum(slot.busy for slot in self._slots)

    @property
    def queued(self) -> int:
        """How many deliveries wait for a slot."""
        return len(self._arrived)

    async def _next(self) -> Delivery:
        """Return the next delivery that can still be settled, once the gate is open."""
        while True:
            while not self._arrived or self._settlement.stuck or not self._gate.is_open:
                if self._arrived:
                    await asyncio.sleep(0.05)  # paused: the gate opens by a probe, not by a delivery
                    continue
                waiter = asyncio.get_running_loop().create_future()
                self._idle.append(waiter)
                await waiter
            delivery = self._arrived.popleft()
            if delivery.is_open:
                return delivery

    # -- decoding, running and settling

    def _decode(self, delivery: Delivery) -> Event[EventData]:
        if delivery.redelivered and delivery.delivery_count >= KILLED_PROCESS_DELIVERIES:
            raise KilledProcess(
                f"delivered {delivery.delivery_count} times without being settled: handling it seems to kill the process"
            )
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

    async def _run_to_end(self, slot: Slot, delivery: Delivery, run: Callable[[], Awaitable[None]]) -> None:
        """Run the handler; repeat it at once after an interruption that has passed (the database answers again)."""
        repeats = slow = 0
        while True:
            try:
                await self._within_limit(slot, run())
            except ShuttingDown:
                raise
            except Interrupted as interruption:
                slot.end()
                await self._gate.wait_open(interruption)
                slow += isinstance(interruption, DatabaseSlow)
                repeats += not isinstance(interruption, (DatabaseAway, DatabaseSlow))
                if not delivery.is_open or self.stopping:
                    raise
                if repeats > _MOST_REPEATS:
                    raise Retry(f"interrupted {repeats} times in a row: {error_text(interruption)}") from interruption
                if slow > _MOST_SLOW:
                    # Others go on meanwhile, and the broker does not take the delivery back.
                    raise Throttled(error_text(interruption), scope="", after=self._policy.retry_delays[0]) from None
                slot.begin()
            else:
                return

    async def _within_limit(self, slot: Slot, work: Awaitable[None]) -> None:
        """Await the handler; a cancellation comes from the time limit, from the shutdown, or is the handler's own failure."""
        task = slot.task
        try:
            await work
        except asyncio.CancelledError:
            if slot.overdue:
                raise TimeLimitExceeded(
                    f"the handler exceeded its time limit of {self._policy.time_limit_seconds:g} s"
                ) from None
            if task is not None and task.cancelling():
                raise ShuttingDown("the process is stopping") from None
            raise RuntimeError("the handler raised CancelledError itself") from None
        finally:
            # Whatever a handler did with the cancellation, the next one must start without it.
            slot.overdue = False
            while task is not None and task.cancelling():
                task.uncancel()

    async def _settle_failure(self, delivery: Delivery, event: Event[EventData] | None, error: Exception) -> str:
        """Decide what happens to a failed delivery and carry it out; returns the outcome's name."""
        decision = self._decide(delivery, event, error)
        answer = self._answer(decision, event, error)
        try:
            safe = await self._settlement.settle(delivery, error, decision, answer=answer)
        except Exception as failure:  # noqa: BLE001 - what a table refuses can still go to a delay queue
            log.error("parking_failed_using_delay_queue", queue=self._queue.name, error=error_text(failure))
            decision = ToDelayQueue(self._policy.retry_delays[-1], counted=False)
            safe = await self._settlement.settle(delivery, error, decision, answer=answer)
        outcome = _outcome_name(decision) if safe else "delivery_lost"
        with bound(event):
            log.warning(
                "event_not_done",
                outcome=outcome,
                queue=self._queue.name,
                wait_seconds=getattr(decision, "seconds", None),
                kind=getattr(decision, "kind", None),
                error=f"{type(error).__name__}: {error_text(error)}",
            )
        return outcome

    def _decide(self, delivery: Delivery, event: Event[EventData] | None, error: Exception) -> RetryDecision:
        if isinstance(error, KilledProcess):
            return ToDeadLetters("killed_process")
        state = wch.delivery_state(delivery.message, event)
        return decide(error, state, self._policy, can_park=self._settlement.can_park)

    def _answer(
        self, decision: RetryDecision, event: Event[EventData] | None, error: Exception
    ) -> Event[EventData] | None:
        """Return the fact that reports a dead-lettered event to its requester, where the family publishes one."""
        if not isinstance(decision, ToDeadLetters) or event is None or self._job.on_dead_letter is None:
            return None
        try:
            data = self._job.on_dead_letter(event, error_text(error))
        except Exception as failure:  # noqa: BLE001 - the dead letter matters more than the fact about it
            log.error("on_dead_letter_failed", queue=self._queue.name, error=error_text(failure))
            return None
        if data is None:
            return None
        return event.derive(data, self._source, key="dead_letter", requester=_refusal_requester(event))

    def _acknowledge(self, delivery: Delivery, event: Event[EventData]) -> None:
        """Acknowledge, and remember the event: if the acknowledgement is lost, its redelivery is only acknowledged."""
        delivery.ack()
        self._done[_identity(event)] = None
        if len(self._done) > _REMEMBERED * self._policy.prefetch:
            self._done.popitem(last=False)

    def _is_done(self, delivery: Delivery, event: Event[EventData]) -> bool:
        return delivery.redelivered and _identity(event) in self._done

    def _observe(self, event: Event[EventData] | None, outcome: str, seconds: float) -> None:
        """Count the outcome, and log it if it is a slow or a debugged one."""
        type_ = event.type if event is not None else "undecodable"
        age = (datetime.now(UTC) - event.time).total_seconds() if event is not None and event.time else None
        self._metrics.observe(type_, outcome, seconds=seconds, age_seconds=age)
        if outcome == "done" and event is not None and (self._logs_each or seconds > _SLOW_SECONDS):
            write = self._log.info if seconds > _SLOW_SECONDS else self._log.debug
            with bound(event):
                write("event_done", seconds=round(seconds, 3))

    # -- time

    async def _watch_time(self) -> None:
        """Cancel handlers over their time limit; one check a second costs less than a timer for each event."""
        pause = min(1.0, self._policy.time_limit_seconds / 10)
        while True:
            await asyncio.sleep(pause)
            for slot in self._slots:
                if (over := slot.seconds - self._policy.time_limit_seconds) >= 0:
                    self._end_overdue(slot, over)

    def _end_overdue(self, slot: Slot, over: float) -> None:
        """Cancel a handler, again if it or a library ignored the last time; raises HandlerStuck if that does not end it."""
        most = _BROKER_LIMIT_SECONDS - self._policy.time_limit_seconds if self._blocking else _STUCK_SECONDS
        if over > most:
            raise HandlerStuck(f"{self._queue.name}: a handler has been running for {slot.seconds:.0f} s")
        if over >= slot.report_from:
            slot.report_from = over + _REPORT_SECONDS
            log.warning("handler_over_time_limit", queue=self._queue.name, seconds=round(slot.seconds))
        if over >= slot.cancel_from and not self._blocking and slot.task is not None:
            slot.cancel_from = over + _CANCEL_AGAIN_SECONDS
            slot.overdue = True
            slot.task.cancel()


class EventWorker(Worker):
    """Handles one delivery in each slot."""

    def __init__(self, context: QueueContext, handling: OneEvent) -> None:
        super().__init__(context, blocking=handling.blocking)
        self._handlers = handling.handlers

    async def _work(self, slot: Slot) -> None:
        while not self.stopping:
            delivery = await self._next()
            slot.busy = True
            await self.process(slot, delivery)
            slot.busy = False

    async def process(self, slot: Slot, delivery: Delivery) -> None:
        """The whole path of a delivery: decode, handle, and acknowledge, or else decide and settle."""
        started = time.monotonic()
        slot.begin()
        event: Event[EventData] | None = None
        try:
            event = self._decode(delivery)
            if not self._is_done(delivery, event):
                await self._handle(slot, event, delivery)
        except Interrupted as interruption:
            delivery.requeue()
            outcome = "interrupted"
            log.info("handler_interrupted", queue=self._queue.name, reason=error_text(interruption))
        except Exception as error:  # noqa: BLE001 - whatever a handler raises is an outcome
            slot.end()
            outcome = await self._settle_failure(delivery, event, error)
        else:
            outcome = "done"
            self._acknowledge(delivery, event)
        slot.end()
        self._observe(event, outcome, time.monotonic() - started)

    async def _handle(self, slot: Slot, event: Event[EventData], delivery: Delivery) -> None:
        with bound(event):
            await self._run_to_end(slot, delivery, lambda: self._handlers[event.type](event))


def _identity(event: Event[EventData]) -> tuple[str, str, int, int, int]:
    """Return what identifies a handled event; the content is part of it, as the same id with other content is refused."""
    return event.source, event.id, event.attempt, event.replay, hash(event.canonical)


def _refusal_requester(event: Event[EventData]) -> str | None:
    """Return who is notified of a refusal: for a signed request its AMQP user, otherwise the envelope's requester."""
    if not event.data.SIGNED:
        return None
    return event.user if event.user is not None and REQUESTER_PATTERN.match(event.user) else ""


def _outcome_name(decision: RetryDecision) -> str:
    if isinstance(decision, ToDeadLetters):
        return "dead_lettered"
    if isinstance(decision, ToParking):
        return "parked"
    return "retried" if decision.counted else "delayed"
