"""Effects happen once and committed facts are published, whatever fails in between; on a real database and broker."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import psycopg
import pytest
from psycopg import errors as postgres

from support.demo_events import ThingDone, ThingRequested, thing_queue
from support.stage import Stage
from support.store_scene import EFFECT, Scene, record
from support.waiting import eventually
from wch_common.broker.topology import Topology
from wch_common.contract.envelope import STRUCTURED
from wch_common.contract.event import Event, new_event
from wch_common.contract.message import Message, Publication
from wch_common.errors import LeaseLost
from wch_common.outcome import Retry, Throttled
from wch_common.store.database import Database
from wch_common.store.migrate import migrate
from wch_common.store.store import Store, Transaction


@pytest.fixture
def scene(stage: Stage, database_url: str) -> Iterator[Scene]:
    yield Scene(stage, database_url)
    stage.stop()


def test_an_event_delivered_twice_has_one_effect_and_one_fact(scene: Scene) -> None:
    scene.start(record)
    scene.stage.follow("facts", "demo.thing.finished.v1.#")
    with scene.stage.client() as client:
        for _ in range(3):
            client.publish(ThingRequested(number=1), id="one")
        client.publish(ThingRequested(number=2), id="two")
    eventually(lambda: len(scene.effects()) >= 2)
    scene.stage.await_depth("facts", 2)
    scene.stage.await_depth("demo.thing", 0)
    scene.stage.stop()
    facts = scene.stage.dead_letters("facts")
    assert scene.effects() == [1, 2]
    assert sorted(orjson.loads(dead_letter.message.body)["data"]["number"] for dead_letter in facts) == [1, 2]
    assert [dead_letter.message.message_id for dead_letter in facts] == [
        orjson.loads(dead_letter.message.body)["id"] for dead_letter in facts
    ]
    assert scene.query("SELECT count(*) FROM demo.outbox") == [(0,)]
    assert scene.stage.depth("demo.thing") == 0


def test_a_fact_is_published_by_its_own_process_at_once_and_not_by_a_sweep_as_well(scene: Scene) -> None:
    """The row is leased to its process for twice the confirm timeout, which is longer than this test."""
    scene.start(record, confirm_timeout_seconds=300.0)
    scene.stage.follow("facts", "demo.thing.finished.v1.#")
    with scene.stage.client() as client:
        client.publish(ThingRequested(number=1))
    scene.stage.await_depth("facts", 1)
    eventually(lambda: scene.query("SELECT count(*) FROM demo.outbox") == [(0,)])


def test_a_database_without_an_encoding_works(stage: Stage, database_server: str) -> None:
    """The databases of minimal images are SQL_ASCII, from which psycopg returns bytes where text is expected."""
    name = "wch_test_ascii"
    with psycopg.connect(database_server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0".encode())
    try:
        scene = Scene(stage, psycopg.conninfo.make_conninfo(database_server, dbname=name))
        scene.start(record)
        with stage.client() as client:
            client.publish(ThingRequested(number=1, note="Grüße"))
        eventually(lambda: scene.effects() == [1])
        stage.stop()
    finally:
        with psycopg.connect(database_server, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def test_one_id_from_two_sources_is_two_events(scene: Scene) -> None:
    scene.start(record)
    with scene.stage.client() as client:
        client.publish(new_event(ThingRequested(number=1), "/one", id="same"))
        client.publish(new_event(ThingRequested(number=2), "/two", id="same"))
    eventually(lambda: scene.effects() == [1, 2])


def test_one_id_with_other_content_is_dead_lettered_from_a_foreign_source_and_a_duplicate_from_our_own(
    scene: Scene,
) -> None:
    scene.start(record)
    with scene.stage.client() as client:
        for number in (1, 2):
            client.publish(new_event(ThingRequested(number=number), "/foreign", id="same"))
        (dead_letter,) = scene.stage.await_dead_letters("demo.thing.dlq")
        for number in (3, 4):
            client.publish(new_event(ThingRequested(number=number), "/wch/other", id="ours"))
        client.publish(ThingRequested(number=5))
    assert dead_letter.message.headers["wch-error-kind"] == "id_reused"
    eventually(lambda: 5 in scene.effects())
    scene.stage.stop()
    assert len(scene.effects()) == 3
    assert scene.stage.depth("demo.thing.dlq") == 1


def test_a_failed_handler_leaves_nothing_behind_and_is_handled_again(scene: Scene) -> None:
    attempts: list[int] = []

    async def handle(event: Event[ThingRequested], tx: Transaction) -> None:
        attempts.append(event.attempt)
        await record(event, tx)
        if event.attempt == 1:
            raise ValueError("after the effect")

    scene.start(handle)
    scene.stage.follow("facts", "#")
    with scene.stage.client() as client:
        client.publish(ThingRequested(number=1))
    scene.stage.await_depth("facts", 1)
    assert attempts == [1, 2]
    assert scene.effects() == [1]


def test_a_deadlock_is_repeated_at_once_and_uses_no_attempt(scene: Scene) -> None:
    attempts: list[int] = []

    async def handle(event: Event[ThingRequested], tx: Transaction) -> None:
        attempts.append(event.attempt)
        if len(attempts) < 4:
            raise postgres.DeadlockDetected("deadlock detected")
        await record(event, tx)

    scene.start(handle)
    with scene.stage.client() as client:
        client.publish(ThingRequested(number=1))
    eventually(lambda: scene.effects() == [1])
    assert attempts == [1, 1, 1, 1]


def test_a_deadlock_that_persists_spends_a_try_after_ten_repeats(scene: Scene) -> None:
    attempts: list[int] = []

    async def handle(event: Event[ThingRequested], tx: Transaction) -> None:
        attempts.append(event.attempt)
        if event.attempt == 1:
            raise postgres.DeadlockDetected("deadlock detected")
        await record(event, tx)

    scene.start(handle)
    with scene.stage.client() as client:
        client.publish(ThingRequested(number=1))
    eventually(lambda: scene.effects() == [1])
    assert attempts == [1] * 11 + [2]


def test_an_event_is_parked_before_it_is_acknowledged_however_long_the_outage_of_the_database(scene: Scene) -> None:
    begun, away = threading.Event(), threading.Event()

    async def handle(_event: Event[ThingRequested]) -> None:
        begun.set()
        while not away.is_set():
            await asyncio.sleep(0.01)
        raise Throttled("closed", scope="shop/x", after=3600)

    running = scene.start_plain(handle)
    with scene.stage.client() as client:
        client.publish(ThingRequested(number=1))
    assert begun.wait(180)
    with scene.database_away():
        away.set()
        eventually(lambda: running.service._consumers[0].stuck, "parking fails and is repeated")
        assert not running.is_ready
        eventually(lambda: scene.stage.queue_info("demo.thing").get("messages_unacknowledged") == 1)
    eventually(lambda: scene.query("SELECT count(*) FROM demo.parked") == [(1,)])
    scene.stage.stop()
    assert scene.stage.depth("demo.thing") == 0


def test_an_event_that_cannot_be_parked_waits_in_a_delay_queue(scene: Scene) -> None:
    async def handle(_event: Event[ThingRequested]) -> None:
        raise Throttled("closed", scope="shop/x", after=3600)

    scene.start_plain(handle, retry_delays=(0.2, 60))
    scene.query("ALTER TABLE demo.parked ADD CONSTRAINT none CHECK (false)")
    with scene.stage.client() as client:
        client.publish(ThingRequested(number=1))
    scene.stage.await_depth("demo.thing.retry.60s", 1)


def test_an_outbox_row_that_the_broker_refuses_is_kept_until_there_is_room(scene: Scene) -> None:
    scene.start(record)
    scene.stage.follow("facts", "demo.thing.finished.v1.#")
    scene.stage.limit("facts", 1)
    with scene.stage.client() as client:
        client.publish_many(ThingRequested(number=number) for number in range(20))
    eventually(lambda: scene.effects() == list(range(20)))
    (kept,) = scene.query("SELECT count(*) FROM demo.outbox")[0]
    assert kept > 0
    assert kept + scene.stage.depth("facts") >= 20
    scene.stage.unlimit()
    eventually(lambda: scene.query("SELECT count(*) FROM demo.outbox") == [(0,)], "the sweep publishes the rest")
    numbers = {
        orjson.loads(dead_letter.message.body)["data"]["number"] for dead_letter in scene.stage.dead_letters("facts")
    }
    assert numbers == set(range(20))


def test_a_parked_event_is_kept_while_its_queue_does_not_exist(scene: Scene) -> None:
    closed = threading.Event()
    closed.set()

    async def handle(event: Event[ThingRequested], tx: Transaction) -> None:
        if closed.is_set():
            raise Throttled("closed", scope="", after=3600)
        await record(event, tx)

    scene.start(handle)
    with scene.stage.client() as client:
        client.publish(ThingRequested(number=1))
    eventually(lambda: scene.query("SELECT count(*) FROM demo.parked") == [(1,)])
    scene.stage.delete_queue("demo.thing")
    closed.clear()
    scene.query("UPDATE demo.parked SET due_at = now()")
    eventually(lambda: scene.query("SELECT due_at > now() FROM demo.parked") == [(True,)], "its release was tried")
    scene.stage.declare(Topology((thing_queue(),)))
    scene.query("UPDATE demo.parked SET due_at = now()")

    eventually(lambda: scene.effects() == [1])
    eventually(lambda: scene.query("SELECT count(*) FROM demo.parked") == [(0,)])


def test_handlers_pause_while_too_many_committed_events_wait_for_the_broker(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wch_common.runtime.service.MOST_UNPUBLISHED", 5)
    monkeypatch.setattr("wch_common.runtime.service._COUNT_SECONDS", 0.1)
    running = scene.start(record)
    scene.stage.follow("facts", "demo.thing.finished.v1.#")
    scene.stage.limit("facts", 1)
    with scene.stage.client() as client:
        client.publish_many(ThingRequested(number=number) for number in range(500))
    eventually(lambda: any("outbox" in problem for problem in running.service.not_ready()), "the work is paused")
    scene.stage.unlimit()
    eventually(lambda: scene.effects() == list(range(500)))
    eventually(lambda: scene.query("SELECT count(*) FROM demo.outbox") == [(0,)])
    eventually(lambda: running.is_ready)


def test_consumption_pauses_during_an_outage_of_the_database_and_uses_no_attempt(scene: Scene) -> None:
    attempts: list[int] = []

    async def handle(event: Event[ThingRequested], tx: Transaction) -> None:
        attempts.append(event.attempt)
        await record(event, tx)

    scene.start(handle)
    with scene.database_away():
        with scene.stage.client() as client:
            client.publish_many(ThingRequested(number=number) for number in range(50))
        eventually(lambda: not scene.stage.services[0].is_ready)
    eventually(lambda: scene.effects() == list(range(50)))
    assert set(attempts) == {1}
    eventually(lambda: scene.stage.services[0].is_ready)


def test_more_handlers_than_connections_wait_their_turn_and_spend_no_try(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That every connection is in use is no outage, as long as the database answers on another one."""
    monkeypatch.setattr("wch_common.store.database._POOL_SECONDS", 0.2)
    release, attempts, checks, closed = threading.Event(), [], [], []

    async def handle(event: Event[ThingRequested], tx: Transaction) -> None:
        attempts.append(event.attempt)
        while not release.is_set():
            await tx.rows("SELECT 1")
            await asyncio.sleep(0.01)
        await record(event, tx)

    check = Database.check

    async def counted(self: Database) -> None:
        await check(self)
        checks.append(1)

    monkeypatch.setattr(Database, "check", counted)
    running = scene.start(handle, concurrency=8, time_limit_seconds=3600)
    monkeypatch.setattr(running.service._gate, "_close", lambda: closed.append(1))
    started = len(checks)
    with scene.stage.client() as client:
        client.publish_many(ThingRequested(number=number) for number in range(20))
    eventually(lambda: len(attempts) == 5, "every connection is in use")
    eventually(lambda: len(checks) >= started + 3, "the others have waited for longer than a pool's limit")
    release.set()
    eventually(lambda: scene.effects() == list(range(20)))
    assert (set(attempts), closed) == ({1}, [])
    assert scene.stage.depth("demo.thing.dlq") == 0


