"""The loop that looks what is due, with the file it was given, and takes a changed file up."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

import psycopg
import structlog

from wch_common.errors import Interrupted
from wch_common.observability.redact import error_text
from wch_scheduler.file_in_use import STANDS_BY, decides, seen

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from wch_common.store.store import Store
    from wch_scheduler.file import ScheduleFile
    from wch_scheduler.metrics import SchedulerMetrics
    from wch_scheduler.settings import SchedulerSettings
    from wch_scheduler.ticks import Ticks

log = structlog.get_logger(__name__)

# How soon a time that somebody else planned, and a clock that was set, are seen.
_LONGEST_PAUSE, _SHORTEST_PAUSE = 1.0, 0.005
_FILE_SECONDS, _COUNT_SECONDS = 2.0, 15.0
_SEEN_SECONDS = 3.0
_RETENTION_SECONDS, _CHUNK = 3600.0, 5000
_NEXT = """
SELECT extract(epoch FROM min(next_due) - now())::float8 AS seconds FROM schedules WHERE next_due IS NOT NULL AND paused_at IS NULL
"""
_COUNTS = """
SELECT count(*) FILTER (WHERE next_due < now() - %(late)s * interval '1 second' AND paused_at IS NULL) AS late,
       extract(epoch FROM max(now() - next_due) FILTER (WHERE next_due < now() AND paused_at IS NULL))::float8 AS oldest,
       count(*) FILTER (WHERE next_due < now() + interval '1 hour' AND paused_at IS NULL) AS soon,
       count(*) FILTER (WHERE paused_at IS NOT NULL) AS paused, (SELECT count(*) FROM timers WHERE state = 'waiting') AS timers,
       (SELECT extract(epoch FROM now() - min(due_at))::float8 FROM timers WHERE state = 'waiting' AND due_at < now()) AS timers_oldest,
       (SELECT count(*) FROM timers WHERE state = 'waiting' AND due_at < now() + interval '1 hour') AS timers_soon
FROM schedules
"""
_RETAIN = (
    """
    DELETE FROM ticks WHERE ctid = ANY(ARRAY(SELECT ctid FROM ticks WHERE fired_at < now() - %(days)s * interval '1 day'
      LIMIT %(chunk)s FOR UPDATE SKIP LOCKED)) RETURNING 1
    """,
    """
    DELETE FROM gaps WHERE ctid = ANY(ARRAY(SELECT ctid FROM gaps WHERE noticed_at < now() - %(days)s * interval '1 day'
      LIMIT %(chunk)s FOR UPDATE SKIP LOCKED)) RETURNING 1
    """,
    """
    DELETE FROM timers WHERE ctid = ANY(ARRAY(SELECT ctid FROM timers WHERE ended_at < now() - %(days)s * interval '1 day'
      LIMIT %(chunk)s FOR UPDATE SKIP LOCKED)) RETURNING 1
    """,
    """
    DELETE FROM groups WHERE ctid = ANY(ARRAY(SELECT ctid FROM groups WHERE cancelled_at < now() - %(days)s * interval '1 day'
      LIMIT %(chunk)s FOR UPDATE SKIP LOCKED)) RETURNING 1
    """,
    "DELETE FROM files WHERE NOT applied AND last_seen < now() - %(days)s * interval '1 day' AND %(chunk)s > 0 RETURNING 1",
)


class Clock:
    """One replica's view of time: none is special, and all do the same."""

    def __init__(
        self,
        store: Store,
        ticks: Ticks,
        metrics: SchedulerMetrics,
        settings: SchedulerSettings,
        file: ScheduleFile,
        *,
        can_publish: Callable[[], bool],
    ) -> None:
        self._store = store
        self._ticks = ticks
        self._metrics = metrics
        self._settings = settings
        self._file = file
        self._can_publish = can_publish
        self._hurry = asyncio.Event()
        self._say_again = 0.0

    @property
    def background(self) -> list[Callable[[], Awaitable[None]]]:
        """The loops to be run."""
        return [self._run, self._reload, self._count, self._retain]

    def reload(self) -> None:
        """Look at the file now, as SIGHUP asks for."""
        self._hurry.set()

    async def _run(self) -> None:
        was: bool | None = None
        while True:
            pause = _LONGEST_PAUSE
            try:
                if time.monotonic() >= self._say_again:
                    self._say_again = time.monotonic() + _SEEN_SECONDS
                    await seen(self._store, self._file)
                if self._can_publish():  # without a broker nothing is taken: it would all come at once after an outage
                    deciding = await decides(self._store, self._file)
                    if deciding is not was and not deciding:
                        log.info("schedules_stand_by", hash=self._file.hash, reason=STANDS_BY)
                    was = deciding
                    if deciding and await self._ticks.fire_due():
                        pause = await self._until_due()
                    self._metrics.looked(stands_by=not deciding)
            except (Interrupted, psycopg.Error) as error:
                log.warning("schedules_wait", error=error_text(error))
            await asyncio.sleep(pause)

    async def _until_due(self) -> float:
        seconds = (await self._store.database.rows(_NEXT))[0]["seconds"]
        return _LONGEST_PAUSE if seconds is None else min(_LONGEST_PAUSE, max(_SHORTEST_PAUSE, seconds))

    async def _reload(self) -> None:
        """Take a changed file up when it is good; a broken one keeps the old schedules, and is told once, or when asked again."""
        text: str | None = None
        told: tuple[str, str] | None = None
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), _FILE_SECONDS)
            if self._hurry.is_set():
                self._hurry.clear()
                told = None
            found = ""
            try:
                found = await asyncio.to_thread(self._settings.schedules_text)
                if found == text:
                    continue
                file = await asyncio.to_thread(self._ticks.read, found)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with a file, the old schedules go on
                self._metrics.file(broken=True)
                text, problem = None, error_text(error, 5000)
                if (found, problem) != told:
                    log.error("schedules_file_broken", problem=problem)
                told = (found, problem)
                continue
            self._metrics.file(broken=False)
            text, told = found, None
            if file.hash != self._file.hash:
                log.info("schedules_file_changed", hash=file.hash, schedules=len(file.schedules))
                self._file, self._say_again = file, 0.0

    async def _count(self) -> None:
        while True:
            try:
                (row,) = await self._store.database.rows(_COUNTS, {"late": self._settings.scheduler_late_seconds})
                self._metrics.counted(row)
            except (Interrupted, psycopg.Error) as error:
                log.warning("schedules_not_counted", error=error_text(error))
            await asyncio.sleep(_COUNT_SECONDS)

    async def _retain(self) -> None:
        """Delete what was kept long enough, in chunks, once an hour."""
        names = {"days": self._settings.scheduler_keep_days, "chunk": _CHUNK}
        while True:
            try:
                for statement in _RETAIN:
                    while len(await self._store.database.rows(statement, names)) == _CHUNK:
                        await asyncio.sleep(0.1)  # between chunks, so that others get at the table
            except (Interrupted, psycopg.Error) as error:
                log.warning("retention_waits", error=error_text(error))
            await asyncio.sleep(_RETENTION_SECONDS)
