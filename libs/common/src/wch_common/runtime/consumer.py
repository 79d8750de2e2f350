"""Keeps one queue consumed: a subscription made again whenever it ends, and the worker behind it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

import structlog

from wch_common.engine.connection import Link, backoff_seconds
from wch_common.engine.consuming import Subscription
from wch_common.redact import error_text
from wch_common.runtime.batch_worker import BatchWorker
from wch_common.runtime.joint_worker import JointWorker
from wch_common.runtime.worker import Worker

if TYPE_CHECKING:
    from wch_common.metrics import QueueMetrics
    from wch_common.runtime.gate import Gate
    from wch_common.runtime.job import Job
    from wch_common.runtime.settlement import Settlement

log = structlog.get_logger(__name__)

_STEADY_SECONDS = 5.0
_HELD_BACK_SECONDS = 1.0


class Consumer:
    """One queue of a service, from start to stop."""

    def __init__(self, job: Job, link: Link, settlement: Settlement, metrics: QueueMetrics, gate: Gate) -> None:
        self.name = job.queue.name
        self._policy = job.queue.policy
        self._link = link
        self._settlement = settlement
        self._subscription: Subscription | None = None
        self._stopping = False
        self._held_back = job.held_back or (lambda: None)
        self.worker = (
            BatchWorker(job, settlement, metrics, gate, self._handed_out)
            if job.together
            else (JointWorker if job.joint else Worker)(job, settlement, metrics, gate)
        )
        self.down_since: float | None = time.monotonic()

    def start(self) -> list[asyncio.Task[None]]:
        """Start consuming; the tasks end only by `stop`, or fail for the process to end."""
        return [asyncio.create_task(self._subscribe(), name=f"{self.name} subscription"), *self.worker.start()]

    @property
    def problem(self) -> str | None:
        """Why the queue is not being worked, in words, or None."""
        if self.down_since is not None:
            return f"{self.name}: not consuming for {time.monotonic() - self.down_since:.0f} s"
        if self._settlement.stuck:
            return f"{self.name}: {self._settlement.stuck} settlements fail and are repeated"
        return None

    @property
    def stuck(self) -> int:
        """How many settlements fail and are being repeated."""
        return self._settlement.stuck

    async def stop(self, grace_seconds: float) -> None:
        """Cancel the consumer, finish what runs within the grace, give back the rest, and close in order."""
        self._stopping = True
        subscription = self._subscription
        if subscription is not None:
            await subscription.stop()
        self.worker.give_back_waiting()
        deadline = time.monotonic() + grace_seconds
        while self.worker.running and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        if self.worker.running:
            log.warning("grace_over", queue=self.name, running=self.worker.running)
        await self.worker.interrupt()
        if subscription is not None:
            with contextlib.suppress(ConnectionError):
                await subscription.close()

    async def _subscribe(self) -> None:
        failures = 0
        while not self._stopping:
            await self._until_wanted()
            connection = await self._link.connected()
            began = time.monotonic()
            try:
                self._subscription = await Subscription.open(connection, self.name, self._policy, self.worker.deliver)
                self.down_since = None
                log.info("consuming", queue=self.name)
                if await self._held_back_or_over(self._subscription):
                    continue
                reason = await self._subscription.over()
            except ConnectionError as error:
                reason = error_text(error)
            if self._stopping:
                return
            failures = 1 if time.monotonic() - began > _STEADY_SECONDS else failures + 1
            self.down_since = self.down_since or time.monotonic()
            log.warning("consuming_ended", queue=self.name, reason=reason, failures=failures)
            await asyncio.sleep(backoff_seconds(failures))

    async def _until_wanted(self) -> None:
        """Wait while the family wants no more events; that is no trouble, so the queue counts as worked."""
        told = False
        while (why := self._held_back()) is not None and not self._stopping:
            if not told:
                log.warning("held_back", queue=self.name, reason=why)
                told, self.down_since = True, None
            await asyncio.sleep(_HELD_BACK_SECONDS)

    async def _held_back_or_over(self, subscription: Subscription) -> bool:
        """Return True when the family wanted no more and all that was taken is settled, False when the subscription ended.

        Nothing is given back, as that would count as a failed delivery.
        """
        while not subscription.ended.done():
            await asyncio.wait((subscription.ended,), timeout=_HELD_BACK_SECONDS)
            if self._held_back() is None or self._stopping:
                continue
            await subscription.stop()
            while (self.worker.held or self.worker.running) and not subscription.ended.done():
                await asyncio.sleep(0.05)
            if not subscription.ended.done():
                await subscription.close()
                return not self._stopping
        return False

    def _handed_out(self) -> int:
        return self._subscription.prefetch if self._subscription is not None else 1
