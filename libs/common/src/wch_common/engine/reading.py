"""Deliveries read straight from a connection's bytes (AMQP 0-9-1, §2.3.5 and §4.2).

pika reads a delivery as three frames, each into objects of its own; that was a third of an event's CPU.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any, NamedTuple

import pika.data
from pika.data import decode_short_string, decode_table

from wch_common.message import Message

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


class Arrival(NamedTuple):
    """One delivery as it came over the wire, to be settled by its `tag`; the message's user is who the broker checked."""

    tag: int
    redelivered: bool
    exchange: str
    routing_key: str
    message: Message


def read_delivery(data: bytes, start: int) -> tuple[int, int, bytes, Arrival] | None:
    """Return where the delivery at `start` ends, its channel, its consumer and itself.

    None where it is something else, is not all there yet, comes in many pieces or has rare properties: pika reads that.
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
    except (struct.error, IndexError, UnicodeDecodeError):
        return None
    consumer_ends = start + 12 + length
    (tag,) = _NUMBER(data, consumer_ends)
    redelivered, exchange, routing_key = _route(data[consumer_ends + 8 : header])
    arrival = Arrival(tag, redelivered, exchange, routing_key, message)
    return end + 1, channel, data[start + 12 : consumer_ends], arrival


def frame_bytes(data: bytes, start: int) -> bytes:
    """Return the frame at `start`, or as much of it as there is; of many small ones no one takes a copy of all others."""
    return data[start : start + 8 + _SIZE(data, start + 3)[0]] if start + 7 <= len(data) else data[start:]


@lru_cache(maxsize=256)
def _route(encoded: bytes) -> tuple[bool, str, str]:
    """Return whether it is a redelivery, its exchange and its routing key; a queue sees the same few again and again."""
    exchange, offset = decode_short_string(encoded, 1)
    routing_key, _ = decode_short_string(encoded, offset)
    return bool(encoded[0] & 1), exchange, routing_key


def _message(data: bytes, offset: int, flags: int, body: bytes) -> Message:
    """Return the message whose properties begin at the offset, in the order of their flags, highest first."""
    message = Message(body)
    if flags & _CONTENT_TYPE:
        message.content_type, offset = _short(data, offset)
    if flags & _CONTENT_ENCODING:
        message.content_encoding, offset = _short(data, offset)
    if flags & _HEADERS:
        message.headers, offset = decode_table(data, offset)
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


_decode_value = pika.data.decode_value
_FLOATS = {b"d": (struct.Struct(">d").unpack_from, 9), b"f": (struct.Struct(">f").unpack_from, 5)}
_DEEPEST = 32
_depth = 0


def _tolerant_decode_value(encoded: bytes, offset: int) -> tuple[Any, int]:
    """Decode a header value as pika does, but floats as they are, a timestamp beyond the year 9999 as its number, and None deep down.

    pika cuts floats off. It raises on milliseconds, which many programs write where AMQP counts seconds, and on tables in tables in
    tables; that ends the connection of every queue of the process, again at each redelivery.
    """
    global _depth  # noqa: PLW0603 - pika's decoder has no place for it, and never waits
    kind = encoded[offset : offset + 1]
    if kind in _FLOATS:
        read, length = _FLOATS[kind]
        return read(encoded, offset + 1)[0], offset + length
    if kind in b"FA" and _depth == _DEEPEST:
        return None, offset + 5 + int.from_bytes(encoded[offset + 1 : offset + 5], "big")
    _depth += 1
    try:
        value, end = _decode_value(encoded, offset)
    except (ValueError, OverflowError, OSError):
        if kind != b"T":
            raise
        return int.from_bytes(encoded[offset + 1 : offset + 9], "big"), offset + 9
    finally:
        _depth -= 1
    return value, end


pika.data.decode_value = _tolerant_decode_value
