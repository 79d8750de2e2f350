"""The frames that the codec writes are those that py-amqp writes."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from amqp.basic_message import Message as PeerMessage
from amqp.method_framing import frame_writer
from amqp.serialization import dumps, loads
from pika.data import decode_table

import wch_common.broker.codec.read  # noqa: F401 - reads floats
from wch_common.broker.codec.write import _table, publish_frames
from wch_common.contract.message import Message, Publication

FRAME_MAX = 4096
MESSAGES = [
    Message(b'{"a": 1}', "application/cloudevents+json", None, "7d0c"),
    Message(b"", "text/plain", None, None),
    Message(b"x" * 20_000, "text/plain", "gzip", "Grüße", {"wch-attempt": 2, "a": {"b": [1, "c"]}, "t": True}),
    Message(b"x" * (FRAME_MAX - 8), None, None, "1"),
]


class Peer:
    """The parts of a connection and a transport that py-amqp's writer needs."""

    frame_max = FRAME_MAX
    bytes_sent = 0

    def __init__(self) -> None:
        self.written = b""

    def write(self, data: Any) -> None:
        """Keep a copy, because py-amqp reuses its buffer."""
        self.written += bytes(data)


def by_py_amqp(message: Message, user: str | None, *, mandatory: bool) -> bytes:
    peer = Peer()
    given = {
        "content_type": message.content_type, "content_encoding": message.content_encoding, "user_id": user,
        "application_headers": message.headers or None, "message_id": message.message_id, "delivery_mode": 2,
    }  # fmt: skip
    content = PeerMessage(message.body, **{name: value for name, value in given.items() if value is not None})
    arguments = dumps("Bssbb", (0, "wch.requests", "demo.thing.requested.v1", mandatory, False))
    frame_writer(peer, peer)(1, 7, (60, 40), arguments, content)
    return peer.written


@pytest.mark.parametrize("message", MESSAGES)
@pytest.mark.parametrize("mandatory", [True, False])
@pytest.mark.parametrize("user", ["shop", None])
def test_every_frame_is_what_py_amqp_writes(message: Message, mandatory: bool, user: str | None) -> None:
    publication = Publication("wch.requests", "demo.thing.requested.v1", message, mandatory=mandatory)
    written = publish_frames(7, publication, user, FRAME_MAX)
    assert written == by_py_amqp(message, user, mandatory=mandatory)


def test_a_name_too_long_for_amqp_is_refused() -> None:
    with pytest.raises(ValueError, match="255 bytes"):
        publish_frames(1, Publication("e", "k", Message(b"", None, None, "ü" * 200)), None, FRAME_MAX)


HEADERS: list[tuple[Any, Any]] = [
    ({"a": True, "b": 1, "c": -(2**31), "d": 2**31, "e": -(2**63)}, None),
    ({"f": 1.5, "g": -0.0, "h": None, "i": "Grüße", "j": b"\xff"}, None),
    ({"k": [1, [2.5, {"l": [None]}], "m"], "n": {}, "o": []}, None),
    ({"p": Decimal("1.25"), "q": Decimal(7)}, None),
    ({"s": 2**64}, {"s": str(2**64)}),
    ({"t": (1, 2)}, {"t": [1, 2]}),
]


@pytest.mark.parametrize(("headers", "read"), HEADERS)
def test_both_libraries_read_headers_unchanged(headers: Any, read: Any) -> None:
    encoded = _table(headers)
    assert decode_table(encoded, 0) == (read or headers, len(encoded))
    (by_py_amqp,), _ = loads("F", encoded, 0)
    assert by_py_amqp == (read or headers)


@pytest.mark.parametrize("zone", [UTC, None])
def test_a_time_without_an_offset_is_utc(zone: Any) -> None:
    """Return the value that py-amqp reads."""
    encoded = _table({"at": datetime(2026, 1, 1, tzinfo=zone)})
    assert decode_table(encoded, 0)[0] == {"at": datetime(2026, 1, 1, tzinfo=UTC)}


@pytest.mark.parametrize("value", [object(), {1, 2}, [object()]])
def test_a_header_that_amqp_cannot_carry_is_refused_by_name(value: Any) -> None:
    with pytest.raises(ValueError, match="'odd'"):
        publish_frames(1, Publication("e", "k", Message(b"", headers={"odd": value})), None, FRAME_MAX)
