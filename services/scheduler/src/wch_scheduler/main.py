"""Composes the scheduler."""

from __future__ import annotations

import asyncio
import signal
import threading
from typing import TYPE_CHECKING

from wch_common.errors import SettingsError
from wch_common.events import published_contract
from wch_common.events.scheduler import (
    SchedulePauseRequested,
    ScheduleResumeRequested,
    ScheduleRunRequested,
    TimerCancelRequested,
    TimerPersonErased,
    TimerRequested,
    TimersCancelRequested,
)
from wch_common.events.whatsapp import RecipientErased
from wch_common.integrations.recipients import PersonHash
from wch_common.runtime.job import Handler, Job
from wch_common.runtime.service import Platform, run_service
from wch_common.store.erased_people import ErasedPeople
from wch_common.store.erasure import Erasures
from wch_common.store.migrate import MigrationSet
from wch_scheduler import control
from wch_scheduler.file import WrongFile, read
from wch_scheduler.loops import ScheduleLoops
from wch_scheduler.metrics import SchedulerMetrics
from wch_scheduler.settings import SchedulerSettings
from wch_scheduler.tables import METADATA
from wch_scheduler.ticks import SOURCE, Ticks
from wch_scheduler.timers import Timers, timer_dead_lettered
from wch_scheduler.topology import CONTROL, TIMERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wch_common.store.store import Store

MIGRATIONS = (MigrationSet("wch_scheduler:migrations", "scheduler_version", METADATA),)


async def compose(platform: Platform[SchedulerSettings]) -> Sequence[Job]:
    """Read the file of schedules, build the loops, and return the jobs."""
    settings = platform.settings
    registry, shops = published_contract(), settings.shops()
    names = tuple(name for name, _ in shops)
    try:
        file = read(settings.schedules_text(), registry, names)
    except WrongFile as error:
        raise SettingsError(f"WCH_SCHEDULES_FILE: {error}") from None
    person_hash = PersonHash(settings.person_hash_key.get_secret_value())
    erased_people = ErasedPeople(registry, person_hash.in_regions(shop.whatsapp.region for _, shop in shops))
    store = await platform.open_store(settings.database_url.get_secret_value(), MIGRATIONS, erased_people=erased_people)
    erasures = Erasures(store, METADATA, registry, SOURCE)
    metrics = SchedulerMetrics(platform.metrics.registry)
    ticks = Ticks(store, names, metrics, registry, settings.scheduler_outage_seconds)

    def can_publish() -> bool:
        return platform.publisher.is_ready

    loops = ScheduleLoops(store, ticks, metrics, settings, file, can_publish=can_publish)
    if threading.current_thread() is threading.main_thread():  # signals reach no other thread
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, loops.reload)
    timers = Timers(
        store,
        shops,
        registry,
        metrics,
        allowed=settings.scheduler_requesters,
        rate=settings.scheduler_timers_per_second,
        can_publish=can_publish,
    )
    platform.background += [*loops.background, timers.run]
    return _jobs(platform, store, timers, erasures.following(person_hash.erased_in, TimerPersonErased))


def _jobs(platform: Platform[SchedulerSettings], store: Store, timers: Timers, erasing: Handler) -> list[Job]:
    return [
        Job.in_transaction(
            platform.queue(TIMERS),
            {TimerRequested: timers.requested, TimerCancelRequested: timers.cancelled},
            store,
            on_dead_letter=timer_dead_lettered,
        ),
        Job.in_transaction(
            platform.queue(CONTROL),
            {
                ScheduleRunRequested: control.run,
                SchedulePauseRequested: control.pause,
                ScheduleResumeRequested: control.resume,
                TimersCancelRequested: control.cancel_timers,
            },
            store,
            beside={RecipientErased: erasing},
            on_dead_letter=control.schedule_refused,
        ),
    ]


def main() -> int:
    """Run the service; returns its exit code."""
    return run_service("scheduler", SchedulerSettings, compose)