def test_a_fact_that_a_dead_process_committed_is_published_by_another(scene: Scene) -> None:
    """After a crash between commit and relay, the row is published when the dead process's lease has expired."""
    migrate(scene.url, "demo", [])

    async def publish_never(_publication: Publication) -> None:
        await asyncio.Event().wait()

    async def commit_and_die() -> None:
        store = Store(scene.url, "demo", publish_never, confirm_timeout_seconds=0.5)
        await store.open()
        async with store.transaction() as tx:
            tx.emit(new_event(ThingDone(number=1), "/wch/demo", id="fact"))
        await store.database.close()

    scene.start(record)
    scene.stage.follow("facts", "#")
    asyncio.run(commit_and_die())
    (dead_letter,) = scene.stage.await_dead_letters("facts")
    assert dead_letter.message.message_id == "fact"
    eventually(lambda: scene.query("SELECT count(*) FROM demo.outbox") == [(0,)])


def test_an_event_with_a_due_time_is_published_then_and_not_before(scene: Scene) -> None:
    async def handle(event: Event[ThingRequested], tx: Transaction) -> None:
        asked.append(datetime.now(UTC) + timedelta(seconds=1.5))
        tx.emit(event.derive(ThingDone(number=1), "/wch/demo"), due=asked[0])

    asked: list[datetime] = []
    scene.start(handle)
    scene.stage.follow("facts", "#")
    with scene.stage.client() as client:
        client.publish(ThingRequested(number=1))
    eventually(lambda: scene.query("SELECT count(*) FROM demo.outbox") == [(1,)])
    (due,) = scene.query("SELECT due_at FROM demo.outbox")
    assert due[0] == asked[0]
    scene.stage.await_dead_letters("facts")
    assert datetime.now(UTC) >= due[0]


