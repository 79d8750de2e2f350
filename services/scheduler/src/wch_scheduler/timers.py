"""Timers of other programs: accepted, replaced and cancelled by their requester, and published in turn when they are due."""

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
from wch_common.contract.identity import derived_id
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
from wch_scheduler import queries
from wch_scheduler.queries import DueTimer
from wch_scheduler.ticks import SOURCE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from wch_common.contract.registry import Registry
    from wch_common.integrations.shops import Shops
    from wch_common.store.database import Row
    from wch_common.store.store import Store, Transaction
    from wch_scheduler.metrics import SchedulerMetrics
    from wch_scheduler.settings import SchedulerShop

log = structlog.get_logger(__name__)

LONGEST: Final = timedelta(days=3653)
# An earlier due time means at once, too; PostgreSQL and Python differ on ancient dates.
_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
# How far a requester's clock may be ahead without disturbing the order of its requests.
_MOST_AHEAD = timedelta(minutes=1)
_NAMES = uuid.UUID("7c1b1d5e-90f4-5c0b-8d43-52f3a7c6e018")
_LONGEST_PAUSE, _SHORTEST_PAUSE = 1.0, 0.02
_MOST_AT_ONCE = 500
# After a pause, the releases of so many seconds may be made at once.
_BURST_SECONDS = 0.2


def timer_id(requester: str, key: str) -> uuid.UUID:
    """Return the id of a timer, derived from its requester and key."""
    return derived_id(_NAMES, requester, key)


