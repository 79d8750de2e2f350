"""A database or broker outage over several planned times: the catch-up policy applies, and missed times are counted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from support.scheduler_stage import SchedulerStage
from support.scratch import new_folder
from support.waiting import eventually
from wch_local.postgres import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.nodes import Node
    from support.stage import Stage

POLICIES = ("skip", "one", "all")
EVERY = timedelta(seconds=1)


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    server = EmbeddedServer(new_folder("postgres"))
    yield server
    server.stop()
    server.remove()


@pytest.mark.parametrize("away", ["database", "broker"])
def test_after_three_missed_times_the_policy_decides(
    node: Node, fragile: Stage, server: EmbeddedServer, tmp_path: Path, away: str
) -> None:
    sc = SchedulerStage(fragile, server.start(), tmp_path)
    sc.write(**{policy: {"every_seconds": 1, "catch_up": policy, "catch_up_most": 1000} for policy in POLICIES})
    sc.start(scheduler_outage_seconds=0.5, confirm_timeout_seconds=2)
    eventually(lambda: all(len(sc.ticks(policy)) >= 2 for policy in POLICIES))
    stop, start = (server.stop, server.start) if away == "database" else (node.stop, node.start)
    last = max(sc.ticks("all"))
    stop()
    eventually(lambda: datetime.now(UTC) > last + 5 * EVERY, "three more planned times have passed, and the next one")
    start()

    def on_time() -> bool:
        return all(sc.ticks(policy)[-1] > datetime.now(UTC) - EVERY for policy in POLICIES)

    eventually(on_time, "on time again")
    sc.query("UPDATE schedules SET next_due = NULL, next_planned = NULL")
    # Events that were not confirmed when the broker stopped are published again under the same id.
    eventually(lambda: sc.query("SELECT count(*) FROM outbox") == [(0,)], "all is published")
    fragile.stop()
    missed = {policy: _passed_over(sc.ticks(policy)) for policy in POLICIES}
    assert missed["all"] == 0
    assert missed["one"] >= 2
    assert missed["skip"] >= 3
    for policy in POLICIES:
        assert sc.row(policy)["missed"] == missed[policy]
        ticks = sc.query("SELECT coalesce(sum(ticks), 0) FROM gaps WHERE schedule = %s", policy)
        assert ticks == [(missed[policy],)]
    assert set(sc.ids) == {id_ for policy in POLICIES for id_ in sc.expected(policy)}


def _passed_over(ticks: list[datetime]) -> int:
    """Return how many planned times between the first and the last were not published."""
    return (ticks[-1] - ticks[0]) // EVERY + 1 - len(ticks)
