"""Consuming from one queue on one channel: deliveries in, acknowledgements out, and why it ended."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pika.exceptions
import structlog

from wch_common.engine.acks import AckWindow
from wch_common.engine.reading import Arrival
from wch_common.message import USER, Message
from wch_common.redact import error_text
from wch_common.topology import RETRY_EXCHANGE

if TYPE_CHECKING:
    from collections.abc import Callable

    from wch_common.engine.connection import Connection
    from wch_common.policy import QueuePolicy

log = structlog.get_logger(__name__)

_RPC_SECONDS = 30.0
# How long an acknowledgement waits for others: each costs a system call here, and the broker as much as a delivery.
_ACK_SECONDS = 0.001


class Delivery:
    """One delivery: the message, how it came, and its settlement, which can only ever reach its own channel."""

    __slots__ = ("_subscription", "_tag", "exchange", "message", "redelivered", "routing_key")

    def __init__(self, subscription: Subscription, arrival: Arrival) -> None:
        self._subscription = subscription
        self._tag, self.redelivered, self.exchange, self.routing_key, self.message = arrival

    @property
    def delivery_count(self) -> int:
        """How often it was handed out before without being settled, as far as the broker tells."""
        count = self.message.headers.get("x-delivery-count")
        return count if isinstance(count, int) else int(self.redelivered)

    @property
    def is_held(self) -> bool:
        """Whether it is still ours; once the channel is gone the broker gives it to somebody else."""
        return self._subscription.is_open

    def ack(self) -> bool:
        """Settle it with the next flush; False where its channel is gone, so that the broker will deliver it again."""
        return self._subscription.ack(self._tag)

    def give_back(self) -> None:
        """Return it to its queue unhandled: nack, never reject, which counts as a failure on 4.3."""
        self._subscription.nack(self._tag, requeue=True)

    def dead_letter_unread(self) -> None:
        """Let the broker move it to the dead-letter queue as it is, without our headers."""
        self._subscription.nack(self._tag, requeue=False)


class Subscription:
    """A consumer on its own channel; `ended` is done with the reason when it can deliver no more.

    It starts careful: it takes one message and, where that is a redelivery, few at a time until a fresh one comes, because
    everything a dying process held counts as failed with it.
    """

    def __init__(
        self,
        connection: Connection,
        channel: Any,  # noqa: ANN401 - pika's
        queue: str,
        policy: QueuePolicy,
        deliver: Callable[[Delivery], None],
    ) -> None:
        self._connection = connection
        self._channel = channel
        self._queue = queue
        self._policy = policy
        self._deliver = deliver
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[str] = self._loop.create_future()
        self._acks = AckWindow(self._send_ack)
        self._flush_soon = self._flush_later = False
        self._tag: str | None = None
        self._widening: asyncio.Task[None] | None = None
        self._cancelling = False
        self.prefetch = 1
        """How many deliveries the broker hands out unsettled, or is about to."""
        # pika gives back what still arrives for a cancelled consumer; it rejects, which counts as a failure.
        channel.basic_reject = lambda delivery_tag=0, requeue=True: self.nack(delivery_tag, requeue=requeue)
        channel.add_on_close_callback(self._on_close)
        channel.add_on_cancel_callback(lambda _frame: self._end("the broker cancelled the consumer (queue deleted?)"))

    @classmethod
    async def open(
        cls, connection: Connection, queue: str, policy: QueuePolicy, deliver: Callable[[Delivery], None]
    ) -> Subscription:
        """Start consuming; raises ConnectionError with the broker's reason where it refuses."""
        subscription = cls(connection, await connection.channel(), queue, policy, deliver)
        await subscription._consume(1)
        return subscription

    @property
    def is_open(self) -> bool:
        """Whether deliveries of this channel can still be settled."""
        return bool(self._channel.is_open)

    @property
    def is_consuming(self) -> bool:
        """Whether the broker has confirmed the consumer and not taken it back."""
        return self._tag is not None and not self.ended.done()

    def ack(self, tag: int) -> bool:
        """Acknowledge with the next flush: when half the prefetch is done, else after a millisecond."""
        if not self._channel.is_open:
            return False
        self._acks.done(tag)
        if self._acks.waiting >= self.prefetch // 2:
            if not self._flush_soon:
                self._flush_soon = True
                self._loop.call_soon(self._flush)
        elif not self._flush_later:
            self._flush_later = True
            self._loop.call_later(_ACK_SECONDS, self._flush_in_time)
        return True

    def nack(self, tag: int, *, requeue: bool) -> None:
        """Settle negatively at once."""
        if self._channel.is_open:
            self._acks.settled(tag)
            self._channel.basic_nack(tag, requeue=requeue)

    async def over(self) -> str:
        """Wait until it can deliver no more and return the reason; a cancelled waiter does not cancel `ended`."""
        await asyncio.wait((self.ended,))
        return self.ended.result()

    async def stop(self) -> None:
        """Take no more deliveries; those held can still be settled."""
        self._cancelling = True
        if self._widening is not None:
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await self._widening
        with contextlib.suppress(ConnectionError):
            await self._cancel()

    async def close(self) -> None:
        """Flush what is done and close the channel."""
        self._flush()
        if self._channel.is_open:
            self._channel.close()
            await asyncio.wait((self.ended,), timeout=_RPC_SECONDS)

    async def _consume(self, prefetch: int) -> None:
        channel = self._channel
        await self._call(lambda done: channel.basic_qos(prefetch_count=prefetch, callback=done))

        def consume(done: Callable[[object], None]) -> None:
            # Known before the broker's answer: the first delivery may come with it, and widening has to cancel this one.
            self._tag = channel.basic_consume(self._queue, self._on_message, callback=done)
            self._connection.hand_deliveries(channel.channel_number, self._tag, self._take)

        await self._call(consume)

    async def _cancel(self) -> None:
        if (tag := self._tag) is not None and self._channel.is_open:
            self._leave()
            await self._call(lambda done: self._channel.basic_cancel(tag, callback=done))

    async def _call(self, send: Callable[[Callable[[object], None]], object]) -> None:
        """Send one synchronous method and wait for its answer, the channel's end or the deadline."""
        answered: asyncio.Future[object] = self._loop.create_future()
        try:
            send(lambda frame: None if answered.done() else answered.set_result(frame))
        except pika.exceptions.AMQPError as error:
            raise ConnectionError(f"{self._queue}: {error_text(error)}") from error
        await asyncio.wait((answered, self.ended), timeout=_RPC_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if not answered.done():
            reason = self.ended.result() if self.ended.done() else "the broker did not answer"
            raise ConnectionError(f"{self._queue}: {reason}")

    def _on_message(self, _channel: object, method: Any, properties: Any, body: bytes) -> None:  # noqa: ANN401
        message = Message(
            body,
            properties.content_type,
            properties.content_encoding,
            properties.message_id,
            properties.headers or {},
            properties.user_id,
        )
        self._take(Arrival(method.delivery_tag, method.redelivered, method.exchange, method.routing_key, message))

    def _take(self, arrival: Arrival) -> None:
        if arrival.exchange == RETRY_EXCHANGE:
            # By the retry exchange only our own programs publish; anybody may set a header on a request.
            user = arrival.message.headers.get(USER)
            arrival.message.user = user if isinstance(user, str) else None
        delivery = Delivery(self, arrival)
        if self.prefetch != self._policy.prefetch and self._widening is None and not self._cancelling:
            self._choose_prefetch(delivery)
        self._deliver(delivery)

    def _choose_prefetch(self, delivery: Delivery) -> None:
        full, count = self._policy.prefetch, delivery.delivery_count
        wanted = self._policy.careful_prefetch(count) if delivery.redelivered else full
        if wanted > self.prefetch:
            self.prefetch = wanted
            self._widening = self._loop.create_task(self._widen(wanted))

    async def _widen(self, prefetch: int) -> None:
        """Consume again with another prefetch: the broker applies a new one to new consumers only."""
        try:
            await self._cancel()
            if not self._cancelling:
                await self._consume(prefetch)
        except ConnectionError as error:
            self._end(str(error))
        finally:
            self._widening = None

    def _flush_in_time(self) -> None:
        self._flush_later = False
        self._flush()

    def _flush(self) -> None:
        self._flush_soon = False
        if self._channel.is_open:
            self._acks.flush()

    def _send_ack(self, tag: int, *, multiple: bool) -> None:
        self._channel.basic_ack(tag, multiple)

    def _on_close(self, _channel: object, reason: BaseException) -> None:
        self._end(error_text(reason))

    def _leave(self) -> None:
        """Take no more from the wire: what comes for a cancelled consumer pika gives back."""
        if self._tag is not None:
            self._connection.hand_deliveries(self._channel.channel_number, self._tag, None)
        self._tag = None

    def _end(self, reason: str) -> None:
        self._leave()
        if not self.ended.done():
            self.ended.set_result(reason)
