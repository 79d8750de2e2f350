"""One queue at work with shared transactions: events that wait at the same time are handled and committed together."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog

from wch_common.broker import headers as wch
from wch_common.observability.redact import error_text
from wch_common.runtime.worker import EventWorker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wch_common.broker.aio.subscription import Delivery
    from wch_common.runtime.job import SharedTransaction
    from wch_common.runtime.slot import Slot
    from wch_common.runtime.worker import QueueContext

log = structlog.get_logger(__name__)


class SharedTransactionWorker(EventWorker):
    """Shares a transaction among first attempts that wait for a slot; if one fails, each is handled by itself."""

    def __init__(self, context: QueueContext, transaction: SharedTransaction) -> None:
        super().__init__(context, transaction.own)
        self._shared = transaction.shared
        self._limit = transaction.limit

    async def _work(self, slot: Slot) -> None:
        while not self.stopping:
            deliveries = [await self._next()]
            while self._arrived and len(deliveries) < self._limit:
                deliveries.append(self._arrived.popleft())
            slot.busy = True
            if not await self._process_shared(slot, deliveries):
                await self._process_one_by_one(slot, deliveries)
            slot.busy = False

    async def _process_one_by_one(self, slot: Slot, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            if self.stopping:
                delivery.requeue()
            elif delivery.is_open:
                await self.process(slot, delivery)

    async def _process_shared(self, slot: Slot, deliveries: Sequence[Delivery]) -> bool:
        """Handle all in one transaction; False, with nothing done, if that is not possible or fails."""
        if len(deliveries) == 1 or not all(map(_is_fresh, deliveries)):
            return False
        started = time.monotonic()
        slot.begin()
        try:
            events = [self._decode(delivery) for delivery in deliveries]
            await self._within_limit(slot, self._shared(events))
        except Exception as error:  # noqa: BLE001 - whatever it is, each event then meets it by itself
            log.info("handled_one_by_one", queue=self._queue.name, events=len(deliveries), reason=error_text(error))
            return False
        finally:
            slot.end()
        for delivery, event in zip(deliveries, events, strict=True):
            self._acknowledge(delivery, event)
            self._observe(event, "done", time.monotonic() - started)
        return True


def _is_fresh(delivery: Delivery) -> bool:
    """Whether it was never delivered before: one that failed, or may have ended a process, must not affect others."""
    return delivery.is_open and not delivery.redelivered and not wch.attempts_made(delivery.message)
