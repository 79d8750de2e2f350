"""When schedules are due, in several zones and over changes of the clocks; what is caught up; files that are wrong."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml

from wch_common.events import published_contract
from wch_scheduler.file import SHIPPED, WrongFile, read
from wch_scheduler.planned_times import due, plan, planned_after
from wch_scheduler.schedule import Schedule
from wch_scheduler.ticks import event_id

EVENT = "carts.cleanup.requested.v1"
REGISTRY = published_contract()


def schedule(**values: Any) -> Schedule:
    return Schedule.model_validate({"event": EVENT} | values)


def utc(*values: int) -> datetime:
    return datetime(*values, tzinfo=UTC)  # type: ignore[misc, arg-type]


def times(entry: Schedule, after: datetime, count: int) -> list[str]:
    return [f"{one:%m-%d %H:%M}" for one in islice(planned_after(entry, after), count)]


# -- changes of the clocks


@pytest.mark.parametrize(
    ("zone", "after", "expected"),
    [
        # the clocks go forward over half past two
        ("Europe/Berlin", utc(2026, 3, 28, 12), ["03-29 01:00", "03-30 00:30"]),
        ("America/New_York", utc(2026, 3, 7, 12), ["03-08 07:00", "03-09 06:30"]),
        ("Australia/Lord_Howe", utc(2026, 10, 3, 2), ["10-03 15:30", "10-04 15:30"]),
        # and back over it
        ("Europe/Berlin", utc(2026, 10, 24, 12), ["10-25 00:30", "10-26 01:30"]),
        ("America/New_York", utc(2026, 10, 31, 12), ["11-01 07:30", "11-02 07:30"]),
        ("UTC", utc(2026, 3, 28, 12), ["03-29 02:30", "03-30 02:30"]),
    ],
)
def test_a_time_that_does_not_exist_or_exists_twice_comes_once(zone: str, after: datetime, expected: list[str]) -> None:
    assert times(schedule(cron="30 2 * * *", time_zone=zone), after, 2) == expected


@pytest.mark.parametrize(
    ("cron", "forward", "back"),
    [
        ("*/30 2 * * *", ["03-29 01:00", "03-30 00:00"], ["10-25 00:00", "10-25 00:30", "10-26 01:00"]),
        ("0 */2 * * *", ["03-28 23:00", "03-29 01:00", "03-29 02:00"], ["10-24 22:00", "10-25 00:00", "10-25 03:00"]),
        ("0 2-4 * * *", ["03-29 01:00", "03-29 02:00"], ["10-25 00:00", "10-25 02:00", "10-25 03:00"]),
        ("*/30 * * * *", ["03-28 22:30", "03-28 23:00"], ["10-24 21:30", "10-24 22:00"]),
    ],
)
def test_steps_and_ranges_come_once_as_well(cron: str, forward: list[str], back: list[str]) -> None:
    entry = schedule(cron=cron, time_zone="Europe/Berlin")
    assert times(entry, utc(2026, 3, 28, 22), len(forward)) == forward
    assert times(entry, utc(2026, 10, 24, 21), len(back)) == back


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca"])
def test_a_year_of_times_by_the_wall_clock_is_one_a_day_whatever_the_clocks_do(zone: str) -> None:
    found = list(islice(planned_after(schedule(cron="*/20 2 * * *", time_zone=zone), utc(2026, 1, 1)), 3 * 365))
    assert found == sorted(set(found))
    days = Counter(one.astimezone(ZoneInfo(zone)).date() for one in found)
    assert set(days.values()) <= {1, 2, 3}
    assert sum(1 for many in days.values() if many < 3) <= 3, "fewer only where some did not exist"


@pytest.mark.parametrize(("zone", "day"), [("Europe/Berlin", utc(2026, 10, 25)), ("Europe/Berlin", utc(2026, 3, 29)),
                                           ("America/New_York", utc(2026, 11, 1)), ("Africa/Casablanca", utc(2026, 2, 15))])  # fmt: skip
def test_an_hourly_schedule_runs_in_every_hour_that_passes(zone: str, day: datetime) -> None:
    found = list(islice(planned_after(schedule(cron="0 * * * *", time_zone=zone), day - timedelta(hours=12)), 48))
    assert {later - one for one, later in pairwise(found)} == {timedelta(hours=1)}


def test_an_interval_counts_from_its_anchor_whatever_the_clocks_say() -> None:
    entry = schedule(every_seconds=900, anchor="2026-01-01T00:05:00+01:00", time_zone="Europe/Berlin")
    assert times(entry, utc(2026, 3, 29, 0, 50), 3) == ["03-29 01:05", "03-29 01:20", "03-29 01:35"]
    assert times(entry, utc(2026, 3, 29, 1, 5), 1) == ["03-29 01:20"], "later than a moment, not at it"


def test_start_and_end_are_included() -> None:
    entry = schedule(cron="0 9 * * *", start_at="2026-02-01T09:00:00Z", end_at="2026-02-02T09:00:00Z")
    assert times(entry, utc(2026, 1, 1), 5) == ["02-01 09:00", "02-02 09:00"]


# -- catching up


def planned(name: str, entry: Schedule, first: datetime, now: datetime) -> tuple[list[str], int, str]:
    done = plan(name, entry, first, now, outage_seconds=30)
    return (
        [f"{one:%d %H:%M:%S}" for one in done.fire],
        done.missed,
        f"{done.following:%d %H:%M:%S}" if done.following else "",
    )


@pytest.mark.parametrize(
    ("policy", "fire", "missed"),
    [
        ({"catch_up": "skip"}, [], 3),
        ({"catch_up": "one"}, ["01 12:15:00"], 2),
        ({"catch_up": "all"}, ["01 12:05:00", "01 12:10:00", "01 12:15:00"], 0),
        ({"catch_up": "all", "catch_up_most": 2}, ["01 12:10:00", "01 12:15:00"], 1),
        ({"catch_up": "all", "catch_up_hours": 0.1}, ["01 12:15:00"], 2),
        ({"catch_up": "one", "catch_up_hours": 0.01}, [], 3),
    ],
    ids=str,
)
def test_three_times_of_an_outage_follow_the_policy(policy: dict[str, Any], fire: list[str], missed: int) -> None:
    entry = schedule(cron="*/5 * * * *", **policy)
    first, now = utc(2026, 1, 1, 12, 5), utc(2026, 1, 1, 12, 19)
    assert planned("s", entry, first, now) == (fire, missed, "01 12:20:00")


@pytest.mark.parametrize("policy", ["skip", "one", "all"])
def test_a_slightly_late_time_is_not_an_outage(policy: str) -> None:
    entry = schedule(every_seconds=5, catch_up=policy)
    found = planned("s", entry, utc(2026, 1, 1, 12, 0, 0), utc(2026, 1, 1, 12, 0, 12))
    assert found == (["01 12:00:00", "01 12:00:05", "01 12:00:10"], 0, "01 12:00:15")


@pytest.mark.parametrize(("policy", "most"), [("skip", 1), ("one", 1), ("all", 10)])
def test_after_two_weeks_of_five_second_times_there_is_no_flood_and_the_count_is_right(policy: str, most: int) -> None:
    entry = schedule(every_seconds=5, catch_up=policy, catch_up_most=10)
    first, now = utc(2026, 1, 1), utc(2026, 1, 15)
    done = plan("s", entry, first, now, outage_seconds=30)
    assert len(done.fire) == most
    assert done.missed + len(done.fire) == 14 * 24 * 3600 / 5 + 1
    assert done.first_missed == first
    assert done.following == now + timedelta(seconds=5)
    assert list(done.fire) == sorted(done.fire)


def test_two_weeks_of_minutes_by_cron_are_counted_as_well() -> None:
    done = plan("s", schedule(cron="* * * * *"), utc(2026, 1, 1), utc(2026, 1, 15), outage_seconds=30)
    assert done.missed + len(done.fire) == 14 * 24 * 60 + 1
    assert done.first_missed == utc(2026, 1, 1)


def test_a_clock_that_was_set_back_repeats_nothing() -> None:
    entry = schedule(cron="0 * * * *")
    found = planned("s", entry, utc(2026, 1, 1, 13), utc(2026, 1, 1, 11, 58, 30))
    assert found == ([], 0, "01 13:00:00")


def test_a_first_time_that_the_schedule_no_longer_has_still_counts() -> None:
    entry = schedule(cron="30 * * * *")
    assert planned("s", entry, utc(2026, 1, 1, 13), utc(2026, 1, 1, 13, 0, 10)) == (["01 13:00:00"], 0, "01 13:30:00")


def test_a_schedule_that_ended_during_an_outage_is_counted_to_its_end() -> None:
    entry = schedule(every_seconds=1, end_at="2026-01-02T00:00:00Z", catch_up="skip")
    done = plan("s", entry, utc(2026, 1, 1), utc(2026, 1, 15), outage_seconds=30)
    assert (done.missed, done.fire, done.following) == (24 * 3600 + 1, (), None)


def test_nothing_is_planned_after_the_end() -> None:
    entry = schedule(cron="0 * * * *", end_at="2026-01-01T13:00:00Z")
    assert planned("s", entry, utc(2026, 1, 1, 13), utc(2026, 1, 1, 13)) == (["01 13:00:00"], 0, "")


def test_jitter_belongs_to_a_time_and_stays_within_its_limit() -> None:
    entry = schedule(cron="0 * * * *", jitter_seconds=600)
    planned_times = list(islice(planned_after(entry, utc(2026, 1, 1)), 200))
    late = [(due("s", entry, one) - one).total_seconds() for one in planned_times]
    assert all(0 <= seconds < 600 for seconds in late)
    assert max(late) - min(late) > 400, "they are spread"
    assert late == [(due("s", entry, one) - one).total_seconds() for one in planned_times], "whoever computes it"
    first = planned_times[0]
    before, after = due("s", entry, first) - timedelta(seconds=1), due("s", entry, first) + timedelta(seconds=20)
    assert plan("s", entry, first, before, outage_seconds=30).fire == ()
    assert plan("s", entry, first, after, outage_seconds=30).fire == (first,), "its jitter does not make it late"


def test_the_id_of_a_tick_is_derived_from_schedule_time_and_shop_only() -> None:
    names = {
        event_id(name, timestamp, shop)
        for name in ("a", "b")
        for timestamp in (utc(2026, 1, 1), utc(2026, 1, 2))
        for shop in ("", "n")
    }
    assert len(names) == 8
    assert event_id("a", utc(2026, 1, 1), "") == event_id("a", utc(2026, 1, 1), "")
    assert event_id("a", utc(2026, 1, 1), "") != event_id("a", utc(2026, 1, 1), "", "manual")


# -- files


def test_the_shipped_file_is_valid_with_one_shop_and_with_several() -> None:
    for shops in ([""], ["north", "south"]):
        found = read(SHIPPED.read_text(), REGISTRY, shops)
        assert set(found.schedules) == {"cart-cleanup", "cart-reminder-scan"}


def test_the_manifest_contains_the_shipped_file() -> None:
    manifest = Path(__file__).parents[3] / "deploy/kubernetes/base/scheduler/configmap.yaml"
    (shipped,) = [
        one["data"]["schedules.yaml"]
        for one in yaml.safe_load_all(manifest.read_text())
        if one["metadata"]["name"] == "wch-schedules"
    ]
    assert read(shipped, REGISTRY, [""]).schedules == read(SHIPPED.read_text(), REGISTRY, [""]).schedules


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("schedules:\n  a: {every_seconds: 900, event: EVENT}\n  a: {every_seconds: 900, event: EVENT}", "line 3: a: is given twice"),
        ("schedules:\n  a:\n    every_seconds: 900\n    every_seconds: 90\n    event: EVENT", "line 4: a.every_seconds: is given twice"),
        ("schedules:\n  on: {every_seconds: 900, event: EVENT}", "line 2: on: is not text: put it in quotes"),
        ("schedules:\n  a b: {every_seconds: 900, event: EVENT}", "line 2: 'a b': a name must consist of"),
        ("schedules:\n  a:\n    every_seconds: 900\n    event: EVENT\n    shops: []", "line 5: a: shops: write `shops: all`"),
        ("schedules:\n  a:\n    every_seconds: 900\n    event: EVENT\n    shops: north", "line 5: a: shops: write `shops: all`"),
        ("schedules:\n  a: {cron: '0 30 2 * * *', event: EVENT}", "line 2: a: cron: a field for seconds is not supported: write minute"),
        ("schedules:\n  a: {every_seconds: 900, event: EVENT,\n start_at: 2026-02-30T00:00:00Z}", "line 3: a: start_at: "),
        ("schedules:\n  a: {every_seconds: 900, event: EVENT, start_at: 9999-12-31T00:00:00Z}", "start_at: must be between 1970 and 2200"),
        ("schedules:\n  a: {every_seconds: .inf, event: EVENT}", "line 2: a: every_seconds: "),
        ("schedules:\n  a: {every_seconds: 3.0e+11, event: EVENT}", "line 2: a: every_seconds: "),
        ("schedules:\n  a: {every_seconds: 900, catch_up_hours: .inf, event: EVENT}", "line 2: a: catch_up_hours: "),
        ("schedules:\n  a: {every_seconds: 60, jitter_seconds: 60, event: EVENT}", "line 2: a: jitter_seconds must be less than"),
        ("schedules:\n  a: {cron: '*/15 * * * *', jitter_seconds: 3600, event: EVENT}", "line 2: a: jitter_seconds must be less than"),
        ("schedules:\n  a: {every_seconds: 900, event: EVENT, data: {1: 2}}", "line 2: a.data.1: is not text: put it in quotes"),
        ("schedules:\n  a: {every_seconds: 900, event: EVENT, data: {x: !!binary aGk=}}", "line 2: a: data: is not JSON"),
        ("schedules:\n  a: {every_seconds: 900, event: EVENT, data: {x: 99999999999999999999999}}", "line 2: a: data: is not JSON"),
        ("schedules:\n  a: {every_seconds: 900, event: EVENT,\n data: {older_than_hour: 96}}",
         "line 3: a: data.older_than_hour: unknown field of the event; it has dry_run, older_than_hours"),
        ("schedules:\n  a: {every_seconds: 900, event: EVENT,\n data: {older_than_hours: .nan}}", "line 3: a: data.older_than_hours: JSON cannot express nan"),
        ('schedules:\n  a: {every_seconds: 900, event: EVENT,\n group: "\\0"}', "line 3: a.group: contains the character U+0000"),
        ("schedules:\n  a: \x07", "line 2: invalid YAML"),
        ("schedules:\n  a: !!timestamp 2026-02-30", "line 1: cannot be read"),
        ("schedules: &a\n  a: *a", "line 1: cannot be read"),
    ],
)  # fmt: skip
def test_values_that_yaml_allows_and_a_schedule_does_not_are_refused_with_their_line(text: str, problem: str) -> None:
    with pytest.raises(WrongFile) as refused:
        read(text.replace("EVENT", EVENT), REGISTRY, ["north", "south"])
    assert problem in str(refused.value)


def test_the_same_text_for_other_shops_is_another_file() -> None:
    text = SHIPPED.read_text()
    assert read(text, REGISTRY, ["north"]).hash != read(text, REGISTRY, ["north", "south"]).hash


WRONG = """schedules:
  a:
    cron: "61 * * * *"
    event: carts.cleanup.requested.v1
  b:
    every_seconds: 5
    cron: "0 * * * *"
    event: carts.cleanup.requested.v1
  c:
    every_seconds: 900
    event: carts.cleanup.wanted.v1
  d:
    every_seconds: 900
    time_zone: Europe/Bärlin
    evnet: carts.cleanup.requested.v1
  e:
    every_seconds: 900
    event: carts.cleanup.requested.v1
    data:
      older_than_hours: soon
  f:
    every_seconds: 900
    event: carts.cleanup.completed.v1
  g:
    every_seconds: 900
    event: carts.cleanup.requested.v1
    shops: [north, west]
  h:
    every_seconds: 900
    event: carts.cleanup.requested.v1
