"""Settles failed deliveries: a confirmed copy to a delay queue, the parking table or the DLQ, and only then the ack."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog

from wch_common.backoff import until_success
from wch_common.broker import headers as wch
from wch_common.broker.topology import DEAD_EXCHANGE, RETRY_EXCHANGE
from wch_common.contract.envelope import encode
from wch_common.contract.message import Publication
from wch_common.errors import Interrupted, PublishError
from wch_common.observability.redact import error_text
from wch_common.runtime.retry_decision import RetryDecision, ToDeadLetters, ToDelayQueue, ToParking

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from wch_common.broker.aio.subscription import Delivery
    from wch_common.broker.topology import WorkQueue
    from wch_common.contract.event import Event, EventData
    from wch_common.contract.message import Headers, Message, Publish
    from wch_common.store.parking import ParkingLot

log = structlog.get_logger(__name__)


class _DeliveryLost(Exception):
    """The delivery's channel closed; the broker delivers it again."""


class Settlement:
    """Passes failed deliveries of one queue on, and acknowledges each only once what replaces it is safe."""

    def __init__(
        self, queue: WorkQueue, publish: Publish, worker: wch.WorkerIdentity, parking: ParkingLot | None = None
    ) -> None:
        self._queue = queue
        self._publish = publish
        self._worker = worker
        self._parking = parking
        self.stuck = 0
        """How many settlements fail at present and are being repeated; consumption pauses meanwhile."""

    @property
    def can_park(self) -> bool:
        """Whether long waits go to a table."""
        return self._parking is not None

    async def settle(
        self,
        delivery: Delivery,
        error: BaseException,
        decision: RetryDecision,
        *,
        answer: Event[EventData] | None = None,
    ) -> bool:
        """Carry a decision out; True once it is safe and acknowledged, False if the delivery was lost meanwhile.

        Repeats without limit while the broker refuses. `answer` is the fact for the requester of a dead-lettered event; it is
        published before the acknowledgement. A message without room for headers is dead-lettered by the broker, whatever the
        decision. Raises psycopg.Error if the event cannot be parked.
        """
        if not wch.has_room(delivery.message):
            delivery.dead_letter_unread()
            return True
        message = self._copy(delivery, error, decision)
        try:
            await self._until_safe(delivery, lambda: self._pass_on(message, decision))
            if answer is not None:
                publication = encode(answer)
                await self._until_safe(delivery, lambda: self._publish(publication))
        except _DeliveryLost:
            return False
        return delivery.ack()

    async def _pass_on(self, message: Message, decision: RetryDecision) -> None:
        match decision:
            case ToDeadLetters():
                await self._publish(Publication(DEAD_EXCHANGE, self._queue.name, message))
            case ToDelayQueue(seconds=seconds):
                await self._publish(Publication(RETRY_EXCHANGE, self._queue.delay_queue(seconds), message))
            case ToParking(seconds=seconds, scope=scope):
                if self._parking is None:
                    raise AssertionError("decided to park without a table to park in")
                await self._parking.park(self._queue.name, message, seconds=seconds, scope=scope)

    async def _until_safe(self, delivery: Delivery, step: Callable[[], Awaitable[None]]) -> None:
        """Repeat one step with back-off until it succeeds; the handler does not run again, nothing is acknowledged.

        Raises _DeliveryLost if the delivery's channel closes meanwhile.
        """
        failing = False

        async def attempt() -> None:
            if not delivery.is_open:
                raise _DeliveryLost
            await step()

        def report(failures: int, error: BaseException) -> None:
            nonlocal failing
            self.stuck += not failing
            failing = True
            log.error("settlement_repeated", queue=self._queue.name, failures=failures, error=error_text(error))

        try:
            await until_success(attempt, (PublishError, Interrupted, OSError), report)
        finally:
            self.stuck -= failing

    def _copy(self, delivery: Delivery, error: BaseException, decision: RetryDecision) -> Message:
        kind = decision.kind if isinstance(decision, ToDeadLetters) else None
        counted = isinstance(decision, ToDeadLetters) or decision.counted
        extra = wch.failure_headers(
            delivery.message, error, queue=self._queue.name, kind=kind, counted=counted, worker=self._worker
        )
        extra[wch.EXCHANGE], extra[wch.ROUTING_KEY] = wch.origin(
            delivery.message, delivery.exchange, delivery.routing_key
        )
        return delivery.message.copied(_with_waiting(extra, delivery.message, counted=counted))


def _with_waiting(extra: Headers, message: Message, *, counted: bool) -> Headers:
    """Keep the time at which an uncounted wait began; a counted attempt ends it."""
    since = message.headers.get(wch.WAITING_SINCE)
    extra[wch.WAITING_SINCE] = None if counted else since or datetime.now(UTC).isoformat(timespec="seconds")
    return extra
