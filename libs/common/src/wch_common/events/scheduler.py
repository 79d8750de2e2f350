"""Events of the scheduler: timers of other programs, and what became of asking for them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import AwareDatetime, Field, model_validator

from wch_common.contract.event import Fact, Part, Request

TimerKey = Annotated[
    str,
    Field(
        min_length=1, max_length=200, description="The requester's name for the timer; never holds a telephone number."
    ),
]
TimerGroup = Annotated[str, Field(max_length=200, description="Timers that can be taken back together.")]
SomeGroup = Annotated[str, Field(min_length=1, max_length=200)]


class TimedEvent(Part):
    """A request that is published at its time."""

    type: Annotated[
        str, Field(description="Like carts.reminder.requested.v1; which ones an requester may name is a setting.")
    ]
    data: dict[str, Any] = Field(default_factory=dict)
    shop: str | None = None


class TimerRequested(Request):
    """Publish a request at a time, once; asking again under a key replaces what was asked for, unless it was published."""

    TYPE = "scheduler.timer.requested.v1"
    SIGNED = True

    key: TimerKey
    due: Annotated[AwareDatetime, Field(description="In the past: at once. At most ten years ahead.")]
    event: TimedEvent
    group: TimerGroup = ""

    def subject(self) -> str:
        """Name the timer."""
        return f"timer/{self.key}"


class TimerCancelRequested(Request):
    """Do not publish what was asked for under a key, or in a group, before this: also where that request arrives later."""

    TYPE = "scheduler.timer.cancel_requested.v1"
    SIGNED = True

    key: TimerKey | None = None
    group: SomeGroup | None = None

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        if (self.key is None) == (self.group is None):
            raise ValueError("give either key or group")
        return self

    def subject(self) -> str:
        """Name the timer or the group."""
        return _named(self.key, self.group)


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

    due: datetime


class TimerReplaced(_TimerFact):
    """The event will be published at its new time, and what was asked for before will not."""

    TYPE = "scheduler.timer.replaced.v1"

    due: datetime


class TimerCancelled(Fact):
    """The event will not be published; of a group, none that was not published before."""

    TYPE = "scheduler.timer.cancelled.v1"

    key: TimerKey | None = None
    group: SomeGroup | None = None
    timers: Annotated[int, Field(ge=0, description="How many waited and were taken back.")] = 1

    def subject(self) -> str:
        """Name the timer or the group."""
        return _named(self.key, self.group)


class TimerTooLate(_TimerFact):
    """The event was published before it could be replaced or taken back."""

    TYPE = "scheduler.timer.too_late.v1"


class TimerRefused(Fact):
    """The timer was not taken on, or not taken back."""

    TYPE = "scheduler.timer.refused.v1"

    key: TimerKey | None = None
    group: SomeGroup | None = None
    reason: Annotated[str, Field(max_length=500)]

    def subject(self) -> str:
        """Name the timer or the group."""
        return _named(self.key, self.group)


EVENTS = (
    TimerRequested,
    TimerCancelRequested,
    TimerAccepted,
    TimerReplaced,
    TimerCancelled,
    TimerTooLate,
    TimerRefused,
)
