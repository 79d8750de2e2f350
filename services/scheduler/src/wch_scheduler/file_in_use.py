"""Which file decides: the one that is applied, until a newer one comes, or until no replica has it any more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog
from psycopg.types.json import Jsonb

from wch_scheduler.planned_times import due, planned_after
from wch_scheduler.ticks import BOUND

if TYPE_CHECKING:
    from datetime import datetime

    from wch_common.store.database import Row
    from wch_common.store.store import Store, Transaction
    from wch_scheduler.file import Schedule, ScheduleFile

log = structlog.get_logger(__name__)

# A file that no replica has had for so long is not in use any more, and an older one that was there all the while may take
# its place, as in a roll back.
OUT_OF_USE_SECONDS = 30
STANDS_BY = f"another file decides; an earlier one counts again when no replica has had that for {OUT_OF_USE_SECONDS} s"
_SEEN = """
INSERT INTO files AS f (hash) VALUES (%(hash)s)
ON CONFLICT (hash) DO UPDATE SET last_seen = now(),
  here_since = CASE WHEN f.last_seen < now() - %(silent)s * interval '1 second' THEN now() ELSE f.here_since END
"""
_FILE_STATE = """
SELECT mine.applied, NOT EXISTS (
  SELECT 1 FROM files AS other WHERE other.applied AND (other.first_seen, other.hash) > (mine.first_seen, mine.hash)
  AND (other.last_seen >= now() - %(silent)s * interval '1 second' OR mine.here_since >= now() - %(silent)s * interval '1 second')
) AS may_apply FROM files AS mine WHERE mine.hash = %(hash)s
"""
_ALONE = "SELECT pg_advisory_xact_lock(hashtext('schedules'))"
_APPLIED = "UPDATE files SET applied = (hash = %(hash)s)"
_KNOWN = "SELECT name, timing, next_planned, next_due FROM schedules FOR UPDATE"
_NOW = "SELECT now() AS now"
_ADD = """
INSERT INTO schedules (name, definition, timing, next_planned, next_due)
VALUES (%(name)s, %(definition)s, %(timing)s, %(planned)s, %(due)s)
"""
_CHANGE = "UPDATE schedules SET definition = %(definition)s WHERE name = %(name)s"
_CHANGE_TIMING = """
UPDATE schedules SET definition = %(definition)s, timing = %(timing)s, next_planned = %(planned)s, next_due = %(due)s WHERE name = %(name)s
"""
_REMOVE = "DELETE FROM schedules WHERE NOT name = ANY(%(names)s)"


async def seen(store: Store, file: ScheduleFile) -> None:
    """Say that this replica has a file."""
    await store.database.rows(_SEEN, _names(file))


async def decides(store: Store, file: ScheduleFile) -> bool:
    """Return whether a file is the one that decides; if so the schedules are its."""
    for file_state in await store.database.rows(_FILE_STATE, _names(file)):
        if file_state["applied"] or not file_state["may_apply"]:
            return bool(file_state["applied"])
        async with store.transaction() as tx:
            return await _apply(tx, file)
    return False  # nobody said yet that there is this file


async def _apply(tx: Transaction, file: ScheduleFile) -> bool:
    """Make the schedules those of a file, unless another came first; one whose timing stays goes on where it was."""
    await tx.rows(BOUND)
    await tx.rows(_ALONE)
    file_state = (await tx.rows(_FILE_STATE, _names(file)))[0]
    if file_state["applied"] or not file_state["may_apply"]:
        return bool(file_state["applied"])
    known = {row["name"]: row for row in await tx.rows(_KNOWN)}
    (row,) = await tx.rows(_NOW)
    await tx.rows(_REMOVE, {"names": list(file.schedules)})
    for name, schedule in file.schedules.items():
        names = _values(name, schedule, known.get(name), row["now"])
        if name not in known:
            await tx.rows(_ADD, names)
        else:
            await tx.rows(_CHANGE if known[name]["timing"] == schedule.timing else _CHANGE_TIMING, names)
    await tx.rows(_APPLIED, _names(file))
    tx.then(lambda: log.info("schedules_applied", schedules=len(file.schedules), hash=file.hash))
    return True


def _names(file: ScheduleFile) -> dict[str, Any]:
    return {"hash": file.hash, "silent": OUT_OF_USE_SECONDS}


def _values(name: str, schedule: Schedule, known: Row | None, timestamp: datetime) -> dict[str, Any]:
    planned = next(planned_after(schedule, timestamp), None) if schedule.enabled else None
    timestamp_due = due(name, schedule, planned) if planned else None
    if schedule.enabled and known and known["next_planned"] and known["next_planned"] <= timestamp:
        # It has come, and waits for its jitter or was not caught up yet: a change of the plan does not lose it.
        planned, timestamp_due = known["next_planned"], min(known["next_due"], timestamp)
    return {
        "name": name,
        "definition": Jsonb(schedule.model_dump(mode="json")),
        "timing": schedule.timing,
        "planned": planned,
        "due": timestamp_due,
    }
