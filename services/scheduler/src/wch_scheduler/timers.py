"""Timers of other programs: taken on, replaced and taken back by their requester, and published at their time, fairly."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import orjson
import psycopg
import structlog
from psycopg.types.json import Jsonb
from pydantic import ValidationError

from wch_common.contract.envelope import data_errors
from wch_common.contract.event import REQUESTER_PATTERN, Event, EventData, Request, new_event
from wch_common.errors import Interrupted, UnknownType, UnknownVersion
from wch_common.events.scheduler import (
    TimerAccepted,
    TimerCancelled,
    TimerCancelRequested,
    TimerRefused,
    TimerReplaced,
    TimerRequested,
    TimerTooLate,
)
from wch_common.observability.redact import error_text
from wch_common.outcome import Reject
from wch_scheduler.ticks import BOUND, SOURCE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from wch_common.contract.registry import Registry
    from wch_common.integrations.shops import ShopEntry, Shops
    from wch_common.store.database import Row
    from wch_common.store.store import Store, Transaction
    from wch_scheduler.metrics import SchedulerMetrics

log = structlog.get_logger(__name__)

LONGEST: Final = timedelta(days=3653)
# What is due before is due at once as well, and PostgreSQL's calendar is not Python's everywhere.
_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
# By so much an requester's clock may be ahead, and its requests still count in the order in which it made them.
_MOST_AHEAD = timedelta(minutes=1)
_NAMES = uuid.UUID("7c1b1d5e-90f4-5c0b-8d43-52f3a7c6e018")
# A request that was overtaken by a later one changes nothing: the requesters' own clock orders what they ask for.
_ASK = """
INSERT INTO timers AS t (id, requester, key, group_name, due_at, event, state, asked_at, correlationid, causationid)
VALUES (%(id)s, %(requester)s, %(key)s, %(group)s, %(due)s, %(event)s, 'waiting', %(time)s, %(correlationid)s, %(causationid)s)
ON CONFLICT (id) DO UPDATE SET group_name = excluded.group_name, due_at = excluded.due_at, event = excluded.event, state = 'waiting',
  version = t.version + 1, asked_at = excluded.asked_at, correlationid = excluded.correlationid, causationid = excluded.causationid,
  ended_at = NULL
