"""Reminders through the carts and whatsapp processes, killed at random: every customer is reminded exactly once."""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from support.carts_stage import SHORT_TOPOLOGY, CartsStage, cart, ordered
from support.process import Program
from support.stage import Stage
from support.waiting import eventually
from support.whatsapp_stage import SHORT_TOPOLOGY as WHATSAPP
from support.whatsapp_stage import WhatsAppStage, phone
from wch_common.events.carts import CleanupRequested, ReminderScanRequested

FULL = os.environ.get("WCH_TEST_SCALE") == "full"
CARTS, KILLS = (10_000, 12) if FULL else (1_200, 4)
SECONDS = 900 if FULL else 300
NO_QUIET = {"WCH_CARTS_QUIET_FROM": "00:00", "WCH_CARTS_QUIET_UNTIL": "00:00", "WCH_CARTS_DELAY_HOURS": "0"}
NO_QUIET |= {"WCH_CARTS_MOST_PER_HOUR": "1000000"}  # a test reminds more owners than a shop does in an hour


class Both:
    """The stages of both services, and their processes."""

    def __init__(self, stage: Stage, database_url: str, folder: Path) -> None:
        self.ct = CartsStage(stage, database_url)
        self.wa = WhatsAppStage(stage, database_url)
        stage.declare(SHORT_TOPOLOGY)
        stage.declare(WHATSAPP)
        self._log = folder / "log"
        self._open = ExitStack()

    def start(self, module: str, **changes: str) -> Program:
        """Start one replica."""
        environment = self.wa.environment(**(NO_QUIET | changes))
        return self._open.enter_context(Program(module, log=self._log, **environment))

    @property
    def reminded(self) -> Counter[str]:
        """Return the number of messages that each phone number received."""
        return Counter(body["to"] for body in self.wa.sent)

    def close(self) -> None:
        """Stop every process."""
        self._open.close()
        self.wa.close()


@pytest.fixture
def both(stage: Stage, database_url: str, tmp_path: Path) -> Iterator[Both]:
    made = Both(stage, database_url, tmp_path)
    yield made
    made.close()


@pytest.mark.scale
@pytest.mark.timeout(SECONDS + 900)
def test_replicas_killed_while_they_scan_the_same_carts_remind_each_owner_once(both: Both) -> None:
    chance = random.Random(11)
    both.start("wch_whatsapp")
    running = [both.start("wch_carts") for _ in range(2)]
    for start in range(0, CARTS, 500):
        both.ct.publish(*(cart(number) for number in range(start, min(start + 500, CARTS))))
    known = "SELECT count(*) FROM carts"
    eventually(lambda: both.ct.query(known) == [(CARTS,)], "all carts are stored", seconds=SECONDS)

    def claimed(wanted: float) -> bool:
        return bool(both.ct.query("SELECT count(*) FROM reminders")[0][0] >= wanted)

    def reminded(wanted: float) -> bool:
        return len(both.wa.sent) >= wanted

    for kill in range(KILLS):
        both.ct.publish(ReminderScanRequested(), ReminderScanRequested())
        if kill < KILLS / 2:  # in the middle of a scan
            wanted = CARTS * kill / KILLS + 1
            eventually(partial(claimed, wanted), f"{wanted} claimed", seconds=SECONDS)
        else:
            wanted = CARTS * (kill + chance.random()) / (KILLS + 1)
            eventually(partial(reminded, wanted), f"{wanted} reminded", seconds=SECONDS)
        running[kill % 2].kill()
        running[kill % 2] = both.start("wch_carts")
    both.ct.publish(ReminderScanRequested())
    eventually(lambda: len(both.wa.sent) >= CARTS, "every owner is reminded", seconds=SECONDS)
    sent = "SELECT count(*) FROM reminders WHERE state = 'sent'"
    eventually(lambda: both.ct.query(sent) == [(CARTS,)], "every result is stored", seconds=SECONDS)
    assert set(both.reminded.values()) == {1}
    assert set(both.reminded) == {phone(number) for number in range(CARTS)}
    # Another process publishes, after a while, what a killed one had only committed.
    unpublished = "SELECT count(*) FROM outbox"
    eventually(lambda: both.ct.query(unpublished) == [(0,)], "every committed event is published", seconds=SECONDS)
    # A process that has just started may get SIGTERM before it handles it.
    assert {one.terminate() for one in running} <= {0, -signal.SIGTERM}
    published = Counter(fact["cart_id"] for fact in both.ct.facts("reminder.sent"))
    assert set(published) == {f"c{number}" for number in range(CARTS)}
    unset = "SELECT count(*) FROM carts WHERE reminder_sent_at IS NULL OR remindable"
    assert both.ct.query(unset) == [(0,)]


def test_a_cleanup_continues_after_its_process_is_killed(both: Both) -> None:
    first = both.start("wch_carts")
    expired = 100_000
    both.ct.query(
        "INSERT INTO carts (id, shop, cart_id, version, status, expires_at) SELECT gen_random_uuid(), '', 'x' || n, 1, 'active', "
        "now() - interval '1 hour' FROM generate_series(1, %s) AS n", expired + 10
    )  # fmt: skip
    both.ct.query(
        "UPDATE carts SET expires_at = now() + interval '1 hour' WHERE cart_id IN (SELECT 'x' || n FROM generate_series(1, 10) AS n)"
    )
    both.ct.publish(CleanupRequested())
    eventually(lambda: both.ct.query("SELECT 1 FROM cleanups WHERE deleted > 0"), "it has begun", seconds=SECONDS)
    first.kill()
    ((deleted,),) = both.ct.query("SELECT deleted FROM cleanups WHERE ended_at IS NULL") or ((0,),)
    assert 0 < deleted < expired, "the cleanup was in progress"
    assert both.ct.query("SELECT count(*) FROM carts") == [(expired + 10 - deleted,)], "it counted what it deleted"
    both.start("wch_carts")
    both.start("wch_carts")
    eventually(lambda: both.ct.facts("cleanup.completed"), "another process continues", seconds=SECONDS)
    (completed,) = both.ct.facts("cleanup.completed")
    assert (completed["deleted"], completed["kept"]) == (expired, 10)


def test_an_order_cancels_a_reminder_that_whatsapp_has_not_started(both: Both) -> None:
    both.start("wch_carts")
    both.start("wch_whatsapp", WCH_WHATSAPP_MESSAGING_LIMIT="1")
    for number in (1, 2):
        both.ct.fill(cart(number))
        both.ct.publish(ReminderScanRequested())
        state = {1: "accepted", 2: "queued"}[number]
        eventually(lambda state=state: state in both.wa.states().values(), f"one is {state}", seconds=SECONDS)  # type: ignore[misc]
    both.ct.publish(ordered(2))
    eventually(lambda: both.ct.facts("reminder.skipped"), "it is cancelled", seconds=SECONDS)
    assert [fact["reason"] for fact in both.ct.facts("reminder.skipped")] == ["bought"]
    assert set(both.reminded) == {phone(1)}
