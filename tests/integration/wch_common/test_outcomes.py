"""The outcome of an event for each way its handler can end, on a real broker."""

from __future__ import annotations

import struct
import time
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson
import pika
import pytest

from support.demo_events import ThingFailed, ThingRequested, thing_queue
from support.stage import Stage
from support.waiting import eventually
from wch_common.broker.codec import write as frames
from wch_common.contract.envelope import STRUCTURED
from wch_common.contract.event import Event, Request
from wch_common.contract.message import Message
from wch_common.outcome import Reject, Retry, Throttled
from wch_common.runtime.job import Job

AT = datetime(2026, 1, 1, tzinfo=UTC)


def test_an_event_is_handled_once_and_acknowledged(stage: Stage) -> None:
    seen: list[Event[ThingRequested]] = []

    async def handle(event: Event[ThingRequested]) -> None:
        seen.append(event)

    stage.start_job(Job.with_handlers(thing_queue(), {ThingRequested: handle}))
    with stage.client(shop="north") as client:
        id_ = client.publish(ThingRequested(number=7))
    eventually(lambda: len(seen) == 1)
    assert (seen[0].id, seen[0].shop, seen[0].data.number, seen[0].attempt) == (id_, "north", 7, 1)
    stage.stop()
    assert stage.depth("demo.thing") == 0


def test_many_events_published_at_once_are_all_handled(stage: Stage) -> None:
    seen: list[int] = []

    async def handle(event: Event[ThingRequested]) -> None:
        seen.append(event.data.number)

    stage.start_job(Job.with_handlers(thing_queue(), {ThingRequested: handle}))
    with stage.client() as client:
        client.publish_many(ThingRequested(number=number) for number in range(3000))
    eventually(lambda: len(seen) >= 3000)
    assert sorted(seen) == list(range(3000))


def test_a_failing_event_takes_every_retry_delay_and_is_then_dead_lettered_with_its_reason(stage: Stage) -> None:
    attempts: list[int] = []

    async def handle(event: Event[ThingRequested]) -> None:
        attempts.append(event.attempt)
        raise Retry(f"failure {event.attempt}, call +49 170 1234567")

    stage.start_job(Job.with_handlers(thing_queue(), {ThingRequested: handle}))
    with stage.client() as client:
        id_ = client.publish(ThingRequested(number=7))
    (dead_letter,) = stage.await_dead_letters("demo.thing.dlq")
    headers = dead_letter.message.headers
    assert attempts == [1, 2, 3, 4]
    assert dead_letter.message.message_id == id_
    assert headers["wch-error-kind"] == "retries_exhausted"
    assert headers["wch-error-type"] == "Retry"
    assert headers["wch-error-message"] == "failure 4, call <number>", "the last failure, not the first"
    assert "failure 4, call <number>" in str(headers["wch-error-trace"])
    assert headers["wch-attempt"] == 4
    assert len(headers["wch-attempts"]) == 4  # type: ignore[arg-type]
    assert headers["wch-queue"] == "demo.thing"
    assert headers["wch-exchange"] == "wch.requests"
    assert headers["wch-routing-key"] == "demo.thing.requested.v1"
    assert not [key for key in headers if key.startswith("x-death")]


def test_an_event_that_fails_twice_succeeds_after_its_delay_queues(stage: Stage) -> None:
    attempts: list[int] = []
    timestamps: list[float] = []

    async def handle(event: Event[ThingRequested]) -> None:
        attempts.append(event.attempt)
        timestamps.append(time.monotonic())
        if event.attempt <= 2:
            raise ValueError("not yet")

    stage.start_job(Job.with_handlers(thing_queue(), {ThingRequested: handle}))
    with stage.client() as client:
        client.publish(ThingRequested(number=7))
    eventually(lambda: len(attempts) == 3)
    assert attempts == [1, 2, 3]
    # The minimum wait that the queues' TTLs enforce, not the time measured.
    assert timestamps[1] - timestamps[0] >= 0.2
    assert timestamps[2] - timestamps[1] >= 0.4
    stage.stop()
    assert stage.depth("demo.thing") == stage.depth("demo.thing.dlq") == 0


