"""Takes messages from the head of a queue one at a time, on a channel of its own."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pika
import pika.exceptions

from wch_common.contract.message import Message
from wch_common.errors import WchError
from wch_common.observability.redact import error_text

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from wch_common.broker.aio.connection import Connection

_ANSWER_SECONDS = 30.0
_NOT_FOUND = 404
_ACCESS_REFUSED = 403


class UnreadableQueue(WchError):
    """The queue does not exist, or this user has no permission to read it; says what to do."""


@dataclass(frozen=True, slots=True)
class TakenMessage:
    """One message that was taken and is not settled yet."""

    tag: int
    message: Message
    published: object
    """Its property `timestamp`, which its publisher may have set."""


class QueueHead:
    """One queue, opened by `queue_head`; messages that were taken and not settled return to it when it closes."""

    def __init__(self, channel: Any, queue: str) -> None:  # noqa: ANN401 - pika ships no types
        self._channel = channel
        self._queue = queue
        self._loop = asyncio.get_running_loop()
        self._answer: asyncio.Future[TakenMessage | None] = self._loop.create_future()
        self._closed: asyncio.Future[BaseException] = self._loop.create_future()
        channel.add_on_close_callback(self._on_close)
        channel.add_callback(self._on_empty, [pika.spec.Basic.GetEmpty], one_shot=False)

    async def take(self) -> TakenMessage | None:
        """Take the first message; None if there is none. Raises UnreadableQueue, or ConnectionError for other reasons."""
        self._answer = self._loop.create_future()
        if self._channel.is_open:
            self._channel.basic_get(self._queue, self._on_message)
        await asyncio.wait((self._answer, self._closed), timeout=_ANSWER_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if not self._answer.done():
            raise self._problem()
        return self._answer.result()

    def remove(self, taken: TakenMessage) -> None:
        """Remove a message; raises ConnectionError if it is back in the queue, because the channel has closed."""
        if not self._channel.is_open:
            raise self._problem()
        self._channel.basic_ack(taken.tag)

    def requeue(self, taken: TakenMessage) -> None:
        """Return a message, by nack: RabbitMQ 4.3 counts a reject as a failure."""
        if self._channel.is_open:
            self._channel.basic_nack(taken.tag, requeue=True)

    def close(self) -> None:
        """Close the channel; does not wait, so that it also works while the task is being cancelled."""
        if self._channel.is_open:
            self._channel.close()

    def _problem(self) -> Exception:
        if not self._closed.done():
            return ConnectionError(f"{self._queue}: the broker did not answer")
        reason = self._closed.result()
        code = getattr(reason, "reply_code", 0)
        if code == _NOT_FOUND:
            return UnreadableQueue(f"there is no queue {self._queue}: create it with `wch topology apply`")
        if code == _ACCESS_REFUSED:
            return UnreadableQueue(
                f"this user has no permission to read {self._queue}: give the permissions that `wch topology show --as permissions` shows"
            )
        return ConnectionError(f"{self._queue}: {error_text(reason)}")

    def _on_message(self, _channel: object, method: Any, properties: Any, body: bytes) -> None:  # noqa: ANN401
        message = Message(
            body,
            properties.content_type,
            properties.content_encoding,
            properties.message_id,
            properties.headers or {},
        )
        self._settle(TakenMessage(method.delivery_tag, message, properties.timestamp))

    def _on_empty(self, _frame: object) -> None:
        self._settle(None)

    def _settle(self, answer: TakenMessage | None) -> None:
        if not self._answer.done():
            self._answer.set_result(answer)

    def _on_close(self, _channel: object, reason: BaseException) -> None:
        if not self._closed.done():
            self._closed.set_result(reason)


@asynccontextmanager
async def queue_head(connection: Connection, queue: str) -> AsyncIterator[QueueHead]:
    """Open a queue on a channel that closes at the end; raises ConnectionError if the connection breaks."""
    head = QueueHead(await connection.channel(), queue)
    try:
        yield head
    finally:
        head.close()
