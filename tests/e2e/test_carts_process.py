"""Reminders through both services as processes of their own, killed at random: every customer is reminded exactly once."""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.carts_stage import SHORT_TOPOLOGY, CartsStage, cart
from support.process import Program
from support.stage import Stage
from support.waiting import eventually
from support.whatsapp_stage import SHORT_TOPOLOGY as WHATSAPP
from support.whatsapp_stage import WhatsAppStage, phone
from wch_common.events.carts import ReminderScanRequested

FULL = os.environ.get("WCH_TEST_SCALE") == "full"
CARTS, KILLS = (10_000, 12) if FULL else (600, 4)
SECONDS = 900 if FULL else 120
NO_QUIET = {"WCH_CARTS_QUIET_FROM": "00:00", "WCH_CARTS_QUIET_UNTIL": "00:00", "WCH_CARTS_DELAY_HOURS": "0"}


class Both:
    """Both services' stages, and their processes."""

    def __init__(self, stage: Stage, database_url: str, folder: Path) -> None:
        self.ct = CartsStage(stage, database_url)
        self.wa = WhatsAppStage(stage, database_url)
        stage.declare(SHORT_TOPOLOGY)
        stage.declare(WHATSAPP)
        self._log = folder / "log"
        self._open = ExitStack()

    def start(self, module: str) -> Program:
        """Start one replica."""
        return self._open.enter_context(Program(module, log=self._log, **self.wa.environment(**NO_QUIET)))

    @property
    def reminded(self) -> Counter[str]:
        """How often each person was reminded."""
        return Counter(body["to"] for body in self.wa.sent)

    def close(self) -> None:
        """End everything."""
        self._open.close()
        self.wa.close()


@pytest.fixture
def both(stage: Stage, database_url: str, tmp_path: Path) -> Iterator[Both]:
    made = Both(stage, database_url, tmp_path)
    yield made
    made.close()


@pytest.mark.scale
@pytest.mark.timeout(SECONDS + 300)
def test_two_replicas_that_scan_the_same_carts_and_are_killed_remind_everybody_once(both: Both) -> None:
    chance = random.Random(11)
    both.start("wch_whatsapp")
    running = [both.start("wch_carts") for _ in range(2)]
    for start in range(0, CARTS, 500):
        both.ct.publish(*(cart(number) for number in range(start, min(start + 500, CARTS))))
    known = "SELECT count(*) FROM carts"
    eventually(lambda: both.ct.query(known) == [(CARTS,)], "all carts are known", seconds=SECONDS)
    both.ct.publish(ReminderScanRequested(), ReminderScanRequested())
    for kill in range(KILLS):
        wanted = CARTS * (kill + chance.random()) / (KILLS + 1)
        eventually(lambda wanted=wanted: len(both.wa.sent) >= wanted, f"{wanted} reminded", seconds=SECONDS)  # type: ignore[misc]
        running[kill % 2].kill()
        running[kill % 2] = both.start("wch_carts")
        both.ct.publish(ReminderScanRequested(), ReminderScanRequested())
    eventually(lambda: len(both.wa.sent) >= CARTS, "everybody is reminded", seconds=SECONDS)
    sent = "SELECT count(*) FROM reminders WHERE state = 'sent'"
    eventually(lambda: both.ct.query(sent) == [(CARTS,)], "and it is known", seconds=SECONDS)
    assert set(both.reminded.values()) == {1}
    assert set(both.reminded) == {phone(number) for number in range(CARTS)}
    # One that was started a moment ago may be told to stop before it knows how to.
    assert {one.terminate() for one in running} <= {0, -signal.SIGTERM}
    told = Counter(fact["cart_id"] for fact in both.ct.told("reminder.sent"))
    assert set(told) == {f"c{number}" for number in range(CARTS)}
    unset = "SELECT count(*) FROM carts WHERE reminder_sent_at IS NULL OR remindable"
    assert both.ct.query(unset) == [(0,)]