def test_a_long_wait_is_parked_and_delays_no_other_scope(scene: Scene) -> None:
    throttled, attempts = threading.Event(), []
    throttled.set()

    async def handle(event: Event[ThingRequested], tx: Transaction) -> None:
        attempts.append((event.shop, event.attempt))
        if event.shop == "slow" and throttled.is_set():
            raise Throttled("slow down", scope="shop/slow", after=2)
        await record(event, tx)

    scene.start(handle)
    with scene.stage.client() as client:
        client.publish_many(new_event(ThingRequested(number=n), "/t", shop="slow") for n in range(20))
        eventually(lambda: scene.query("SELECT count(*) FROM demo.parked") == [(20,)])
        client.publish_many(new_event(ThingRequested(number=n), "/t", shop="fast") for n in range(100, 120))
    eventually(lambda: scene.effects() == list(range(100, 120)))
    paused = "SELECT paused_until > now() FROM demo.scopes WHERE scope = 'shop/slow'"
    assert scene.query(paused) == [(True,)]
    eventually(lambda: len([shop for shop, _ in attempts if shop == "slow"]) == 21, "one event probes")
    eventually(lambda: scene.query("SELECT count(*) FROM demo.parked") == [(20,)], "and is parked again")
    eventually(lambda: scene.query(paused) == [(True,)])
    throttled.clear()
    # A paused scope is probed every 30 seconds, here at once; a successful probe resumes it.
    scene.query("UPDATE demo.parked SET due_at = now(); UPDATE demo.scopes SET paused_until = now()")
    eventually(lambda: len(scene.effects()) == 21)
    eventually(lambda: scene.query("SELECT count(*) FROM demo.parked") == [(19,)])
    assert scene.query(paused) == [(True,)], "the others wait for the result of the probe"
    scene.query("UPDATE demo.scopes SET paused_until = now()")
    eventually(lambda: len(scene.effects()) == 40)
    assert {attempt for _, attempt in attempts} == {1}
    assert scene.query("SELECT count(*) FROM demo.parked") == [(0,)]


