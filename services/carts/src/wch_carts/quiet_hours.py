"""Quiet hours, in which a shop's customers are not sent reminders, in the shop's time zone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo


@dataclass(frozen=True)
class QuietHours:
    """The hours from one time of day to another, possibly past midnight; there are none if the times are equal."""

    begin: time
    end: time
    zone: ZoneInfo

    def are_on(self, timestamp: datetime) -> bool:
        """Whether a time is within the quiet hours."""
        now = timestamp.astimezone(self.zone).time()
        if self.begin <= self.end:
            return self.begin <= now < self.end
        return now >= self.begin or now < self.end

    def next_begin(self, timestamp: datetime) -> datetime | None:
        """Return the next time at which they begin; None if there are none."""
        if self.begin == self.end:
            return None
        here = timestamp.astimezone(self.zone)
        for day in (here.date(), here.date() + timedelta(days=1)):
            begin = datetime.combine(day, self.begin, self.zone).astimezone(UTC)
            if begin > timestamp:
                return begin
        raise AssertionError("they begin within a day")
