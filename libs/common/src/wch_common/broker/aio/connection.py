"""One AMQP connection, and a link that reconnects whenever it breaks."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

import pika
import pika.exceptions
import structlog

from wch_common.backoff import backoff_seconds
from wch_common.broker.aio.pika_inside import DispatchingConnection, abort, write_frames
from wch_common.observability.redact import error_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from wch_common.broker.codec.read import Arrival

log = structlog.get_logger(__name__)

_CLOSE_SECONDS = 5.0


class Connection:
    """An open AMQP connection on the running loop; `closed` is done with the reason once it is gone."""

    def __init__(self, connection: DispatchingConnection) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[BaseException] = self._loop.create_future()
        self.blocked = False
        connection.add_on_close_callback(self._on_close)
        connection.add_on_connection_blocked_callback(lambda *_: self._set_blocked(blocked=True))
        connection.add_on_connection_unblocked_callback(lambda *_: self._set_blocked(blocked=False))

    @classmethod
    async def open(cls, url: str, name: str) -> Connection:
        """Connect; raises ConnectionError with the reason, without the password."""
        opened: asyncio.Future[DispatchingConnection] = asyncio.get_running_loop().create_future()

        def on_done(result: DispatchingConnection | BaseException) -> None:
            if opened.done():
                if not isinstance(result, BaseException):
                    result.close()
            elif isinstance(result, BaseException):
                opened.set_exception(ConnectionError(_connect_problem(result)))
            else:
                opened.set_result(result)

        parameters = [_parameters(one, name) for one in url.split(";")]
        DispatchingConnection.create_connection(parameters, on_done, custom_ioloop=asyncio.get_running_loop())
        return cls(await opened)

    @property
    def is_open(self) -> bool:
        """Whether the connection can be used."""
        return not self.closed.done()

    async def lost(self) -> BaseException:
        """Wait for the connection's end and return the reason; a cancelled waiter does not cancel `closed`."""
        await asyncio.wait((self.closed,))
        return self.closed.result()

    async def channel(self) -> Any:  # noqa: ANN401 - pika ships no types
        """Open a channel; raises ConnectionError if the connection breaks meanwhile."""
        opened: asyncio.Future[Any] = self._loop.create_future()
        try:
            self._connection.channel(
                on_open_callback=lambda channel: None if opened.done() else opened.set_result(channel)
            )
        except pika.exceptions.AMQPError as error:
            raise ConnectionError(error_text(error)) from error
        await asyncio.wait((opened, self.closed), return_when=asyncio.FIRST_COMPLETED)
        if not opened.done():
            raise ConnectionError(f"the connection broke: {error_text(self.closed.result())}")
        return opened.result()

    def dispatch(self, channel: int, consumer: str, receive: Callable[[Arrival], None] | None) -> None:
        """Pass a consumer's deliveries to `receive` from now on; with None, to its channel's callback, as pika does.

        The callback still gets the rare ones: deliveries in several body frames, or with properties we do not use.
        """
        key = (channel, consumer.encode())
        if receive is None:
            self._connection.receivers.pop(key, None)
        else:
            self._connection.receivers[key] = receive

    @property
    def frame_max(self) -> int:
        """The largest frame in bytes, as negotiated with the broker."""
        return int(self._connection.params.frame_max)

    def write(self, frames: bytes) -> None:
        """Send complete frames of an open channel."""
        write_frames(self._connection, frames)

    async def close(self) -> None:
        """Close the connection; drop it after 5 s without an answer, as a blocked connection never answers."""
        if self.is_open:
            with contextlib.suppress(pika.exceptions.AMQPError):
                self._connection.close()
            await asyncio.wait((self.closed,), timeout=_CLOSE_SECONDS)
        self.drop()

    def drop(self) -> None:
        """Cut the connection without closing it, as a crash would."""
        if self.is_open:
            abort(self._connection)

    def _set_blocked(self, *, blocked: bool) -> None:
        self.blocked = blocked
        log.warning("broker_blocked_publishing" if blocked else "broker_unblocked_publishing")

    def _on_close(self, _connection: object, reason: BaseException) -> None:
        if not self.closed.done():
            self.closed.set_result(reason)


class Link:
    """Keeps one connection up: reconnects with back-off whenever it breaks, until closed."""

    def __init__(self, url: str, name: str) -> None:
        self._url = url
        self._name = name
        self._connection: Connection | None = None
        self._changed = asyncio.Event()
        self._closing = False
        self.user: str = pika.URLParameters(url.partition(";")[0]).credentials.username
        """The AMQP user, in whose name signed events are published."""
        self.down_since: float | None = time.monotonic()

    async def run(self) -> None:
        """Connect and reconnect until `close`."""
        failures = 0
        while not self._closing:
            try:
                connection = await Connection.open(self._url, self._name)
            except ConnectionError as error:
                failures += 1
                log.warning("broker_unreachable", connection=self._name, failures=failures, error=error_text(error))
            else:
                failures = 0
                self._set(connection)
                reason = await connection.lost()
                self._set(None)
                if not self._closing:
                    log.warning("broker_connection_lost", connection=self._name, reason=error_text(reason))
            if not self._closing:
                await asyncio.sleep(backoff_seconds(failures))

    def _set(self, connection: Connection | None) -> None:
        self._connection = connection
        self.down_since = None if connection else time.monotonic()
        self._changed.set()
        self._changed = asyncio.Event()

    async def connected(self) -> Connection:
        """Wait until there is an open connection."""
        while self._connection is None:
            await self._changed.wait()
        return self._connection

    @property
    def is_up(self) -> bool:
        """Whether there is a connection and the broker does not block it."""
        return self._connection is not None and not self._connection.blocked

    async def close(self) -> None:
        """Close the connection and end `run`."""
        self._closing = True
        if self._connection is not None:
            await self._connection.close()

    def drop(self) -> None:
        """Cut the connection, as a network failure would; for tests."""
        if self._connection is not None:
            self._connection.drop()


def _parameters(url: str, name: str) -> pika.URLParameters:
    parameters = pika.URLParameters(url)
    parameters.client_properties = {"connection_name": name, "product": "WCH Jobs"}
    parameters.heartbeat = parameters.heartbeat or 30
    parameters.connection_attempts = 1
    parameters.socket_timeout = 5
    parameters.stack_timeout = 10
    return parameters


def _connect_problem(error: BaseException) -> str:
    """Return the innermost reason why connecting failed; pika wraps it several times."""
    while True:
        inner = getattr(error, "exceptions", None) or getattr(error, "exception", None)
        inner = inner[-1] if isinstance(inner, (list, tuple)) else inner
        if not isinstance(inner, BaseException):
            return f"{type(error).__name__}: {error_text(error)}"
        error = inner
