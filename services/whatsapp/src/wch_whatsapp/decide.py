"""Whether a message that is due is sent now, waits, or ends unsent: a pure decision, with time and what is known passed in."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeAlias

from wch_whatsapp.bodies import is_free_form

_DAY = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Send:
    """Call Meta with this content; `outside` says that it counts against the people a day outside windows."""

    content: dict[str, Any]
    as_fallback: bool
    outside: bool
    reaches: bool = False
    """Whether the person is counted by this message, and not by an earlier one of the day."""


@dataclass(frozen=True, slots=True)
class Defer:
    """Look at it again then."""

    until: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class End:
    """It is not sent."""

    state: str
    reason: str


Decision: TypeAlias = Send | Defer | End


@dataclass(frozen=True, slots=True)
class PairLimit:
    """One message to one person per `seconds`, but `burst` at once; the seconds of a burst are paid afterwards."""

    seconds: float
    burst: int

    def allowed_from(self, slots_from: datetime) -> datetime:
        """Return from when on a message may go, where the slots before a moment are taken."""
        return slots_from - timedelta(seconds=self.seconds * (self.burst - 1))

    def taken(self, slots_from: datetime | None, now: datetime) -> datetime:
        """Return the moment after one more was taken."""
        return max(slots_from or now, now) + timedelta(seconds=self.seconds)

    def blocked(self, now: datetime, seconds: float) -> datetime:
        """Return the moment for a person who may be written to after so many seconds."""
        return now + timedelta(seconds=seconds + self.seconds * (self.burst - 1))


@dataclass
class Known:
    """What is known at the moment of a claim, kept up to date over its messages."""

    now: datetime
    pair: PairLimit
    people_left: int | None
    """How many more may be reached today; None where nothing limits them."""
    people_from: datetime
    """When there is room for the next."""
    pairs: dict[bytes, datetime] = field(default_factory=dict)
    reached: set[bytes] = field(default_factory=set)

    def note(self, row: Any, decision: Send) -> None:  # noqa: ANN401 - a row of the ledger
        """Count what was decided to be sent."""
        self.pairs[row["person"]] = self.pair.taken(self.pairs.get(row["person"], row["pair_slots_from"]), self.now)
        if decision.reaches:
            self.people_left = None if self.people_left is None else self.people_left - 1
        if decision.outside:
            self.reached.add(row["person"])

    def decide(self, row: Any) -> Decision:  # noqa: ANN401 - a row of the ledger
        """Decide on one message that is due."""
        if row["content"] is None or row["phone"] is None:
            return End("failed", "forgotten")
        if row["cancelled"] is not None:
            return End("cancelled", row["cancelled"])
        if row["expires_at"] <= self.now:
            return End("failed", "expired")
        if row["suppressed"] is not None:
            return End("suppressed", row["suppressed"])
        open_ = row["window_until"] is not None and row["window_until"] > self.now
        as_fallback = row["as_fallback"] or (is_free_form(row["content"]) and not open_)
        if as_fallback and row["fallback"] is None:
            return End("failed", "window_closed")
        slots_from = self.pairs.get(row["person"], row["pair_slots_from"])
        if slots_from is not None and (from_ := self.pair.allowed_from(slots_from)) > self.now:
            return Defer(from_, "pair_too_fast")
        if not open_ and self._has_no_room(row):
            return Defer(max(self.people_from, self.now + timedelta(seconds=1)), "messaging_limit")
        reaches = not open_ and row["person"] not in self.reached and not self._is_reached(row)
        return Send(row["fallback"] if as_fallback else row["content"], as_fallback, outside=not open_, reaches=reaches)

    def _has_no_room(self, row: Any) -> bool:  # noqa: ANN401 - a row of the ledger
        if self.people_left is None or self.people_left > 0:
            return False
        return row["person"] not in self.reached and not self._is_reached(row)

    def _is_reached(self, row: Any) -> bool:  # noqa: ANN401 - a row of the ledger
        return row["reached_at"] is not None and row["reached_at"] > self.now - _DAY
