"""Which file decides: while a rollout replaces one by another, replicas with the older one stand by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog
from psycopg.types.json import Jsonb

from wch_scheduler.moments import due, planned_after

if TYPE_CHECKING:
    from datetime import datetime

    from wch_common.store.store import Store, Transaction
    from wch_scheduler.file import Schedule, ScheduleFile

log = structlog.get_logger(__name__)

# A file that no replica has had for so long is not in use any more, and another may take its place, as in a roll back.
_OUT_OF_USE_SECONDS = 30
_SEEN = f"""
INSERT INTO files AS f (hash) VALUES (%(hash)s)
ON CONFLICT (hash) DO UPDATE SET
  first_seen = CASE WHEN f.last_seen < now() - interval '{_OUT_OF_USE_SECONDS} seconds' THEN now() ELSE f.first_seen END,
  applied = f.applied AND f.last_seen >= now() - interval '{_OUT_OF_USE_SECONDS} seconds', last_seen = now()
"""  # noqa: S608 - a number of this module
_DECIDES = f"""
SELECT hash, applied FROM files WHERE last_seen >= now() - interval '{_OUT_OF_USE_SECONDS} seconds'
ORDER BY first_seen DESC, hash LIMIT 1
"""  # noqa: S608 - a number of this module
_ALONE = "SELECT pg_advisory_xact_lock(hashtext('schedules'))"
_IS_APPLIED = "SELECT applied FROM files WHERE hash = %(hash)s"
_APPLIED = "UPDATE files SET applied = (hash = %(hash)s)"
_KNOWN = "SELECT name, timing FROM schedules FOR UPDATE"
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
    await store.database.rows(_SEEN, {"hash": file.hash})


async def decides(store: Store, file: ScheduleFile) -> bool:
    """Return whether a file is the one that decides; if so the schedules are its."""
    rows = await store.database.rows(_DECIDES)
    if not rows or rows[0]["hash"] != file.hash:
        return False
    if not rows[0]["applied"]:
        async with store.transaction() as tx:
            await _apply(tx, file)
    return True


async def _apply(tx: Transaction, file: ScheduleFile) -> None:
    """Make the schedules those of a file; one whose timing stays goes on where it was."""
    await tx.rows(_ALONE)
    if any(row["applied"] for row in await tx.rows(_IS_APPLIED, {"hash": file.hash})):
        return
    known = {row["name"]: row["timing"] for row in await tx.rows(_KNOWN)}
    (row,) = await tx.rows(_NOW)
    await tx.rows(_REMOVE, {"names": list(file.schedules)})
    for name, schedule in file.schedules.items():
        names = _values(name, schedule, row["now"])
        if name not in known:
            await tx.rows(_ADD, names)
        else:
            await tx.rows(_CHANGE if known[name] == schedule.timing else _CHANGE_TIMING, names)
    await tx.rows(_APPLIED, {"hash": file.hash})
    log.info("schedules_applied", schedules=len(file.schedules), hash=file.hash)


def _values(name: str, schedule: Schedule, moment: datetime) -> dict[str, Any]:
    planned = next(planned_after(schedule, moment), None) if schedule.enabled else None
    return {
        "name": name,
        "definition": Jsonb(schedule.model_dump(mode="json")),
        "timing": schedule.timing,
        "planned": planned,
        "due": due(name, schedule, planned) if planned else None,
    }
