"""Consumes one queue on one channel: deliveries in, acknowledgements out, and the reason when it ends."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pika.exceptions
import structlog

from wch_common.broker.aio.acks import AckWindow
from wch_common.broker.aio.pika_inside import nack_instead_of_reject
from wch_common.broker.codec.read import Arrival
from wch_common.broker.topology import RETRY_EXCHANGE
from wch_common.contract.message import USER, Message
from wch_common.observability.redact import error_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from wch_common.broker.aio.connection import Connection
    from wch_common.broker.queue_policy import QueuePolicy

log = structlog.get_logger(__name__)

_RPC_SECONDS = 30.0
# How long an acknowledgement waits for others: each costs a system call here, and the broker as much as a delivery does.
_ACK_SECONDS = 0.001


class Delivery:
    """One delivery: the message, how it arrived, and its settlement, which can only ever reach its own channel."""

    __slots__ = ("_subscription", "_tag", "exchange", "message", "redelivered", "routing_key")

    def __init__(self, subscription: Subscription, arrival: Arrival) -> None:
        self._subscription = subscription
        self._tag, self.redelivered, self.exchange, self.routing_key, self.message = arrival

    @property
    def delivery_count(self) -> int:
        """How often it was delivered before without being settled, as far as the broker counts."""
        count = self.message.headers.get("x-delivery-count")
        return count if isinstance(count, int) else int(self.redelivered)

    @property
    def is_open(self) -> bool:
        """Whether it can still be settled; once its channel is closed the broker delivers it to another consumer."""
        return self._subscription.is_open

    def ack(self) -> bool:
        """Acknowledge it with the next flush; False if its channel is closed, so that the broker delivers it again."""
        return self._subscription.ack(self._tag)

    def requeue(self) -> None:
        """Return it to its queue unhandled, by nack: RabbitMQ 4.3 counts a reject as a failure."""
        self._subscription.nack(self._tag, requeue=True)

    def dead_letter_unread(self) -> None:
        """Let the broker move it to the dead-letter queue unchanged, without our headers."""
        self._subscription.nack(self._tag, requeue=False)


class Subscription:
    """A consumer on its own channel; `ended` is done, with the reason, when it can deliver no more.

    It starts with a prefetch of 1 and keeps it small while redeliveries arrive: whatever a dying process had
    prefetched counts as failed together with the message that killed it.
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
        """How many unsettled deliveries the broker allows this consumer, now or in a moment."""
        nack_instead_of_reject(channel, lambda tag, requeue: self.nack(tag, requeue=requeue))
        channel.add_on_close_callback(self._on_close)
        channel.add_on_cancel_callback(
            lambda _frame: self._end("the broker cancelled the consumer; was the queue deleted?")
        )

    @classmethod
    async def open(
        cls, connection: Connection, queue: str, policy: QueuePolicy, deliver: Callable[[Delivery], None]
    ) -> Subscription:
        """Start consuming; raises ConnectionError, with the broker's reason, if it refuses."""
        subscription = cls(connection, await connection.channel(), queue, policy, deliver)
        await subscription._consume(1)
        return subscription

    @property
    def is_open(self) -> bool:
        """Whether deliveries of this channel can still be settled."""
        return bool(self._channel.is_open)

    def ack(self, tag: int) -> bool:
        """Acknowledge with the next flush: once half the prefetch is done, otherwise after a millisecond."""
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

    async def wait_until_ended(self) -> str:
        """Wait until it can deliver no more and return the reason; cancelling the waiter does not cancel `ended`."""
        await asyncio.wait((self.ended,))
        return self.ended.result()

    async def stop(self) -> None:
        """Cancel the consumer; deliveries that have arrived can still be settled."""
        self._cancelling = True
        if self._widening is not None:
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await self._widening
        with contextlib.suppress(ConnectionError):
            await self._cancel()

    async def close(self) -> None:
        """Flush the acknowledgements and close the channel."""
        self._flush()
        if self._channel.is_open:
            self._channel.close()
            await asyncio.wait((self.ended,), timeout=_RPC_SECONDS)

    async def _consume(self, prefetch: int) -> None:
        channel = self._channel
        await self._call(lambda done: channel.basic_qos(prefetch_count=prefetch, callback=done))

        def consume(done: Callable[[object], None]) -> None:
            # Set before the broker answers: the first delivery may come with the answer, and widening cancels this tag.
            self._tag = channel.basic_consume(self._queue, self._on_message, callback=done)
            self._connection.dispatch(channel.channel_number, self._tag, self._take)

        await self._call(consume)

    async def _cancel(self) -> None:
        if (tag := self._tag) is not None and self._channel.is_open:
            self._undispatch()
            await self._call(lambda done: self._channel.basic_cancel(tag, callback=done))

    async def _call(self, send: Callable[[Callable[[object], None]], object]) -> None:
        """Send one synchronous method and wait for its answer; raises ConnectionError if the channel ends or at the deadline."""
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
            # Only our own programs may publish to the retry exchange; on a request, anyone may have set this header.
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
        """Consume again with a larger prefetch: the broker applies it to new consumers only."""
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

    def _undispatch(self) -> None:
        """Leave further deliveries to pika, which returns what arrives for a cancelled consumer."""
        if self._tag is not None:
            self._connection.dispatch(self._channel.channel_number, self._tag, None)
        self._tag = None

    def _end(self, reason: str) -> None:
        self._undispatch()
        if not self.ended.done():
            self.ended.set_result(reason)