class Timers:
    """Handles the requests for timers, and releases the timers that are due."""

    def __init__(
        self,
        store: Store,
        shops: Shops[SchedulerShop],
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
        """Accept a timer or replace the one under its key; answers `too_late` for one that was published."""
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
            "time": _requested_at(event),
            "correlationid": event.correlationid or event.id,
            "causationid": event.id,
        }
        answer: EventData
        if await self._group_is_cancelled(tx, names):
            answer = await self._cancel(tx, names, requested=True)
        elif put := await tx.rows(queries.TIMER_PUT, names):
            answer = (TimerReplaced if put[0]["was"] == "waiting" else TimerAccepted)(key=data.key, due=due)
        else:
            (known,) = await tx.rows(queries.TIMER_STATE, names)
            answer = _answer(data.key, known)
        tx.emit(event.derive(answer, SOURCE, requester=requester))
        tx.then(self._nudged.set)

    async def cancelled(self, event: Event[TimerCancelRequested], tx: Transaction) -> None:
        """Cancel a timer, or all waiting timers of a group."""
        data, requester = event.data, self._requester(event)
        names = {"requester": requester, "time": _requested_at(event)}
        answer: EventData
        if data.group is not None:
            names |= {"group": data.group}
            await tx.rows(queries.GROUP_LOCK, names)
            await tx.rows(queries.GROUP_MARK_CANCELLED, names)
            (row,) = await tx.rows(queries.GROUP_CANCEL, names)
            answer = TimerCancelled(group=data.group, timers=row["timers"])
        else:
            answer = await self._cancel(tx, names | {"id": timer_id(requester, data.key or ""), "key": data.key})
        tx.emit(event.derive(answer, SOURCE, requester=requester))

    async def _cancel(self, tx: Transaction, names: dict[str, Any], *, requested: bool = False) -> EventData:
        if cancelled := await tx.rows(queries.TIMER_CANCEL, names):
            return TimerCancelled(key=names["key"], timers=int(requested or cancelled[0]["was"] == "waiting"))
        (known,) = await tx.rows(queries.TIMER_STATE, names)
        return _answer(names["key"], known)

    async def _group_is_cancelled(self, tx: Transaction, names: dict[str, Any]) -> bool:
        """Return whether the timer's group was cancelled after the timer was requested."""
        if not names["group"]:
            return False
        await tx.rows(queries.GROUP_LOCK, names)
        return bool(await tx.rows(queries.GROUP_CANCELLED_SINCE, names))

    async def run(self) -> None:
        """Release timers as they become due, until cancelled; an outage is logged and waited for."""
        while True:
            pause = _LONGEST_PAUSE
            try:
                # Without a broker nothing is released; afterwards the due timers leave in order and at the rate.
                if self._can_publish():
                    pause = _SHORTEST_PAUSE if await self.release() else await self._until_due()
                    self._metrics.timers_checked()
            except (Interrupted, psycopg.Error) as error:
                log.warning("timers_delayed", error=error_text(error))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._nudged.wait(), pause)
            self._nudged.clear()

    async def _until_due(self) -> float:
        seconds = (await self._store.database.rows(queries.NEXT_TIMER, self._types))[0]["seconds"]
        return _LONGEST_PAUSE if seconds is None else min(_LONGEST_PAUSE, max(_SHORTEST_PAUSE, seconds))

    async def release(self) -> int:
        """Publish due timers, as many as the rate allows now; returns how many."""
        async with self._store.transaction() as tx:
            await tx.rows(queries.LIMIT_TRANSACTION)
            for pace in await tx.rows(queries.PACE):
                now, since = pace["now"], pace["released_until"]
                earliest = now - timedelta(seconds=max(_BURST_SECONDS, 1 / self._rate))
                # Also after the clock was set back, when `released_until` would lie in the future for long.
                since = since if earliest <= since <= now else earliest
                # Rounded first, as three thirds of a second are not quite one.
                free = min(_MOST_AT_ONCE, int(round((now - since).total_seconds() * self._rate, 3)))
                if free <= 0:
                    return 0
                due = await tx.typed(DueTimer, queries.TIMERS_RELEASE, self._types | {"limit": free})
                rows = sorted(due, key=lambda timer: timer.due_at)
                for timer in rows:
                    await self._publish(tx, timer)
                if rows:
                    await tx.rows(queries.PACE_SET, {"until": since + timedelta(seconds=len(rows) / self._rate)})
                # A timer requested for the past is due when it is requested.
                late = [timer.late.total_seconds() for timer in rows]
                tx.then(partial(self._metrics.released, late))
                return len(rows)
        return 0

    async def _publish(self, tx: Transaction, timer: DueTimer) -> None:
        """Publish a timer's event; if its type no longer exists, its requester is notified and other timers go on."""
        try:
            timed = self._timed(timer)
            tx.emit(timed)
            log.debug("timer_published", timer=str(timer.id), requester=timer.requester, event_id=timed.id)
        except (UnknownType, UnknownVersion, ValidationError) as error:
            reason = error_text(error, 500)
            log.error("timer_not_published", timer=str(timer.id), error=reason)
            await tx.rows(queries.TIMER_REFUSE, {"id": timer.id})
            refused = new_event(TimerRefused(key=timer.key, reason=reason), SOURCE, requester=timer.requester)
            tx.emit(replace(refused, correlationid=timer.correlationid, causationid=timer.causationid))

    def _timed(self, timer: DueTimer) -> Event[EventData]:
        wanted = timer.event
        model, fields = self._registry.model(wanted["type"]), wanted["data"]
        if "as_of" in model.model_fields and fields.get("as_of") is None:
            # Whoever handles it leaves out people who were erased since.
            fields = fields | {"as_of": timer.requested_at.isoformat()}
        data = _validated(model, fields)
        id_ = str(derived_id(timer.id, "fired", timer.causationid))
        made = new_event(
            data, SOURCE, id=id_, shop=wanted["shop"], requester=timer.requester, correlationid=timer.correlationid
        )
        return replace(made, causationid=timer.causationid)

    def _requester(self, event: Event[Any]) -> str:
        """Return the AMQP user who requests; raises Reject if there is none, or one without permission."""
        if event.user is None:
            raise Reject("the request is not signed: publish it with the property user_id, as Client.schedule does")
        if not REQUESTER_PATTERN.match(event.user):
            raise Reject("the name of the AMQP user must match [a-z][a-z0-9_-]*, as answers are routed by it")
        if event.user not in self._allowed:
            raise Reject(f"{event.user} has no permission to use timers: add the user to WCH_SCHEDULER_REQUESTERS")
        return event.user

    def _check(self, requester: str, event: Event[TimerRequested]) -> None:
        """Raise Reject for an event that the requester may not schedule, or that nobody could publish."""
        wanted, now = event.data.event, datetime.now(UTC)
        if not any(fnmatchcase(wanted.type, pattern) for pattern in self._allowed[requester]):
            raise Reject(
                f"data.event.type: {requester} has no permission to schedule {wanted.type}; see WCH_SCHEDULER_REQUESTERS"
            )
        if event.data.due > now + LONGEST:
            raise Reject("data.due: must be at most ten years ahead")
        try:
            model = self._registry.model(wanted.type)
        except (UnknownType, UnknownVersion) as error:
            raise Reject(f"data.event.type: {error}") from None
        if not issubclass(model, Request):
            raise Reject(f"data.event.type: {wanted.type} is a fact; only requests can be scheduled")
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


def _answer(key: str, known: Row) -> EventData:
    """Return the answer for a timer that this request no longer changes."""
    if known["state"] == "fired":
        return TimerTooLate(key=key)
    if known["state"] == "cancelled":
        return TimerCancelled(key=key, timers=0)
    return TimerAccepted(key=key, due=known["due_at"])


def _requested_at(event: Event[Any]) -> datetime:
    """Return when it was requested, by the requester's clock; a clock far ahead would lock the key for as long."""
    now = datetime.now(UTC)
    return min(event.time or now, now + _MOST_AHEAD)


def timer_dead_lettered(event: Event[Any], reason: str) -> TimerRefused:
    """Return the fact about a request for a timer that was refused."""
    return TimerRefused(key=event.data.key, group=event.data.group or None, reason=reason[:500])
