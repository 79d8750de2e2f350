"""Every private name of pika that we use, in one place; importing it fails with one sentence where pika changed.

pika has no public API for these three needs: deliveries without frame objects, several publishes in one write, and an
abort. Its version is pinned below the next minor release (pyproject.toml), where private names may change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pika
import pika.data
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.adapters.utils import io_services_utils
from pika.channel import Channel
from pika.frame import decode_frame

from wch_common.broker.codec.read import frame_bytes, read_delivery, read_value

if TYPE_CHECKING:
    from collections.abc import Callable

    from wch_common.broker.codec.read import Arrival

# pika's 4 KB would split one delivery of eight, with a system call for every eight.
_READ_BYTES = 64 * 1024


def _require_private_names() -> None:
    """Raise ImportError, naming what is missing, where this pika is not built as the one we know."""
    needed: tuple[tuple[Any, tuple[str, ...]], ...] = (
        (
            AsyncioConnection,
            ("_proto_connection_made", "_on_data_available", "_process_frame", "_output_marshaled_frames"),
        ),
        (io_services_utils, ("_AsyncPlaintextTransport", "_AsyncSSLTransport")),
        (Channel, ("basic_reject",)),
        (pika.data, ("decode_value",)),
    )
    transports = [getattr(io_services_utils, name, None) for name in ("_AsyncPlaintextTransport", "_AsyncSSLTransport")]
    needed += tuple((transport, ("_MAX_RECV_BYTES", "abort")) for transport in transports if transport is not None)
    missing = [f"{owner.__name__}.{name}" for owner, names in needed for name in names if not hasattr(owner, name)]
    if missing:
        raise ImportError(
            f"pika {pika.__version__} has no {', '.join(missing)}, which wch_common needs: install pika 1.4 (wch-common[service])"
        )


_require_private_names()
# For the rare deliveries that pika decodes itself: its own decoder raises on values that real programs send.
pika.data.decode_value = read_value


class DispatchingConnection(AsyncioConnection):  # type: ignore[misc] # pika ships no types
    """pika's connection, which passes deliveries of known consumers to their receivers without building frames."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - pika's
        self.receivers: dict[tuple[int, bytes], Callable[[Arrival], None]] = {}
        super().__init__(*args, **kwargs)

    def _proto_connection_made(self, transport: Any) -> None:  # noqa: ANN401 - pika's
        transport._MAX_RECV_BYTES = _READ_BYTES  # noqa: SLF001 - pika has no setting for it
        super()._proto_connection_made(transport)

    def _on_data_available(self, data_in: bytes) -> None:
        data: bytes = self._frame_buffer + data_in
        start = 0
        while start < len(data):
            found = read_delivery(data, start)
            if found and (receive := self.receivers.get(found[1:3])):
                start = found[0]
                receive(found[3])
                continue
            length, frame = decode_frame(frame_bytes(data, start))
            if frame is None:
                break
            start += length
            self._process_frame(frame)
        self._frame_buffer: bytes = data[start:]
        self.bytes_received += start


def write_frames(connection: AsyncioConnection, frames: bytes) -> None:
    """Send encoded frames; pika's public API encodes and sends one message at a time."""
    connection._output_marshaled_frames([frames])  # noqa: SLF001


def abort(connection: AsyncioConnection) -> None:
    """Cut the connection without AMQP's closing handshake."""
    transport = connection._transport  # noqa: SLF001
    if transport is not None:
        transport.abort()


def nack_instead_of_reject(channel: Any, nack: Callable[[int, bool], None]) -> None:  # noqa: ANN401
    """Make pika return late deliveries of a cancelled consumer by `nack(tag, requeue)`.

    pika rejects them, which RabbitMQ counts as failed deliveries.
    """
    channel.basic_reject = lambda delivery_tag=0, requeue=True: nack(delivery_tag, requeue)
