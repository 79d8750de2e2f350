"""The process is killed between any two steps: nothing is lost, and what is repeated is bounded."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.crashing import STEPS
from support.demo_family import ThingRequested, thing_queue
from support.process import Program
from support.stage import Stage
from support.waiting import eventually
from wch_common.topology import Topology

SIGKILLED = -9


def lines(journal: Path) -> list[str]:
    return journal.read_text().split("\n")[:-1] if journal.exists() else []


@pytest.mark.parametrize("step", [step for step in STEPS if step != "never"])
def test_an_event_survives_a_kill_at(stage: Stage, tmp_path: Path, step: str) -> None:
    """At least one handler run succeeds, at most one more than without the kill, and every queue ends empty."""
    stage.declare(Topology((thing_queue(),)))
    with stage.client() as client:
        client.publish(ThingRequested(number=7))
    journal, log = tmp_path / "journal", tmp_path / "log"
    with Program("support.crashing", stage.url, str(journal), step, log=log) as dying:
        assert dying.wait() == SIGKILLED, log.read_text()
    with Program("support.crashing", stage.url, str(journal), "never", log=log) as survivor:
        eventually(lambda: lines(journal), "a handler run")
        expected = {"after the retry is confirmed": 3, "before the ack of the retried": 3}.get(step)
        if expected:
            # The copy in the rung and the redelivered original: one duplicate, never a loss.
            eventually(lambda: len(lines(journal)) >= expected)
        eventually(lambda: all(stage.depth(queue.name) == 0 for queue in thing_queue().queues()))
        assert survivor.terminate() == 0, log.read_text()
    assert len(lines(journal)) <= 3
    assert all(stage.depth(queue.name) == 0 for queue in thing_queue().queues())


def test_a_message_that_kills_its_process_is_dead_lettered_and_takes_no_neighbour_along(
    stage: Stage, tmp_path: Path
) -> None:
    stage.declare(Topology((thing_queue(),)))
    with stage.client() as client:
        client.publish_many(ThingRequested(number=n, note="kill" if n == 5 else "") for n in range(30))
    journal, log = tmp_path / "journal", tmp_path / "log"
    kills = 0
    for _ in range(10):
        with Program("support.crashing", stage.url, str(journal), "never", log=log) as program:
            eventually(
                lambda: program.process.poll() is not None or stage.depth("demo.thing.dlq") == 1,
                "it is killed, or its killer is dead-lettered",
            )
            if program.process.poll() is None:
                eventually(lambda: len({line.split()[0] for line in lines(journal)}) == 30)
                assert program.terminate() == 0
                break
            assert program.wait() == SIGKILLED
            kills += 1
    (letter,) = stage.letters("demo.thing.dlq")
    assert letter.message.headers["wch-error-kind"] == "killed_process"
    assert b'"number":5' in letter.message.body
    assert kills == 5
    assert stage.depth("demo.thing") == 0
