"""Quiet hours: when a shop's customers are not to be written to, in the shop's time zone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo


@dataclass(frozen=True)
class QuietHours:
    """From one time of the day until another, which may be past midnight; two equal times mean none."""

    begin: time
    end: time
    zone: ZoneInfo

    def are_on(self, timestamp: datetime) -> bool:
        """Whether it is quiet at a moment."""
        now = timestamp.astimezone(self.zone).time()
        if self.begin <= self.end:
            return self.begin <= now < self.end
        return now >= self.begin or now < self.end

    def next_begin(self, timestamp: datetime) -> datetime | None:
        """Return when they begin next; None where there are none."""
        if self.begin == self.end:
            return None
        here = timestamp.astimezone(self.zone)
        for day in (here.date(), here.date() + timedelta(days=1)):
            begin = datetime.combine(day, self.begin, self.zone).astimezone(UTC)
            if begin > timestamp:
                return begin
        raise AssertionError("tomorrow's begin is later than now")
