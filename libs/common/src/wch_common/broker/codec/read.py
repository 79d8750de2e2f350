"""Reads deliveries straight from a connection's bytes (AMQP 0-9-1, §2.3.5 and §4.2; RabbitMQ's field types).

pika decodes a delivery as three frames with objects for each, which cost a third of an event's CPU time.
"""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from wch_common.contract.message import Message

if TYPE_CHECKING:
    from wch_common.contract.message import HeaderValue

_METHOD = struct.Struct(">BHIIB").unpack_from
_HEADER = struct.Struct(">BBHIHHQH").unpack_from
_BODY = struct.Struct(">BBHI").unpack_from
_SIZE = struct.Struct(">I").unpack_from
_NUMBER = struct.Struct(">Q").unpack_from
_METHOD_FRAME, _HEADER_FRAME, _BODY_FRAME, _END = 1, 2, 3, 0xCE
_DELIVER, _BASIC = 0x003C003C, 60
_CONTENT_TYPE, _CONTENT_ENCODING, _HEADERS, _DELIVERY_MODE, _MESSAGE_ID, _USER_ID = (
    1 << bit for bit in (15, 14, 13, 12, 7, 4)
)
_READ_HERE = _CONTENT_TYPE | _CONTENT_ENCODING | _HEADERS | _DELIVERY_MODE | _MESSAGE_ID | _USER_ID
_SIGNED = struct.Struct(">i").unpack_from
# Field types of a fixed size, with the signedness that RabbitMQ gives them.
_FIXED = {
    kind: struct.Struct(f">{form}")
    for kind, form in (
        (b"b", "b"), (b"B", "B"), (b"U", "h"), (b"s", "h"), (b"u", "H"), (b"I", "i"), (b"i", "I"),
        (b"L", "q"), (b"l", "q"), (b"f", "f"), (b"d", "d"),
    )
}  # fmt: skip
_SIZED = frozenset({b"S", b"x", b"A", b"F"})
_DEEPEST = 32


class Arrival(NamedTuple):
    """One delivery as received, settled by its `tag`; the message's `user` was checked by the broker."""

    tag: int
    redelivered: bool
    exchange: str
    routing_key: str
    message: Message


def read_delivery(data: bytes, start: int) -> tuple[int, int, bytes, Arrival] | None:
    """Return where the delivery at `start` ends, its channel, its consumer and the delivery itself.

    None for any other frame, and for a delivery that is incomplete, has several body frames or rare properties: pika
    decodes those.
    """
    try:
        kind, channel, size, method, length = _METHOD(data, start)
        if kind != _METHOD_FRAME or method != _DELIVER:
            return None
        header = start + 7 + size
        end_of_method, kind, _, size, class_, _, body_size, flags = _HEADER(data, header)
        if (end_of_method, kind, class_) != (_END, _HEADER_FRAME, _BASIC) or flags & ~_READ_HERE:
            return None
        body = header + 8 + size
        end = body
        if body_size:
            _, kind, _, size = _BODY(data, body)
            body += 8
            end = body + size
            if kind != _BODY_FRAME or size != body_size:
                return None
        if data[end] != _END:
            return None
        message = _message(data, header + 22, flags, data[body:end])
    except (struct.error, IndexError, ValueError):
        return None
    consumer_ends = start + 12 + length
    (tag,) = _NUMBER(data, consumer_ends)
    redelivered, exchange, routing_key = _route(data[consumer_ends + 8 : header])
    arrival = Arrival(tag, redelivered, exchange, routing_key, message)
    return end + 1, channel, data[start + 12 : consumer_ends], arrival


def frame_bytes(data: bytes, start: int) -> bytes:
    """Return the frame at `start`, possibly incomplete. Slicing one frame at a time avoids copying the buffer for each."""
    return data[start : start + 8 + _SIZE(data, start + 3)[0]] if start + 7 <= len(data) else data[start:]


