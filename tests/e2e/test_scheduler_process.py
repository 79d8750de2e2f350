"""Scheduler processes, killed and paused at random: every planned time is published, under one id."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest

from support.carts_stage import SHORT_TOPOLOGY
from support.ports import own_port
from support.process import Program
from support.scheduler_stage import SchedulerStage
from support.stage import Stage
from support.waiting import eventually
from support.whatsapp_stage import HASH_KEY

FULL = os.environ.get("WCH_TEST_SCALE") == "full"
TICKS, FAULTS = (10_000, 30) if FULL else (800, 8)
SECONDS = 3000  # ends a test that hangs
# A stalled machine is caught up with for 1,000 times each, which are 1,000 s.
SCHEDULES, EVERY = 100, 1.0


class Replicas:
    """The scheduler's stage, and its processes."""

    def __init__(self, stage: Stage, database_url: str, folder: Path) -> None:
        self.sc = SchedulerStage(stage, database_url, folder)
        self._log = folder / "log"
        self._open = ExitStack()

    def start(self, module: str = "wch_scheduler", file: Path | None = None) -> Program:
        """Start one replica."""
        environment = {
            "WCH_AMQP_URL": self.sc.stage.url,
            "WCH_DATABASE_URL": self.sc.database_url,
            "WCH_PERSON_HASH_KEY": HASH_KEY,
            "WCH_CONFIRM_TIMEOUT_SECONDS": "2",
            "WCH_HEALTH_HOST": "127.0.0.1",
            "WCH_HEALTH_PORT": str(own_port()),
        }
        own = {} if module == "wch_carts" else {"WCH_SCHEDULES_FILE": str(file or self.sc.file)}
        return self._open.enter_context(Program(module, log=self._log, **environment, **own))

    def logged(self, what: str) -> list[dict[str, Any]]:
        """Return the log lines with an event of that name."""
        lines = [orjson.loads(line) for line in self._log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == what]

    def close(self) -> None:
        """End everything."""
        self._open.close()
        self.sc.stage.stop()


@pytest.fixture
def replicas(stage: Stage, database_url: str, tmp_path: Path) -> Iterator[Replicas]:
    made = Replicas(stage, database_url, tmp_path)
    yield made
    made.close()


@pytest.mark.scale
@pytest.mark.timeout(SECONDS + 900)
def test_three_replicas_that_are_killed_and_paused_publish_every_time_once(replicas: Replicas) -> None:
    chance, sc = random.Random(5), replicas.sc
    sc.stage.declare(SHORT_TOPOLOGY)
    names = [f"s{number}" for number in range(SCHEDULES)]
    sc.write(**{name: {"every_seconds": EVERY, "catch_up": "all", "catch_up_most": 1000} for name in names})
    running = [replicas.start() for _ in range(3)]
    carts = replicas.start("wch_carts")
    taken = "SELECT count(*) FROM ticks"

    def came(wanted: float) -> bool:
        return bool(sc.query(taken)) and bool(sc.query(taken)[0][0] >= wanted)

    for fault in range(FAULTS):
        wanted = TICKS * (fault + chance.random()) / (FAULTS + 1)
        eventually(partial(came, wanted), f"{wanted} ticks", seconds=SECONDS)
        victim = fault % 3
        if fault % 2:
            running[victim].kill()
            running[victim] = replicas.start()
        else:  # at any point of its work, until the others have continued
            os.kill(running[victim].pid, signal.SIGSTOP)
            eventually(partial(came, sc.query(taken)[0][0] + SCHEDULES), "the others go on", seconds=SECONDS)
            os.kill(running[victim].pid, signal.SIGCONT)
    eventually(partial(came, TICKS), f"{TICKS} ticks", seconds=SECONDS)
    # A process that has just started may get SIGTERM before it handles it.
    assert {one.terminate() for one in running} <= {0, -signal.SIGTERM}
    last = replicas.start()  # publishes the rows that killed processes left
    sc.query("UPDATE schedules SET next_due = NULL, next_planned = NULL")
    expected = {id_ for name in names for id_ in sc.expected(name)}
    eventually(lambda: set(sc.ids) >= expected, "all are published", seconds=SECONDS)
    last.kill()
    assert set(sc.ids) == {id_ for name in names for id_ in sc.expected(name)}
    for name in names:
        assert {later - one for one, later in pairwise(sc.ticks(name))} <= {timedelta(seconds=EVERY)}, "none is missing"
    done = "SELECT count(*), count(DISTINCT causationid) FROM carts.cleanups"
    ticks = sc.query(taken)[0][0]
    eventually(lambda: sc.query(done) == [(ticks, ticks)], "its effect once", seconds=SECONDS)
    carts.kill()


def test_sighup_applies_a_changed_file(replicas: Replicas) -> None:
    sc = replicas.sc
    sc.write(a={"cron": "0 * * * *"})
    running = replicas.start("support.scheduler_on_hup")
    sc.await_row("a")
    sc.write(b={"cron": "0 * * * *"})
    os.kill(running.pid, signal.SIGHUP)
    sc.await_row("b")
    assert sc.row("a") == {}
    assert running.terminate() == 0


def test_the_log_names_published_events_invalid_files_and_replicas_on_standby(
    replicas: Replicas, tmp_path: Path
) -> None:
    sc = replicas.sc
    sc.write(a={"every_seconds": 0.5})
    running = replicas.start("support.scheduler_on_hup")
    eventually(lambda: sc.ids and {one["event_id"] for one in replicas.logged("tick")} >= set(sc.ids[:1]))
    assert replicas.logged("tick")[0]["schedule"] == "a"
    good = sc.file.read_text()
    sc.file.write_text("schedules: [")
    for times in (1, 2):
        os.kill(running.pid, signal.SIGHUP)
        eventually(
            lambda: len(replicas.logged("schedules_file_broken")) == times, "the error is logged at the next reload"
        )
    sc.file.write_text(good)
    other = sc.write(tmp_path / "other.yaml", b={"every_seconds": 0.5})
    replicas.start(file=other)
    (line,) = eventually(lambda: replicas.logged("schedules_on_standby"))
    assert line["reason"]
