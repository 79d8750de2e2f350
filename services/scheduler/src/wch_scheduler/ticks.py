"""Publishing what is due: a tick is taken once, in the transaction that writes it and its events."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import orjson
import structlog

from wch_common.contract.event import new_event
from wch_common.errors import Interrupted
from wch_common.observability.redact import error_text
from wch_scheduler.file import Schedule, ScheduleFile, read
from wch_scheduler.planned_times import Plan, due, plan, planned_after

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from wch_common.contract.event import Event, EventData
    from wch_common.contract.registry import Registry
    from wch_common.store.database import Row
    from wch_common.store.store import Store, Transaction
    from wch_scheduler.metrics import SchedulerMetrics

log = structlog.get_logger(__name__)

SOURCE: Final = "/wch/scheduler"
REQUESTER: Final = "scheduler"
_NAMES = uuid.UUID("3d4f7c1e-52a0-5d0a-8f5e-6c0d9b7e2a41")
_DUE = """
SELECT *, now() AS now FROM schedules
WHERE (paused_at IS NULL AND next_due <= now()) OR manual_at IS NOT NULL ORDER BY next_due LIMIT %(limit)s
"""
# Whoever sleeps in the middle of it must not hold the others up: the database ends the transaction, and their waiting for it.
BOUND = "SELECT set_config('idle_in_transaction_session_timeout', '5s', true), set_config('lock_timeout', '10s', true)"
# Compare and set: of all who saw the same time one takes it, however late another wakes.
_TAKE = """
UPDATE schedules SET next_planned = %(following)s, next_due = %(due)s, last_planned = coalesce(%(last)s, last_planned),
  last_fired_at = CASE WHEN %(fired)s > 0 THEN now() ELSE last_fired_at END, fired = fired + %(fired)s, missed = missed + %(missed)s