WHERE t.asked_at <= excluded.asked_at AND t.state <> 'fired'
RETURNING (SELECT before.state FROM timers AS before WHERE before.id = t.id) AS was
"""
_STATE = "SELECT state, due_at FROM timers WHERE id = %(id)s"
_CANCEL = """
INSERT INTO timers AS t (id, requester, key, due_at, event, state, asked_at, ended_at)
VALUES (%(id)s, %(requester)s, %(key)s, now(), '{}', 'cancelled', %(time)s, now())
ON CONFLICT (id) DO UPDATE SET state = 'cancelled', asked_at = excluded.asked_at, ended_at = now()
WHERE t.asked_at <= excluded.asked_at AND t.state <> 'fired'
RETURNING (SELECT before.state FROM timers AS before WHERE before.id = t.id) AS was
"""
_CANCEL_GROUP = """
WITH cancelled AS (
  UPDATE timers SET state = 'cancelled', asked_at = %(time)s, ended_at = now()
  WHERE requester = %(requester)s AND group_name = %(group)s AND state = 'waiting' AND asked_at <= %(time)s RETURNING 1
) SELECT count(*) AS timers FROM cancelled
"""
# A group that is taken back, and a timer that is put into it, take turns: the one that was asked for later counts.
_GROUP = "SELECT pg_advisory_xact_lock(hashtextextended(%(requester)s || chr(10) || %(group)s, 0))"
_MARK_GROUP = """
INSERT INTO groups AS g (requester, name, cancelled_at) VALUES (%(requester)s, %(group)s, %(time)s)
ON CONFLICT (requester, name) DO UPDATE SET cancelled_at = greatest(g.cancelled_at, excluded.cancelled_at)
"""
_GROUP_CANCELLED = (
    "SELECT cancelled_at FROM groups WHERE requester = %(requester)s AND name = %(group)s AND cancelled_at >= %(time)s"
)
# One replica at a time releases, so that the rate is that of all of them together; one that sleeps in it holds up for seconds.
_PACE = "SELECT released_until, clock_timestamp() AS now FROM pace FOR UPDATE SKIP LOCKED"
_PACED = "UPDATE pace SET released_until = %(until)s"
# A type that this replica does not know may be known to a newer one; after an hour nobody seems to know it.
_KNOWN = "(event->>'type' = ANY(%(types)s) OR due_at < now() - interval '1 hour')"
# One of each requester before the second of any; of one requester in the order of time.
_RELEASE = f"""
WITH RECURSIVE requesters AS (
  (SELECT requester FROM timers WHERE state = 'waiting' ORDER BY requester LIMIT 1)
  UNION ALL
  SELECT next.requester FROM requesters CROSS JOIN LATERAL (
    SELECT requester FROM timers WHERE state = 'waiting' AND requester > requesters.requester ORDER BY requester LIMIT 1) AS next
), due AS (
  SELECT timer.id, timer.due_at, row_number() OVER (PARTITION BY requesters.requester ORDER BY timer.due_at) AS turn
  FROM requesters CROSS JOIN LATERAL (
    SELECT id, due_at FROM timers WHERE state = 'waiting' AND requester = requesters.requester AND due_at <= now() AND {_KNOWN}
    ORDER BY due_at LIMIT %(limit)s) AS timer
), chosen AS (
  SELECT t.id FROM timers AS t WHERE t.id = ANY(ARRAY(SELECT id FROM due ORDER BY turn, due_at LIMIT %(limit)s)) AND t.state = 'waiting'
    AND t.due_at <= now()  -- looked at again where it was replaced a moment ago
  FOR UPDATE SKIP LOCKED
)
UPDATE timers SET state = 'fired', ended_at = statement_timestamp() WHERE id = ANY(ARRAY(SELECT id FROM chosen))
RETURNING id, requester, key, event, due_at, correlationid, causationid, now() - greatest(due_at, asked_at) AS late
"""  # noqa: S608 - words of this module
_REFUSE = "UPDATE timers SET state = 'refused' WHERE id = %(id)s"
_NEXT = f"""
SELECT extract(epoch FROM min(due_at) - now())::float8 AS seconds FROM timers WHERE state = 'waiting' AND {_KNOWN}
"""  # noqa: S608 - words of this module
_LONGEST_PAUSE, _SHORTEST_PAUSE = 1.0, 0.02
_MOST_AT_ONCE = 500
# So much of a second's releases may go at once where some were not made.
_BURST_SECONDS = 0.2


def timer_id(requester: str, key: str) -> uuid.UUID:
    """Return the key of a timer: one per requester and key."""
    return uuid.uuid5(_NAMES, f"{requester}\n{key}")


class Timers:
    """The handlers of what requesters want, and the release of what is due."""

    def __init__(
        self,
        store: Store,
        shops: Shops[ShopEntry],
        registry: Registry,
        metrics: SchedulerMetrics,
        *,
        allowed: Mapping[str, Sequence[str]],
        rate: float,
        can_publish: Callable[[], bool],
    ) -> None:
        self._store = store
        self._shops = shops
        self._registry = registry
        self._metrics = metrics
        self._nudged = asyncio.Event()
        self._allowed = allowed
        self._rate = rate
        self._can_publish = can_publish
        self._types = {"types": [model.TYPE for model in registry]}

    async def requested(self, event: Event[TimerRequested], tx: Transaction) -> None:
        """Take a timer on, or replace the one of its key; one that was published is told to be too late."""
        data, requester = event.data, self._requester(event)
        self._check(requester, event)
        due = max(data.due, _LONG_AGO)
        names: dict[str, Any] = {
            "id": timer_id(requester, data.key),
            "requester": requester,
            "key": data.key,
            "group": data.group,
            "due": due,
            "event": Jsonb(data.event.model_dump(mode="json")),
            "time": _asked_at(event),
            "correlationid": event.correlationid or event.id,
            "causationid": event.id,
        }
        told: EventData
        if await self._group_is_cancelled(tx, names):
            told = await self._take_back(tx, names, asked_for=True)
        elif taken := await tx.rows(_ASK, names):
            told = (TimerReplaced if taken[0]["was"] == "waiting" else TimerAccepted)(key=data.key, due=due)
        else:
            (known,) = await tx.rows(_STATE, names)
            told = _file_state(data.key, known)
        tx.emit(event.derive(told, SOURCE, requester=requester))
        tx.then(self._nudged.set)

    async def cancelled(self, event: Event[TimerCancelRequested], tx: Transaction) -> None:
        """Take a timer back, or all that wait of a group."""
        data, requester = event.data, self._requester(event)
        names = {"requester": requester, "time": _asked_at(event)}
        told: EventData
        if data.group is not None:
            names |= {"group": data.group}
            await tx.rows(_GROUP, names)
            await tx.rows(_MARK_GROUP, names)
            (row,) = await tx.rows(_CANCEL_GROUP, names)
            told = TimerCancelled(group=data.group, timers=row["timers"])
        else:
            told = await self._take_back(tx, names | {"id": timer_id(requester, data.key or ""), "key": data.key})
        tx.emit(event.derive(told, SOURCE, requester=requester))

    async def _take_back(self, tx: Transaction, names: dict[str, Any], *, asked_for: bool = False) -> EventData:
        if taken := await tx.rows(_CANCEL, names):
            return TimerCancelled(key=names["key"], timers=int(asked_for or taken[0]["was"] == "waiting"))
        (known,) = await tx.rows(_STATE, names)
        return _file_state(names["key"], known)

    async def _group_is_cancelled(self, tx: Transaction, names: dict[str, Any]) -> bool:
        """Return whether the timer's group was taken back after it was asked for, on another way."""
        if not names["group"]:
            return False
        await tx.rows(_GROUP, names)
        return bool(await tx.rows(_GROUP_CANCELLED, names))

    async def run(self) -> None:
        """Release timers as they become due, until cancelled; an outage is waited for."""
        while True:
            pause = _LONGEST_PAUSE
            try:
                # What is due without a broker leaves at the rate, and in order, when it is back.
                if self._can_publish():
                    pause = _SHORTEST_PAUSE if await self.release() else await self._until_due()
                    self._metrics.released_now()
            except (Interrupted, psycopg.Error) as error:
                log.warning("timers_wait", error=error_text(error))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._nudged.wait(), pause)
            self._nudged.clear()

    async def _until_due(self) -> float:
        seconds = (await self._store.database.rows(_NEXT, self._types))[0]["seconds"]
        return _LONGEST_PAUSE if seconds is None else min(_LONGEST_PAUSE, max(_SHORTEST_PAUSE, seconds))

    async def release(self) -> int:
        """Publish timers that are due, as many as the rate allows now; returns how many."""
        async with self._store.transaction() as tx:
            await tx.rows(BOUND)
            for pace in await tx.rows(_PACE):
                now, since = pace["now"], pace["released_until"]
                earliest = now - timedelta(seconds=max(_BURST_SECONDS, 1 / self._rate))
                # Also where the clock was set back, after which it would be in the future for long.
                since = since if earliest <= since <= now else earliest
                # Rounded before it is cut off, as a third of a second three times is not quite one.
                free = min(_MOST_AT_ONCE, int(round((now - since).total_seconds() * self._rate, 3)))
                if free <= 0:
                    return 0
                rows = sorted(await tx.rows(_RELEASE, self._types | {"limit": free}), key=lambda row: row["due_at"])
                for row in rows:
                    await self._publish(tx, row)
                if rows:
                    await tx.rows(_PACED, {"until": since + timedelta(seconds=len(rows) / self._rate)})
                # One that was asked for in the past is due when it is asked for.
                late = [row["late"].total_seconds() for row in rows]
                tx.then(partial(self._metrics.released, late))
                return len(rows)
        return 0

    async def _publish(self, tx: Transaction, row: Row) -> None:
        """Publish a timer's event; one that is none any more (a type that went) is told, and holds up no other."""
        try:
            timed = self._timed(row)
            tx.emit(timed)
            log.debug("timer_published", timer=str(row["id"]), requester=row["requester"], event_id=timed.id)
        except (UnknownType, UnknownVersion, ValidationError) as error:
            reason = error_text(error, 500)
            log.error("timer_not_published", timer=str(row["id"]), error=reason)
            await tx.rows(_REFUSE, row)
            told = new_event(TimerRefused(key=row["key"], reason=reason), SOURCE, requester=row["requester"])
            tx.emit(replace(told, correlationid=row["correlationid"], causationid=row["causationid"]))

    def _timed(self, row: Row) -> Event[EventData]:
        wanted = row["event"]
        data = _validated(self._registry.model(wanted["type"]), wanted["data"])
        id_ = str(uuid.uuid5(row["id"], f"fired\n{row['causationid']}"))
        made = new_event(
            data, SOURCE, id=id_, shop=wanted["shop"], requester=row["requester"], correlationid=row["correlationid"]
        )
        return replace(made, causationid=row["causationid"])

    def _requester(self, event: Event[Any]) -> str:
        """Return the AMQP user who asks; raises Reject."""
        if event.user is None:
            raise Reject("nobody signed the request: publish it with the property user_id, as wch_common's client does")
        if not REQUESTER_PATTERN.match(event.user):
            raise Reject(
                "the AMQP user's name must be lower-case letters, digits, - and _, as answers are routed by it"
            )
        if event.user not in self._allowed:
            raise Reject(f"{event.user} may not use timers: WCH_SCHEDULER_REQUESTERS lists who may, and what for")
        return event.user

    def _check(self, requester: str, event: Event[TimerRequested]) -> None:
        """Refuse what an requester may not have published, or nobody could; raises Reject."""
        wanted, now = event.data.event, datetime.now(UTC)
        if not any(fnmatchcase(wanted.type, pattern) for pattern in self._allowed[requester]):
            raise Reject(
                f"data.event.type: {requester} may not schedule {wanted.type}; WCH_SCHEDULER_REQUESTERS lists what may be"
            )
        if event.data.due > now + LONGEST:
            raise Reject("data.due: more than ten years ahead")
        try:
            model = self._registry.model(wanted.type)
        except (UnknownType, UnknownVersion) as error:
            raise Reject(f"data.event.type: {error}") from None
        if not issubclass(model, Request):
            raise Reject(f"data.event.type: {wanted.type} is a fact, which tells what happened; a timer asks for work")
        try:
            _validated(model, wanted.data)
        except ValidationError as error:
            raise Reject("; ".join(f"data.event.{problem}" for problem in data_errors(error))) from None
        try:
            self._shops.key(wanted.shop)
        except Reject as error:
            raise Reject(f"data.event.shop: {error}") from None


def _validated(model: type[EventData], data: dict[str, Any]) -> EventData:
    validated: EventData = model.__pydantic_validator__.validate_json(orjson.dumps(data), strict=True)
    return validated


def _file_state(key: str, known: Row) -> EventData:
    """Return what became of a timer that is no more to be changed by this request."""
    if known["state"] == "fired":
        return TimerTooLate(key=key)
    if known["state"] == "cancelled":
        return TimerCancelled(key=key, timers=0)
    return TimerAccepted(key=key, due=known["due_at"])


def _asked_at(event: Event[Any]) -> datetime:
    """Return when it was asked for by the requester's clock; one that is far ahead would lock its key for so long."""
    now = datetime.now(UTC)
    return min(event.time or now, now + _MOST_AHEAD)


def timer_dead_lettered(event: Event[Any], reason: str) -> TimerRefused:
    """Tell that a request for a timer was refused."""
    return TimerRefused(key=event.data.key, group=event.data.group or None, reason=reason[:500])
