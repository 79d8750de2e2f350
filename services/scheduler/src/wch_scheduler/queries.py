"""The SQL statements of the scheduler, by name, and the rows that operators read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

# -- for file_in_use.py: the file in use

FILE_SEEN = """
INSERT INTO files AS f (hash) VALUES (%(hash)s)
ON CONFLICT (hash) DO UPDATE SET last_seen = now(),
  present_since = CASE WHEN f.last_seen < now() - %(silent)s * interval '1 second' THEN now() ELSE f.present_since END
"""
FILE_STATE = """
SELECT mine.applied, NOT EXISTS (
  SELECT 1 FROM files AS other WHERE other.applied AND (other.first_seen, other.hash) > (mine.first_seen, mine.hash)
  AND (other.last_seen >= now() - %(silent)s * interval '1 second'
       OR mine.present_since >= now() - %(silent)s * interval '1 second')
) AS may_apply FROM files AS mine WHERE mine.hash = %(hash)s
"""
FILE_LOCK = "SELECT pg_advisory_xact_lock(hashtext('schedules'))"
FILE_APPLIED = "UPDATE files SET applied = (hash = %(hash)s)"
SCHEDULES_TO_APPLY = "SELECT name, timing, next_planned, next_due FROM schedules FOR UPDATE"
NOW = "SELECT now() AS now"
SCHEDULE_ADD = """
INSERT INTO schedules (name, definition, timing, next_planned, next_due)
VALUES (%(name)s, %(definition)s, %(timing)s, %(planned)s, %(due)s)
"""
SCHEDULE_CHANGE = "UPDATE schedules SET definition = %(definition)s WHERE name = %(name)s"
SCHEDULE_CHANGE_TIMING = """
UPDATE schedules SET definition = %(definition)s, timing = %(timing)s, next_planned = %(planned)s, next_due = %(due)s
WHERE name = %(name)s
"""
SCHEDULES_REMOVE = "DELETE FROM schedules WHERE NOT name = ANY(%(names)s)"

# -- for ticks.py: publishing what is due

# A process that sleeps inside the transaction must not delay the others: the database ends the transaction, and their wait.
LIMIT_TRANSACTION = (
    "SELECT set_config('idle_in_transaction_session_timeout', '5s', true), set_config('lock_timeout', '10s', true)"
)
SCHEDULES_DUE = """
SELECT *, now() AS now FROM schedules
WHERE (paused_at IS NULL AND next_due <= now()) OR triggered_at IS NOT NULL ORDER BY next_due LIMIT %(limit)s
"""
NEXT_SCHEDULE = """
SELECT extract(epoch FROM min(next_due) - now())::float8 AS seconds FROM schedules
WHERE next_due IS NOT NULL AND paused_at IS NULL
"""
# Compare and set: of all processes that read the same planned time one takes it, however late another wakes up.
TAKE_PLANNED = """
UPDATE schedules SET next_planned = %(following)s, next_due = %(due)s, last_planned = coalesce(%(last)s, last_planned),
  last_fired_at = CASE WHEN %(fired)s > 0 THEN now() ELSE last_fired_at END,
  fired = fired + %(fired)s, missed = missed + %(missed)s
WHERE name = %(name)s AND next_planned IS NOT DISTINCT FROM %(seen)s AND paused_at IS NULL RETURNING 1
"""
TAKE_TRIGGERED = """
UPDATE schedules SET triggered_at = NULL, triggered_by = '', last_fired_at = now(), fired = fired + 1
WHERE name = %(name)s AND triggered_at = %(seen)s RETURNING 1
"""
TICKS_ADD = """
INSERT INTO ticks (schedule, planned, kind, by)
SELECT %(name)s, planned, %(kind)s, %(by)s FROM unnest(%(planned)s::timestamptz[]) AS new (planned)
ON CONFLICT DO NOTHING
"""
GAP_ADD = """
INSERT INTO gaps (schedule, first, last, ticks, policy)
VALUES (%(name)s, %(first)s, %(last)s, %(ticks)s, %(policy)s) ON CONFLICT (schedule, first) DO NOTHING
"""

# -- for control.py: what operators request

# A run that could not be published, as the log says, may be requested again after a minute.
_RUN_WAITS = "coalesce(triggered_at >= now() - interval '1 minute', false)"
SCHEDULE_TRIGGER = f"""
UPDATE schedules SET triggered_at = clock_timestamp(), triggered_by = %(by)s
WHERE name = %(name)s AND NOT {_RUN_WAITS} RETURNING 1
"""  # noqa: S608 - a text of this module
SCHEDULE_PAUSE = """
UPDATE schedules SET paused_at = now(), paused_by = %(by)s, reason = %(reason)s WHERE name = %(name)s AND paused_at IS NULL
"""
# The service computes the next time, counted from now.
SCHEDULE_RESUME = """
UPDATE schedules SET paused_at = NULL, paused_by = '', reason = '', next_planned = NULL,
  next_due = CASE WHEN next_due IS NOT NULL THEN now() END
