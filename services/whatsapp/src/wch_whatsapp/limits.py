"""What one number may send: its rate, its recipients a day, and its messages to one recipient. No I/O."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class PairLimit:
    """One message to one recipient per `seconds`, with up to `burst` at once, which later messages make up for."""

    seconds: float
    burst: int

    def allowed_from(self, slots_from: datetime) -> datetime:
        """Return when the next message may go, if the slots before `slots_from` are used."""
        return slots_from - timedelta(seconds=self.seconds * (self.burst - 1))

    def after_one(self, slots_from: datetime | None, now: datetime) -> datetime:
        """Return `slots_from` after one more message."""
        return max(slots_from or now, now) + timedelta(seconds=self.seconds)

    def blocked(self, now: datetime, seconds: float) -> datetime:
        """Return the `slots_from` that allows the next message after `seconds`."""
        return now + timedelta(seconds=seconds + self.seconds * (self.burst - 1))


def steady_rate(rate: float) -> float:
    """Return the messages a second that a number sends for long; 0 for no limit.

    A twentieth of the rate is reserved for a burst, so that no second sees more than the rate.
    """
    return rate - max(1.0, rate / 20) if rate >= 20 else rate


@dataclass(frozen=True)
class Limits:
    """The limits of one number, and the numbers that share them."""

    sender: str
    senders: tuple[str, ...]
    """All numbers of the shop, which share its token."""
    portfolio: str
    portfolio_senders: tuple[str, ...]
    """All numbers of the portfolio, which share its recipients a day."""
    rate: float
    """Messages a second; 0 for no limit."""
    recipients_a_day: int
    """Recipients outside windows; -1 for no limit."""
    pair: PairLimit
    call_deadline_seconds: float
    """A call without an outcome after this time is in doubt."""
    monthly_budget: int = -1
    """Messages a month that may cost money, from which on marketing waits; -1 for no limit."""
    only_to: frozenset[bytes] | None = None
    """The recipients who may be written to, by their hashes; None for everybody."""
    shop: str = ""

    def slots(self, slots_from: datetime, now: datetime, wanted: int) -> tuple[int, datetime, float]:
        """Return how many messages may go now, the time before which slots are used, and the seconds of one slot."""
        if not self.rate:
            return wanted, now, 0.0
        burst = max(1.0, self.rate / 20)
        seconds = 1 / steady_rate(self.rate)
        start = max(slots_from, now - timedelta(seconds=burst * seconds))
        free = math.floor((now - start).total_seconds() / seconds + 1e-6)
        # The database's clock may step back at a failover; then no slot is free until it has caught up.
        return min(wanted, max(0, free)), start, seconds
