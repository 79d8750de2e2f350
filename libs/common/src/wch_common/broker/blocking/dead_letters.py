"""Looking at, replaying and discarding the messages of a queue without losing any."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import amqp.exceptions
import amqp.spec
import kombu

from wch_common.broker.blocking.connection import open_connection
from wch_common.broker.headers import QUEUE
from wch_common.contract.message import USER, Message
from wch_common.errors import WchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class NoSuchQueue(WchError):
    """The queue does not exist, or this user has no permission to read it."""


@dataclass
class DeadLetter:
    """One message that was taken from the queue and not settled yet."""

    tag: int
    exchange: str
    routing_key: str
    message: Message
    published: object = None
    """Its property `timestamp`, which its publisher may have set."""


class Mailbox:
    """One queue, opened for an operator: messages that were taken and not removed return to it when it closes."""

    def __init__(self, channel: Any, queue: str) -> None:  # noqa: ANN401 - py-amqp ships no types
        self._channel = channel
        self._queue = queue
        self._last = 0
        self._removed: set[int] = set()

    def count(self) -> int:
        """Return how many messages are ready."""
        return int(kombu.Queue(self._queue, channel=self._channel).queue_declare(passive=True).message_count)

    def take(self, limit: int | None = None) -> Iterator[DeadLetter]:
        """Take the messages that are in the queue now, one after another; each stays unsettled until removed or requeued."""
        for _ in range(min(self.count(), limit) if limit is not None else self.count()):
            got = self._channel.basic_get(self._queue, no_ack=False)
            if got is None:
                return
            info = got.delivery_info
            self._last = info["delivery_tag"]
            published = got.properties.get("timestamp")
            yield DeadLetter(self._last, info["exchange"], info["routing_key"], _message(got), published)

    def remove(self, dead_letter: DeadLetter) -> None:
        """Remove a message from the queue."""
        self._channel.basic_ack(dead_letter.tag)
        self._removed.add(dead_letter.tag)

    def requeue(self) -> None:
        """Return the messages that were not removed, in order, by nack: a reject would count against the delivery limit."""
        held = [tag for tag in range(1, self._last + 1) if tag not in self._removed]
        if held and len(held) == self._last:
            self._nack(self._last, multiple=True)
        else:
            for tag in held:
                self._nack(tag, multiple=False)

    def _nack(self, tag: int, *, multiple: bool) -> None:
        # py-amqp has no call for basic.nack.
        self._channel.send_method(amqp.spec.Basic.Nack, "Lbb", (tag, multiple, True))


@contextmanager
def open_mailbox(url: str, queue: str) -> Iterator[Mailbox]:
    """Open a queue; raises NoSuchQueue or BrokerUnreachable."""
    with open_connection(url, "wch dlq") as connection, mailbox_on(connection, queue) as mailbox:
        yield mailbox


@contextmanager
def mailbox_on(connection: kombu.Connection, queue: str) -> Iterator[Mailbox]:
    """Open a queue on a connection; raises NoSuchQueue."""
    channel = connection.channel()
    # Return the original bytes instead of decoding them by content encoding.
    channel.auto_decode = False
    mailbox = Mailbox(channel, queue)
    try:
        mailbox.count()
        yield mailbox
    except amqp.exceptions.NotFound:
        raise NoSuchQueue(f"there is no queue {queue}") from None
    except amqp.exceptions.AccessRefused:
        raise NoSuchQueue(f"this user has no permission to read the queue {queue}") from None
    finally:
        if channel.is_open:
            mailbox.requeue()
            channel.close()


def purge(url: str, queue: str) -> int:
    """Remove every message of a queue and return how many there were."""
    return int(_with_channel(url, lambda channel: channel.queue_purge(queue)))


def _with_channel(url: str, action: Callable[[Any], Any]) -> Any:  # noqa: ANN401 - py-amqp ships no types
    with open_connection(url) as connection:
        return action(connection.channel())


def _message(got: Any) -> Message:  # noqa: ANN401 - py-amqp ships no types
    properties = got.properties
    body = got.body
    headers = properties.get("application_headers") or {}
    # Dead letters of ours name the first publisher in a header; those the broker moved still have the property.
    user = headers.get(USER) if QUEUE in headers else properties.get("user_id")
    return Message(
        body
        if isinstance(body, bytes)
        else bytes(body)
        if isinstance(body, (bytearray, memoryview))
        else body.encode(),
        properties.get("content_type"),
        properties.get("content_encoding"),
        properties.get("message_id"),
        headers,
        user,
    )