WHERE name = %(name)s AND paused_at IS NOT NULL
"""
_TIMER_FILTER = """
(%(key)s::text IS NULL OR key = %(key)s) AND (%(group)s::text IS NULL OR group_name = %(group)s)
AND (%(requester)s::text IS NULL OR requester = %(requester)s)
"""
TIMERS_CANCEL_MATCHING = f"""
UPDATE timers SET state = 'cancelled', requested_at = greatest(requested_at, now()), ended_at = now()
WHERE id = ANY(ARRAY(SELECT id FROM timers WHERE state = 'waiting' AND {_TIMER_FILTER}
                     ORDER BY id LIMIT %(limit)s FOR UPDATE))
RETURNING requester, key
"""  # noqa: S608 - a text of this module

# -- for timers.py: timers

# A request that was overtaken by a later one changes nothing: the requester's own clock orders its requests.
TIMER_PUT = """
INSERT INTO timers AS t (id, requester, key, group_name, due_at, event, state, requested_at, correlationid, causationid)
VALUES (%(id)s, %(requester)s, %(key)s, %(group)s, %(due)s, %(event)s, 'waiting', %(time)s, %(correlationid)s,
        %(causationid)s)
ON CONFLICT (id) DO UPDATE SET group_name = excluded.group_name, due_at = excluded.due_at, event = excluded.event,
  state = 'waiting', version = t.version + 1, requested_at = excluded.requested_at,
  correlationid = excluded.correlationid, causationid = excluded.causationid, ended_at = NULL
