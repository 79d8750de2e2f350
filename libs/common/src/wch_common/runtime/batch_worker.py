"""One queue at work with a batch handler: deliveries collected, handled together, and settled each by its own answer."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import structlog

from wch_common.errors import Interrupted
from wch_common.outcome import Outcome
from wch_common.redact import error_text
from wch_common.runtime.worker import Slot, TimeLimitExceeded, Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from wch_common.engine.consuming import Delivery
    from wch_common.event import Event, EventData
    from wch_common.metrics import QueueMetrics
    from wch_common.runtime.gate import Gate
    from wch_common.runtime.job import Answer, Job
    from wch_common.runtime.settlement import Settlement

log = structlog.get_logger(__name__)


class BatchWorker(Worker):
    """Handles the deliveries of one queue a batch at a time; `handed_out` tells how many the broker hands out at the moment."""

    SLOTS = 1

    def __init__(
        self, job: Job, settlement: Settlement, metrics: QueueMetrics, gate: Gate, handed_out: Callable[[], int]
    ) -> None:
        super().__init__(job, settlement, metrics, gate)
        self._handed_out = handed_out

    async def _work(self, slot: Slot) -> None:
        while not self.stopping:
            if deliveries := await self._collect():
                slot.busy = True
                await self.process_batch(slot, deliveries)
                slot.busy = False

    async def _collect(self) -> list[Delivery]:
        """Take deliveries until the batch is full, everything the broker hands out is here, or the window is over."""
        batching = self._policy.batching
        if batching is None:
            raise AssertionError("a batch job without batching was refused at its construction")
        taken = [await self._next()]
        deadline = time.monotonic() + batching.window_seconds
        while len(taken) < min(batching.size, self._handed_out()) and not self.stopping:
            if self._arrived:
                taken.append(self._arrived.popleft())
                continue
            left = deadline - time.monotonic()
            if left <= 0:
                break
            waiter = asyncio.get_running_loop().create_future()
            self._idle.append(waiter)
            try:
                await asyncio.wait((waiter,), timeout=left)
            except asyncio.CancelledError:
                _give_back(taken)
                raise
            waiter.cancel()
        if self.stopping:
            _give_back(taken)
            return []
        return [delivery for delivery in taken if delivery.is_held]

    async def process_batch(self, slot: Slot, deliveries: Sequence[Delivery]) -> None:
        """The whole path of a batch: decode each, handle together, settle each by its own answer."""
        slot.since = started = time.monotonic()
        failed: list[tuple[Delivery, Event[EventData] | None, Exception]] = []
        good: list[tuple[Delivery, Event[EventData]]] = []
        for delivery in deliveries:
            try:
                event = self._decode(delivery)
            except Exception as error:  # noqa: BLE001 - whatever decoding raises is an outcome
                failed.append((delivery, None, error))
            else:
                good.append((delivery, event))
        answers = await self._answers(slot, good)
        slot.since = 0.0
        for (delivery, event), answer in zip(good, answers, strict=True):
            if answer is None:
                self._acknowledge(delivery, event)
                self._tell(event, "done", time.monotonic() - started)
            elif isinstance(answer, Interrupted):
                delivery.give_back()
                self._tell(event, "interrupted", time.monotonic() - started)
            else:
                failed.append((delivery, event, answer))
        outcomes = await asyncio.gather(*(self._settle_failure(*failure) for failure in failed))
        for (_, failed_event, _), outcome in zip(failed, outcomes, strict=True):
            self._tell(failed_event, outcome, time.monotonic() - started)

    async def _answers(self, slot: Slot, good: Sequence[tuple[Delivery, Event[EventData]]]) -> Sequence[Answer]:
        """Run the batch handler for what is not done yet; an answer for each, in order."""
        todo = [(delivery, event) for delivery, event in good if not self._is_done(delivery, event)]
        given = await self._asked(slot, todo) if todo else []
        answers = {id(delivery): answer for (delivery, _), answer in zip(todo, given, strict=True)}
        return [answers.get(id(delivery)) for delivery, _ in good]

    async def _asked(self, slot: Slot, todo: Sequence[tuple[Delivery, Event[EventData]]]) -> Sequence[Answer]:
        """Ask the handler; one event that breaks it is found by halves, so that it does not fail its neighbours."""
        try:
            return await self._handle_batch(slot, [event for _, event in todo], todo[0][0])
        except (Outcome, Interrupted, TimeLimitExceeded) as error:
            return [error] * len(todo)
        except Exception as error:  # noqa: BLE001 - whatever a handler raises is an outcome
            if len(todo) == 1:
                return [error]
            log.warning("batch_halved", queue=self._queue.name, events=len(todo), error=error_text(error))
        middle = len(todo) // 2
        return [*await self._asked(slot, todo[:middle]), *await self._asked(slot, todo[middle:])]

    async def _handle_batch(self, slot: Slot, events: list[Event[EventData]], first: Delivery) -> Sequence[Answer]:
        handler = self._job.together
        if handler is None:
            raise AssertionError("a batch was collected for a job without a batch handler")
        given: Sequence[Answer] = ()

        async def run() -> None:
            nonlocal given
            given = await handler(events)

        slot.since = time.monotonic()
        await self._until_through(slot, first, run)
        if len(given) != len(events):
            raise RuntimeError(f"the batch handler answered {len(given)} times for {len(events)} events")
        return given


def _give_back(deliveries: Iterable[Delivery]) -> None:
    for delivery in deliveries:
        delivery.give_back()