@lru_cache(maxsize=256)
def _route(encoded: bytes) -> tuple[bool, Any, Any]:
    """Return whether it is a redelivery, its exchange and its routing key; cached, as a queue sees few combinations.

    Another program may have published with a routing key that is not UTF-8, which stays bytes.
    """
    exchange, offset = _lenient_short(encoded, 1)
    routing_key, _ = _lenient_short(encoded, offset)
    return bool(encoded[0] & 1), exchange, routing_key


def _message(data: bytes, offset: int, flags: int, body: bytes) -> Message:
    """Return the message whose properties begin at `offset`, in the order of their flags, highest first."""
    message = Message(body)
    if flags & _CONTENT_TYPE:
        message.content_type, offset = _short(data, offset)
    if flags & _CONTENT_ENCODING:
        message.content_encoding, offset = _short(data, offset)
    if flags & _HEADERS:
        message.headers, offset = read_table(data, offset)
    if flags & _DELIVERY_MODE:
        offset += 1
    if flags & _MESSAGE_ID:
        message.message_id, offset = _short(data, offset)
    if flags & _USER_ID:
        message.user, offset = _short(data, offset)
    return message


def _short(data: bytes, offset: int) -> tuple[str, int]:
    end = offset + 1 + data[offset]
    return str(data[offset + 1 : end], "utf-8"), end


def _lenient_short(data: bytes, offset: int) -> tuple[str | bytes, int]:
    """Read a short string as text, or as bytes where it is not UTF-8, as pika does."""
    end = offset + 1 + data[offset]
    encoded = data[offset + 1 : end]
    try:
        return encoded.decode(), end
    except UnicodeDecodeError:
        return encoded, end


def read_table(data: bytes, offset: int, depth: int = 0) -> tuple[dict[Any, HeaderValue], int]:
    """Return the field table at `offset` and where it ends."""
    end = offset + 4 + _SIZE(data, offset)[0]
    offset += 4
    table: dict[Any, HeaderValue] = {}
    while offset < end:
        key, offset = _lenient_short(data, offset)
        table[key], offset = read_value(data, offset, depth)
    return table, offset


def read_value(data: bytes, offset: int, depth: int = 0) -> tuple[Any, int]:
    """Return the field value at `offset` and where it ends; raises ValueError for a type RabbitMQ does not define.

    Deeper than 32 nested tables and arrays the value is None, and a timestamp beyond the year 9999 is its number:
    many programs write milliseconds where AMQP counts seconds. pika raises on both, which closes the connection of
    every queue again at each redelivery; it also truncates floats to integers.
    """
    kind = data[offset : offset + 1]
    offset += 1
    if (fixed := _FIXED.get(kind)) is not None:
        return fixed.unpack_from(data, offset)[0], offset + fixed.size
    if kind == b"V":
        return None, offset
    if kind == b"t":
        return data[offset] != 0, offset + 1
    if kind == b"T":
        return _timestamp(_NUMBER(data, offset)[0]), offset + 8
    if kind == b"D":
        return Decimal(_SIGNED(data, offset + 1)[0]).scaleb(-data[offset]), offset + 5
    if kind not in _SIZED:
        raise ValueError(f"unknown AMQP field type {kind!r}")
    end = offset + 4 + _SIZE(data, offset)[0]
    return _sized(kind, data, offset, end, depth), end


def _sized(kind: bytes, data: bytes, offset: int, end: int, depth: int) -> HeaderValue:
    """Return a value that begins with its length: text, bytes, an array or a table."""
    content = data[offset + 4 : end]
    if kind == b"x":
        return content
    if kind == b"S":
        try:
            return content.decode()
        except UnicodeDecodeError:
            return content
    if depth == _DEEPEST:
        return None
    if kind == b"F":
        return read_table(data, offset, depth + 1)[0]
    values, offset = [], offset + 4
    while offset < end:
        value, offset = read_value(data, offset, depth + 1)
        values.append(value)
    return values


def _timestamp(seconds: int) -> Any:  # noqa: ANN401 - a datetime, or a number that is none
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return seconds
