"""One queue at work whose transactions are shared: what waits at the same moment is handled and committed together."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog

from wch_common import headers as wch
from wch_common.redact import error_text
from wch_common.runtime.worker import Slot, Worker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wch_common.engine.consuming import Delivery

log = structlog.get_logger(__name__)


class JointWorker(Worker):
    """Shares a transaction among first tries that wait for a slot together; whatever fails is handled by itself."""

    async def _work(self, slot: Slot) -> None:
        while not self.stopping:
            deliveries = [await self._next()]
            while self._arrived and len(deliveries) < self._job.most_joint:
                deliveries.append(self._arrived.popleft())
            slot.busy = True
            if not await self._process_together(slot, deliveries):
                await self._process_each(slot, deliveries)
            slot.busy = False

    async def _process_each(self, slot: Slot, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            if self.stopping:
                delivery.give_back()
            elif delivery.is_held:
                await self.process(slot, delivery)

    async def _process_together(self, slot: Slot, deliveries: Sequence[Delivery]) -> bool:
        """Handle all in one transaction; False, with nothing done, where anything speaks against it."""
        handle = self._job.joint
        if handle is None or len(deliveries) == 1 or not all(map(_is_fresh, deliveries)):
            return False
        slot.since = started = time.monotonic()
        try:
            events = [self._decode(delivery) for delivery in deliveries]
            await self._within_limit(slot, handle(events))
        except Exception as error:  # noqa: BLE001 - whatever it is, each event meets it by itself
            log.info("handled_one_by_one", queue=self._queue.name, events=len(deliveries), reason=error_text(error))
            return False
        finally:
            slot.since = 0.0
        for delivery, event in zip(deliveries, events, strict=True):
            self._acknowledge(delivery, event)
            self._tell(event, "done", time.monotonic() - started)
        return True


def _is_fresh(delivery: Delivery) -> bool:
    """Whether it was never handed out before: what failed once, or may have ended a process, takes no neighbour along."""
    return delivery.is_held and not delivery.redelivered and not wch.attempts_made(delivery.message)
