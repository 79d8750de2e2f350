"""Handles what operators request: running, pausing and resuming a schedule, and cancelling timers of any requester."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wch_common.events.scheduler import (
    SchedulePaused,
    SchedulePauseRequested,
    ScheduleRefused,
    ScheduleResumed,
    ScheduleResumeRequested,
    ScheduleRunRequested,
    ScheduleTriggered,
    TimerCancelled,
    TimersCancelled,
    TimersCancelRequested,
)
from wch_common.outcome import Reject
from wch_scheduler import queries
from wch_scheduler.queries import CancelledTimer
from wch_scheduler.ticks import SOURCE

if TYPE_CHECKING:
    from wch_common.contract.event import Event, EventData
    from wch_common.store.store import Transaction

# Timers that one request cancels; it requests the rest of them from itself.
CANCEL_LIMIT = 1000


async def run(event: Event[ScheduleRunRequested], tx: Transaction) -> None:
    """Have a schedule's events published once, now; its plan stays as it is. Raises Reject while another run waits."""
    if not await tx.rows(queries.SCHEDULE_TRIGGER, {"name": event.data.schedule, "by": event.data.by}):
        row = await _schedule(event, tx)
        raise Reject(f"data.schedule: {row.triggered_by} has requested a run of {row.name}, which is not published yet")
    tx.emit(event.derive(ScheduleTriggered(schedule=event.data.schedule, by=event.data.by), SOURCE))


async def pause(event: Event[SchedulePauseRequested], tx: Transaction) -> None:
    """Publish nothing of a schedule until it is resumed; pausing a paused schedule changes nothing."""
    data = event.data
    row = await _change(event, tx, queries.SCHEDULE_PAUSE, {"by": data.by, "reason": data.reason})
    tx.emit(event.derive(SchedulePaused(schedule=data.schedule, by=row.paused_by, reason=row.reason), SOURCE))


async def resume(event: Event[ScheduleResumeRequested], tx: Transaction) -> None:
    """Continue a paused schedule from its next time on; resuming one that is not paused changes nothing."""
    await _change(event, tx, queries.SCHEDULE_RESUME, {})
    tx.emit(event.derive(ScheduleResumed(schedule=event.data.schedule, by=event.data.by), SOURCE))


async def _change(event: Event[Any], tx: Transaction, statement: str, values: dict[str, Any]) -> queries.ScheduleRow:
    """Run a statement on the event's schedule and return the schedule; raises Reject if there is none."""
    await tx.rows(statement, values | {"name": event.data.schedule})
    return await _schedule(event, tx)


async def _schedule(event: Event[Any], tx: Transaction) -> queries.ScheduleRow:
    for row in await tx.typed(queries.ScheduleRow, queries.ONE_SCHEDULE, {"name": event.data.schedule}):
        return row
    raise Reject(f"data.schedule: there is no schedule {event.data.schedule} in the file in use")


async def cancel_timers(event: Event[TimersCancelRequested], tx: Transaction) -> None:
    """Cancel waiting timers and notify the requester of each; more than 1,000 are cancelled step by step."""
    data = event.data
    wanted = {"key": data.key, "group": data.group, "requester": data.of_requester, "limit": CANCEL_LIMIT}
    cancelled = await tx.typed(CancelledTimer, queries.TIMERS_CANCEL_MATCHING, wanted)
    for timer in cancelled:
        fact = TimerCancelled(key=timer.key, timers=1)
        tx.emit(event.derive(fact, SOURCE, key=f"{timer.requester}\n{timer.key}", requester=timer.requester))
    total = data.cancelled_before + len(cancelled)
    if len(cancelled) == CANCEL_LIMIT:
        tx.emit(event.derive(data.model_copy(update={"cancelled_before": total}), SOURCE, key=f"after {total}"))
    else:
        tx.emit(event.derive(TimersCancelled(timers=total, by=data.by, reason=data.reason), SOURCE))


def schedule_refused(event: Event[Any], reason: str) -> EventData | None:
    """Return the fact about a request for a schedule that was refused; requests about timers have none."""
    name = getattr(event.data, "schedule", None)
    return ScheduleRefused(schedule=name, reason=reason[:500]) if name else None