def test_a_retry_later_than_the_last_retry_delay_is_parked_and_spends_a_try(scene: Scene) -> None:
    attempts: list[int] = []

    async def handle(event: Event[ThingRequested], tx: Transaction) -> None:
        attempts.append(event.attempt)
        if event.attempt == 1:
            raise Retry("tomorrow", after=3600)
        await record(event, tx)

    scene.start(handle)
    with scene.stage.client() as client:
        client.publish(ThingRequested(number=1))
    eventually(lambda: scene.query("SELECT count(*) FROM demo.parked") == [(1,)])
    scene.query("UPDATE demo.parked SET due_at = now()")
    eventually(lambda: scene.effects() == [1])
    assert attempts == [1, 2]


def test_a_wait_longer_than_the_events_expiry_ends_in_the_dlq(scene: Scene) -> None:
    async def handle(_event: Event[ThingRequested], _tx: Transaction) -> None:
        raise Throttled("closed", scope="shop/x", after=3600)

    scene.start(handle)
    expiry = datetime.now(UTC) + timedelta(seconds=2)
    with scene.stage.client() as client:
        client.publish(new_event(ThingRequested(number=1), "/t", expirytime=expiry))
    eventually(lambda: scene.query("SELECT count(*) FROM demo.parked") == [(1,)])
    assert scene.query("SELECT due_at < now() + interval '10 seconds' FROM demo.parked") == [(True,)]
    scene.query("UPDATE demo.scopes SET paused_until = now()")
    (dead_letter,) = scene.stage.await_dead_letters("demo.thing.dlq")
    assert dead_letter.message.headers["wch-error-kind"] == "expired_waiting"


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Store]:
    async def publish(_publication: Publication) -> None: ...

    store = Store(url, "demo", publish)
    await store.open()
    yield store
    await store.close()


