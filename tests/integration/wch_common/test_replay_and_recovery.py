"""Replays and recovery: losses and confusions of events that must be impossible."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import orjson
import pytest

from support.demo_events import ThingRequested, batch_queue, thing_queue
from support.stage import Stage
from support.waiting import eventually
from wch_common.broker.aio.connection import Link
from wch_common.broker.aio.publisher import Publisher
from wch_common.broker.blocking.publisher import ConfirmedPublisher, _Window
from wch_common.broker.topology import Topology
from wch_common.contract.envelope import STRUCTURED
from wch_common.contract.event import Event
from wch_common.contract.message import Message, Publication
from wch_common.errors import Refused, Unroutable
from wch_common.outcome import Reject
from wch_common.runtime.job import BatchResult, Job
from wch_common.store.migrate import migrate
from wch_common.store.store import Store
from wch_sync.topology import TOPOLOGY


def test_an_event_parked_again_while_its_release_is_confirmed_keeps_its_row(database_url: str) -> None:
    migrate(database_url, "demo", [])
    body = orjson.dumps({"specversion": "1.0", "id": "1", "source": "/t", "type": "x"})
    message = Message(body, STRUCTURED, None, "1")

    async def play() -> list[Any]:
        async def park_again(_publication: Publication) -> None:
            # The consumer was faster than the confirm: it received the event and parked it again.
            await store.park("demo.thing", message, seconds=60, scope="shop/x")

        store = Store(database_url, "demo", park_again)
        await store.open()
        await store.park("demo.thing", message, seconds=0, scope="")
        assert await store.parking.release.once() == 1
        rows = await store.database.rows("SELECT scope, due_at > now() + interval '50 seconds' AS waits FROM parked")
        await store.database.close()
        return rows

    assert asyncio.run(play()) == [{"scope": "shop/x", "waits": True}]


def test_an_interrupted_publish_never_answers_for_a_later_one(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.declare(TOPOLOGY)
    publisher = ConfirmedPublisher(stage.url, "test")

    def publications(key: str) -> list[Publication]:
        messages = [Message(b"{}", "text/plain", None, f"{key}-{n}") for n in range(900)]
        return [Publication("wch.retry", key, message) for message in messages]

    original = _Window.drain

    def interrupted(window: _Window, down_to: int, answers: dict[int, Any]) -> None:
        if down_to == 0 and window._outstanding:
            raise KeyboardInterrupt  # all are sent, and not all are confirmed yet
        original(window, down_to, answers)

    monkeypatch.setattr(_Window, "drain", interrupted)
    with pytest.raises(KeyboardInterrupt):
        publisher.publish(publications("sync.product"))
    monkeypatch.setattr(_Window, "drain", original)
    answers = publisher.publish(publications("no.such.queue"))
    publisher.close()
    assert [type(answer) for answer in answers] == [Unroutable] * 900


def test_a_publish_that_could_not_be_sent_does_not_shift_the_confirms_of_others(stage: Stage) -> None:
    stage.declare(TOPOLOGY)

    async def play() -> list[Any]:
        link = Link(stage.url, "test")
        publisher = Publisher(link, confirm_timeout_seconds=10)
        tasks = [asyncio.create_task(link.run()), asyncio.create_task(publisher.run())]
        good = Publication("wch.retry", "sync.product", Message(b"1", "text/plain", None, "good"))
        nowhere = Publication("wch.retry", "no.such.queue", Message(b"2", "text/plain", None, "nowhere"))
        too_long = Publication("wch.retry", "sync.product", Message(b"3", "text/plain", None, "x" * 300))
        found: list[type[Exception] | None] = []
        for publication in (good, too_long, good, nowhere, good):
            try:
                await publisher.publish(publication)
                found.append(None)
            except Exception as error:  # noqa: BLE001 - what is raised is compared
                found.append(type(error))
        await link.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return found

    first, unsent, second, unroutable, third = asyncio.run(asyncio.wait_for(play(), 180))
    assert (first, second, third, unroutable) == (None, None, None, Unroutable)
    assert unsent is not None
    assert unsent is not Refused
    assert stage.depth("sync.product") == 3


def test_an_event_that_breaks_a_batch_handler_does_not_fail_the_others(stage: Stage) -> None:
    done: set[int] = set()

    async def handle(events: Sequence[Event[ThingRequested]]) -> list[BatchResult]:
        if any(event.data.number == 7 for event in events):
            raise OverflowError("a number that no column can hold")
        done.update(event.data.number for event in events)
        return [None] * len(events)

    stage.start_job(Job.with_batch_handler(batch_queue(50, 0.5, tries=0), handle))
    with stage.client() as client:
        client.publish_many(ThingRequested(number=number) for number in range(50))
    (dead_letter,) = stage.await_dead_letters("demo.thing.dlq")
    assert b'"number":7' in dead_letter.message.body
    eventually(lambda: len(done) == 49)


def test_a_statement_that_the_database_refuses_is_not_an_outage(stage: Stage, database_url: str) -> None:
    async def handle(_event: Event[ThingRequested], tx: Any) -> None:
        # psycopg raises OperationalError for it, as for a lost connection.
        await tx.rows("CREATE TEMPORARY SEQUENCE unused")
        await tx.rows("SELECT currval('unused')")

    async def compose(platform: Any) -> Sequence[Job]:
        store = await platform.open_store(database_url)
        return [Job.in_transaction(thing_queue(tries=1), {ThingRequested: handle}, store)]

    stage.start(compose)
    with stage.client() as client:
        client.publish(ThingRequested(number=1))
    (dead_letter,) = stage.await_dead_letters("demo.thing.dlq")
    assert dead_letter.message.headers["wch-error-kind"] == "retries_exhausted"
    stage.stop()


def test_a_settlement_in_progress_is_finished_before_the_process_stops(stage: Stage) -> None:
    async def handle(_event: Event[ThingRequested]) -> None:
        raise Reject("no")

    running = stage.start_job(Job.with_handlers(thing_queue(), {ThingRequested: handle}))
    stage.delete_queue("demo.thing.dlq")
    with stage.client() as client:
        client.publish(ThingRequested(number=1))
    eventually(lambda: running.service._consumers[0].stuck)
    assert running.service._consumers[0].worker.running == 1
    stage.declare(Topology((thing_queue(),)))
    running.stop()
    assert (stage.depth("demo.thing"), stage.depth("demo.thing.dlq")) == (0, 1)
