"""Erasing a person from timers, once whatsapp says who it is, on a real broker and database."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from support.scheduler_stage import SchedulerStage
from support.stage import Stage
from support.waiting import eventually
from support.whatsapp_stage import erased, message, phone
from wch_common.events.scheduler import TimedEvent, TimerRequested

LATER = datetime.now(UTC) + timedelta(days=30)


@pytest.fixture
def sc(stage: Stage, database_url: str, tmp_path: Path) -> Iterator[SchedulerStage]:
    made = SchedulerStage(stage, database_url, tmp_path)
    made.write()
    made.start(scheduler_requesters={made.user: ["whatsapp.message.*"]})
    yield made
    stage.stop()


def set_timers(sc: SchedulerStage, *numbers: int) -> None:
    with sc.stage.client() as client:
        for number in numbers:
            data = message(number).model_dump(mode="json")
            event = TimedEvent(type="whatsapp.message.requested.v1", data=data)
            client.publish(TimerRequested(key=f"timer-{number}", due=LATER, event=event))
    eventually(lambda: sc.query("SELECT count(*) FROM timers") == [(len(numbers),)])


def test_a_person_is_erased_from_the_timers_that_name_them(sc: SchedulerStage) -> None:
    set_timers(sc, 1, 2)
    with sc.stage.client(requester="crm") as client:
        client.publish(erased(phone(1)))
    fact = sc.await_answer("person.erased")
    assert {one["table"]: one["rows"] for one in fact["rows"]} == {"outbox": 0, "parked": 0, "timers": 1}
    rows = sc.query("SELECT key, event->'data'->>'to', state FROM timers ORDER BY key")
    assert rows == [("timer-1", "erased", "waiting"), ("timer-2", phone(2), "waiting")]
