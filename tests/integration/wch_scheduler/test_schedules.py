"""Schedules with a real broker and a real database: each time is published once, whichever replica takes it."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from prometheus_client import CollectorRegistry

from support.command import wch
from support.scheduler_stage import SchedulerStage
from support.stage import Stage
from support.waiting import eventually
from wch_common.contract.message import Publication
from wch_common.events import published_contract
from wch_common.events.scheduler import SchedulePauseRequested, ScheduleResumeRequested, ScheduleRunRequested
from wch_common.store.store import Store
from wch_scheduler import file_in_use
from wch_scheduler.metrics import SchedulerMetrics
from wch_scheduler.ticks import Ticks, event_id


@pytest.fixture
def sc(stage: Stage, database_url: str, tmp_path: Path) -> Iterator[SchedulerStage]:
    yield SchedulerStage(stage, database_url, tmp_path)
    stage.stop()


def run(sc: SchedulerStage, *words: str, code: int = 0) -> str:
    return wch(sc.stage, "schedules", *words, code=code, WCH_DATABASE_URL=sc.database_url)


OFTEN = {"every_seconds": 0.2}


def set_back(sc: SchedulerStage, name: str, **ago: float) -> datetime:
    """Let the next time of an hourly schedule be its last one, or this long before it."""
    timestamp = sc.last_hourly - timedelta(**ago)
    sc.query("UPDATE schedules SET next_planned = %s, next_due = %s WHERE name = %s", timestamp, timestamp, name)
    return timestamp


# -- the main path


def test_a_schedule_publishes_at_its_times_under_derived_ids(sc: SchedulerStage) -> None:
    sc.write(often={"every_seconds": 0.5, "data": {"dry_run": True}})
    sc.start()
    eventually(lambda: len(sc.published()) >= 4)
    first = sc.published()[0]
    assert (first["type"], first["source"], first["requester"]) == (
        "carts.cleanup.requested.v1",
        "/wch/scheduler",
        "scheduler",
    )
    assert first["data"] == {"older_than_hours": None, "dry_run": True}
    assert first["correlationid"] == first["id"]
    sc.stage.stop()
    assert Counter(sc.ids) == Counter(sc.expected("often"))
    times = sc.ticks("often")
    assert {later - one for one, later in itertools.pairwise(times)} == {timedelta(seconds=0.5)}


def test_a_request_is_published_for_each_shop(sc: SchedulerStage, tmp_path: Path) -> None:
    shops = tmp_path / "shops.json"
    shops.write_text(json.dumps({"north": {}, "south": {}}))
    sc.write(everywhere=sc.hourly | {"shops": "all"}, one=sc.hourly | {"shops": ["south"]})
    sc.start(shops_file=shops)
    for name in ("everywhere", "one"):
        sc.await_row(name)
        timestamp = set_back(sc, name)
    eventually(lambda: len(sc.published()) >= 3)
    assert sorted((event["shop"], event["id"]) for event in sc.published()) == sorted(
        [(shop, event_id("everywhere", timestamp, shop)) for shop in ("north", "south")]
        + [("south", event_id("one", timestamp, "south"))]
    )


def test_a_schedule_that_is_not_enabled_publishes_nothing(sc: SchedulerStage) -> None:
    sc.write(off=OFTEN | {"enabled": False}, on=OFTEN)
    sc.start()
    eventually(lambda: len(sc.ticks("on")) >= 3)
    assert (sc.ticks("off"), sc.row("off")["next_due"]) == ([], None)


def test_three_replicas_publish_each_time_once(sc: SchedulerStage) -> None:
    names = [f"s{number}" for number in range(10)]
    sc.write(**{name: OFTEN | {"catch_up": "all", "catch_up_most": 1000} for name in names})
    for _ in range(3):
        sc.start()
    eventually(lambda: len(sc.query("SELECT 1 FROM ticks")) >= 200)
    sc.query("UPDATE schedules SET next_due = NULL, next_planned = NULL")
    eventually(lambda: sc.query("SELECT count(*) FROM outbox") == [(0,)])
    sc.stage.stop()
    assert Counter(sc.ids) == Counter(id_ for name in names for id_ in sc.expected(name))
    for name in names:
        times = sc.ticks(name)
        assert {later - one for one, later in itertools.pairwise(times)} == {timedelta(seconds=0.2)}, "none is missing"


class Published:
    """What would have been published."""

    def __init__(self) -> None:
        self.ids: list[str | None] = []

    async def publish(self, publication: Publication) -> None:
        self.ids.append(publication.message.message_id)


def test_a_replica_that_wakes_late_takes_no_time_that_was_taken(sc: SchedulerStage) -> None:
    sc.write(hourly=sc.hourly)
    service = sc.start()
    sc.await_row("hourly")
    service.stop()
    timestamp = set_back(sc, "hourly")
    published = Published()

    async def wake() -> None:
        store = Store(sc.database_url, "scheduler", published.publish)
        await store.open()
        ticks = Ticks(store, ("",), SchedulerMetrics(CollectorRegistry()), published_contract(), 3600)
        (seen,) = await store.database.rows("SELECT *, now() AS now FROM schedules")
        for _ in range(3):
            await ticks._publish_due(seen)
        await store.database.rows("UPDATE schedules SET triggered_at = now(), triggered_by = 'ada'")
        (seen,) = await store.database.rows("SELECT *, now() AS now FROM schedules")
        for _ in range(3):
            await ticks._publish_triggered(seen)
        # One that was paused since it was seen.
        set_back(sc, "hourly", hours=1)
        (seen,) = await store.database.rows("SELECT *, now() AS now FROM schedules")
        await store.database.rows("UPDATE schedules SET paused_at = now()")
        await ticks._publish_due(seen)
        await store.close()

    asyncio.run(wake())
    assert published.ids[0] == event_id("hourly", timestamp, "")
    assert (len(published.ids), sc.row("hourly")["fired"]) == (2, 2), "one by plan and one by hand"


class SleepyRegistry:
    """Sleeps where the scheduler looks a type up, which is in the middle of its transaction."""

    def __init__(self) -> None:
        self.asleep, self.wake = threading.Event(), threading.Event()

    def model(self, _type: str) -> Any:
        self.asleep.set()
        assert self.wake.wait(180)
        return published_contract().model("carts.cleanup.requested.v1")


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_replica_that_sleeps_in_its_transaction_delays_a_schedule_for_seconds_only(
    sc: SchedulerStage, by_hand: bool
) -> None:
    sc.write(hourly=sc.hourly)
    service = sc.start()
    sc.await_row("hourly")
    service.stop()
    set_back(sc, "hourly")
    if by_hand:
        sc.query("UPDATE schedules SET triggered_at = now(), triggered_by = 'ada', next_due = NULL")
    sleepy, published = SleepyRegistry(), Published()

    async def sleep() -> None:
        store = Store(sc.database_url, "scheduler", published.publish)
        await store.open()
        ticks = Ticks(store, ("",), SchedulerMetrics(CollectorRegistry()), sleepy, 3600)  # type: ignore[arg-type]
        assert not await ticks.fire_due(), "its transaction was ended"
        await store.close()

    sleeper = threading.Thread(target=asyncio.run, args=(sleep(),))
    sleeper.start()
    assert sleepy.asleep.wait(180)
    sc.start()
    try:
        eventually(lambda: len(sc.published()) == 1, "the other publishes it while the first one sleeps")
    finally:
        sleepy.wake.set()
        sleeper.join(180)
    assert published.ids == []
    assert sc.row("hourly")["fired"] == 1


def test_changing_the_plan_loses_no_time_that_has_come(sc: SchedulerStage) -> None:
    sc.write(a=sc.hourly | {"catch_up": "all"}, b=OFTEN)
    service = sc.start()
    sc.await_row("a")
    service.stop()
    first = set_back(sc, "a", hours=2)
    minute = (first + timedelta(minutes=15)).minute
    sc.write(a={"cron": f"{minute} * * * *", "catch_up": "all"}, b=OFTEN)
    sc.start()
    eventually(lambda: sc.row("a")["next_planned"].minute == minute and sc.row("a")["next_planned"] > datetime.now(UTC))
    assert sc.ticks("a")[:2] == [first, first + timedelta(minutes=15)]


async def publish_nothing(_self: Any) -> bool:
    """Stand in for a scheduler that does not get to publish what is due."""
    return False


def test_a_resumed_schedule_continues_from_when_it_was_resumed(
    sc: SchedulerStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    sc.write(hourly=sc.hourly | {"catch_up": "all"})
    with monkeypatch.context() as patched:
        patched.setattr(Ticks, "fire_due", publish_nothing)
        service = sc.start()
        sc.await_row("hourly")
        run(sc, "pause", "hourly")
        run(sc, "resume", "hourly")
        service.stop()
    # No scheduler has checked for two hours.
    sc.query("UPDATE schedules SET next_due = next_due - interval '2 hours'")
    sc.start()
    eventually(lambda: len(sc.ticks("hourly")) >= 2)


def test_a_schedule_that_the_database_refuses_delays_no_other(sc: SchedulerStage) -> None:
    sc.write(wrong=OFTEN, good=OFTEN)
    sc.start()
    eventually(lambda: len(sc.ticks("wrong")) >= 2)
    sc.query("ALTER TABLE ticks ADD CONSTRAINT refuses CHECK (schedule <> 'wrong') NOT VALID")
    taken = len(sc.ticks("good"))
    eventually(lambda: len(sc.ticks("good")) >= taken + 10)


def test_a_schedule_that_cannot_be_published_delays_no_other(sc: SchedulerStage) -> None:
    sc.write(good=OFTEN, wrong=OFTEN)
    sc.start()
    eventually(lambda: len(sc.ticks("wrong")) >= 2)
    sc.query(
        """UPDATE schedules SET definition = jsonb_set(definition, '{event}', '"a.b.requested.v1"') WHERE name = 'wrong'"""
    )
    taken = len(sc.ticks("good"))
    eventually(lambda: len(sc.ticks("good")) >= taken + 10)


# -- outages


@pytest.mark.parametrize(
    ("policy", "fired", "missed"),
    [({"catch_up": "skip"}, 0, 3), ({"catch_up": "one"}, 1, 2), ({"catch_up": "all"}, 3, 0)],
    ids=["skip", "one", "all"],
)
def test_after_an_outage_over_three_times_the_policy_decides(
    sc: SchedulerStage, policy: dict[str, str], fired: int, missed: int
) -> None:
    sc.write(hourly=sc.hourly | policy)
    service = sc.start()
    sc.await_row("hourly")
    service.stop()
    first = set_back(sc, "hourly", hours=2)
    grid = [first, first + timedelta(hours=1), first + timedelta(hours=2)]
    sc.start()
    eventually(lambda: sc.row("hourly")["next_planned"] > grid[-1])
    eventually(lambda: len(sc.published()) == fired)
    assert sc.ticks("hourly") == grid[3 - fired :]
    gaps = sc.query("SELECT ticks, policy FROM gaps")
    assert gaps == ([(missed, policy["catch_up"])] if missed else [])
    assert (sc.row("hourly")["fired"], sc.row("hourly")["missed"]) == (fired, missed)
    output = run(sc, "missed")
    assert (policy["catch_up"] in output) == bool(missed)


def test_events_that_the_broker_did_not_confirm_are_published_after_the_outage(sc: SchedulerStage) -> None:
    sc.write(often=OFTEN)
    sc.start()
    eventually(lambda: len(sc.published()) >= 2)
    sc.stage.cut_connection("wch-scheduler publishing")
    taken = len(sc.ticks("often"))
    eventually(lambda: len(sc.ticks("often")) >= taken + 5)
    sc.query("UPDATE schedules SET next_due = NULL, next_planned = NULL")
    eventually(lambda: set(sc.ids) == set(sc.expected("often")))


# -- the file


def test_a_changed_file_is_applied_and_an_invalid_one_keeps_the_old_schedules(sc: SchedulerStage) -> None:
    sc.write(a=OFTEN, b=sc.hourly)
    service = sc.start()
    eventually(lambda: len(sc.ticks("a")) >= 2)
    before = sc.await_row("b")
    registry = service.service._metrics.registry
    sc.file.write_text("schedules:\n  a: {every_seconds: soon}\n")
    eventually(lambda: registry.get_sample_value("wch_scheduler_file_broken") == 1)
    taken = len(sc.ticks("a"))
    eventually(lambda: len(sc.ticks("a")) >= taken + 3, "the old ones go on")
    sc.write(b=sc.hourly | {"data": {"dry_run": True}}, c=OFTEN)
    eventually(lambda: len(sc.ticks("c")) >= 2)
    assert registry.get_sample_value("wch_scheduler_file_broken") == 0
    assert sc.row("a") == {}
    after = sc.row("b")
    assert (after["next_planned"], after["definition"]["data"]) == (before["next_planned"], {"dry_run": True})
    minute = (sc.last_hourly + timedelta(minutes=15)).minute
    sc.write(b={"cron": f"{minute} * * * *"})
    eventually(lambda: sc.row("b")["next_planned"].minute == minute)


def test_an_invalid_file_at_the_start_is_refused_with_its_line(sc: SchedulerStage) -> None:
    sc.file.write_text("schedules:\n  a:\n    cron: every day\n    event: x\n")
    service = sc.start()
    assert service.stop() == 2


def test_in_a_rollout_the_newer_file_is_in_use_and_in_a_rollback_the_older_one(
    sc: SchedulerStage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_in_use, "OUT_OF_USE_SECONDS", 10)
    sc.write(old=OFTEN)
    old = sc.start()
    eventually(lambda: len(sc.ticks("old")) >= 2)
    newer = sc.write(tmp_path / "newer.yaml", new=OFTEN)
    new = sc.start(schedules_file=newer)
    eventually(lambda: len(sc.ticks("new")) >= 2)
    registry = old.service._metrics.registry
    eventually(lambda: registry.get_sample_value("wch_scheduler_stands_by") == 1)
    again = sc.start()  # one with the older file that was started again
    taken = len(sc.ticks("new"))
    eventually(lambda: len(sc.ticks("new")) >= taken + 3)
    eventually(lambda: again.service._metrics.registry.get_sample_value("wch_scheduler_stands_by") == 1)
    assert sc.row("old") == {}
    # Both were silent, as when the database was away: who comes back first does not win by that.
    sc.query("UPDATE files SET last_seen = now() - interval '1 minute'")
    before, taken = sc.ticks("old"), len(sc.ticks("new"))
    eventually(lambda: len(sc.ticks("new")) >= taken + 25)
    assert (sc.row("old"), sc.ticks("old")) == ({}, before)
    new.stop()
    taken = len(sc.ticks("old"))
    eventually(lambda: len(sc.ticks("old")) >= taken + 2, "the older one is the only one in use")


# -- wch schedules


def test_a_run_is_refused_while_another_is_not_published_yet(
    sc: SchedulerStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def publish_nothing(_ticks: Ticks) -> bool:
        return True

    monkeypatch.setattr(Ticks, "fire_due", publish_nothing)
    sc.write(nightly=sc.hourly)
    sc.start()
    sc.await_row("nightly")
    with sc.stage.client() as operator:
        operator.publish(ScheduleRunRequested(schedule="nightly", by="ada"))
        assert sc.await_answer("schedule.triggered")["by"] == "ada"
        operator.publish(ScheduleRunRequested(schedule="nightly", by="bob"))
        refusal = "ada has requested a run of nightly, which is not published yet"
        assert refusal in sc.await_answer("schedule.refused")["reason"]
        assert refusal in run(sc, "run", "nightly", code=1)
        sc.query("UPDATE schedules SET triggered_at = now() - interval '2 minutes'")
        operator.publish(ScheduleRunRequested(schedule="nightly", by="bob"))
        assert sc.await_answer("schedule.triggered", 2)["by"] == "bob"


def test_an_operator_lists_runs_pauses_and_resumes(sc: SchedulerStage) -> None:
    night = datetime.now(ZoneInfo("Asia/Kolkata")) + timedelta(hours=12)  # a zone whose clocks never change
    cron = f"{night.minute} {night.hour} * * *"
    sc.write(nightly={"cron": cron, "time_zone": "Asia/Kolkata", "group": "carts"})
    sc.start()
    sc.await_row("nightly")
    output = run(sc, "list")
    assert f"{cron} Asia/Kolkata" in output
    assert "reason: must have at most 500 characters" in run(sc, "pause", "nightly", "--reason", "x" * 501, code=1)
    run(sc, "run", "nightly", "--dry-run")
    assert "triggered nightly" in run(sc, "run", "nightly")
    assert sc.await_answer("schedule.triggered")["schedule"] == "nightly"
    eventually(lambda: len(sc.published()) == 1)
    assert "manual by" in eventually(lambda: found if "manual" in (found := run(sc, "show", "nightly")) else "")
    assert sc.ticks("nightly") == [], "its plan stays as it is"
    run(sc, "pause", "nightly", "--reason", "stock-taking")
    assert "stock-taking" in run(sc, "list")
    assert sc.await_answer("schedule.paused")["reason"] == "stock-taking"
    assert "is already paused" in run(sc, "pause", "nightly", code=1)
    set_back(sc, "nightly", hours=3)
    run(sc, "run", "nightly")
    eventually(lambda: len(sc.published()) == 2, "also while it is paused")
    run(sc, "resume", "nightly")
    assert "is not paused" in run(sc, "resume", "nightly", code=1)
    eventually(lambda: (sc.row("nightly")["next_planned"] or datetime.min.replace(tzinfo=UTC)) > datetime.now(UTC))
    assert (sc.ticks("nightly"), sc.row("nightly")["missed"]) == ([], 0), "what passed meanwhile is not caught up"
    lines = run(sc, "preview", "nightly", "--count", "3").splitlines()
    assert len(lines) == 4
    assert all(f"{night:%H:%M}:00 IST" in line for line in lines[1:])
    assert len(json.loads(run(sc, "preview", "nightly", "--json"))) == 10
    assert "no times were missed" in run(sc, "missed")
    assert "there is no schedule unknown" in run(sc, "missed", "unknown", code=1)
    assert "there is no schedule nothing" in run(sc, "show", "nothing", code=1)


def test_a_pause_that_is_requested_twice_is_answered_twice_and_kept_once(sc: SchedulerStage) -> None:
    sc.write(hourly=sc.hourly)
    sc.start()
    sc.await_row("hourly")
    with sc.stage.client() as client:
        client.publish(SchedulePauseRequested(schedule="hourly", by="ada", reason="stock-taking"))
        sc.await_answer("schedule.paused")
        client.publish(SchedulePauseRequested(schedule="hourly", by="eve", reason="another"))
        assert sc.await_answer("schedule.paused", 2) == {"schedule": "hourly", "by": "ada", "reason": "stock-taking"}
        client.publish(ScheduleResumeRequested(schedule="hourly", by="eve"))
        sc.await_answer("schedule.resumed")
        client.publish(ScheduleResumeRequested(schedule="hourly", by="eve"))
        sc.await_answer("schedule.resumed", 2)
    assert sc.row("hourly")["paused_at"] is None


def test_a_request_for_an_unknown_schedule_is_refused_and_dead_lettered(sc: SchedulerStage) -> None:
    sc.write(hourly=sc.hourly)
    sc.start()
    with sc.stage.client(requester="shop") as client:
        client.publish(ScheduleRunRequested(schedule="weekly", by="ada"))
    refused = sc.await_answer("schedule.refused")
    assert refused["schedule"] == "weekly"
    assert "there is no schedule weekly" in refused["reason"]
    (dead_letter,) = sc.stage.await_dead_letters("scheduler.control.dlq")
    assert dead_letter.message.headers["wch-error-kind"] == "rejected"


def test_old_rows_are_deleted(sc: SchedulerStage) -> None:
    sc.write(hourly=sc.hourly)
    service = sc.start()
    sc.await_row("hourly")
    service.stop()
    for days in (31, 29):
        sc.query(
            "INSERT INTO ticks (schedule, planned, kind, fired_at) VALUES ('hourly', now() - %s * interval '1 day', 'scheduled', now() - %s * interval '1 day')",
            days,
            days,
        )
        sc.query(
            "INSERT INTO gaps (schedule, first, last, policy, noticed_at) VALUES ('hourly', now() - %s * interval '1 day', now(), 'one', now() - %s * interval '1 day')",
            days,
            days,
        )
    sc.start()
    eventually(lambda: sc.query("SELECT count(*) FROM ticks") == sc.query("SELECT count(*) FROM gaps") == [(1,)])


def test_a_late_schedule_is_counted(sc: SchedulerStage, monkeypatch: pytest.MonkeyPatch) -> None:
    sc.write(hourly=sc.hourly, paused=sc.hourly)
    service = sc.start()
    sc.await_row("hourly")
    service.stop()
    set_back(sc, "hourly", hours=1)
    set_back(sc, "paused", hours=2)
    sc.query("UPDATE schedules SET paused_at = now() WHERE name = 'paused'")
    monkeypatch.setattr(Ticks, "fire_due", publish_nothing)
    registry = sc.start().service._metrics.registry
    eventually(lambda: registry.get_sample_value("wch_scheduler_schedules_late") == 1)
    assert (registry.get_sample_value("wch_scheduler_oldest_due_seconds") or 0) >= 3600


def test_a_file_is_checked_before_it_is_rolled_out(sc: SchedulerStage, tmp_path: Path) -> None:
    file = tmp_path / "new.yaml"
    file.write_text("schedules:\n  a:\n    every_seconds: 900\n    event: carts.cleanup.requested.v1\n")
    assert f"{file} is valid: a" in run(sc, "check", str(file))
    file.write_text(file.read_text() + "    shops: [north]\n  b: {evry: 3}\n")
    output = run(sc, "check", str(file), code=1).splitlines()
    assert [line.partition(":")[0] for line in output] == ["line 5", "line 6", "line 6"]
    assert "line 5" not in run(sc, "check", str(file), "--shop", "north", "--shop", "south", code=1)