def test_two_events_with_one_id_and_headers_of_any_type_survive_parking(scene: Scene) -> None:
    migrate(scene.url, "demo", [])

    async def park_and_read() -> list[Message]:
        released: list[Message] = []

        async with opened(scene.url) as store:

            async def keep(publication: Publication) -> None:
                released.append(publication.message)

            store.parking._publish = keep
            for number in (1, 2, 2):
                body = orjson.dumps({"specversion": "1.0", "id": "same", "source": "/t", "type": "x", "n": number})
                headers: Any = {
                    "raw": b"\xff\x00",
                    "list": [1, "a", {"k": None}],
                    "at": datetime(2026, 1, 1, tzinfo=UTC),
                }
                message = Message(body, STRUCTURED, "utf-8", "m", headers)
                await store.park("demo.thing", message, seconds=0, scope="")
            await store.parking.release.once()
        return released

    first, second = sorted(asyncio.run(park_and_read()), key=lambda message: message.body)
    assert first.headers == {"raw": b"\xff\x00", "list": [1, "a", {"k": None}], "at": datetime(2026, 1, 1, tzinfo=UTC)}
    assert (first.content_type, first.content_encoding, first.message_id) == (STRUCTURED, "utf-8", "m")
    assert first.body != second.body


def test_a_lease_has_one_holder_and_passes_on_with_a_higher_token(scene: Scene) -> None:
    migrate(scene.url, "demo", [])

    async def play() -> None:
        async with opened(scene.url) as one, opened(scene.url) as two:
            async with one.lease("catalog/1", seconds=0.6) as first:
                assert first is not None
                async with two.lease("catalog/1", seconds=0.6) as second:
                    assert second is None
                async with two.lease("catalog/2", seconds=0.6) as other:
                    assert other is not None
                while first.remaining_seconds > 0.5:
                    await asyncio.sleep(0.01)
                while first.remaining_seconds < 0.5:
                    await asyncio.sleep(0.01)  # it is renewed in the background
                first.check()
                with pytest.raises(LeaseLost):
                    first.check(needs_seconds=5)
                since = time.monotonic()
                while time.monotonic() < since + 0.7:
                    async with two.lease("catalog/1", seconds=0.6) as other:
                        assert other is None, "a renewed lease is never free"
            async with two.lease("catalog/1", seconds=0.6) as third:
                assert third is not None
                assert third.token == first.token + 1
                await two.database.rows("UPDATE leases SET holder = 'another process' WHERE name = 'catalog/1'")
                while third.remaining_seconds > 0:
                    await asyncio.sleep(0.01)
                with pytest.raises(LeaseLost):
                    third.check()

    asyncio.run(asyncio.wait_for(play(), 180))


def test_functions_after_a_transaction_are_called_only_if_it_commits(scene: Scene) -> None:
    migrate(scene.url, "demo", ())
    called: list[str] = []

    async def main() -> None:
        async with opened(scene.url) as store:
            with suppress(postgres.UndefinedTable):
                async with store.transaction() as tx:
                    tx.then(lambda: called.append("rolled back"))
                    await tx.rows("SELECT * FROM nowhere")
            async with store.transaction() as tx:
                await tx.rows(EFFECT, {"number": 1})
                tx.then(lambda: called.append(f"committed {scene.query('SELECT * FROM demo.effects')}"))

    asyncio.run(main())
    assert called == ["committed [(1,)]"]
