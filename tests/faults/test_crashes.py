"""The process is killed between any two steps: no event is lost, and repetitions are bounded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from support.crashing import MIDDLE, PARKING_STEPS, SHARED_STEPS, SHARING, STEPS, STORE_STEPS, STUCK
from support.database import Schema
from support.demo_events import ThingRequested, thing_queue
from support.process import Program
from support.stage import Stage
from support.waiting import eventually
from wch_common.broker.topology import Topology

SIGKILLED = -9
# After a kill between the confirm and the deletion of its row, a fact is published once more under the same id.
PUBLISHED_TWICE = {"after the relay's confirm", "before the outbox row is deleted"}


def lines(journal: Path) -> list[str]:
    return journal.read_text().split("\n")[:-1] if journal.exists() else []


@pytest.mark.parametrize("step", [step for step in STEPS if step != "never"])
def test_an_event_survives_a_kill_at(stage: Stage, tmp_path: Path, step: str) -> None:
    """At least one handler run succeeds, at most one more than without the kill, and every queue ends empty."""
    stage.declare(Topology((thing_queue(),)))
    with stage.client() as client:
        client.publish(ThingRequested(number=7, note="reject" if "dead letter" in step else ""))
    journal, log = tmp_path / "journal", tmp_path / "log"
    with Program("support.crashing", stage.url, str(journal), step, log=log) as dying:
        assert dying.wait() == SIGKILLED, log.read_text()
    if "dead letter" in step:
        dead_lettered_after_all(stage, journal, log, most=1 if step.startswith("before the dead letter") else 2)
        return
    with Program("support.crashing", stage.url, str(journal), "never", log=log) as survivor:
        eventually(lambda: lines(journal), "a handler run")
        expected = {"after the retry is confirmed": 3, "before the ack of the retried": 3}.get(step)
        if expected:
            # The copy in the delay queue and the redelivered original: a duplicate, never a loss.
            eventually(lambda: len(lines(journal)) >= expected)
        eventually(lambda: all(stage.depth(queue.name) == 0 for queue in thing_queue().queues()))
        assert survivor.terminate() == 0, log.read_text()
    assert len(lines(journal)) <= 3
    assert all(stage.depth(queue.name) == 0 for queue in thing_queue().queues())


def dead_lettered_after_all(stage: Stage, journal: Path, log: Path, *, most: int) -> None:
    """The dead letter exists, at most once more than without the kill, its fact is published, and the queue is empty."""
    stage.follow("facts", "demo.thing.failed.#")
    with Program("support.crashing", stage.url, str(journal), "never", log=log) as survivor:
        stage.await_depth("demo.thing.dlq", most)
        eventually(lambda: stage.depth("facts") >= 1)
        with stage.client() as client:
            client.publish(ThingRequested(number=8))
        eventually(lambda: lines(journal)[-1] == "8 1")
        assert survivor.terminate() == 0, log.read_text()
    assert stage.depth("demo.thing") == 0
    dead_letters = stage.dead_letters("demo.thing.dlq")
    assert {dead_letter.message.headers["wch-error-kind"] for dead_letter in dead_letters} == {"rejected"}
    assert len(dead_letters) == most


@pytest.mark.parametrize("step", STUCK)
def test_a_handler_that_never_ends_ends_its_process_and_the_event_is_requeued(
    stage: Stage, tmp_path: Path, step: str
) -> None:
    """A thread cannot be stopped, and a task may ignore its cancellation; the delivery would come back to another consumer."""
    stage.declare(Topology((thing_queue(),)))
    with stage.client() as client:
        client.publish(ThingRequested(number=7))
    log = tmp_path / "log"
    with Program("support.crashing", stage.url, str(tmp_path / "journal"), step, log=log) as program:
        assert program.wait() == 1, log.read_text()
    stage.await_depth("demo.thing", 1)
    assert "a handler has been running for" in log.read_text()


class Database:
    """The database of the crashing service."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self.query("CREATE SCHEMA demo; CREATE TABLE demo.effects (number int)")

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        return self._schema.rows(statement)

    def count(self, table: str) -> int:
        return int(self.query(f"SELECT count(*) FROM {table}")[0][0])


