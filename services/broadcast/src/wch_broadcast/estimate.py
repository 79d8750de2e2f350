"""How long a campaign takes, from its batches, its pause and the rate of its number. No I/O."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True)
class Estimate:
    """The time from the first batch to the last message, if nothing is deferred, and who is left out at the end."""

    batches: int
    seconds: float
    begins_at: datetime
    ends_at: datetime
    cut_off: int
    """Recipients who are not reached before the campaign's `stop_at`."""


@dataclass(frozen=True)
class Pacing:
    """The pace of a campaign: recipients per batch, seconds between batches, and messages a second (0 for no limit)."""

    batch_size: int
    pause_seconds: float
    rate: float

    @property
    def batch_seconds(self) -> float:
        """The time from the start of one batch to that of the next; with a pause, one batch is in progress at a time."""
        sending = self.batch_size / self.rate if self.rate else 0.0
        return max(self.pause_seconds, sending) if self.pause_seconds else sending

    def seconds(self, recipients: int) -> float:
        """Return how long so many recipients take."""
        full, rest = divmod(recipients, self.batch_size)
        last = rest or (self.batch_size if full else 0)
        return (math.ceil(recipients / self.batch_size) - 1) * self.batch_seconds + self._sending(last)

    def reached(self, recipients: int, seconds: float) -> int:
        """Return how many recipients are reached within a time."""
        if seconds <= 0:
            return 0
        if not self.batch_seconds:
            return recipients
        begun, left = divmod(seconds, self.batch_seconds)
        sent = math.floor(left * self.rate) if self.rate else (self.batch_size if left else 0)
        return min(recipients, int(begun) * self.batch_size + min(self.batch_size, sent))

    def _sending(self, recipients: int) -> float:
        return recipients / self.rate if self.rate else 0.0


def estimate(recipients: int, pacing: Pacing, begins_at: datetime, stop_at: datetime | None) -> Estimate:
    """Return when a campaign to so many recipients, at least one, ends, and how many `stop_at` cuts off."""
    seconds = pacing.seconds(recipients)
    reached = recipients
    if stop_at is not None and (available := (stop_at - begins_at).total_seconds()) < seconds:
        reached = pacing.reached(recipients, available)
    batches = math.ceil(recipients / pacing.batch_size)
    return Estimate(batches, seconds, begins_at, begins_at + timedelta(seconds=seconds), recipients - reached)
