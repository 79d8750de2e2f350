"""Publishes what is due: each tick is taken once, in the transaction that writes the tick and its events."""

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
from wch_common.contract.identity import derived_id
from wch_common.errors import Interrupted
from wch_common.observability.redact import error_text
from wch_scheduler import queries
from wch_scheduler.file import ScheduleFile, read
from wch_scheduler.planned_times import Plan, due, plan, planned_after
from wch_scheduler.schedule import Schedule

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
_LIMIT = 100
# Over a longer time there may be a million times to count, which takes seconds.
_LONG = timedelta(hours=1)


def event_id(name: str, planned: datetime, shop: str, kind: str = "scheduled") -> str:
    """Return the id of a tick's event, derived from schedule, planned time, shop and kind only."""
    return str(derived_id(_NAMES, name, planned.isoformat(), shop, kind))


@dataclass(frozen=True)
class Ticks:
    """Publishes the events of schedules as they become due."""

    store: Store
    shops: tuple[str, ...]
    metrics: SchedulerMetrics
    registry: Registry
    outage_seconds: float

    def read(self, text: str) -> ScheduleFile:
        """Read a file for the configured shops; raises WrongFile."""
        return read(text, self.registry, self.shops)

    async def fire_due(self) -> bool:
        """Publish what is due now; returns False if a schedule failed, which does not affect the others."""
        good = True
        for row in await self.store.database.rows(queries.SCHEDULES_DUE, {"limit": _LIMIT}):
            try:
                await (self._publish_triggered(row) if row["triggered_at"] is not None else self._publish_due(row))
            except Interrupted:
                raise
            except Exception as error:  # noqa: BLE001 - whatever is wrong with one schedule
                good = False
                log.error("schedule_not_published", schedule=row["name"], error=error_text(error))
        return good

    async def _publish_due(self, row: Row) -> None:
        """Plan which times to publish and take them: ticks, events and the next time commit together."""
        name, schedule = row["name"], Schedule.model_validate(row["definition"])
        plan_ = await self._plan(name, schedule, row)
        async with self.store.transaction() as tx:
            await tx.rows(queries.LIMIT_TRANSACTION)
            if not await self._take(tx, name, schedule, row["next_planned"], plan_):
                return
            await self._emit(tx, name, schedule, plan_.fire, "")
            if plan_.missed:
                gap = {"first": plan_.first_missed, "last": plan_.last_missed, "ticks": plan_.missed}
                await tx.rows(queries.GAP_ADD, gap | {"name": name, "policy": schedule.catch_up})
        self.metrics.fired(name, [(row["now"] - due(name, schedule, one)).total_seconds() for one in plan_.fire])
        if plan_.missed:
            self.metrics.missed(name, schedule.catch_up, plan_.missed)
            log.warning("ticks_missed", schedule=name, ticks=plan_.missed, policy=schedule.catch_up)

    async def _plan(self, name: str, schedule: Schedule, row: Row) -> Plan:
        # Without a planned time it was just resumed: times before that are not caught up.
        first = row["next_planned"] or next(planned_after(schedule, row["next_due"]), None)
        if first is None or first > row["now"]:
            return Plan((), 0, None, None, first)
        if row["now"] - first < _LONG:
            return plan(name, schedule, first, row["now"], outage_seconds=self.outage_seconds)
        return await asyncio.to_thread(plan, name, schedule, first, row["now"], outage_seconds=self.outage_seconds)

    async def _take(self, tx: Transaction, name: str, schedule: Schedule, seen: datetime | None, plan_: Plan) -> bool:
        following = plan_.following
        names: dict[str, Any] = {
            "name": name,
            "seen": seen,
            "following": following,
            "due": due(name, schedule, following) if following else None,
            "last": plan_.fire[-1] if plan_.fire else None,
            "fired": len(plan_.fire),
            "missed": plan_.missed,
        }
        return bool(await tx.rows(queries.TAKE_PLANNED, names))

    async def _publish_triggered(self, row: Row) -> None:
        """Publish once, now, as an operator requested."""
        name, schedule, planned = row["name"], Schedule.model_validate(row["definition"]), row["triggered_at"]
        async with self.store.transaction() as tx:
            await tx.rows(queries.LIMIT_TRANSACTION)
            if not await tx.rows(queries.TAKE_TRIGGERED, {"name": name, "seen": planned}):
                return
            await self._emit(tx, name, schedule, (planned,), row["triggered_by"])
        self.metrics.fired(name, [0.0])

    async def _emit(
        self, tx: Transaction, name: str, schedule: Schedule, times: Sequence[datetime], triggered_by: str
    ) -> None:
        if not times:
            return
        kind = "manual" if triggered_by else "scheduled"
        await tx.rows(queries.TICKS_ADD, {"name": name, "planned": list(times), "kind": kind, "by": triggered_by})
        for planned in times:
            for shop in self._shops_of(schedule):
                id_ = event_id(name, planned, shop, kind)
                tx.emit(self._event(schedule, id_, shop))
                fields = {"schedule": name, "planned": planned.isoformat(), "shop": shop, "event_id": id_}
                tx.then(partial(log.info, "tick", **fields, **({"triggered_by": triggered_by} if triggered_by else {})))

    def _shops_of(self, schedule: Schedule) -> tuple[str, ...]:
        return schedule.shops if isinstance(schedule.shops, tuple) else self.shops

    def _event(self, schedule: Schedule, id_: str, shop: str) -> Event[EventData]:
        model = self.registry.model(schedule.event)
        data = model.__pydantic_validator__.validate_json(orjson.dumps(schedule.data), strict=True)
        return new_event(data, SOURCE, id=id_, shop=shop or None, requester=REQUESTER, correlationid=id_)