def test_a_rejected_event_is_dead_lettered_at_once_and_its_fact_is_published(stage: Stage) -> None:
    calls: list[int] = []

    async def handle(event: Event[ThingRequested]) -> None:
        calls.append(event.attempt)
        raise Reject("there is no such thing")

    def on_dead_letter(event: Event[ThingRequested], reason: str) -> ThingFailed:
        return ThingFailed(number=event.data.number, reason=reason)

    job = Job.with_handlers(thing_queue(), {ThingRequested: handle}, on_dead_letter=on_dead_letter)
    stage.start_job(job)
    stage.follow("facts", "demo.thing.failed.v1.#")
    with stage.client(requester="carts") as client:
        id_ = client.publish(ThingRequested(number=7))
    (dead_letter,) = stage.await_dead_letters("demo.thing.dlq")
    assert dead_letter.message.headers["wch-error-kind"] == "rejected"
    (fact,) = stage.await_dead_letters("facts")
    body = orjson.loads(fact.message.body)
    assert fact.routing_key == "demo.thing.failed.v1.carts"
    assert body["data"] == {"number": 7, "reason": "there is no such thing"}
    assert (body["causationid"], body["correlationid"], body["requester"]) == (id_, id_, "carts")
    assert calls == [1]


def test_a_throttled_event_waits_uncounted(stage: Stage) -> None:
    attempts: list[int] = []

    async def handle(event: Event[ThingRequested]) -> None:
        attempts.append(event.attempt)
        if len(attempts) < 6:
            raise Throttled("slow down", scope="number/1", after=0.1)

    running = stage.start_job(Job.with_handlers(thing_queue(), {ThingRequested: handle}))
    with stage.client() as client:
        client.publish(ThingRequested(number=7))
    eventually(lambda: len(attempts) == 6)
    assert attempts == [1] * 6
    labels = {"queue": "demo.thing", "type": ThingRequested.TYPE, "outcome": "delayed"}
    count = running.service._metrics.registry.get_sample_value
    eventually(lambda: count("wch_events_handled_total", labels) == 5, "no such wait counts as parked")
    stage.stop()
    assert stage.depth("demo.thing.dlq") == 0


def test_a_handler_over_its_time_limit_is_cancelled_and_retried(stage: Stage) -> None:
    import asyncio

    attempts: list[int] = []

    async def handle(event: Event[ThingRequested]) -> None:
        attempts.append(event.attempt)
        if event.attempt == 1:
            await asyncio.Event().wait()

    stage.start_job(Job.with_handlers(thing_queue(time_limit_seconds=0.5), {ThingRequested: handle}))
    with stage.client() as client:
        client.publish(ThingRequested(number=7))
    eventually(lambda: attempts == [1, 2])


def test_a_request_that_no_service_handles_is_kept_as_unroutable(stage: Stage) -> None:
    async def handle(_event: Event[ThingRequested]) -> None: ...

    stage.start_job(Job.with_handlers(thing_queue(), {ThingRequested: handle}))
    body = orjson.dumps(
        {"specversion": "1.0", "id": "1", "source": "/t", "type": "other.thing.requested.v1", "data": {"number": 1}}
    )
    stage.send("wch.requests", "other.thing.requested.v1", Message(body, STRUCTURED, None, "1"))
    (dead_letter,) = stage.await_dead_letters("wch.unroutable")
    assert dead_letter.message.body == body


