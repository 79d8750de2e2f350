"""The codec reads the deliveries that pika reads, in whatever pieces the bytes arrive."""

from __future__ import annotations

import asyncio
import random
from itertools import pairwise
from typing import Any

import pika
import pytest
from pika.channel import ContentFrameAssembler
from pika.frame import Body, Header, Heartbeat, Method, decode_frame
from pika.spec import Basic

from wch_common.broker.aio.pika_inside import DispatchingConnection
from wch_common.broker.codec.read import Arrival, read_delivery

CONSUMER = "ctag1.7d0c"
PIECE = 4088
PLAIN: dict[str, Any] = {"content_type": "application/cloudevents+json", "delivery_mode": 2, "message_id": "7d0c"}
READ_HERE: list[tuple[dict[str, Any], bytes]] = [
    (PLAIN, b'{"a": 1}'),
    (PLAIN | {"user_id": "shop"}, b'{"a": 1}'),
    ({}, b""),
    ({}, b"x" * PIECE),
    ({"content_type": "Grüße", "content_encoding": "utf-8"}, b"\xce" * 30),
    (PLAIN | {"headers": {"wch-attempt": 2, "x-death": [{"count": 1, "reason": "expired"}], "t": True}}, b"1"),
    ({"headers": {}}, b"1"),
]
LEFT_TO_PIKA: list[tuple[dict[str, Any], bytes]] = [
    (PLAIN, b"x" * (PIECE + 1)),
    (PLAIN | {"priority": 1}, b"1"),
    (PLAIN | {"correlation_id": "c", "reply_to": "r", "expiration": "10", "timestamp": 9}, b"1"),
    (PLAIN | {"type": "t", "app_id": "a", "cluster_id": "c"}, b"1"),
    ({"message_id": b"\xff\xfe"}, b"1"),
]


def on_the_wire(properties: dict[str, Any], body: bytes, *, tag: int = 9, redelivered: bool = False) -> bytes:
    deliver = Basic.Deliver(CONSUMER, tag, redelivered, "wch.requests", "demo.thing.requested.v1")
    frames = [Method(7, deliver), Header(7, len(body), pika.BasicProperties(**properties))]
    frames += [Body(7, body[start : start + PIECE]) for start in range(0, len(body), PIECE)]
    return b"".join(frame.marshal() for frame in frames)


def by_pika(data: bytes) -> tuple[Any, Any, bytes]:
    content, assembler = None, ContentFrameAssembler()
    while data:
        length, frame = decode_frame(data)
        content, data = assembler.process(frame), data[length:]
    assert content is not None, "pika found no complete delivery"
    return content[0].method, content[1].properties, content[2]


@pytest.mark.parametrize(("properties", "body"), READ_HERE)
@pytest.mark.parametrize("redelivered", [True, False])
def test_a_delivery_is_what_pika_reads(properties: dict[str, Any], body: bytes, redelivered: bool) -> None:
    data = on_the_wire(properties, body, tag=2**40, redelivered=redelivered)
    found = read_delivery(b"before" + data + b"after", 6)
    assert found is not None
    end, channel, consumer, arrival = found
    assert (end, channel, consumer) == (6 + len(data), 7, CONSUMER.encode())
    method, read, whole = by_pika(data)
    assert arrival[:4] == (method.delivery_tag, method.redelivered, method.exchange, method.routing_key)
    message = arrival.message
    assert (message.body, message.headers) == (whole, read.headers or {})
    assert (message.content_type, message.content_encoding) == (read.content_type, read.content_encoding)
    assert (message.message_id, message.user) == (read.message_id, read.user_id)


@pytest.mark.parametrize(("properties", "body"), LEFT_TO_PIKA)
def test_rare_deliveries_are_left_to_pika(properties: dict[str, Any], body: bytes) -> None:
    assert read_delivery(on_the_wire(properties, body), 0) is None


@pytest.mark.parametrize("other", [Heartbeat(), Method(7, Basic.Ack(3)), Method(7, Basic.ConsumeOk("c"))])
def test_other_frames_are_left_to_pika(other: Any) -> None:
    assert read_delivery(other.marshal() + on_the_wire(PLAIN, b"1"), 0) is None


@pytest.mark.parametrize(("properties", "body"), READ_HERE)
def test_an_incomplete_delivery_is_not_read(properties: dict[str, Any], body: bytes) -> None:
    data = on_the_wire(properties, body)
    assert [length for length in range(len(data)) if read_delivery(data[:length], 0)] == []


def test_a_frame_without_its_end_is_left_to_pika() -> None:
    data = on_the_wire(PLAIN, b"1")
    assert read_delivery(data[:-1] + b"\x00", 0) is None


class Watched(DispatchingConnection):
    """Keeps the bodies in their order of arrival, read by the codec or from pika's frames."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(pika.ConnectionParameters(), custom_ioloop=loop, internal_connection_workflow=False)
        self.assembler = ContentFrameAssembler()
        self.bodies: list[bytes] = []
        self.others = self.read_here = 0
        self.receivers[7, CONSUMER.encode()] = self.take

    def take(self, arrival: Arrival) -> None:
        self.read_here += 1
        self.bodies.append(arrival.message.body)

    def _process_frame(self, frame_value: Any) -> None:
        if isinstance(frame_value, Heartbeat):
            self.others += 1
        elif (content := self.assembler.process(frame_value)) is not None:
            self.bodies.append(content[2])


@pytest.mark.parametrize("seed", range(10))
def test_however_the_bytes_are_split_each_delivery_arrives_once_and_in_order(seed: int) -> None:
    draw = random.Random(seed)
    kinds = [draw.choice(READ_HERE[:2] + LEFT_TO_PIKA[:2]) for _ in range(60)]
    bodies = [str(number).encode() * len(body) for number, (_, body) in enumerate(kinds)]
    stream = b"".join(
        on_the_wire(properties, body) + draw.choice([b"", Heartbeat().marshal()])
        for (properties, _), body in zip(kinds, bodies, strict=True)
    )
    loop = asyncio.new_event_loop()
    try:
        connection = Watched(loop)
        cuts = sorted({0, len(stream), *(draw.randrange(len(stream)) for _ in range(draw.choice([0, 5, 500])))})
        for start, end in pairwise(cuts):
            connection._on_data_available(stream[start:end])
    finally:
        loop.close()
    assert connection.bodies == bodies
    assert connection.bytes_received == len(stream)
    assert connection.others == stream.count(Heartbeat().marshal())
    assert connection.read_here
