"""Erasing and exporting a person in timers, by request and with `wch timers`, on a real broker and database."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from support.command import wch
from support.scheduler_stage import SchedulerStage
from support.stage import Stage
from support.waiting import eventually
from support.whatsapp_stage import message, phone
from wch_common.events.scheduler import TimedEvent, TimerPersonErased, TimerPersonEraseRequested, TimerRequested

LATER = datetime.now(UTC) + timedelta(days=30)


@pytest.fixture
def sc(stage: Stage, database_url: str, tmp_path: Path) -> Iterator[SchedulerStage]:
    made = SchedulerStage(stage, database_url, tmp_path)
    made.write()
    made.start(scheduler_requesters={made.user: ["whatsapp.message.*"]})
    yield made
    stage.stop()


def run(sc: SchedulerStage, *words: str, code: int = 0) -> str:
    return wch(sc.stage, "timers", *words, code=code, WCH_DATABASE_URL=sc.database_url)


def set_timers(sc: SchedulerStage, *numbers: int) -> None:
    with sc.stage.client() as client:
        for number in numbers:
            data = message(number).model_dump(mode="json")
            event = TimedEvent(type="whatsapp.message.requested.v1", data=data)
            client.publish(TimerRequested(key=f"timer-{number}", due=LATER, event=event))
    eventually(lambda: sc.query("SELECT count(*) FROM timers") == [(len(numbers),)])


def test_a_person_is_erased_from_the_timers_that_name_them_by_request(sc: SchedulerStage) -> None:
    set_timers(sc, 1, 2)
    with sc.stage.client(requester="crm") as client:
        client.publish(TimerPersonEraseRequested(phone=phone(1), reason="requested", by="tests"))
    fact = sc.await_answer("person.erased")
    assert {one["table"]: one["rows"] for one in fact["rows"]} == {"outbox": 0, "parked": 0, "timers": 1}
    rows = sc.query("SELECT key, event->'data'->>'to', state FROM timers ORDER BY key")
    assert rows == [("timer-1", "erased", "waiting"), ("timer-2", phone(2), "waiting")]


def test_a_person_is_exported_and_erased_by_command(sc: SchedulerStage) -> None:
    set_timers(sc, 1, 2)
    (shown,) = json.loads(run(sc, "export", phone(1)))["timers"]
    assert (shown["type"], shown["data"]["to"]) == ("whatsapp.message.requested.v1", phone(1))
    assert "would erase" in run(sc, "erase", phone(1), "--dry-run")
    assert len(json.loads(run(sc, "export", phone(1)))["timers"]) == 1, "a dry run changes nothing"
    assert ": 1 row in timers" in run(sc, "erase", phone(1))
    assert json.loads(run(sc, "export", phone(1))) == {"outbox": [], "parked": [], "timers": []}
    assert "nothing is stored about" in run(sc, "erase", phone(1))
    assert "not a phone number" in run(sc, "erase", "who", code=1)


def test_a_request_with_a_malformed_number_is_dead_lettered(sc: SchedulerStage) -> None:
    with sc.stage.client() as client:
        client.publish(TimerPersonEraseRequested(phone="12", by="tests"))
    (dead_letter,) = sc.stage.await_dead_letters("scheduler.control.dlq")
    assert "data.phone: not a phone number" in str(dead_letter.message.headers["wch-error-message"])


def test_neither_the_request_nor_the_fact_names_the_person_in_its_subject() -> None:
    request = TimerPersonEraseRequested(phone=phone(1), by="tests")
    assert (request.subject(), TimerPersonErased(rows=()).subject()) == (None, None)
