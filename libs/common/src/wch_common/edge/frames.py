"""The frames of a published message (AMQP 0-9-1, §2.3.5 and §4.2).

py-amqp writes each message by itself, in about 100 µs and a system call; these take 5 µs, and many go out together.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import TYPE_CHECKING

from amqp.serialization import dumps

if TYPE_CHECKING:
    from wch_common.message import Publication

_FRAME = struct.Struct(">BHI").pack
_CONTENT = struct.Struct(">HHQH").pack
_BASIC_PUBLISH = struct.pack(">HHH", 60, 40, 0)
_METHOD, _HEADER, _BODY, _END = 1, 2, 3, b"\xce"
_OVERHEAD = 8
_CONTENT_TYPE, _CONTENT_ENCODING, _HEADERS, _DELIVERY_MODE, _MESSAGE_ID, _USER_ID = (
    1 << bit for bit in (15, 14, 13, 12, 7, 4)
)
_PERSISTENT = b"\x02"


def publish_frames(channel: int, publication: Publication, user: str | None, frame_max: int) -> bytes:
    """Return a persistent message as the broker reads it, its body split where a frame would be too large.

    Raises ValueError where a name is longer than the 255 bytes AMQP has for it.
    """
    message = publication.message
    properties = _properties(publication, user)
    header = b"".join((_CONTENT(60, 0, len(message.body), properties[0]), *properties[1]))
    parts = [_method(channel, publication.exchange, publication.routing_key, publication.mandatory)]
    parts += [_FRAME(_HEADER, channel, len(header)), header, _END]
    room = frame_max - _OVERHEAD
    for start in range(0, len(message.body), room):
        piece = message.body[start : start + room]
        parts += [_FRAME(_BODY, channel, len(piece)), piece, _END]
    return b"".join(parts)


@lru_cache(maxsize=256)
def _method(channel: int, exchange: str, routing_key: str, mandatory: bool) -> bytes:  # noqa: FBT001 - AMQP's own argument
    payload = b"".join((_BASIC_PUBLISH, _short(exchange), _short(routing_key), b"\x01" if mandatory else b"\x00"))
    return b"".join((_FRAME(_METHOD, channel, len(payload)), payload, _END))


def _properties(publication: Publication, user: str | None) -> tuple[int, list[bytes]]:
    """Return which properties there are, and their values in the order of the flags, highest first."""
    message = publication.message
    flags, values = _DELIVERY_MODE, []
    for flag, text in ((_CONTENT_TYPE, message.content_type), (_CONTENT_ENCODING, message.content_encoding)):
        if text is not None:
            flags |= flag
            values.append(_short(text))
    if message.headers:
        flags |= _HEADERS
        values.append(dumps("F", [message.headers]))
    values.append(_PERSISTENT)
    for flag, text in ((_MESSAGE_ID, message.message_id), (_USER_ID, user)):
        if text:
            flags |= flag
            values.append(_short(text))
    return flags, values


def _short(text: str) -> bytes:
    encoded = text.encode()
    try:
        return bytes((len(encoded),)) + encoded
    except ValueError:
        raise ValueError(f"AMQP has 255 bytes for a name, this one needs {len(encoded)}: {text[:40]}…") from None