WHERE t.requested_at <= excluded.requested_at AND t.state <> 'fired'
RETURNING (SELECT before.state FROM timers AS before WHERE before.id = t.id) AS was
"""
TIMER_STATE = "SELECT state, due_at FROM timers WHERE id = %(id)s"
TIMER_CANCEL = """
INSERT INTO timers AS t (id, requester, key, due_at, event, state, requested_at, ended_at)
VALUES (%(id)s, %(requester)s, %(key)s, now(), '{}', 'cancelled', %(time)s, now())
ON CONFLICT (id) DO UPDATE SET state = 'cancelled', requested_at = excluded.requested_at, ended_at = now()
WHERE t.requested_at <= excluded.requested_at AND t.state <> 'fired'
RETURNING (SELECT before.state FROM timers AS before WHERE before.id = t.id) AS was
"""
GROUP_CANCEL = """
WITH cancelled AS (
  UPDATE timers SET state = 'cancelled', requested_at = %(time)s, ended_at = now()
  WHERE requester = %(requester)s AND group_name = %(group)s AND state = 'waiting' AND requested_at <= %(time)s
  RETURNING 1
) SELECT count(*) AS timers FROM cancelled
"""
# Cancelling a group and adding a timer to it exclude each other, so that the later request wins.
GROUP_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended(%(requester)s || chr(10) || %(group)s, 0))"
GROUP_MARK_CANCELLED = """
INSERT INTO groups AS g (requester, name, cancelled_at) VALUES (%(requester)s, %(group)s, %(time)s)
ON CONFLICT (requester, name) DO UPDATE SET cancelled_at = greatest(g.cancelled_at, excluded.cancelled_at)
"""
GROUP_CANCELLED_SINCE = (
    "SELECT cancelled_at FROM groups WHERE requester = %(requester)s AND name = %(group)s AND cancelled_at >= %(time)s"
)
# One replica releases at a time, so that the rate is that of all replicas; one that sleeps meanwhile delays for seconds only.
PACE = "SELECT released_until, clock_timestamp() AS now FROM pace FOR UPDATE SKIP LOCKED"
PACE_SET = "UPDATE pace SET released_until = %(until)s"
# A newer replica may know a type that this one does not; after an hour any replica refuses it.
_KNOWN_TYPE = "(event->>'type' = ANY(%(types)s) OR due_at < now() - interval '1 hour')"
# One timer of each requester before the second of any; those of one requester in the order of time.
TIMERS_RELEASE = f"""
WITH RECURSIVE requesters AS (
  (SELECT requester FROM timers WHERE state = 'waiting' ORDER BY requester LIMIT 1)
  UNION ALL
  SELECT next.requester FROM requesters CROSS JOIN LATERAL (
    SELECT requester FROM timers WHERE state = 'waiting' AND requester > requesters.requester
    ORDER BY requester LIMIT 1) AS next
), due AS (
  SELECT timer.id, timer.due_at, row_number() OVER (PARTITION BY requesters.requester ORDER BY timer.due_at) AS turn
  FROM requesters CROSS JOIN LATERAL (
    SELECT id, due_at FROM timers WHERE state = 'waiting' AND requester = requesters.requester AND due_at <= now()
      AND {_KNOWN_TYPE} ORDER BY due_at LIMIT %(limit)s) AS timer
), chosen AS (
  SELECT t.id FROM timers AS t WHERE t.id = ANY(ARRAY(SELECT id FROM due ORDER BY turn, due_at LIMIT %(limit)s))
    AND t.state = 'waiting' AND t.due_at <= now()  -- checked again, as it may have been replaced since
  FOR UPDATE SKIP LOCKED
)
UPDATE timers SET state = 'fired', ended_at = statement_timestamp() WHERE id = ANY(ARRAY(SELECT id FROM chosen))
RETURNING id, requester, key, event, due_at, requested_at, correlationid, causationid,
          now() - greatest(due_at, requested_at) AS late
"""  # noqa: S608 - a text of this module
TIMER_REFUSE = "UPDATE timers SET state = 'refused' WHERE id = %(id)s"
NEXT_TIMER = f"""
SELECT extract(epoch FROM min(due_at) - now())::float8 AS seconds FROM timers WHERE state = 'waiting' AND {_KNOWN_TYPE}
"""  # noqa: S608 - a text of this module

# -- for loops.py: counting and deleting

COUNTS = """
SELECT count(*) FILTER (WHERE next_due < now() - %(late)s * interval '1 second' AND paused_at IS NULL) AS late,
       extract(epoch FROM max(now() - next_due) FILTER (WHERE next_due < now() AND paused_at IS NULL))::float8 AS oldest,
       count(*) FILTER (WHERE next_due < now() + interval '1 hour' AND paused_at IS NULL) AS soon,
       count(*) FILTER (WHERE paused_at IS NOT NULL) AS paused,
       (SELECT count(*) FROM timers WHERE state = 'waiting') AS timers,
       (SELECT extract(epoch FROM now() - min(due_at))::float8 FROM timers
        WHERE state = 'waiting' AND due_at < now()) AS timers_oldest,
       (SELECT count(*) FROM timers WHERE state = 'waiting' AND due_at < now() + interval '1 hour') AS timers_soon
FROM schedules
"""


def _delete_old(table: str, condition: str) -> str:
    return f"""
    DELETE FROM {table} WHERE ctid = ANY(ARRAY(
      SELECT ctid FROM {table} WHERE {condition} < now() - %(days)s * interval '1 day'
      LIMIT %(chunk)s FOR UPDATE SKIP LOCKED)) RETURNING 1
    """  # noqa: S608 - texts of this module


DELETE_OLD = (
    _delete_old("ticks", "fired_at"),
    _delete_old("gaps", "noticed_at"),
    _delete_old("timers", "ended_at"),
    _delete_old("groups", "cancelled_at"),
    _delete_old("files", "NOT applied AND last_seen"),
)

# -- for admin.py: what operators read

ALL_SCHEDULES = f"""
SELECT name, definition, next_planned, next_due, triggered_at, triggered_by, {_RUN_WAITS} AS run_waits, paused_at, paused_by, reason, last_planned,
       last_fired_at, fired, missed FROM schedules ORDER BY name
