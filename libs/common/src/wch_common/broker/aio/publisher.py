"""Confirmed publishing on a connection of its own, so that back-pressure never blocks acknowledgements."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pika
import pika.exceptions
import structlog

from wch_common.backoff import backoff_seconds
from wch_common.broker.codec.write import publish_frames
from wch_common.errors import PublishError, Refused, Unconfirmed, Unroutable
from wch_common.observability.redact import error_text

if TYPE_CHECKING:
    from wch_common.broker.aio.connection import Connection, Link
    from wch_common.contract.message import Publication

log = structlog.get_logger(__name__)

_NOT_FOUND = 404
_ACCESS_REFUSED = 403


class _Pending:
    """A publish that waits for its confirm."""

    __slots__ = ("confirmed", "publication", "since")

    def __init__(self, publication: Publication, confirmed: asyncio.Future[None]) -> None:
        self.publication = publication
        self.confirmed = confirmed
        self.since = time.monotonic()


class Publisher:
    """Publishes with confirms on one channel; `run` keeps the channel open, `publish` returns once the broker has confirmed."""

    def __init__(self, link: Link, *, confirm_timeout_seconds: float = 30.0) -> None:
        self._link = link
        self._timeout = confirm_timeout_seconds
        self._connection: Connection | None = None
        self._channel: Any = None
        self._frame_max = 0
        self._unsent: list[bytes] = []
        self._opened = asyncio.Event()
        self._tag = 0
        self._pending: dict[int, _Pending] = {}
        self._in_flight: dict[str, asyncio.Future[None]] = {}
        self._returned: dict[str, str] = {}
        self._stale = False

    async def publish(self, publication: Publication) -> None:
        """Publish a message and return once the broker has confirmed it.

        Raises Unroutable (mandatory and no queue receives it, or no such exchange), Refused (queue full, no permission), or
        Unconfirmed (no confirm within the timeout, or the connection broke: the message may have arrived).
        """
        id_ = publication.message.message_id or ""
        # A returned message carries its id but no delivery tag, so only one publish per id may be in flight.
        while id_ in self._in_flight or not self._can_send:
            if id_ in self._in_flight:
                await asyncio.wait((self._in_flight[id_],))
            else:
                await self._wait_until_open()
        confirmed = self._send(publication)
        self._in_flight[id_] = confirmed
        try:
            await confirmed
        finally:
            if self._in_flight.get(id_) is confirmed:
                del self._in_flight[id_]

    @property
    def is_ready(self) -> bool:
        """Whether a publish would be sent immediately."""
        return self._can_send

    @property
    def in_flight(self) -> int:
        """How many publishes wait for their confirm."""
        return len(self._pending)

    async def run(self) -> None:
        """Keep a channel with confirms open, and fail publishes whose confirm is overdue, until cancelled."""
        failures = 0
        while True:
            connection = await self._link.connected()
            try:
                channel = await connection.channel()
                self._connection, self._frame_max = connection, connection.frame_max
                closed = await self._open(channel)
                failures = 0
                await self._watch(channel, closed)
            except ConnectionError as error:
                failures += 1
                log.warning("publishing_interrupted", error=error_text(error))
            finally:
                self._forget_channel("the process is stopping")
            await asyncio.sleep(backoff_seconds(failures) if failures else 0)

    @property
    def _can_send(self) -> bool:
        return self._channel is not None and not self._stale and self._link.is_up

    async def _wait_until_open(self) -> None:
        deadline = time.monotonic() + self._timeout
        while not self._can_send:
            left = deadline - time.monotonic()
            if left <= 0:
                raise Unconfirmed(f"the broker accepted no publish for {self._timeout:g} s; nothing was sent")
            try:
                # A new channel wakes this; the end of a connection.blocked is polled.
                await asyncio.wait_for(self._opened.wait(), min(left, 0.5))
            except TimeoutError:
                continue
            if not self._can_send:
                await asyncio.sleep(min(left, 0.1))

    def _send(self, publication: Publication) -> asyncio.Future[None]:
        confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        user = self._link.user if publication.signed else None
        try:
            frames = publish_frames(self._channel.channel_number, publication, user, self._frame_max)
        except ValueError as error:
            confirmed.set_exception(Unconfirmed(f"not sent: {error}"))
            return confirmed
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self._write)
        self._unsent.append(frames)
        self._tag += 1
        self._pending[self._tag] = _Pending(publication, confirmed)
        return confirmed

    def _write(self) -> None:
        """Write what was published in this turn of the event loop; without a channel it stays unconfirmed."""
        unsent, self._unsent = self._unsent, []
        if unsent and self._connection is not None and self._channel is not None and self._channel.is_open:
            self._connection.write(b"".join(unsent))

    async def _open(self, channel: Any) -> asyncio.Future[BaseException]:  # noqa: ANN401 - pika ships no types
        """Switch the channel to confirms and use it; returns a future that is done when the channel closes."""
        closed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        selected: asyncio.Future[object] = asyncio.get_running_loop().create_future()

        def on_close(_channel: object, reason: BaseException) -> None:
            if self._channel is channel:
                self._fail_pending(reason)
                self._channel = None
                self._opened.clear()
            if not closed.done():
                closed.set_result(reason)

        channel.add_on_close_callback(on_close)
        channel.add_on_return_callback(self._on_return)
        try:
            channel.confirm_delivery(self._on_confirm, callback=selected.set_result)
        except pika.exceptions.AMQPError as error:
            raise ConnectionError(error_text(error)) from error
        await asyncio.wait((selected, closed), timeout=self._timeout, return_when=asyncio.FIRST_COMPLETED)
        if not selected.done():
            raise ConnectionError("the broker did not enable confirms on the channel")
        self._tag = 0
        self._stale = False
        self._channel = channel
        self._opened.set()
        return closed

    async def _watch(self, channel: Any, closed: asyncio.Future[BaseException]) -> None:  # noqa: ANN401
        """Wait until the channel closes; close it when a confirm is overdue, as a late confirm must not answer another publish."""
        while not closed.done():
            await asyncio.wait((closed,), timeout=min(1.0, self._timeout / 4))
            oldest = next(iter(self._pending.values()), None)
            if oldest is not None and time.monotonic() - oldest.since > self._timeout:
                self._fail_all(lambda: Unconfirmed(f"no confirm within {self._timeout:g} s; it may have arrived"))
                if channel.is_open:
                    channel.close()
                raise ConnectionError("confirms are overdue")
        if not self._stale:
            raise ConnectionError(f"the channel was closed: {error_text(closed.result())}")

    def _on_confirm(self, frame: Any) -> None:  # noqa: ANN401 - pika ships no types
        method = frame.method
        refused = isinstance(method, pika.spec.Basic.Nack)
        tags = [method.delivery_tag]
        if method.multiple:
            tags = [tag for tag in self._pending if tag <= method.delivery_tag]
        # RabbitMQ 3.10 keeps refusing on a channel once it has refused there, even when the queue has room again.
        self._stale = self._stale or refused
        for tag in tags:
            self._settle(
                tag, Refused("the broker refused the message: a queue is full or unavailable") if refused else None
            )
        if self._stale and not self._pending and self._channel is not None and self._channel.is_open:
            self._channel.close()

    def _on_return(self, _channel: object, method: Any, properties: Any, _body: bytes) -> None:  # noqa: ANN401
        self._returned[properties.message_id or ""] = f"{method.reply_text} ({method.exchange}, {method.routing_key})"

    def _settle(self, tag: int, error: PublishError | None) -> None:
        pending = self._pending.pop(tag, None)
        if pending is None:
            return
        if self._returned and error is None:
            reason = self._returned.pop(pending.publication.message.message_id or "", None)
            error = Unroutable(f"no queue is bound for the message: {reason}") if reason else None
        if pending.confirmed.done():
            return
        if error is None:
            pending.confirmed.set_result(None)
        else:
            pending.confirmed.set_exception(error)

    def _fail_pending(self, reason: BaseException) -> None:
        """Fail every pending publish with the reason: its own for the one that closed the channel, Unconfirmed for the others."""
        code, text = getattr(reason, "reply_code", 0), error_text(reason)
        for tag, pending in list(self._pending.items()):
            error: PublishError = Unconfirmed(f"the channel closed before the confirm: {text}")
            if f"'{pending.publication.exchange or 'amq.default'}'" in text:
                if code == _NOT_FOUND:
                    error = Unroutable(text)
                elif code == _ACCESS_REFUSED:
                    error = Refused(text)
            self._settle(tag, error)
        self._discard_unsent()

    def _fail_all(self, make: Any) -> None:  # noqa: ANN401 - a factory of errors
        for tag in list(self._pending):
            self._settle(tag, make())
        self._discard_unsent()

    def _discard_unsent(self) -> None:
        """Discard what belongs to the closed channel, so that nothing of it is sent on the next one."""
        self._unsent.clear()
        self._returned.clear()

    def _forget_channel(self, why: str) -> None:
        self._channel = None
        self._opened.clear()
        self._fail_all(lambda: Unconfirmed(f"the channel closed before the confirm: {why}"))
