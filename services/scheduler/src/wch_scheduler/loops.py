"""The loops of a replica: publishing what is due, reading a changed file, counting, deleting."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

import psycopg
import structlog

from wch_common.errors import Interrupted
from wch_common.observability.redact import error_text
from wch_common.store.maintenance import periodic, retention
from wch_scheduler import queries
from wch_scheduler.file_in_use import STANDS_BY, announce, is_in_use

if TYPE_CHECKING:
    from collections.abc import Callable

    from wch_common.store.maintenance import Loop
    from wch_common.store.store import Store
    from wch_scheduler.file import ScheduleFile
    from wch_scheduler.metrics import SchedulerMetrics
    from wch_scheduler.settings import SchedulerSettings
    from wch_scheduler.ticks import Ticks

log = structlog.get_logger(__name__)

# How soon this replica notices a time that another one planned, and a clock that was set.
_LONGEST_PAUSE, _SHORTEST_PAUSE = 1.0, 0.005
_FILE_SECONDS, _COUNT_SECONDS = 2.0, 15.0
_ANNOUNCE_SECONDS = 3.0


class ScheduleLoops:
    """The loops of one replica; all replicas run the same, and none is special."""

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
        self._reload_now = asyncio.Event()
        self._announce_at = 0.0

    @property
    def background(self) -> list[Loop]:
        """The loops to run beside the queues."""
        database, days = self._store.database, {"days": self._settings.scheduler_keep_days}
        return [
            self._run,
            self._reload,
            periodic("schedule_counts", self._count, _COUNT_SECONDS),
            retention(database, queries.DELETE_OLD, days),
        ]

    def reload(self) -> None:
        """Read the file now; SIGHUP calls this."""
        self._reload_now.set()

    async def _run(self) -> None:
        was: bool | None = None
        while True:
            pause = _LONGEST_PAUSE
            try:
                if time.monotonic() >= self._announce_at:
                    self._announce_at = time.monotonic() + _ANNOUNCE_SECONDS
                    await announce(self._store, self._file)
                # Without a broker nothing is taken; otherwise everything would be published at once after an outage.
                if self._can_publish():
                    in_use = await is_in_use(self._store, self._file)
                    if in_use is not was and not in_use:
                        log.info("schedules_on_standby", hash=self._file.hash, reason=STANDS_BY)
                    was = in_use
                    if in_use and await self._ticks.fire_due():
                        pause = await self._until_due()
                    self._metrics.checked(stands_by=not in_use)
            except (Interrupted, psycopg.Error) as error:
                log.warning("schedules_delayed", error=error_text(error))
            await asyncio.sleep(pause)

    async def _until_due(self) -> float:
        seconds = (await self._store.database.rows(queries.NEXT_SCHEDULE))[0]["seconds"]
        return _LONGEST_PAUSE if seconds is None else min(_LONGEST_PAUSE, max(_SHORTEST_PAUSE, seconds))

    async def _reload(self) -> None:
        """Apply a changed file if it is valid; a broken one keeps the old schedules and is logged once, or again on SIGHUP."""
        text: str | None = None
        logged: tuple[str, str] | None = None
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._reload_now.wait(), _FILE_SECONDS)
            if self._reload_now.is_set():
                self._reload_now.clear()
                logged = None
            found = ""
            try:
                found = await asyncio.to_thread(self._settings.schedules_text)
                if found == text:
                    continue
                file = await asyncio.to_thread(self._ticks.read, found)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with the file, the old schedules stay in use
                self._metrics.file(broken=True)
                text, problem = None, error_text(error, 5000)
                if (found, problem) != logged:
                    log.error("schedules_file_broken", problem=problem)
                logged = (found, problem)
                continue
            self._metrics.file(broken=False)
            text, logged = found, None
            if file.hash != self._file.hash:
                log.info("schedules_file_changed", hash=file.hash, schedules=len(file.schedules))
                self._file, self._announce_at = file, 0.0

    async def _count(self) -> None:
        (row,) = await self._store.database.rows(queries.COUNTS, {"late": self._settings.scheduler_late_seconds})
        self._metrics.counted(row)