WHERE name = %(name)s AND next_planned IS NOT DISTINCT FROM %(seen)s AND paused_at IS NULL RETURNING 1
"""
_TAKE_MANUAL = """
UPDATE schedules SET manual_at = NULL, manual_by = '', last_fired_at = now(), fired = fired + 1
WHERE name = %(name)s AND manual_at = %(seen)s RETURNING 1
"""
_TICK = """
INSERT INTO ticks (schedule, planned, kind, by)
SELECT %(name)s, planned, %(kind)s, %(by)s FROM unnest(%(planned)s::timestamptz[]) AS new (planned) ON CONFLICT DO NOTHING
"""
_GAP = """
INSERT INTO gaps (schedule, first, last, ticks, why) VALUES (%(name)s, %(first)s, %(last)s, %(ticks)s, %(why)s)
ON CONFLICT (schedule, first) DO NOTHING
"""
_LIMIT = 100
# Over so long there may be a million times to count, which takes seconds.
_LONG = timedelta(hours=1)


def event_id(name: str, planned: datetime, shop: str, kind: str = "scheduled") -> str:
    """Return the id of the event of a tick: schedule, planned time and shop name it, and nothing else."""
    return str(uuid.uuid5(_NAMES, f"{name}\n{planned.isoformat()}\n{shop}\n{kind}"))


@dataclass(frozen=True)
class Ticks:
    """Works schedules off as they become due."""

    store: Store
    shops: tuple[str, ...]
    metrics: SchedulerMetrics
    registry: Registry
    outage_seconds: float

    def read(self, text: str) -> ScheduleFile:
        """Read a file for the shops this publishes for; raises WrongFile."""
        return read(text, self.registry, self.shops)

    async def fire_due(self) -> bool:
        """Publish what is due now; returns whether all could be, as one that cannot must not hold up the others."""
        good = True
        for row in await self.store.database.rows(_DUE, {"limit": _LIMIT}):
            try:
                await (self._manual(row) if row["manual_at"] is not None else self._due(row))
            except Interrupted:
                raise
            except Exception as error:  # noqa: BLE001 - whatever is wrong with one schedule
                good = False
                log.error("schedule_not_published", schedule=row["name"], error=error_text(error))
        return good

    async def _due(self, row: Row) -> None:
        """Decide on the times that have come, and take them: ticks, events and the next time commit together."""
        name, schedule = row["name"], Schedule.model_validate(row["definition"])
        decided = await self._decided(name, schedule, row)
        async with self.store.transaction() as tx:
            await tx.rows(BOUND)
            if not await self._taken(tx, name, schedule, row["next_planned"], decided):
                return
            await self._emit(tx, name, schedule, decided.fire, "")
            if decided.missed:
                gap = {"first": decided.first_missed, "last": decided.last_missed, "ticks": decided.missed}
                await tx.rows(_GAP, gap | {"name": name, "why": schedule.catch_up})
        self.metrics.fired(name, [(row["now"] - due(name, schedule, one)).total_seconds() for one in decided.fire])
        if decided.missed:
            self.metrics.missed(name, schedule.catch_up, decided.missed)
            log.warning("ticks_passed_over", schedule=name, ticks=decided.missed, policy=schedule.catch_up)

    async def _decided(self, name: str, schedule: Schedule, row: Row) -> Plan:
        # Where there is none it was resumed at the time it is due: what passed before is not caught up.
        first = row["next_planned"] or next(planned_after(schedule, row["next_due"]), None)
        if first is None or first > row["now"]:
            return Plan((), 0, None, None, first)
        if row["now"] - first < _LONG:
            return plan(name, schedule, first, row["now"], outage_seconds=self.outage_seconds)
        return await asyncio.to_thread(plan, name, schedule, first, row["now"], outage_seconds=self.outage_seconds)

    async def _taken(
        self, tx: Transaction, name: str, schedule: Schedule, seen: datetime | None, decided: Plan
    ) -> bool:
        following = decided.following
        names: dict[str, Any] = {
            "name": name,
            "seen": seen,
            "following": following,
            "due": due(name, schedule, following) if following else None,
            "last": decided.fire[-1] if decided.fire else None,
            "fired": len(decided.fire),
            "missed": decided.missed,
        }
        return bool(await tx.rows(_TAKE, names))

    async def _manual(self, row: Row) -> None:
        """Publish once, now, because somebody asked for it."""
        name, schedule, planned = row["name"], Schedule.model_validate(row["definition"]), row["manual_at"]
        async with self.store.transaction() as tx:
            await tx.rows(BOUND)
            if not await tx.rows(_TAKE_MANUAL, {"name": name, "seen": planned}):
                return
            await self._emit(tx, name, schedule, (planned,), row["manual_by"])
        self.metrics.fired(name, [0.0])

    async def _emit(
        self, tx: Transaction, name: str, schedule: Schedule, times: Sequence[datetime], manual_by: str
    ) -> None:
        if not times:
            return
        kind = "manual" if manual_by else "scheduled"
        await tx.rows(_TICK, {"name": name, "planned": list(times), "kind": kind, "by": manual_by})
        for planned in times:
            for shop in self._shops_of(schedule):
                id_ = event_id(name, planned, shop, kind)
                tx.emit(self._event(schedule, id_, shop))
                told = {"schedule": name, "planned": planned.isoformat(), "shop": shop, "event_id": id_}
                tx.then(partial(log.info, "tick", **(told | ({"asked_for_by": manual_by} if manual_by else {}))))

    def _shops_of(self, schedule: Schedule) -> tuple[str, ...]:
        return schedule.shops if isinstance(schedule.shops, tuple) else self.shops

    def _event(self, schedule: Schedule, id_: str, shop: str) -> Event[EventData]:
        model = self.registry.model(schedule.event)
        data = model.__pydantic_validator__.validate_json(orjson.dumps(schedule.data), strict=True)
        return new_event(data, SOURCE, id=id_, shop=shop or None, requester=REQUESTER, correlationid=id_)
