"""Events that wait together share a transaction; the failure or delay of one affects no other."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator

import pytest
from psycopg import errors as postgres

from support.demo_events import ThingRequested
from support.stage import Stage
from support.store_scene import Scene, record
from support.waiting import eventually
from wch_common.contract.event import Event
from wch_common.outcome import Reject, Retry
from wch_common.store import store as stores
from wch_common.store.store import Transaction


class Queueing:
    """A scene whose first event occupies its only slot until the others wait."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.attempts: dict[int, list[int]] = defaultdict(list)
        self._has_slot = self._opened = False

    def start(self, special: Callable[[Event[ThingRequested]], None] = lambda _event: None, **changes: int) -> None:
        """Start the service; `special` may make an event fail."""

        async def handle(event: Event[ThingRequested], tx: Transaction) -> None:
            self._has_slot = event.data.number == 0
            while event.data.number == 0 and not self._opened:
                await asyncio.sleep(0.01)
            self.attempts[event.data.number].append(event.attempt)
            special(event)
            await record(event, tx)

        self.scene.start(handle, **({"share_limit": 16, "concurrency": 1, "time_limit_seconds": 5} | changes))
        self.scene.stage.follow("facts", "demo.thing.finished.v1.#")

    def publish(self, numbers: range, id_: str | None = None) -> None:
        """Publish events that wait behind the first."""
        with self.scene.stage.client() as client:
            client.publish(ThingRequested(number=0))
            worker = self.scene.stage.services[-1].service._consumers[0].worker
            eventually(lambda: self._has_slot, "the first has the slot")
            for number in numbers:
                client.publish(ThingRequested(number=number), id=id_ and f"{id_}-{number}")
        eventually(lambda: worker.queued == len(numbers), "all of them wait for it")

    def open(self) -> None:
        """Let the handler of the first event continue."""
        self._opened = True

    def transactions(self) -> int:
        """Return the number of transactions that wrote the effects."""
        return int(self.scene.query("SELECT count(DISTINCT xmin::text) FROM demo.effects")[0][0])


@pytest.fixture
def queueing(stage: Stage, database_url: str) -> Iterator[Queueing]:
    yield Queueing(Scene(stage, database_url))
    stage.stop()


def test_events_that_wait_at_the_same_time_share_a_transaction(queueing: Queueing) -> None:
    queueing.start()
    queueing.publish(range(1, 11))
    queueing.open()
    eventually(lambda: queueing.scene.effects() == list(range(11)))
    assert queueing.transactions() == 2
    queueing.scene.stage.await_depth("facts", 11)
    eventually(lambda: queueing.scene.query("SELECT count(*) FROM demo.outbox") == [(0,)])
    queueing.scene.stage.await_depth("demo.thing", 0)
    queueing.scene.stage.stop()
    assert queueing.scene.stage.depth("demo.thing") == 0, "all are acknowledged"


@pytest.mark.parametrize("outcome", [Retry("not yet"), ValueError("broken"), Reject("never")])
def test_an_event_that_fails_does_not_fail_the_others_of_its_transaction(
    queueing: Queueing, outcome: Exception
) -> None:
    def fail(event: Event[ThingRequested]) -> None:
        if event.data.number == 3 and event.attempt == 1:
            raise outcome

    queueing.start(fail)
    queueing.publish(range(1, 11))
    queueing.open()
    rejected = isinstance(outcome, Reject)
    eventually(lambda: queueing.scene.effects() == [n for n in range(11) if n != 3 or not rejected])
    queueing.scene.stage.await_depth("demo.thing.dlq", int(rejected))
    assert {attempt for number, tries in queueing.attempts.items() if number != 3 for attempt in tries} == {1}
    assert max(queueing.attempts[3]) == (1 if rejected else 2)
    assert queueing.scene.query("SELECT count(*) FROM demo.inbox") == [(10 if rejected else 11,)]


