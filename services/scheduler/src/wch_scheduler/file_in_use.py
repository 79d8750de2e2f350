"""Which file is in use: the one that was applied, until a newer one appears or until no replica has it any more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog
from psycopg.types.json import Jsonb

from wch_scheduler import queries
from wch_scheduler.planned_times import due, planned_after

if TYPE_CHECKING:
    from datetime import datetime

    from wch_common.store.database import Row
    from wch_common.store.store import Store, Transaction
    from wch_scheduler.file import ScheduleFile
    from wch_scheduler.schedule import Schedule

log = structlog.get_logger(__name__)

# A file that no replica has had for so long is no longer in use; an older one that was present meanwhile may replace it, as
# in a rollback.
OUT_OF_USE_SECONDS = 30
STANDS_BY = f"another file is in use; an older one is applied once no replica has had that for {OUT_OF_USE_SECONDS} s"


async def announce(store: Store, file: ScheduleFile) -> None:
    """Record that this replica has a file."""
    await store.database.rows(queries.FILE_SEEN, _names(file))


async def is_in_use(store: Store, file: ScheduleFile) -> bool:
    """Return whether a file is in use, after applying it if it may be."""
    for file_state in await store.database.rows(queries.FILE_STATE, _names(file)):
        if file_state["applied"] or not file_state["may_apply"]:
            return bool(file_state["applied"])
        async with store.transaction() as tx:
            return await _apply(tx, file)
    return False  # no replica has announced this file yet


async def _apply(tx: Transaction, file: ScheduleFile) -> bool:
    """Make the schedules those of a file, unless another came first; a schedule with unchanged timing keeps its next time."""
    await tx.rows(queries.LIMIT_TRANSACTION)
    await tx.rows(queries.FILE_LOCK)
    file_state = (await tx.rows(queries.FILE_STATE, _names(file)))[0]
    if file_state["applied"] or not file_state["may_apply"]:
        return bool(file_state["applied"])
    known = {row["name"]: row for row in await tx.rows(queries.SCHEDULES_TO_APPLY)}
    (row,) = await tx.rows(queries.NOW)
    await tx.rows(queries.SCHEDULES_REMOVE, {"names": list(file.schedules)})
    for name, schedule in file.schedules.items():
        names = _values(name, schedule, known.get(name), row["now"])
        if name not in known:
            await tx.rows(queries.SCHEDULE_ADD, names)
        else:
            unchanged = known[name]["timing"] == schedule.timing
            await tx.rows(queries.SCHEDULE_CHANGE if unchanged else queries.SCHEDULE_CHANGE_TIMING, names)
    await tx.rows(queries.FILE_APPLIED, _names(file))
    tx.then(lambda: log.info("schedules_applied", schedules=len(file.schedules), hash=file.hash))
    return True


def _names(file: ScheduleFile) -> dict[str, Any]:
    return {"hash": file.hash, "silent": OUT_OF_USE_SECONDS}


def _values(name: str, schedule: Schedule, known: Row | None, now: datetime) -> dict[str, Any]:
    planned = next(planned_after(schedule, now), None) if schedule.enabled else None
    due_at = due(name, schedule, planned) if planned else None
    if schedule.enabled and known and known["next_planned"] and known["next_planned"] <= now:
        # This time has come but is not published yet: changing the plan must not lose it.
        planned, due_at = known["next_planned"], min(known["next_due"], now)
    return {
        "name": name,
        "definition": Jsonb(schedule.model_dump(mode="json")),
        "timing": schedule.timing,
        "planned": planned,
        "due": due_at,
    }
