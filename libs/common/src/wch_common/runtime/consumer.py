"""Keeps one queue consumed: a subscription that is renewed whenever it ends, and the worker behind it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

import structlog

from wch_common.backoff import backoff_seconds
from wch_common.broker.aio.subscription import Subscription
from wch_common.observability.redact import error_text
from wch_common.runtime.batch_worker import BatchWorker
from wch_common.runtime.job import Batch, SharedTransaction
from wch_common.runtime.shared_transaction_worker import SharedTransactionWorker
from wch_common.runtime.worker import EventWorker

if TYPE_CHECKING:
    from wch_common.broker.aio.connection import Link
    from wch_common.runtime.worker import QueueContext, Worker

log = structlog.get_logger(__name__)

_STEADY_SECONDS = 5.0
_PAUSE_CHECK_SECONDS = 1.0


class Consumer:
    """One queue of a service, from start to stop."""

    def __init__(self, context: QueueContext, link: Link) -> None:
        self.name = context.job.queue.name
        self._policy = context.job.queue.policy
        self._link = link
        self._settlement = context.settlement
        self._paused_by = context.job.paused_by or (lambda: None)
        self._subscription: Subscription | None = None
        self._stopping = False
        self.worker = self._worker(context)
        self.down_since: float | None = time.monotonic()

    def _worker(self, context: QueueContext) -> Worker:
        match context.job.processor:
            case Batch() as batch:
                return BatchWorker(context, batch, self._prefetch)
            case SharedTransaction() as transaction:
                return SharedTransactionWorker(context, transaction)
            case one_event:
                return EventWorker(context, one_event)

    def start(self) -> list[asyncio.Task[None]]:
        """Start consuming; the tasks run until `stop`, and one that fails ends the process."""
        return [asyncio.create_task(self._subscribe(), name=f"{self.name} subscription"), *self.worker.start()]

    @property
    def problem(self) -> str | None:
        """Why the queue is not being consumed, as a sentence, or None."""
        if self.down_since is not None:
            return f"{self.name}: not consuming for {time.monotonic() - self.down_since:.0f} s"
        if self._settlement.stuck:
            return f"{self.name}: {self._settlement.stuck} settlements fail and are being repeated"
        return None

    @property
    def stuck(self) -> int:
        """How many settlements fail and are being repeated."""
        return self._settlement.stuck

    async def stop(self, grace_seconds: float) -> None:
        """Cancel the consumer, let handlers finish within the grace period, requeue the rest, and close."""
        self._stopping = True
        subscription = self._subscription
        if subscription is not None:
            await subscription.stop()
        self.worker.requeue_waiting()
        deadline = time.monotonic() + grace_seconds
        while self.worker.running and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        if self.worker.running:
            log.warning("grace_period_over", queue=self.name, running=self.worker.running)
        await self.worker.interrupt()
        if subscription is not None:
            with contextlib.suppress(ConnectionError):
                await subscription.close()

    async def _subscribe(self) -> None:
        failures = 0
        while not self._stopping:
            await self._until_resumed()
            connection = await self._link.connected()
            began = time.monotonic()
            try:
                self._subscription = await Subscription.open(connection, self.name, self._policy, self.worker.deliver)
                self.down_since = None
                log.info("consuming", queue=self.name)
                if await self._paused_or_ended(self._subscription):
                    continue
                reason = await self._subscription.wait_until_ended()
            except ConnectionError as error:
                reason = error_text(error)
            if self._stopping:
                return
            failures = 1 if time.monotonic() - began > _STEADY_SECONDS else failures + 1
            self.down_since = self.down_since or time.monotonic()
            log.warning("consuming_ended", queue=self.name, reason=reason, failures=failures)
            await asyncio.sleep(backoff_seconds(failures))

    async def _until_resumed(self) -> None:
        """Wait while the family pauses the queue; a paused queue counts as consumed, as nothing is wrong."""
        logged = False
        while (reason := self._paused_by()) is not None and not self._stopping:
            if not logged:
                log.warning("queue_paused", queue=self.name, reason=reason)
                logged, self.down_since = True, None
            await asyncio.sleep(_PAUSE_CHECK_SECONDS)

    async def _paused_or_ended(self, subscription: Subscription) -> bool:
        """Return True once the family has paused the queue and all deliveries are settled, False once it ended.

        Deliveries are not requeued for a pause, as that would count as a failed delivery.
        """
        while not subscription.ended.done():
            await asyncio.wait((subscription.ended,), timeout=_PAUSE_CHECK_SECONDS)
            if self._paused_by() is None or self._stopping:
                continue
            await subscription.stop()
            while (self.worker.queued or self.worker.running) and not subscription.ended.done():
                await asyncio.sleep(0.05)
            if not subscription.ended.done():
                await subscription.close()
                return not self._stopping
        return False

    def _prefetch(self) -> int:
        return self._subscription.prefetch if self._subscription is not None else 1
