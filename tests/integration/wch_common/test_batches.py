"""Batch jobs on a real broker: the failure or delay of one event affects no other event of its batch."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

from support.demo_events import ThingRequested, batch_queue
from support.stage import Stage
from support.waiting import eventually
from wch_common.contract.envelope import STRUCTURED
from wch_common.contract.event import Event
from wch_common.contract.message import Message
from wch_common.outcome import Reject, Retry, Throttled
from wch_common.runtime.job import BatchResult, Job

UNREADABLE = {
    "empty": (b"", STRUCTURED, "undecodable"),
    "broken": (b'{"specversion": "1.0", ', STRUCTURED, "undecodable"),
    "foreign": (b"<a/>", "text/xml", "undecodable"),
    "wrong": (
        b'{"specversion":"1.0","id":"w","source":"/t","type":"demo.thing.requested.v1","data":{"number":"x"}}',
        STRUCTURED,
        "invalid_data",
    ),
}
LATER = b'{"specversion":"1.0","id":"later","source":"/t","type":"demo.thing.requested.v2","data":{}}'


def test_an_undecodable_message_is_separated_from_its_batch(stage: Stage) -> None:
    """Remoulade's consumer crashes repeatedly on a malformed body; Celery and Taskiq drop it."""
    done: set[int] = set()

    async def handle(events: Sequence[Event[ThingRequested]]) -> list[BatchResult]:
        done.update(event.data.number for event in events)
        return [None] * len(events)

    running = stage.start_job(Job.with_batch_handler(batch_queue(20, 0.5), handle))
    with stage.client() as client:
        client.publish_many(ThingRequested(number=number) for number in range(10))
        for id_, (body, content_type, _) in UNREADABLE.items():
            stage.send("wch.requests", "demo.thing.requested.v1", Message(body, content_type, None, id_))
        stage.send("wch.requests", "demo.thing.requested.v2", Message(LATER, STRUCTURED, None, "later"))
        client.publish_many(ThingRequested(number=number) for number in range(10, 20))
    dead_letters = stage.await_dead_letters("demo.thing.dlq", len(UNREADABLE))
    by_id = {str(dead_letter.message.message_id): dead_letter.message for dead_letter in dead_letters}
    for id_, (body, _, kind) in UNREADABLE.items():
        assert (by_id[id_].body, by_id[id_].headers["wch-error-kind"]) == (body, kind)
    eventually(lambda: done == set(range(20)))
    eventually(lambda: stage.depth("demo.thing.retry.600ms"), "the unknown version waits")
    assert running.is_ready


def test_each_event_of_a_batch_gets_its_own_outcome(stage: Stage) -> None:
    attempts: dict[int, list[int]] = {}

    async def handle(events: Sequence[Event[ThingRequested]]) -> list[BatchResult]:
        found: list[BatchResult] = []
        for event in events:
            tries = attempts.setdefault(event.data.number, [])
            tries.append(event.attempt)
            outcomes = (None, Retry("again"), Reject("never"), Throttled("later", scope="x", after=0.1))
            first = len(tries) == 1
            found.append(outcomes[event.data.number] if first else None)
        return found

    stage.start_job(Job.with_batch_handler(batch_queue(4, 0.5), handle))
    with stage.client() as client:
        client.publish_many(ThingRequested(number=number) for number in range(4))
    eventually(lambda: attempts == {0: [1], 1: [1, 2], 2: [1], 3: [1, 1]})
    (dead_letter,) = stage.await_dead_letters("demo.thing.dlq")
    assert dead_letter.message.headers["wch-error-kind"] == "rejected"


def test_a_batch_over_its_time_limit_is_tried_again_event_by_event(stage: Stage) -> None:
    attempts: list[int] = []

    async def handle(events: Sequence[Event[ThingRequested]]) -> list[BatchResult]:
        attempts.extend(event.attempt for event in events)
        if any(event.attempt == 1 for event in events):
            await asyncio.Event().wait()
        return [None] * len(events)

    stage.start_job(Job.with_batch_handler(batch_queue(5, 0.5, time_limit_seconds=0.5), handle))
    with stage.client() as client:
        client.publish_many(ThingRequested(number=number) for number in range(5))
    eventually(lambda: attempts.count(2) == 5, "each was retried and used one attempt")
    assert stage.depth("demo.thing.dlq") == 0


def test_a_stop_while_a_batch_is_collected_requeues_all_of_it_at_once(stage: Stage) -> None:
    async def handle(events: Sequence[Event[ThingRequested]]) -> list[BatchResult]:
        raise AssertionError(f"the handler must not be called: {len(events)}")

    running = stage.start_job(Job.with_batch_handler(batch_queue(1000, 3600), handle))
    with stage.client() as client:
        client.publish_many(ThingRequested(number=number) for number in range(50))
    eventually(lambda: stage.depth("demo.thing") == 0, "the batch is being collected")
    stopping = threading.Thread(target=running.stop)
    stopping.start()
    eventually(lambda: stage.depth("demo.thing") == 50)
    stopping.join()
    assert running.exit_code == 0
