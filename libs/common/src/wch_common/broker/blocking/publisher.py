"""Confirmed publishing for synchronous programs: many confirms outstanding, reconnecting, one result for each message.

kombu waits for each confirm. py-amqp's channel beneath it need not, but does not match confirms to messages; this does. A
channel is discarded after any fault, so that a late confirm can never answer for another message.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING, Any

import amqp.exceptions
from tenacity import RetryError, Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from wch_common.broker.blocking.connection import CONNECTION_ERRORS, connect_problem, new_connection
from wch_common.broker.codec.write import publish_frames
from wch_common.errors import PublishError, Refused, Unconfirmed, Unroutable
from wch_common.observability.redact import redact

if TYPE_CHECKING:
    from collections.abc import Sequence

    import kombu

    from wch_common.contract.message import Publication

_WINDOW = 1000
# Bytes in one write: what a socket usually accepts without blocking.
_TOGETHER_BYTES = 64 * 1024


class _Lost(Exception):
    """The connection broke or a confirm is overdue; unanswered messages are sent again."""


class ConfirmedPublisher:
    """Publishes from any thread on one connection, which is opened when first needed and after it breaks."""

    def __init__(self, url: str, name: str, *, confirm_timeout_seconds: float = 30.0) -> None:
        self._url = url
        self._name = name
        self._timeout = confirm_timeout_seconds
        self._lock = threading.RLock()
        self._window: _Window | None = None
        self._process = os.getpid()
        self._unreachable = ""
        """Why connecting failed, while nothing of the present call was sent."""
        self._sent = False
        # Built once: building it for each call makes publishing one at a time a tenth slower.
        self._attempts = Retrying(
            retry=retry_if_exception_type(_Lost),
            stop=stop_after_delay(confirm_timeout_seconds),
            wait=wait_random_exponential(multiplier=0.2, max=3),
        )

    def publish(self, publications: Sequence[Publication]) -> list[PublishError | None]:
        """Publish all messages and return a result for each, in order: None for confirmed, or the error.

        Messages left unanswered by a broken connection are sent again under the same id until the confirm timeout.
        """
        answers: dict[int, PublishError | None] = {}
        with self._lock, contextlib.suppress(RetryError):
            self._unreachable, self._sent = "", False
            for attempt in self._attempts:
                with attempt:
                    self._publish_rest(publications, answers)
        late = f"no confirm within {self._timeout:g} s; the message may or may not have arrived"
        if self._unreachable:
            late = f"nothing was sent within {self._timeout:g} s: {self._unreachable}"
        return [answers.get(place, Unconfirmed(late)) for place in range(len(publications))]

    def close(self) -> None:
        """Close the connection; the next publish opens a new one."""
        with self._lock:
            self._drop()

    def _publish_rest(self, publications: Sequence[Publication], answers: dict[int, PublishError | None]) -> None:
        try:
            window = self._opened()
            self._sent = True
            for place, publication in enumerate(publications):
                if place not in answers:
                    window.send(place, publication, answers)
            window.drain(0, answers)
            if any(isinstance(answer, Refused) for answer in answers.values()):
                # RabbitMQ 3.10 keeps refusing on a channel once it has refused there, even when the queue has room again.
                self._drop()
        except amqp.exceptions.AMQPError as error:
            self._answer_culprit(error, publications, answers)
            self._drop()
            raise _Lost from error
        except (*CONNECTION_ERRORS, _Lost) as error:
            self._drop()
            raise _Lost from error
        except BaseException:
            # Interrupted from outside (Ctrl-C, a task's time limit): outstanding confirms must not answer a later call.
            self._drop()
            raise

    def _answer_culprit(
        self,
        error: amqp.exceptions.AMQPError,
        publications: Sequence[Publication],
        answers: dict[int, PublishError | None],
    ) -> None:
        """Assign an error that closed the channel to its message: its text names the missing or forbidden exchange."""
        if not isinstance(error, (amqp.exceptions.NotFound, amqp.exceptions.AccessRefused)):
            return
        text = redact(str(error.reply_text), 300)
        kind = Unroutable if isinstance(error, amqp.exceptions.NotFound) else Refused
        for place, publication in enumerate(publications):
            topic_named = f"'{publication.routing_key}'" in text or "topic" not in text
            if place not in answers and f"'{publication.exchange or 'amq.default'}'" in text and topic_named:
                answers[place] = kind(text)

    def _opened(self) -> _Window:
        if self._process != os.getpid():
            # A forked child must neither use nor close the socket of its parent.
            self._window, self._process = None, os.getpid()
        if self._window is None:
            connection = new_connection(self._url, self._name)
            try:
                connection.ensure_connection(max_retries=1, timeout=self._timeout)
                self._window = _Window(connection, self._timeout)
            except Exception as error:
                connection.collect(socket_timeout=1)
                if not self._sent:
                    self._unreachable = connect_problem(error)
                raise
            self._unreachable = ""
        return self._window

    def _drop(self) -> None:
        window, self._window = self._window, None
        if window is not None and self._process == os.getpid():
            window.close()


class _Window:
    """One channel and its outstanding confirms."""

    def __init__(self, connection: kombu.Connection, timeout: float) -> None:
        self._connection = connection
        self._timeout = timeout
        # `confirm_publish` would make the channel wait for each confirm; here they are counted.
        connection.transport_options.pop("confirm_publish", None)
        self._channel: Any = connection.channel()
        self._channel.confirm_select()
        self._channel.events["basic_ack"].add(self._on_ack)
        self._channel.events["basic_nack"].add(self._on_nack)
        self._channel.events["basic_return"].add(self._on_return)
        self._frame_max = self._channel.connection.frame_max
        self._unsent: list[bytes] = []
        self._unsent_bytes = 0
        self._tag = 0
        self._outstanding: dict[int, tuple[int, str]] = {}
        self._ids: set[str] = set()
        self._returned: dict[str, str] = {}
        self._answered: dict[int, PublishError | None] = {}

    def send(self, place: int, publication: Publication, answers: dict[int, PublishError | None]) -> None:
        """Send one message; waits first while too many are outstanding, or one with the same id."""
        id_ = publication.message.message_id or ""
        # A returned message carries its id but no delivery tag, so only one publish per id may be in flight.
        if id_ in self._ids:
            self.drain(0, answers)
        if len(self._outstanding) >= _WINDOW:
            self.drain(_WINDOW // 2, answers)
        user = self._connection.userid if publication.signed else None
        self._unsent.append(publish_frames(self._channel.channel_id, publication, user, self._frame_max))
        self._unsent_bytes += len(self._unsent[-1])
        self._tag += 1
        self._outstanding[self._tag] = (place, id_)
        self._ids.add(id_)
        if self._unsent_bytes >= _TOGETHER_BYTES:
            self._write()

    def _write(self) -> None:
        """Write the collected frames; a broker that accepts nothing in time counts as lost."""
        unsent, self._unsent, self._unsent_bytes = self._unsent, [], 0
        if unsent:
            transport = self._channel.connection.transport
            with transport.having_timeout(self._timeout):
                transport.write(b"".join(unsent))

    def drain(self, down_to: int, answers: dict[int, PublishError | None]) -> None:
        """Wait until at most `down_to` confirms are outstanding; raises _Lost if the broker is silent for too long."""
        self._write()
        deadline = time.monotonic() + self._timeout
        while len(self._outstanding) > down_to:
            left = deadline - time.monotonic()
            if left <= 0:
                raise _Lost
            try:
                self._connection.drain_events(timeout=left)
            except TimeoutError:
                raise _Lost from None
        if self._answered:
            answers.update(self._answered)
            self._answered.clear()

    def close(self) -> None:
        """Close without waiting for a broker that may be unreachable."""
        self._connection.collect(socket_timeout=1)

    def _on_ack(self, tag: int, multiple: bool) -> None:  # noqa: FBT001 - AMQP's own argument
        self._settle(tag, multiple, refused=False)

    def _on_nack(self, tag: int, multiple: bool) -> None:  # noqa: FBT001 - AMQP's own argument
        self._settle(tag, multiple, refused=True)

    def _settle(self, tag: int, multiple: bool, *, refused: bool) -> None:  # noqa: FBT001 - AMQP's own argument
        for done in [one for one in self._outstanding if one <= tag] if multiple else [tag]:
            place, id_ = self._outstanding.pop(done, (-1, ""))
            self._ids.discard(id_)
            error: PublishError | None = None
            if reason := self._returned.pop(id_, None):
                error = Unroutable(reason)
            elif refused:
                error = Refused("the broker refused the message: a queue is full or unavailable")
            if place >= 0:
                self._answered[place] = error

    def _on_return(self, error: Exception, exchange: str, routing_key: str, message: Any) -> None:  # noqa: ANN401, ARG002
        id_ = message.properties.get("message_id", "")
        self._returned[id_] = f"no queue is bound to exchange {exchange!r} for the routing key {routing_key!r}"
