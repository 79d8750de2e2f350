"""One AMQP connection, and a link that makes it again whenever it breaks."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from typing import TYPE_CHECKING, Any

import pika
import pika.data
import pika.exceptions
import structlog
from pika.adapters.asyncio_connection import AsyncioConnection

from wch_common.redact import error_text

if TYPE_CHECKING:
    from collections.abc import Callable

log = structlog.get_logger(__name__)

_CONTENT = frozenset({pika.spec.FRAME_HEADER, pika.spec.FRAME_BODY})
_CLOSE_SECONDS = 5.0
_FIRST_BACKOFF_SECONDS = 0.2
_LAST_BACKOFF_SECONDS = 5.0


def backoff_seconds(failures: int, draw: Callable[[], float] = random.random) -> float:
    """Return how long to wait after so many failures in a row: doubling up to 5 s, with a random quarter off."""
    longest = min(_FIRST_BACKOFF_SECONDS * 2.0 ** min(failures, 10), _LAST_BACKOFF_SECONDS)
    return longest * (0.75 + 0.25 * draw())


class _PikaConnection(AsyncioConnection):  # type: ignore[misc] # pika ships no types
    """pika's connection, which hands deliveries to their channel at once.

    For every frame pika looks for callbacks on the connection, in two dictionaries by the names of things; deliveries, three
    frames each, never have any: 12 % of the CPU of an event.
    """

    def _process_frame(self, frame_value: Any) -> None:  # noqa: ANN401 - pika's
        if frame_value.frame_type in _CONTENT or (
            frame_value.frame_type == pika.spec.FRAME_METHOD and type(frame_value.method) is pika.spec.Basic.Deliver
        ):
            self.frames_received += 1
            self._deliver_frame_to_channel(frame_value)
        else:
            super()._process_frame(frame_value)


class Connection:
    """An open AMQP connection on the running loop; `closed` is done with the reason once it is gone."""

    def __init__(self, connection: AsyncioConnection) -> None:
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
        opened: asyncio.Future[AsyncioConnection] = asyncio.get_running_loop().create_future()

        def on_done(result: AsyncioConnection | BaseException) -> None:
            if opened.done():
                if not isinstance(result, BaseException):
                    result.close()
            elif isinstance(result, BaseException):
                opened.set_exception(ConnectionError(_connect_problem(result)))
            else:
                opened.set_result(result)

        parameters = [_parameters(one, name) for one in url.split(";")]
        _PikaConnection.create_connection(parameters, on_done, custom_ioloop=asyncio.get_running_loop())
        return cls(await opened)

    @property
    def is_open(self) -> bool:
        """Whether it can be used."""
        return not self.closed.done()

    async def lost(self) -> BaseException:
        """Wait for the connection's end and return the reason; a cancelled waiter does not cancel `closed`."""
        await asyncio.wait((self.closed,))
        return self.closed.result()

    async def channel(self) -> Any:  # noqa: ANN401 - pika ships no types
        """Open a channel; raises ConnectionError where the connection breaks meanwhile."""
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

    async def close(self) -> None:
        """Close in order; after 5 seconds without an answer (a blocked connection never answers) it is dropped."""
        if self.is_open:
            with contextlib.suppress(pika.exceptions.AMQPError):
                self._connection.close()
            await asyncio.wait((self.closed,), timeout=_CLOSE_SECONDS)
        self.drop()

    def drop(self) -> None:
        """Cut the connection without a word, as a crash would."""
        transport = self._connection._transport  # noqa: SLF001 - pika has no public way to abort
        if transport is not None and self.is_open:
            transport.abort()

    def _set_blocked(self, *, blocked: bool) -> None:
        self.blocked = blocked
        log.warning("broker_blocks_publishing" if blocked else "broker_takes_publishing_again")

    def _on_close(self, _connection: object, reason: BaseException) -> None:
        if not self.closed.done():
            self.closed.set_result(reason)


class Link:
    """Keeps one connection up: made again with back-off whenever it breaks, until closed."""

    def __init__(self, url: str, name: str) -> None:
        self._url = url
        self._name = name
        self._connection: Connection | None = None
        self._changed = asyncio.Event()
        self._closing = False
        self.user: str = pika.URLParameters(url.partition(";")[0]).credentials.username
        """Who signs what is published on it: the broker knows nobody else here."""
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
        """Cut the connection as a network would; for tests of what happens then."""
        if self._connection is not None:
            self._connection.drop()


_decode_value = pika.data.decode_value


def _tolerant_decode_value(encoded: bytes, offset: int) -> tuple[Any, int]:
    """Decode a header value as pika does, and a timestamp beyond the year 9999 as its number.

    Many programs write milliseconds where AMQP counts seconds. pika raises on those, which ends the connection of every queue
    of the process, again at each redelivery.
    """
    try:
        value, end = _decode_value(encoded, offset)
    except (ValueError, OverflowError, OSError):
        if encoded[offset : offset + 1] != b"T":
            raise
        return int.from_bytes(encoded[offset + 1 : offset + 9], "big"), offset + 9
    return value, end


pika.data.decode_value = _tolerant_decode_value


def _parameters(url: str, name: str) -> pika.URLParameters:
    parameters = pika.URLParameters(url)
    parameters.client_properties = {"connection_name": name, "product": "WCH Jobs"}
    parameters.heartbeat = parameters.heartbeat or 30
    parameters.connection_attempts = 1
    parameters.socket_timeout = 5
    parameters.stack_timeout = 10
    return parameters


def _connect_problem(error: BaseException) -> str:
    """Return the innermost reason why a connection could not be made; pika wraps it several times."""
    while True:
        inner = getattr(error, "exceptions", None) or getattr(error, "exception", None)
        inner = inner[-1] if isinstance(inner, (list, tuple)) else inner
        if not isinstance(inner, BaseException):
            return f"{type(error).__name__}: {error_text(error)}"
        error = inner
