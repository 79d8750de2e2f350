"""When a schedule is due: its planned times, as pure functions of its definition and the time."""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from cronsim import CronSim

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wch_scheduler.schedule import Schedule


def planned_after(schedule: Schedule, after: datetime) -> Iterator[datetime]:
    """Return the planned times after a time, in order, each once, in UTC; start and end of the schedule are included.

    For cron, a time that does not exist when the clocks go forward moves to the next valid time, and of one that exists
    twice the first counts; with `*` as hour, the schedule runs in every hour that passes.
    """
    if schedule.start_at is not None:
        after = max(after, schedule.start_at - timedelta(microseconds=1))
    times = _by_cron(schedule, after) if schedule.cron is not None else _by_interval(schedule, after)
    for planned in times:
        if schedule.end_at is not None and planned > schedule.end_at:
            return
        yield planned


def _by_cron(schedule: Schedule, after: datetime) -> Iterator[datetime]:
    cron, zone = schedule.cron or "", ZoneInfo(schedule.time_zone)
    local = after.astimezone(zone)
    if cron.split()[1] == "*":
        times = (one.astimezone(UTC) for one in CronSim(cron, local))
    else:  # by wall-clock time; CronSim's own handling of clock changes skips hours given as * with a step
        times = (_existing(one, zone) for one in CronSim(cron, local.replace(tzinfo=None)))
    before = after
    for planned in times:
        if planned > before:
            yield planned
            before = planned


def _existing(wall: datetime, zone: ZoneInfo) -> datetime:
    """Return when a wall clock first shows a time, or the end of the gap if the clock skips it."""
    planned = wall.replace(tzinfo=zone).astimezone(UTC)
    if planned.astimezone(zone).replace(tzinfo=None) == wall:
        return planned
    before, after = wall.replace(tzinfo=zone, fold=1).astimezone(UTC), planned
    offset = after.astimezone(zone).utcoffset()
    while after - before > timedelta(seconds=1):
        middle = before + (after - before) // 2
        before, after = (before, middle) if middle.astimezone(zone).utcoffset() == offset else (middle, after)
    return after.replace(microsecond=0)


def _by_interval(schedule: Schedule, after: datetime) -> Iterator[datetime]:
    every = timedelta(seconds=schedule.every_seconds or 1)
    number = (after - schedule.anchor) // every
    while True:
        number += 1
        yield (schedule.anchor + number * every).astimezone(UTC)


def due(name: str, schedule: Schedule, planned: datetime) -> datetime:
    """Return when a planned time is published: later by its own share of the jitter, the same for every process."""
    digest = hashlib.blake2b(f"{name}\n{planned.isoformat()}".encode(), digest_size=8).digest()
    return planned + timedelta(seconds=schedule.jitter_seconds * int.from_bytes(digest) / 2**64)


@dataclass(frozen=True)
class Plan:
    """What happens to the planned times that have come: which are published, how many are missed, and the next time."""

    fire: tuple[datetime, ...]
    missed: int
    first_missed: datetime | None
    last_missed: datetime | None
    following: datetime | None


# Only this many, the newest, are examined one by one; older ones are counted. It exceeds what can be on time and kept.
_MOST = 4000


def plan(name: str, schedule: Schedule, first: datetime, now: datetime, *, outage_seconds: float) -> Plan:
    """Plan the times from `first` on that are due by now; one that is at most `outage_seconds` late is on time.

    After an outage the policy also applies to the times that are on time, so that they do not come as a flood.
    """
    older, newest, following = _times_due(name, schedule, first, now.astimezone(UTC))
    old = now - timedelta(seconds=outage_seconds)
    late = [planned for planned in newest if due(name, schedule, planned) < old]
    on_time = [planned for planned in newest if due(name, schedule, planned) >= old]
    window = now - timedelta(hours=schedule.catch_up_hours)
    kept = [planned for planned in late if planned >= window]
    if not late:
        fire = on_time
    elif schedule.catch_up == "skip":
        fire = on_time[-1:]
    elif schedule.catch_up == "one":
        fire = (on_time or kept)[-1:]
    else:
        fire = (kept + on_time)[-schedule.catch_up_most :]
    passed = [planned for planned in newest if planned not in set(fire)]
    first_missed = first if older else next(iter(passed), None)
    return Plan(tuple(fire), older + len(passed), first_missed, passed[-1] if passed else None, following)


def _times_due(
    name: str, schedule: Schedule, first: datetime, until: datetime
) -> tuple[int, list[datetime], datetime | None]:
    """Return how many times have come before the newest ones, the newest ones in order, and the time after them.

    `first` counts as a time even if the schedule has changed since.
    """
    older, times = 0, chain((first,), planned_after(schedule, first))
    if schedule.every_seconds is not None:  # computed, without iterating over each
        every, last = timedelta(seconds=schedule.every_seconds), min(until, schedule.end_at or until)
        older = max(0, (last - first) // every + 1 - _MOST)
        if older:
            times = chain(planned_after(schedule, first + older * every - timedelta(microseconds=1)))
    newest: deque[datetime] = deque(maxlen=_MOST)
    for planned in times:
        if due(name, schedule, planned) > until:
            return older, list(newest), planned
        older += len(newest) == _MOST
        newest.append(planned)
    return older, list(newest), None
