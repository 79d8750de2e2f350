"""One AMQP connection, and a link that makes it again whenever it breaks."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from typing import TYPE_CHECKING, Any

import pika
import pika.exceptions
import structlog
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.frame import decode_frame

from wch_common.engine.reading import frame_bytes, read_delivery
from wch_common.redact import error_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from wch_common.engine.reading import Arrival

log = structlog.get_logger(__name__)

_MOST_READ_AT_ONCE = 64 * 1024
_CLOSE_SECONDS = 5.0
_FIRST_BACKOFF_SECONDS = 0.2
_LAST_BACKOFF_SECONDS = 5.0


def backoff_seconds(failures: int, draw: Callable[[], float] = random.random) -> float:
    """Return how long to wait after so many failures in a row: doubling up to 5 s, with a random quarter off."""
    longest = min(_FIRST_BACKOFF_SECONDS * 2.0 ** min(failures, 10), _LAST_BACKOFF_SECONDS)
    return longest * (0.75 + 0.25 * draw())


class FastConnection(AsyncioConnection):  # type: ignore[misc] # pika ships no types
    """pika's connection, which hands the deliveries of known consumers to their takers without making frames of them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - pika's
        self.takers: dict[tuple[int, bytes], Callable[[Arrival], None]] = {}
        super().__init__(*args, **kwargs)

    def _proto_connection_made(self, transport: Any) -> None:  # noqa: ANN401 - pika's
        # pika reads 4 KB at a time: one delivery of eight in two pieces, and a system call for each eight.
        transport._MAX_RECV_BYTES = _MOST_READ_AT_ONCE  # noqa: SLF001 - pika has no setting for it
        super()._proto_connection_made(transport)

    def _on_data_available(self, data_in: bytes) -> None:
        data: bytes = self._frame_buffer + data_in
        start = 0
        while start < len(data):
            found = read_delivery(data, start)
            if found and (take := self.takers.get(found[1:3])):
                start = found[0]
                take(found[3])
                continue
            length, frame = decode_frame(frame_bytes(data, start))
            if frame is None:
                break
            start += length
            self._process_frame(frame)
        self._frame_buffer: bytes = data[start:]
        self.bytes_received += start


class Connection:
    """An open AMQP connection on the running loop; `closed` is done with the reason once it is gone."""

    def __init__(self, connection: FastConnection) -> None:
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
        opened: asyncio.Future[FastConnection] = asyncio.get_running_loop().create_future()

        def on_done(result: FastConnection | BaseException) -> None:
            if opened.done():
                if not isinstance(result, BaseException):
                    result.close()
            elif isinstance(result, BaseException):
                opened.set_exception(ConnectionError(_connect_problem(result)))
            else:
                opened.set_result(result)

        parameters = [_parameters(one, name) for one in url.split(";")]
        FastConnection.create_connection(parameters, on_done, custom_ioloop=asyncio.get_running_loop())
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

    def hand_deliveries(self, channel: int, consumer: str, take: Callable[[Arrival], None] | None) -> None:
        """Give a consumer's deliveries to `take` from now on, with None to its channel's callback, as pika does.

        The callback gets those that are rare all the same: in several frames, or with properties nobody here uses.
        """
        key = (channel, consumer.encode())
        if take is None:
            self._connection.takers.pop(key, None)
        else:
            self._connection.takers[key] = take

    @property
    def frame_max(self) -> int:
        """The most bytes of a frame, as agreed with the broker."""
        return int(self._connection.params.frame_max)

    def write(self, frames: bytes) -> None:
        """Send whole frames of a channel that is open."""
        self._connection._output_marshaled_frames([frames])  # noqa: SLF001 - pika writes its own kinds of frames only

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