"""


def test_every_mistake_of_a_file_is_named_by_its_line() -> None:
    with pytest.raises(WrongFile) as refused:
        read(WRONG, REGISTRY, ["north", "south"])
    problem = str(refused.value).split("; ")
    for line, text in [
        (3, "a: cron: bad minute in '61 * * * *': write minute"),
        (5, "b: give exactly one of cron and every_seconds"),
        (11, "c: this program does not know the type carts.cleanup.wanted.v1"),
        (14, "d: time_zone: 'Europe/Bärlin' is not a time zone"),
        (12, "d: event: is missing"),
        (15, "d: evnet: unknown field"),
        (20, "e: data.older_than_hours: must be a number"),
        (23, "f: carts.cleanup.completed.v1 is a fact"),
        (27, "g: the shop 'west' is not configured here: north, south"),
        (30, "h: several shops are configured"),
    ]:
        assert any(one.startswith(f"line {line}: {text}") for one in problem), (line, text, problem)
    assert "soon" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [("", "line 1: the file must contain `schedules:`"), ("schedules: [a]", "line 1: `schedules:` must have a schedule for each name"),
     ("schedules:\n  a: {cron: '\n", "invalid YAML"), ("\na: 1\nschedules: {}", "line 2: a: the file must contain nothing but"),
     ("schedules:", "line 1: `schedules:` must have"), ("schedules:\n  a: hello", "line 2: a: must have fields below it"),
     ("schedules:\n  a:\n    cron: */5 * * * *", "put text that begins with * in quotes")],
)  # fmt: skip
def test_a_file_of_another_shape_is_refused(text: str, problem: str) -> None:
    with pytest.raises(WrongFile, match="line"):
        read(text, REGISTRY, [""])
    with pytest.raises(WrongFile) as refused:
        read(text, REGISTRY, [""])
    assert problem in str(refused.value)


def test_the_timing_contains_only_what_decides_the_time() -> None:
    one = schedule(cron="0 * * * *")
    assert one.timing == schedule(cron="0 * * * *", data={"dry_run": True}, group="x", catch_up="skip").timing
    for change in ({"cron": "1 * * * *"}, {"time_zone": "Europe/Berlin"}, {"jitter_seconds": 5}, {"enabled": False}):
        assert schedule(**({"cron": "0 * * * *"} | change)).timing != one.timing
