"""The whatsapp service as a process, killed at every step and at random: no recipient gets a message twice."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from support.crashing_whatsapp import STEPS
from support.ports import own_port
from support.process import Program
from support.stage import Stage
from support.waiting import eventually
from support.whatsapp_stage import WhatsAppStage, batch, message

FULL = os.environ.get("WCH_TEST_SCALE") == "full"
REQUESTS, KILLS = (10_000, 50) if FULL else (500, 4)
SIGKILLED = -9
CALLS = 40
FINAL = {"accepted", "unknown"}


@pytest.fixture
def wa(stage: Stage, database_url: str) -> Iterator[WhatsAppStage]:
    made = WhatsAppStage(stage, database_url)
    yield made
    made.close()


def start(wa: WhatsAppStage, log: Path, step: str = "never", **changes: str) -> Program:
    own = {"WCH_WHATSAPP_LEASE_SECONDS": "1", "WCH_WHATSAPP_CALLS_IN_FLIGHT": str(CALLS)}
    return Program("support.crashing_whatsapp", step, log=log, **wa.environment(**(own | changes)))


@pytest.mark.parametrize("step", [step for step in STEPS if step != "never"])
def test_a_message_is_sent_at_most_once_whatever_step_the_process_is_killed_at(
    wa: WhatsAppStage, step: str, tmp_path: Path
) -> None:
    with start(wa, tmp_path / "log", step) as program:
        wa.publish(*(message(number) for number in range(5)))
        assert program.wait() == SIGKILLED
    with start(wa, tmp_path / "log") as program:
        eventually(lambda: len(wa.states()) == 5)
        # A call whose process died is in doubt after its deadline, and unknown ten minutes later.
        in_doubt = eventually(lambda: not {"queued"} & set(wa.states().values()) and wa.states())
        wa.query("UPDATE messages SET due_at = now() WHERE state = 'sending'")
        eventually(lambda: set(wa.states().values()) <= {"accepted", "in_doubt"})
        wa.query("UPDATE messages SET due_at = now() WHERE state = 'in_doubt'")
        eventually(lambda: set(wa.states().values()) <= FINAL)
        # Facts that a dead process committed but did not publish are swept seconds later.
        eventually(lambda: {fact["send_key"] for fact in wa.facts()} == {f"key-{number}" for number in range(5)})
        assert program.terminate() == 0
    assert in_doubt
    assert all(count == 1 for count in Counter(body["to"] for body in wa.sent).values())
    calls = Counter(body["biz_opaque_callback_data"] for body in wa.sent)
    assert all(count == 1 for count in calls.values())
    states = Counter(wa.states().values())
    assert len(wa.sent) - states["accepted"] <= states["unknown"]
    if step in {
        "before the row is written",
        "after the row is written",
        "before the claim",
        "after the outcome is committed",
    }:
        assert states["unknown"] <= (4 if "outcome" in step else 0), "no call was in flight"


@pytest.mark.scale
def test_no_recipient_gets_a_message_twice_however_often_the_process_is_killed(
    wa: WhatsAppStage, tmp_path: Path
) -> None:
    chance = random.Random(7)
    wa.graph.latency_seconds = 0.02
    wa.publish(*(message(number) for number in range(REQUESTS)))
    doubtful = 0
    for kill in range(KILLS):
        with start(wa, tmp_path / "log") as program:
            share = REQUESTS * (kill + 1) * 0.8 / KILLS
            wanted = share - chance.random() * REQUESTS / KILLS / 2
            eventually(partial(sent_enough, wa, wanted))
            program.kill()
        doubtful = sum(state == "sending" for state in wa.states().values())
        assert doubtful <= CALLS * (kill + 1)
    with start(wa, tmp_path / "log") as program:
        eventually(lambda: settled(wa), "every message is sent or in flight", seconds=300)
        wa.query("UPDATE messages SET due_at = now() WHERE state = 'sending'")
        eventually(lambda: not {"sending", "queued"} & set(wa.states().values()))
        wa.query("UPDATE messages SET due_at = now() WHERE state = 'in_doubt'")
        eventually(lambda: set(wa.states().values()) <= FINAL)
        assert program.terminate() == 0
    states = Counter(wa.states().values())
    assert states.total() == REQUESTS
    sends = Counter(body["to"] for body in wa.sent)
    assert max(sends.values()) == 1, "no recipient is sent two messages"
    assert states["unknown"] <= CALLS * KILLS
    unsure = {key for key, state in wa.states().items() if state == "unknown"}
    assert states["accepted"] <= len(sends) <= states["accepted"] + len(unsure)
    assert wa.stage.depth("whatsapp.message.dlq") == 0
    print(f"{REQUESTS} requests, {KILLS} kills: {dict(states)}, {len(sends)} sends")


def sent_enough(wa: WhatsAppStage, wanted: float) -> bool:
    return len(wa.graph.sent) >= wanted or settled(wa)


def settled(wa: WhatsAppStage) -> bool:
    counts = dict(wa.query("SELECT state, count(*) FROM messages GROUP BY state"))
    return sum(counts.values()) == REQUESTS and not counts.get("queued")


@pytest.mark.scale
def test_memory_is_flat_while_batches_are_sent(wa: WhatsAppStage, tmp_path: Path) -> None:
    recipients = 100_000 if FULL else 2_000
    wa.graph.latency_seconds = 0.02
    with start(wa, tmp_path / "log") as program:
        eventually(lambda: "sending" in (tmp_path / "log").read_text())
        before = resident(program)
        for start_ in range(0, recipients, 1_000):
            wa.publish(batch(f"b-{start_ // 1_000}", range(start_, start_ + 1_000)))
        eventually(lambda: len(wa.graph.sent) == recipients, seconds=600)
        grown = resident(program) - before
        assert grown < 80, f"{grown} MB more than idle"
        assert program.terminate() == 0
    print(f"{recipients} recipients: {before} MB idle, {before + grown} MB at the end")


def resident(program: Program) -> int:
    """Return the resident memory in MB."""
    status = Path(f"/proc/{program.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) // 1024


def test_a_stopping_process_writes_the_outcomes_of_its_calls(wa: WhatsAppStage, tmp_path: Path) -> None:
    wa.graph.latency_seconds = 1
    with start(wa, tmp_path / "log") as program:
        wa.publish(batch("b", range(40)))
        eventually(lambda: Counter(wa.states().values())["sending"] == 40)
        assert program.terminate() == 0
    assert set(wa.states().values()) == {"accepted"}
    assert len(wa.sent) == 40


def test_the_process_serves_health_and_metrics(wa: WhatsAppStage, tmp_path: Path) -> None:
    port = own_port()
    with start(wa, tmp_path / "log", WCH_HEALTH_PORT=str(port)):

        def answer(path: str) -> str:
            try:
                return httpx.get(f"http://127.0.0.1:{port}{path}").text
            except httpx.TransportError:
                return ""

        eventually(lambda: answer("/readyz") == "ok\n")
        wa.publish(message(1))
        eventually(lambda: 'wch_whatsapp_messages_total{reason="",state="accepted"} 1.0' in answer("/metrics"))
        assert "5550100001" not in answer("/metrics")
    assert "5550100001" not in (tmp_path / "log").read_text()
