"""Events of the scheduler: timers of other programs, and what operators request of schedules and timers."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from wch_common.contract.event import Fact, Part, Request, Time
from wch_common.contract.operations import ErasureId, TableRows
from wch_common.contract.personal import EVENT_DATA, IMPERSONAL

TimerKey = Annotated[
    str,
    IMPERSONAL,
    Field(
        min_length=1,
        max_length=200,
        description="The requester's name for the timer; never contains a phone number.",
    ),
]
TimerGroup = Annotated[
    str, IMPERSONAL, Field(max_length=200, description="Timers of one group can be cancelled together.")
]
NamedGroup = Annotated[str, IMPERSONAL, Field(min_length=1, max_length=200)]
ScheduleName = Annotated[
    str, IMPERSONAL, Field(min_length=1, max_length=100, description="The schedule's name in the file.")
]
By = Annotated[str, IMPERSONAL, Field(min_length=1, max_length=200, description="The operator who requested it.")]
Reason = Annotated[str, IMPERSONAL, Field(max_length=500)]

# -- requests


class TimedEvent(Part):
    """A request to publish at its time."""

    type: Annotated[
        str,
        IMPERSONAL,
        Field(
            description="Like carts.reminder.requested.v1; a setting lists the types that each requester may schedule."
        ),
    ]
    data: Annotated[dict[str, Any], EVENT_DATA] = Field(default_factory=dict)
    shop: Annotated[str | None, IMPERSONAL] = None


class TimerRequested(Request):
    """Publish a request once, at a time; a repeated request under the same key replaces it unless it was published."""

    TYPE = "scheduler.timer.requested.v1"
    SIGNED = True

    key: TimerKey
    due: Annotated[Time, Field(description="A time in the past means at once; at most ten years ahead.")]
    event: TimedEvent
    group: TimerGroup = ""

    def subject(self) -> str:
        """Name the timer."""
        return f"timer/{self.key}"


class TimerCancelRequested(Request):
    """Cancel a timer, or the timers of a group, requested before this, also if such a request arrives later."""

    TYPE = "scheduler.timer.cancel_requested.v1"
    SIGNED = True

    key: TimerKey | None = None
    group: NamedGroup | None = None

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        if (self.key is None) == (self.group is None):
            raise ValueError("give exactly one of key and group")
        return self

    def subject(self) -> str:
        """Name the timer or the group."""
        return _named(self.key, self.group)


class TimersCancelRequested(Request):
    """Cancel the waiting timers of any requester that match every given filter; for operators."""

    TYPE = "scheduler.timers.cancel_requested.v1"

    key: TimerKey | None = None
    group: NamedGroup | None = None
    of_requester: Annotated[str | None, IMPERSONAL, Field(description="The AMQP user who requested the timers.")] = None
    by: By
    reason: Reason = ""
    cancelled_before: Annotated[
        int,
        Field(ge=0, description="Timers that earlier steps of this request cancelled; 0 unless the scheduler sets it."),
    ] = 0

    @model_validator(mode="after")
    def _selects(self) -> Self:
        if self.key is None and self.group is None and self.of_requester is None:
            raise ValueError("give at least one of key, group and of_requester")
        return self


class _ScheduleRequest(Request):
    schedule: ScheduleName
    by: By

    def subject(self) -> str:
        """Name the schedule."""
        return f"schedule/{self.schedule}"


class ScheduleRunRequested(_ScheduleRequest):
    """Publish a schedule's events once, now; the times of its plan stay as they are."""

    TYPE = "scheduler.schedule.run_requested.v1"


class SchedulePauseRequested(_ScheduleRequest):
    """Publish nothing of a schedule until it is resumed; times that pass meanwhile are not caught up."""

    TYPE = "scheduler.schedule.pause_requested.v1"

    reason: Reason = ""


class ScheduleResumeRequested(_ScheduleRequest):
    """Continue a paused schedule from its next time on."""

    TYPE = "scheduler.schedule.resume_requested.v1"


# -- facts


def _named(key: str | None, group: str | None) -> str:
    return f"timer/{key}" if key else f"group/{group}"


class _TimerFact(Fact):
    key: TimerKey

    def subject(self) -> str:
        """Name the timer."""
        return f"timer/{self.key}"


class TimerAccepted(_TimerFact):
    """The event will be published at its time."""

    TYPE = "scheduler.timer.accepted.v1"

    due: Time


class TimerReplaced(_TimerFact):
    """The event will be published at its new time; the event requested before under the key will not."""

    TYPE = "scheduler.timer.replaced.v1"

    due: Time


class TimerCancelled(Fact):
    """The event will not be published; of a group, none that was not published before."""

    TYPE = "scheduler.timer.cancelled.v1"

    key: TimerKey | None = None
    group: NamedGroup | None = None
    timers: Annotated[int, Field(ge=0, description="How many waiting timers were cancelled.")] = 1

    def subject(self) -> str:
        """Name the timer or the group."""
        return _named(self.key, self.group)


class TimerTooLate(_TimerFact):
    """The event was published before it could be replaced or cancelled."""

    TYPE = "scheduler.timer.too_late.v1"


class TimerRefused(Fact):
    """The timer was not accepted, or not cancelled."""

    TYPE = "scheduler.timer.refused.v1"

    key: TimerKey | None = None
    group: NamedGroup | None = None
    reason: Reason

    def subject(self) -> str:
        """Name the timer or the group."""
        return _named(self.key, self.group)


class TimersCancelled(Fact):
    """An operator cancelled waiting timers; the requester of each was notified."""

    TYPE = "scheduler.timers.cancelled.v1"

    timers: Annotated[int, Field(ge=0)]
    by: By
    reason: Reason = ""


class _ScheduleFact(Fact):
    schedule: ScheduleName

    def subject(self) -> str:
        """Name the schedule."""
        return f"schedule/{self.schedule}"


class ScheduleTriggered(_ScheduleFact):
    """The schedule's events are published once, outside its plan."""

    TYPE = "scheduler.schedule.triggered.v1"

    by: By


class SchedulePaused(_ScheduleFact):
    """Nothing of the schedule is published until it is resumed."""

    TYPE = "scheduler.schedule.paused.v1"

    by: By
    reason: Reason


class ScheduleResumed(_ScheduleFact):
    """The schedule continues from its next time on."""

    TYPE = "scheduler.schedule.resumed.v1"

    by: By


class ScheduleRefused(_ScheduleFact):
    """A request about the schedule was refused."""

    TYPE = "scheduler.schedule.refused.v1"

    reason: Reason


class TimerPersonErased(Fact):
    """A person is erased from the events of timers; the counts are 0 if none named them."""

    TYPE = "scheduler.person.erased.v1"

    rows: Annotated[tuple[TableRows, ...], Field(description="Rows that were changed, by table.")]
    erasure: ErasureId = ""


EVENTS = (
    TimerPersonErased,
    TimerRequested,
    TimerCancelRequested,
    TimersCancelRequested,
    ScheduleRunRequested,
    SchedulePauseRequested,
    ScheduleResumeRequested,
    TimerAccepted,
    TimerReplaced,
    TimerCancelled,
    TimerTooLate,
    TimerRefused,
    TimersCancelled,
    ScheduleTriggered,
    SchedulePaused,
    ScheduleResumed,
    ScheduleRefused,
)
