"""One queue at work with a batch handler: deliveries are collected, handled in one call, and settled one by one."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import structlog

from wch_common.errors import Interrupted
from wch_common.observability.redact import error_text
from wch_common.outcome import Outcome
from wch_common.runtime.worker import TimeLimitExceeded, Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from wch_common.broker.aio.subscription import Delivery
    from wch_common.contract.event import Event, EventData
    from wch_common.runtime.job import Batch, BatchResult
    from wch_common.runtime.slot import Slot
    from wch_common.runtime.worker import QueueContext

log = structlog.get_logger(__name__)


class BatchWorker(Worker):
    """Handles the deliveries of one queue a batch at a time; `prefetch` returns the consumer's present prefetch."""

    def __init__(self, context: QueueContext, batch: Batch, prefetch: Callable[[], int]) -> None:
        super().__init__(context, slots=1)
        self._handler = batch.handler
        self._prefetch = prefetch

    async def _work(self, slot: Slot) -> None:
        while not self.stopping:
            if deliveries := await self._collect():
                slot.busy = True
                await self.process_batch(slot, deliveries)
                slot.busy = False

    async def _collect(self) -> list[Delivery]:
        """Take deliveries until the batch is full, the prefetch is used up, or the window has passed."""
        batching = self._policy.batching
        if batching is None:
            raise AssertionError("a batch job without batching was refused at its construction")
        taken = [await self._next()]
        deadline = time.monotonic() + batching.window_seconds
        while len(taken) < min(batching.size, self._prefetch()) and not self.stopping:
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
                _requeue(taken)
                raise
            waiter.cancel()
        if self.stopping:
            _requeue(taken)
            return []
        return [delivery for delivery in taken if delivery.is_open]

    async def process_batch(self, slot: Slot, deliveries: Sequence[Delivery]) -> None:
        """The whole path of a batch: decode each delivery, handle them in one call, settle each by its result."""
        started = time.monotonic()
        slot.begin()
        failed: list[tuple[Delivery, Event[EventData] | None, Exception]] = []
        good: list[tuple[Delivery, Event[EventData]]] = []
        for delivery in deliveries:
            try:
                event = self._decode(delivery)
            except Exception as error:  # noqa: BLE001 - whatever decoding raises is an outcome
                failed.append((delivery, None, error))
            else:
                good.append((delivery, event))
        results = await self._results(slot, good)
        slot.end()
        for (delivery, event), result in zip(good, results, strict=True):
            if result is None:
                self._acknowledge(delivery, event)
                self._observe(event, "done", time.monotonic() - started)
            elif isinstance(result, Interrupted):
                delivery.requeue()
                self._observe(event, "interrupted", time.monotonic() - started)
            else:
                failed.append((delivery, event, result))
        outcomes = await asyncio.gather(*(self._settle_failure(*failure) for failure in failed))
        for (_, failed_event, _), outcome in zip(failed, outcomes, strict=True):
            self._observe(failed_event, outcome, time.monotonic() - started)

    async def _results(self, slot: Slot, good: Sequence[tuple[Delivery, Event[EventData]]]) -> Sequence[BatchResult]:
        """Run the batch handler for events that are not done yet; returns a result for each event, in order."""
        todo = [(delivery, event) for delivery, event in good if not self._is_done(delivery, event)]
        handled = await self._handle_in_halves(slot, todo) if todo else []
        results = {id(delivery): result for (delivery, _), result in zip(todo, handled, strict=True)}
        return [results.get(id(delivery)) for delivery, _ in good]

    async def _handle_in_halves(
        self, slot: Slot, todo: Sequence[tuple[Delivery, Event[EventData]]]
    ) -> Sequence[BatchResult]:
        """Call the handler; an event that breaks it is found by halving, so that it does not fail the others."""
        try:
            return await self._handle_batch(slot, [event for _, event in todo], todo[0][0])
        except (Outcome, Interrupted, TimeLimitExceeded) as error:
            return [error] * len(todo)
        except Exception as error:  # noqa: BLE001 - whatever a handler raises is an outcome
            if len(todo) == 1:
                return [error]
            log.warning("batch_halved", queue=self._queue.name, events=len(todo), error=error_text(error))
        middle = len(todo) // 2
        first = await self._handle_in_halves(slot, todo[:middle])
        return [*first, *await self._handle_in_halves(slot, todo[middle:])]

    async def _handle_batch(self, slot: Slot, events: list[Event[EventData]], first: Delivery) -> Sequence[BatchResult]:
        results: Sequence[BatchResult] = ()

        async def run() -> None:
            nonlocal results
            results = await self._handler(events)

        slot.begin()
        await self._run_to_end(slot, first, run)
        if len(results) != len(events):
            raise RuntimeError(f"the batch handler returned {len(results)} results for {len(events)} events")
        return results


def _requeue(deliveries: Iterable[Delivery]) -> None:
    for delivery in deliveries:
        delivery.requeue()
