"""What operators read of the scheduler, and the requests with which they change it."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from psycopg.rows import class_row

from wch_common.events import published_contract
from wch_common.events.scheduler import (
    SchedulePauseRequested,
    ScheduleResumeRequested,
    ScheduleRunRequested,
    TimersCancelRequested,
)
from wch_scheduler import queries
from wch_scheduler.planned_times import planned_after
from wch_scheduler.queries import GapRow, ScheduleRow, TickRow, TimerRow, TimerStatsRow
from wch_scheduler.schedule import Schedule

if TYPE_CHECKING:
    from datetime import datetime

    from wch_common.contract.personal import Person

Connection = Any
"""A psycopg connection to the service's schema."""
T = TypeVar("T")

# -- reads


def schedules(connection: Connection) -> list[ScheduleRow]:
    """Return every schedule of the file in use, by name."""
    return _rows(connection, ScheduleRow, queries.ALL_SCHEDULES)


def schedule(connection: Connection, name: str) -> ScheduleRow | None:
    """Return a schedule, or None if the file in use has none of that name."""
    return next(iter(_rows(connection, ScheduleRow, queries.ONE_SCHEDULE, {"name": name})), None)


def last_ticks(connection: Connection, name: str) -> list[TickRow]:
    """Return the last ten times at which a schedule was published, the newest first."""
    return _rows(connection, TickRow, queries.LAST_TICKS, {"name": name})


def missed_times(connection: Connection, name: str | None, *, limit: int) -> list[GapRow]:
    """Return the times that were missed in outages and not caught up, the newest first."""
    return _rows(connection, GapRow, queries.GAPS, {"name": name, "limit": limit})


def next_times(row: ScheduleRow, now: datetime, count: int) -> list[datetime]:
    """Return a schedule's next planned times in UTC, without its jitter; none if it is not enabled."""
    definition = Schedule.model_validate(row.definition)
    return list(islice(planned_after(definition, now), count)) if definition.enabled else []


def timers(
    connection: Connection,
    *,
    key: str | None = None,
    group: str | None = None,
    requester: str | None = None,
    state: str | None = None,
    limit: int = 50,
) -> list[TimerRow]:
    """Return timers: the waiting ones by due time, then the others, the latest first."""
    wanted = {"key": key, "group": group, "requester": requester, "state": state, "limit": limit}
    return _rows(connection, TimerRow, queries.TIMERS, wanted)


def waiting_timers(connection: Connection, *, key: str | None, group: str | None, requester: str | None) -> int:
    """Return how many timers wait that match every given filter."""
    wanted = {"key": key, "group": group, "requester": requester}
    return int(connection.execute(queries.WAITING_TIMERS, wanted).fetchone()["timers"])


def timer_stats(connection: Connection) -> list[TimerStatsRow]:
    """Return the number of timers by requester, group and state."""
    return _rows(connection, TimerStatsRow, queries.TIMER_STATS)


def erasable_rows(connection: Connection, person: Person) -> dict[str, int]:
    """Return how many rows of each table erasing a person would change."""
    # Imported here, because every `wch` command loads this module, and SQLAlchemy takes a fifth of a second to load.
    from wch_common.store import erasure
    from wch_scheduler.tables import METADATA

    return erasure.erasable_rows(connection, METADATA, published_contract(), person)


def export_person(connection: Connection, person: Person) -> dict[str, list[dict[str, Any]]]:
    """Return every row about a person, and the stored events that name them, by table."""
    from wch_common.store import erasure
    from wch_scheduler.tables import METADATA

    return erasure.export_person(connection, METADATA, published_contract(), person)


def _rows(connection: Connection, row: type[T], statement: str, parameters: dict[str, Any] | None = None) -> list[T]:
    with connection.cursor(row_factory=class_row(row)) as cursor:
        found: list[T] = cursor.execute(statement, parameters).fetchall()
        return found


# -- requests


def run_request(name: str, by: str) -> ScheduleRunRequested:
    """Return the request to publish a schedule's events now."""
    return ScheduleRunRequested(schedule=name, by=by)


def pause_request(name: str, by: str, reason: str) -> SchedulePauseRequested:
    """Return the request to pause a schedule."""
    return SchedulePauseRequested(schedule=name, by=by, reason=reason)


def resume_request(name: str, by: str) -> ScheduleResumeRequested:
    """Return the request to resume a paused schedule."""
    return ScheduleResumeRequested(schedule=name, by=by)


def cancel_timers_request(
    *, key: str | None, group: str | None, requester: str | None, by: str, reason: str
) -> TimersCancelRequested:
    """Return the request to cancel the waiting timers that match every given filter."""
    return TimersCancelRequested(key=key, group=group, of_requester=requester, by=by, reason=reason)