"""  # noqa: S608 - a text of this module
ONE_SCHEDULE = f"""
SELECT name, definition, next_planned, next_due, triggered_at, triggered_by, {_RUN_WAITS} AS run_waits, paused_at, paused_by, reason, last_planned,
       last_fired_at, fired, missed FROM schedules WHERE name = %(name)s
"""  # noqa: S608 - a text of this module
LAST_TICKS = "SELECT planned, kind, by, fired_at FROM ticks WHERE schedule = %(name)s ORDER BY fired_at DESC LIMIT 10"
GAPS = """
SELECT schedule, first, last, ticks, policy, noticed_at FROM gaps
WHERE %(name)s::text IS NULL OR schedule = %(name)s ORDER BY noticed_at DESC LIMIT %(limit)s
"""
# A timer that was cancelled before it was requested has no event and is not listed.
TIMERS = f"""
SELECT requester, key, group_name AS group, event->>'type' AS type, event->>'shop' AS shop, state, due_at, requested_at,
       ended_at, version AS replaced, correlationid, causationid FROM timers
WHERE event->>'type' IS NOT NULL AND {_TIMER_FILTER} AND (%(state)s::text IS NULL OR state = %(state)s)
ORDER BY state <> 'waiting', CASE WHEN state = 'waiting' THEN due_at END, ended_at DESC LIMIT %(limit)s
"""  # noqa: S608 - a text of this module
WAITING_TIMERS = f"SELECT count(*) AS timers FROM timers WHERE state = 'waiting' AND {_TIMER_FILTER}"  # noqa: S608
TIMER_STATS = """
SELECT requester, group_name AS group, state, count(*) AS timers, min(due_at) AS first, max(due_at) AS last FROM timers
WHERE event->>'type' IS NOT NULL GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""


@dataclass(frozen=True)
class ScheduleRow:
    """A schedule as it is in use."""

    name: str
    definition: dict[str, Any]
    next_planned: datetime | None
    next_due: datetime | None
    triggered_at: datetime | None
    triggered_by: str
    run_waits: bool
    """Whether a run was requested within the last minute and is not published yet, by the database's clock."""
    paused_at: datetime | None
    paused_by: str
    reason: str
    last_planned: datetime | None
    last_fired_at: datetime | None
    fired: int
    missed: int


@dataclass(frozen=True)
class TickRow:
    """A time at which a schedule's events were published."""

    planned: datetime
    kind: str
    by: str
    fired_at: datetime


@dataclass(frozen=True)
class GapRow:
    """Planned times that were missed, and the policy by which they were not caught up."""

    schedule: str
    first: datetime
    last: datetime
    ticks: int
    policy: str
    noticed_at: datetime


@dataclass(frozen=True)
class TimerRow:
    """A timer, without the data of its event, which may be personal."""

    requester: str
    key: str
    group: str
    type: str
    shop: str | None
    state: str
    due_at: datetime
    requested_at: datetime
    ended_at: datetime | None
    replaced: int
    correlationid: str | None
    causationid: str | None


@dataclass(frozen=True)
class TimerStatsRow:
    """How many timers of a requester and group are in a state."""

    requester: str
    group: str
    state: str
    timers: int
    first: datetime
    last: datetime


@dataclass(frozen=True)
class CancelledTimer:
    """A timer that an operator cancelled, and whom to notify."""

    requester: str
    key: str


@dataclass(frozen=True)
class DueTimer:
    """A timer that was taken to be published."""

    id: UUID
    requester: str
    key: str
    event: dict[str, Any]
    due_at: datetime
    requested_at: datetime
    correlationid: str | None
    causationid: str | None
    late: Any