BAD = {
    "empty body": (b"", STRUCTURED, "undecodable", "body"),
    "broken JSON": (b'{"specversion": "1.0", ', STRUCTURED, "undecodable", "body"),
    "not an object": (b"[1]", STRUCTURED, "undecodable", "body"),
    "not UTF-8": (b'{"id": "\xff"}', STRUCTURED, "undecodable", "body"),
    "wrong content type": (b"<a/>", "text/xml", "undecodable", "content_type"),
    "no content type": (b"{}", None, "undecodable", "content_type"),
    "no CloudEvents headers": (b"{}", "application/json", "undecodable", "headers"),
    "envelope without id": (
        b'{"specversion":"1.0","source":"/t","type":"demo.thing.requested.v1","data":{"number":1}}',
        STRUCTURED,
        "undecodable",
        "id",
    ),
    "another type than the routing key": (
        b'{"specversion":"1.0","id":"1","source":"/t","type":"demo.other.requested.v1","data":{}}',
        STRUCTURED,
        "undecodable",
        "type",
    ),
    "wrong schema": (
        b'{"specversion":"1.0","id":"1","source":"/t","type":"demo.thing.requested.v1","data":{"number":"x"}}',
        STRUCTURED,
        "invalid_data",
        "data.number",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_an_invalid_event_is_dead_lettered_at_once_with_its_field_errors(stage: Stage, name: str) -> None:
    body, content_type, kind, field = BAD[name]

    async def handle(_event: Event[ThingRequested]) -> None:
        raise AssertionError("must not be called")

    stage.start_job(Job.with_handlers(thing_queue(), {ThingRequested: handle}))
    stage.send("wch.requests", "demo.thing.requested.v1", Message(body, content_type, None, "m-1", {"tenant": "x"}))
    (dead_letter,) = stage.await_dead_letters("demo.thing.dlq")
    assert dead_letter.message.body == body
    assert dead_letter.message.headers["wch-error-kind"] == kind
    assert orjson.loads(str(dead_letter.message.headers["wch-error-fields"]))[0]["field"] == field
    assert dead_letter.message.headers["tenant"] == "x"


def test_a_routing_key_that_is_not_utf8_is_dead_lettered_and_the_connection_stays(stage: Stage) -> None:
    handled = []

    async def handle(event: Event[ThingRequested]) -> None:
        handled.append(event.data.number)

    running = stage.start_job(Job.with_handlers(thing_queue(), {ThingRequested: handle}))
    before = running.service._consumers[0]._subscription
    with closing(pika.BlockingConnection(pika.URLParameters(stage.url))) as connection:
        key: Any = b"demo.thing.requested.\xff"
        properties = pika.BasicProperties(content_type=STRUCTURED, message_id="m-1", delivery_mode=2)
        connection.channel().basic_publish("wch.requests", key, b"{}", properties)
    (dead_letter,) = stage.await_dead_letters("demo.thing.dlq")
    assert dead_letter.message.headers["wch-error-kind"] == "undecodable"
    with stage.client() as client:
        client.publish(ThingRequested(number=1))
    eventually(lambda: handled == [1])
    assert running.service._consumers[0]._subscription is before


def test_an_unknown_type_in_a_work_queue_is_dead_lettered(stage: Stage) -> None:
    """Celery acknowledges and drops a message for which it has no task."""

    async def handle(_event: Event[ThingRequested]) -> None:
        raise AssertionError("must not be called")

    stage.start_job(Job.with_handlers(thing_queue(), {ThingRequested: handle}))
    body = b'{"specversion":"1.0","id":"1","source":"/t","type":"other.thing.requested.v1","data":{}}'
    stage.send("wch.retry", "demo.thing", Message(body, STRUCTURED, None, "1"))
    (dead_letter,) = stage.await_dead_letters("demo.thing.dlq")
    assert dead_letter.message.headers["wch-error-kind"] == "unknown_type"
    assert dead_letter.message.body == body


class ThingRequestedLater(Request):
    """The next version of the request, which a newer consumer handles."""

    TYPE = "demo.thing.requested.v2"

    numbers: tuple[int, ...]


def test_an_unknown_version_is_handled_by_the_newer_consumer_that_is_deployed_later(stage: Stage) -> None:
    async def handle(_event: Event[ThingRequested]) -> None: ...

    older = stage.start_job(Job.with_handlers(thing_queue(), {ThingRequested: handle}))
    with stage.client() as client:
        client.publish(ThingRequestedLater(numbers=(1, 2)))
    eventually(lambda: stage.depth("demo.thing.retry.600ms"), "it waits")
    older.stop()
    seen: list[tuple[tuple[int, ...], int]] = []

    async def handle_later(event: Event[ThingRequestedLater]) -> None:
        seen.append((event.data.numbers, event.attempt))

    queue = replace(thing_queue(), requests=(ThingRequested, ThingRequestedLater))
    stage.start_job(Job.with_handlers(queue, {ThingRequested: handle, ThingRequestedLater: handle_later}))
    eventually(lambda: seen == [((1, 2), 1)], "it is handled, and the wait used no attempt")


def test_an_unknown_version_of_a_request_waits_instead_of_being_dead_lettered(stage: Stage) -> None:
    async def handle(_event: Event[ThingRequested]) -> None: ...

    stage.start_job(Job.with_handlers(thing_queue(), {ThingRequested: handle}))
    body = b'{"specversion":"1.0","id":"1","source":"/t","type":"demo.thing.requested.v2","data":{}}'
    stage.send("wch.requests", "demo.thing.requested.v2", Message(body, STRUCTURED, None, "1"))
    eventually(lambda: stage.depth("demo.thing.retry.600ms"), "the event waits in a delay queue")
    assert stage.depth("demo.thing.dlq") == stage.depth("wch.unroutable") == 0


class Unreadable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def circular() -> Exception:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    return first


@pytest.mark.parametrize(
    "error",
    [
        Unreadable(),
        ValueError("x" * 5_000_000),
        circular(),
        ValueError("lone \ud800 surrogate"),
        ValueError("nul \x00"),
    ],
    ids=["unreadable", "huge", "circular", "surrogate", "nul"],
)
def test_an_exception_without_readable_text_is_still_dead_lettered(stage: Stage, error: Exception) -> None:
    async def handle(_event: Event[ThingRequested]) -> None:
        raise error

    stage.start_job(Job.with_handlers(thing_queue(tries=0), {ThingRequested: handle}))
    with stage.client() as client:
        client.publish(ThingRequested(number=7))
    (dead_letter,) = stage.await_dead_letters("demo.thing.dlq")
    assert dead_letter.message.headers["wch-error-type"] == type(error).__name__
    assert sum(len(str(value)) for value in dead_letter.message.headers.values()) < 16_384


def test_a_body_of_a_mebibyte_survives_retry_and_dead_lettering_byte_for_byte(stage: Stage) -> None:
    async def handle(_event: Event[ThingRequested]) -> None:
        raise ValueError("no")

    stage.start_job(Job.with_handlers(thing_queue(tries=1), {ThingRequested: handle}))
    data = {"number": 1, "note": "ü" * (1 << 19), "unknown field": 1}
    event = {"data": data, "type": "demo.thing.requested.v1", "specversion": "1.0", "source": "/t", "id": "1"}
    body = b"  " + orjson.dumps(event, option=orjson.OPT_INDENT_2)  # which the library's encoder would not write
    stage.send("wch.requests", "demo.thing.requested.v1", Message(body, STRUCTURED, None, "1"))
    (dead_letter,) = stage.await_dead_letters("demo.thing.dlq")
    assert dead_letter.message.body == body


def test_headers_of_any_type_survive_retries(stage: Stage) -> None:
    """pika reads a float as an integer and cannot write floats: the message would be retried without end."""
    runs: list[int] = []

    async def handle(event: Event[ThingRequested]) -> None:
        runs.append(event.attempt)
        raise Retry("not yet")

    stage.start_job(Job.with_handlers(thing_queue(), {ThingRequested: handle}))
    body = b'{"specversion":"1.0","id":"1","source":"/t","type":"demo.thing.requested.v1","data":{"number":1}}'
    headers: Any = {
        "price": 1.5, "many": [1, 2.5, "a", [True, None]], "deep": {"a": {"b": -3.25}},
        "large": 2**40, "yes": True, "text": "Grüße", "raw": b"\xff", "share": Decimal("0.25"), "at": AT,
    }  # fmt: skip
    stage.send("wch.requests", "demo.thing.requested.v1", Message(body, STRUCTURED, None, "1", headers))
    (dead_letter,) = stage.await_dead_letters("demo.thing.dlq")
    assert runs == [1, 2, 3, 4]
    read = headers | {"at": AT.replace(tzinfo=None)}  # by py-amqp, which omits the time zone
    assert {name: dead_letter.message.headers[name] for name in headers} == read


class Encoded(bytes):
    """A header value in its encoded form."""

    __slots__ = ()


def test_deeply_nested_header_tables_do_not_stop_the_queue(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A value that cannot be read ends the connection, and does so again at each redelivery."""
    seen: list[int] = []

    async def handle(event: Event[ThingRequested]) -> None:
        seen.append(event.data.number)
        if event.data.number == 1:
            raise Reject("never")

    stage.start_job(Job.with_handlers(thing_queue(), {ThingRequested: handle}))
    body = b'{"specversion":"1.0","id":"1","source":"/t","type":"demo.thing.requested.v1","data":{"number":1}}'
    deep = b""
    for _ in range(5000):
        deep = b"\x01kF" + struct.pack(">I", len(deep)) + deep
    monkeypatch.setitem(frames._KINDS, Encoded, bytes)
    headers: Any = {"deep": Encoded(b"F" + struct.pack(">I", len(deep)) + deep), "tenant": "x"}
    stage.send("wch.requests", "demo.thing.requested.v1", Message(body, STRUCTURED, None, "1", headers))
    with stage.client() as client:
        client.publish(ThingRequested(number=2))
    (dead_letter,) = stage.await_dead_letters("demo.thing.dlq")
    assert dead_letter.message.headers["tenant"] == "x"
    eventually(lambda: seen == [1, 2])


def test_a_message_whose_headers_leave_no_room_for_ours_is_not_lost(stage: Stage) -> None:
    runs: list[int] = []

    async def handle(event: Event[ThingRequested]) -> None:
        runs.append(event.attempt)
        raise ValueError("no")

    stage.start_job(Job.with_handlers(thing_queue(), {ThingRequested: handle}))
    body = b'{"specversion":"1.0","id":"1","source":"/t","type":"demo.thing.requested.v1","data":{"number":1}}'
    # With the library's headers it would exceed a frame of 131,072 bytes, and the broker would close the connection.
    message = Message(body, STRUCTURED, None, "1", {"big": "x" * 130_600})
    stage.send("wch.requests", "demo.thing.requested.v1", message)
    (dead_letter,) = stage.await_dead_letters("demo.thing.dlq")
    assert dead_letter.message.body == body
    assert runs == [1], "the broker moved it immediately"
