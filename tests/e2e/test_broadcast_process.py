"""Campaigns through the broadcast and whatsapp processes, killed at random: one message each, and totals that add up."""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest

from support.broadcast_stage import BroadcastStage, campaign, part, shortened
from support.process import Program
from support.stage import Stage
from support.waiting import eventually
from support.whatsapp_stage import WhatsAppStage
from wch_common.events.broadcast import CampaignCancelRequested
from wch_whatsapp.topology import TOPOLOGY as WHATSAPP

FULL = os.environ.get("WCH_TEST_SCALE") == "full"
RECIPIENTS, KILLS = (100_000, 10) if FULL else (1_500, 3)
SECONDS = 1500 if FULL else 300
PART = 500


class Both:
    """The stages of both services, and their processes."""

    def __init__(self, stage: Stage, database_url: str, folder: Path) -> None:
        self.bc = BroadcastStage(stage, database_url)
        self.wa = WhatsAppStage(stage, database_url)
        stage.declare(shortened(WHATSAPP))
        self._log = folder / "log"
        self._open = ExitStack()

    def start(self, module: str, **changes: str) -> Program:
        """Start one replica."""
        return self._open.enter_context(Program(module, log=self._log, **self.wa.environment(**changes)))

    def campaign(self, name: str, **changes: object) -> None:
        """Upload all recipients in parts, and request a campaign to them."""
        parts = RECIPIENTS // PART
        for number in range(1, parts + 1):
            numbers = range((number - 1) * PART, number * PART)
            self.bc.publish(part(f"{name}-list", number, numbers, parts=parts if number == parts else None))
        self.bc.publish(campaign(name, None, list_id=f"{name}-list", **changes))

    @property
    def sent(self) -> Counter[str]:
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


def test_a_thousand_recipients_with_the_defaults_are_twenty_batches_a_second_apart(both: Both) -> None:
    both.start("wch_whatsapp")
    both.start("wch_broadcast")
    both.bc.publish(campaign("defaults", range(1000), pause_seconds=1.0))
    eventually(lambda: both.bc.facts("campaign.completed"), "it completes", seconds=250)
    (done,) = both.bc.facts("campaign.completed")
    assert (done["totals"]["recipients"], done["totals"]["sent"], done["totals"]["percentage"]) == (1000, 1000, 100)
    assert set(both.sent.values()) == {1}
    assert len(both.sent) == 1000
    timestamps = [row[0] for row in both.bc.query("SELECT released_at FROM batches ORDER BY number")]
    assert len(timestamps) == 20
    gaps = [(later - earlier).total_seconds() for earlier, later in pairwise(timestamps)]
    assert all(gap >= 1 for gap in gaps), gaps


@pytest.mark.scale
@pytest.mark.timeout(SECONDS + 900)
def test_replicas_killed_repeatedly_send_each_recipient_one_message(both: Both) -> None:
    chance = random.Random(7)
    both.start("wch_whatsapp")
    running = [both.start("wch_broadcast") for _ in range(2)]
    both.campaign("all", batch_size=50)
    for kill in range(KILLS):
        wanted = RECIPIENTS * (kill + chance.random()) / (KILLS + 1)
        eventually(lambda wanted=wanted: len(both.wa.sent) >= wanted, f"{wanted} sent", seconds=SECONDS)  # type: ignore[misc]
        running[kill % 2].kill()
        running[kill % 2] = both.start("wch_broadcast")
    eventually(lambda: both.bc.facts("campaign.completed"), "it completes", seconds=SECONDS)
    (done,) = both.bc.facts("campaign.completed")
    assert done["totals"]["sent"] == done["totals"]["recipients"] == RECIPIENTS
    assert set(both.sent.values()) == {1}
    assert len(both.sent) == RECIPIENTS
    assert len(both.bc.batches) >= RECIPIENTS / 50
    # A process that has just started may get SIGTERM before it handles it.
    assert {one.terminate() for one in running} <= {0, -signal.SIGTERM}
    assert len(both.bc.facts("campaign.completed")) == 1


def test_the_totals_of_a_campaign_cancelled_at_a_third_add_up(both: Both) -> None:
    both.start("wch_whatsapp")
    both.start("wch_broadcast")
    both.wa.graph.latency_seconds = 0.1  # so that messages are in progress
    both.campaign("part", batch_size=100)
    eventually(lambda: len(both.wa.sent) >= RECIPIENTS * 0.3, seconds=SECONDS)
    both.bc.publish(CampaignCancelRequested(campaign_id="part", reason="sold out", by="tests"))
    eventually(lambda: both.bc.facts("campaign.cancelled"), "it is cancelled", seconds=SECONDS)
    (cancelled,) = both.bc.facts("campaign.cancelled")
    totals = cancelled["totals"]
    assert totals["sent"] == len(both.sent)
    assert totals["cancelled"] > 0
    assert totals["sent"] + totals["cancelled"] == totals["recipients"] == RECIPIENTS
    assert set(both.sent.values()) == {1}
