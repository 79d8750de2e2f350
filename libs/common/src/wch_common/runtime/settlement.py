"""Settling a delivery that failed: a confirmed copy to a rung, the parking table or the dead letters, then the ack."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

import structlog

from wch_common import headers as wch
from wch_common.engine.connection import backoff_seconds
from wch_common.envelope import encode
from wch_common.errors import Interrupted, PublishError
from wch_common.message import Publication
from wch_common.policy import ToDeadLetters, ToParking, ToRung, Verdict
from wch_common.redact import error_text
from wch_common.topology import DEAD_EXCHANGE, RETRY_EXCHANGE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from wch_common.engine.consuming import Delivery
    from wch_common.event import Event, EventData
    from wch_common.message import Headers, Message
    from wch_common.topology import WorkQueue

log = structlog.get_logger(__name__)


class Publishing(Protocol):
    """The port a settlement publishes through."""

    async def publish(self, publication: Publication) -> None:
        """Return once the broker has confirmed; raises PublishError."""


class Parking(Protocol):
    """The port to the table in which events wait for their due time."""

    async def park(self, queue: str, message: Message, *, seconds: float, scope: str) -> None:
        """Return once the message is committed; parking one again moves its due time."""


class Settlement:
    """Hands failed deliveries of one queue on, and acknowledges each only after what replaces it is safe."""

    def __init__(
        self, queue: WorkQueue, publishing: Publishing, worker: wch.Worker, parking: Parking | None = None
    ) -> None:
        self._queue = queue
        self._publishing = publishing
        self._worker = worker
        self._parking = parking
        self.stuck = 0
        """How many settlements fail at the moment and are being repeated; consumption pauses meanwhile."""

    @property
    def can_park(self) -> bool:
        """Whether long waits go to a table."""
        return self._parking is not None

    async def settle(
        self, delivery: Delivery, error: BaseException, verdict: Verdict, *, answer: Event[EventData] | None = None
    ) -> bool:
        """Carry a verdict out; True once it is safe and acknowledged, False where the delivery was lost meanwhile.

        `answer` is a fact told before the acknowledgement (that the event was given up).
        """
        if not wch.has_room(delivery.message):
            delivery.dead_letter_unread()
            return True
        message = self._copy(delivery, error, verdict)
        if not await self._until_safe(delivery, lambda: self._hand_on(message, verdict)):
            return False
        if answer is not None:
            publication = encode(answer)
            if not await self._until_safe(delivery, lambda: self._publishing.publish(publication)):
                return False
        return delivery.ack()

    async def _hand_on(self, message: Message, verdict: Verdict) -> None:
        match verdict:
            case ToDeadLetters():
                await self._publishing.publish(Publication(DEAD_EXCHANGE, self._queue.name, message))
            case ToRung(seconds=seconds):
                await self._publishing.publish(Publication(RETRY_EXCHANGE, self._queue.rung(seconds), message))
            case ToParking(seconds=seconds, scope=scope):
                if self._parking is None:
                    raise AssertionError("a verdict to park was given without a table to park in")
                await self._parking.park(self._queue.name, message, seconds=seconds, scope=scope)

    async def _until_safe(self, delivery: Delivery, step: Callable[[], Awaitable[None]]) -> bool:
        """Repeat one step with back-off until it holds; the handler is not run again, nothing is acknowledged."""
        failures = 0
        try:
            while delivery.is_held:
                try:
                    await step()
                except (PublishError, Interrupted, OSError) as error:
                    failures += 1
                    self.stuck += failures == 1
                    log.error("settlement_repeated", queue=self._queue.name, failures=failures, error=error_text(error))
                    await asyncio.sleep(backoff_seconds(failures))
                else:
                    return True
            return False
        finally:
            self.stuck -= failures > 0

    def _copy(self, delivery: Delivery, error: BaseException, verdict: Verdict) -> Message:
        kind = verdict.kind if isinstance(verdict, ToDeadLetters) else None
        counted = not isinstance(verdict, (ToRung, ToParking)) or verdict.counted
        extra = wch.failure_headers(
            delivery.message, error, queue=self._queue.name, kind=kind, counted=counted, worker=self._worker
        )
        extra[wch.EXCHANGE], extra[wch.ROUTING_KEY] = wch.origin(
            delivery.message, delivery.exchange, delivery.routing_key
        )
        return delivery.message.copied(_with_waiting(extra, delivery.message, counted=counted))


def _with_waiting(extra: Headers, message: Message, *, counted: bool) -> Headers:
    """An uncounted wait remembers when the waiting began; a counted try begins anew."""
    since = message.headers.get(wch.WAITING_SINCE)
    extra[wch.WAITING_SINCE] = None if counted else since or datetime.now(UTC).isoformat(timespec="seconds")
    return extra