def test_a_statement_that_fails_does_not_fail_the_others_of_its_transaction(queueing: Queueing) -> None:
    """After an error, PostgreSQL refuses every further statement of the transaction."""
    queueing.scene.query("ALTER TABLE demo.effects ADD CHECK (number <> 3)")
    queueing.start(tries=1)
    queueing.publish(range(1, 11))
    queueing.open()
    queueing.scene.stage.await_depth("demo.thing.dlq", 1)
    (dead_letter,) = queueing.scene.stage.dead_letters("demo.thing.dlq")
    assert postgres.CheckViolation.__name__ in str(dead_letter.message.headers)
    assert queueing.scene.effects() == [0, 1, 2, *range(4, 11)]


def test_a_handler_that_hangs_delays_the_others_of_its_transaction_only_briefly(
    queueing: Queueing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "_SHARED_SECONDS", 0.3)
    tried: Counter[int] = Counter()

    async def hang(event: Event[ThingRequested], tx: Transaction) -> None:
        tried[event.data.number] += 1
        if event.data.number == 3:
            await asyncio.Event().wait()
        await record(event, tx)

    queueing.scene.start(hang, share_limit=16, concurrency=2, time_limit_seconds=2, tries=1)
    with queueing.scene.stage.client() as client:
        client.publish_many(ThingRequested(number=number) for number in range(11))
    queueing.scene.stage.await_depth("demo.thing.dlq", 1)
    assert queueing.scene.effects() == [0, 1, 2, *range(4, 11)]
    assert tried[3] >= 2


def test_duplicates_in_a_shared_transaction_are_not_handled_again(queueing: Queueing) -> None:
    queueing.start()
    queueing.publish(range(1, 6), "same")
    queueing.open()
    eventually(lambda: queueing.scene.effects() == list(range(6)))
    with queueing.scene.stage.client() as client:
        for number in (2, 7, 3, 8, 2):
            client.publish(ThingRequested(number=number), id=f"same-{number}")
    eventually(lambda: queueing.scene.effects() == [*range(6), 7, 8])
    queueing.scene.stage.await_depth("demo.thing", 0)
    queueing.scene.stage.stop()
    assert queueing.scene.effects() == [*range(6), 7, 8]
    assert queueing.scene.stage.depth("demo.thing.dlq") == 0


def test_a_reused_id_is_found_in_a_shared_transaction(queueing: Queueing) -> None:
    queueing.start()
    with queueing.scene.stage.client() as client:
        client.publish(ThingRequested(number=20), id="taken-3")
    eventually(lambda: queueing.scene.effects() == [20])
    queueing.publish(range(1, 6), "taken")
    queueing.open()
    queueing.scene.stage.await_depth("demo.thing.dlq", 1)
    (dead_letter,) = queueing.scene.stage.dead_letters("demo.thing.dlq")
    assert dead_letter.message.headers["wch-error-kind"] == "id_reused"
    eventually(lambda: queueing.scene.effects() == [0, 1, 2, 4, 5, 20])


def test_an_outage_of_the_database_during_a_shared_transaction_uses_no_attempt(queueing: Queueing) -> None:
    queueing.start()
    queueing.publish(range(1, 11))
    with queueing.scene.database_away():
        queueing.open()
    eventually(lambda: queueing.scene.effects() == list(range(11)))
    assert {attempt for tries in queueing.attempts.values() for attempt in tries} == {1}
    assert queueing.scene.query("SELECT count(*) FROM demo.inbox") == [(11,)]


def test_a_stop_requeues_the_events_of_a_shared_transaction(queueing: Queueing) -> None:
    never, begun = asyncio.Event(), list[int]()

    async def hang(event: Event[ThingRequested], tx: Transaction) -> None:
        begun.append(event.data.number)
        await record(event, tx)
        if event.data.number > 0:
            await never.wait()

    running = queueing.scene.start(hang, share_limit=16, concurrency=1, grace_seconds=0.2)
    with queueing.scene.stage.client() as client:
        client.publish_many(ThingRequested(number=number) for number in range(11))
    eventually(lambda: len(begun) == 2)
    eventually(lambda: queueing.scene.stage.depth("demo.thing") == 0)
    running.stop()
    queueing.scene.stage.await_depth("demo.thing", 10)
    assert queueing.scene.effects() == [0]
    assert len(begun) == len(set(begun)) == 2, "no other is begun"