@pytest.mark.parametrize("step", [*STORE_STEPS, *PARKING_STEPS])
def test_an_effect_and_its_fact_happen_once_at_whatever_step_the_process_is_killed(
    stage: Stage, database_url: str, tmp_path: Path, step: str
) -> None:
    """Check that the effect and its inbox row exist once, the fact has one id, and no row or message remains."""
    database = Database(stage.schema(database_url, "demo"))
    stage.declare(Topology((thing_queue(),)))
    stage.follow("facts", "demo.thing.finished.v1.#")
    with stage.client() as client:
        client.publish(ThingRequested(number=7, note="park" if step in PARKING_STEPS else ""))
    journal, log = tmp_path / "journal", tmp_path / "log"
    with Program("support.crashing", stage.url, str(journal), step, database_url, log=log) as dying:
        assert dying.wait() == SIGKILLED, log.read_text()
    # Rows claimed by a dead process are due again after its lease; here at once.
    database.query(
        "UPDATE parked SET due_at = now(); UPDATE outbox SET due_at = now(); UPDATE scopes SET paused_until = now()"
    )
    with Program("support.crashing", stage.url, str(journal), "never", database_url, log=log) as survivor:
        with stage.client() as client:
            client.publish(ThingRequested(number=8))
        eventually(lambda: database.count("effects") >= 2, "both effects happen")
        stage.await_dead_letters("facts", 3 if step in PUBLISHED_TWICE else 2)
        eventually(lambda: database.count("outbox") == database.count("parked") == 0, "no row is left")
        eventually(lambda: all(stage.depth(queue.name) == 0 for queue in thing_queue().queues()))
        assert survivor.terminate() == 0, log.read_text()
    assert database.query("SELECT number FROM effects ORDER BY number") == [(7,), (8,)]
    assert database.count("inbox") == 2
    facts = [orjson.loads(dead_letter.message.body) for dead_letter in stage.dead_letters("facts")]
    ids = [fact["id"] for fact in facts if fact["data"]["number"] == 7]
    assert len(set(ids)) == 1
    assert len(ids) == (2 if step in PUBLISHED_TWICE else 1)
    assert all(stage.depth(queue.name) == 0 for queue in thing_queue().queues())


@pytest.mark.parametrize("step", SHARED_STEPS)
def test_events_of_a_shared_transaction_have_one_effect_each_when_the_process_is_killed(
    stage: Stage, database_url: str, tmp_path: Path, step: str
) -> None:
    database = Database(stage.schema(database_url, "demo"))
    stage.declare(Topology((thing_queue(concurrency=1),)))
    stage.follow("facts", "demo.thing.finished.v1.#")
    numbers = range(SHARING + 1)
    with stage.client() as client:
        client.publish_many(ThingRequested(number=n, note={0: "hold", 4: MIDDLE}.get(n, "")) for n in numbers)
    journal, log = tmp_path / "journal", tmp_path / "log"
    with Program("support.crashing", stage.url, str(journal), step, database_url, log=log) as dying:
        assert dying.wait() == SIGKILLED, log.read_text()
    committed = "after" in step or "acks" in step
    assert database.count("effects") == (len(numbers) if committed else 1)
    assert len(lines(journal)) == (5 if step == MIDDLE else len(numbers))
    database.query("UPDATE outbox SET due_at = now()")
    with Program("support.crashing", stage.url, str(journal), "never", database_url, log=log) as survivor:
        eventually(lambda: database.count("effects") >= len(numbers), "all effects happen")
        eventually(lambda: stage.depth("facts") >= len(numbers), "all facts are published, the first perhaps twice")
        eventually(lambda: database.count("outbox") == 0, "no row is left")
        eventually(lambda: all(stage.depth(queue.name) == 0 for queue in thing_queue().queues()))
        assert survivor.terminate() == 0, log.read_text()
    assert database.query("SELECT number FROM effects ORDER BY number") == [(n,) for n in numbers]
    assert database.count("inbox") == len(numbers)
    facts = [orjson.loads(dead_letter.message.body) for dead_letter in stage.dead_letters("facts")]
    assert len({fact["id"] for fact in facts}) == len(numbers)


def test_a_message_that_kills_its_process_is_dead_lettered_and_affects_no_other(stage: Stage, tmp_path: Path) -> None:
    stage.declare(Topology((thing_queue(),)))
    with stage.client() as client:
        client.publish_many(ThingRequested(number=n, note="kill" if n == 5 else "") for n in range(30))
    journal, log = tmp_path / "journal", tmp_path / "log"
    kills = 0
    for _ in range(10):
        with Program("support.crashing", stage.url, str(journal), "never", log=log) as program:
            eventually(
                lambda: not program.is_running or stage.depth("demo.thing.dlq") == 1,
                "the process is killed, or the message that kills it is dead-lettered",
            )
            if program.is_running:
                eventually(lambda: len({line.split()[0] for line in lines(journal)}) == 30)
                assert program.terminate() == 0
                break
            assert program.wait() == SIGKILLED
            kills += 1
    (dead_letter,) = stage.dead_letters("demo.thing.dlq")
    assert dead_letter.message.headers["wch-error-kind"] == "killed_process"
    assert b'"number":5' in dead_letter.message.body
    assert kills == 5
    assert stage.depth("demo.thing") == 0
