"""Whether a due message is sent now, waits, or ends unsent: a decision without I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from wch_whatsapp.bodies import is_free_form
from wch_whatsapp.people import UNASSIGNED_DAYS

if TYPE_CHECKING:
    from wch_whatsapp.limits import PairLimit

_DAY = timedelta(hours=24)
FREE_FORM: Final = "free_form"
_BUDGET_WAIT = timedelta(hours=1)
_UNASSIGNED = timedelta(days=UNASSIGNED_DAYS)


@dataclass(frozen=True, slots=True)
class Send:
    """Call Meta with this content; with `outside`, the recipient counts against the limit outside windows."""

    content: dict[str, Any]
    as_fallback: bool
    outside: bool
    to: str = ""
    """The number or the id that is written to."""
    charge: str = ""
    """What Meta may charge: marketing, utility or free_form."""
    reaches: bool = False
    """Whether the recipient is counted for this message, and not for an earlier one of the day."""


@dataclass(frozen=True, slots=True)
class Defer:
    """Keep the message queued until then."""

    until: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class End:
    """Do not send the message; this is its final state."""

    state: str
    reason: str


Decision: TypeAlias = Send | Defer | End


@dataclass
class ClaimState:
    """The limits at the time of a claim, updated with each message that the claim sends."""

    now: datetime
    pair: PairLimit
    recipients_left: int | None
    """How many more recipients may be reached today; None without a limit."""
    recipients_from: datetime
    """When the next recipient may be reached."""
    only_to: frozenset[bytes] | None = None
    """The recipients who may be written to; None for everybody."""
    budget_left: int | None = None
    """How many more messages the number may send this month before marketing waits; None without a budget."""
    budget_until: datetime | None = None
    """When the next month begins."""
    pairs: dict[bytes, datetime] = field(default_factory=dict)
    reached: set[bytes] = field(default_factory=set)

    def count(self, row: Any, decision: Send) -> None:  # noqa: ANN401 - a row of the ledger
        """Count a message that is going to be sent."""
        self.pairs[row["owner"]] = self.pair.after_one(self.pairs.get(row["owner"], row["pair_slots_from"]), self.now)
        self.budget_left = None if self.budget_left is None else self.budget_left - 1
        if decision.reaches:
            self.recipients_left = None if self.recipients_left is None else self.recipients_left - 1
        if decision.outside:
            self.reached.add(row["owner"])

    def decide(self, row: Any) -> Decision:  # noqa: ANN401 - a row of the ledger
        """Decide about one due message."""
        if (end := self._end(row)) is not None:
            return end
        open_ = row["window_until"] is not None and row["window_until"] > self.now
        as_fallback = row["as_fallback"] or (is_free_form(row["content"]) and not open_)
        if as_fallback and row["fallback"] is None:
            return End("failed", "window_closed")
        if row["category"] == "marketing" and self.budget_left is not None and self.budget_left <= 0:
            # Not until the next month, because somebody may raise the budget.
            return Defer(min(self.now + _BUDGET_WAIT, self.budget_until or self.now + _BUDGET_WAIT), "budget_used")
        slots_from = self.pairs.get(row["owner"], row["pair_slots_from"])
        if slots_from is not None and (from_ := self.pair.allowed_from(slots_from)) > self.now:
            return Defer(from_, "pair_too_fast")
        if not open_ and self._has_no_room(row):
            return Defer(max(self.recipients_from, self.now + timedelta(seconds=1)), "messaging_limit")
        reaches = not open_ and row["owner"] not in self.reached and not self._is_reached(row)
        content = row["fallback"] if as_fallback else row["content"]
        charge = _charge(content, row["category"])
        return Send(content, as_fallback, outside=not open_, to=self._address(row), charge=charge, reaches=reaches)

    def _end(self, row: Any) -> End | None:  # noqa: ANN401 - a row of the ledger
        """Return the end of a message that must not be sent at all, or None."""
        if row["content"] is None or not (row["phone"] or row["user_id"]):
            return End("failed", "erased")
        if row["cancelled"] is not None:
            return End("cancelled", row["cancelled"])
        if row["expires_at"] <= self.now:
            return End("failed", "expired")
        if row["suppressed"] is not None:
            return End("suppressed", row["suppressed"])
        if self.only_to is not None and self.only_to.isdisjoint(map(bytes, row["own_ids"])):
            return End("failed", "not_in_allow_list")
        if row["has_other_names"] and not row["is_one_person"]:
            return End("failed", "different_people")
        if row["phone"] and not row["is_one_person"] and self._is_of_another(row):
            return End("failed", "number_changed")
        return None

    def _is_of_another(self, row: Any) -> bool:  # noqa: ANN401 - a row of the ledger
        """Whether the number may belong to somebody else than it did when the message was requested."""
        if row["taken_at"] is not None and row["created_at"] < row["taken_at"]:
            return True
        knows_other = row["current_phone"] or row["current_user_id"]
        return self._has_left(row) and (row["created_at"] > row["replaced_at"] or not knows_other)

    def _has_left(self, row: Any) -> bool:  # noqa: ANN401 - a row of the ledger
        """Whether Meta has said that the owner of the number has another one, so recently that nobody else has it yet."""
        return bool(row["phone"] and row["replaced_at"] and row["replaced_at"] > self.now - _UNASSIGNED)

    def _address(self, row: Any) -> str:  # noqa: ANN401 - a row of the ledger
        """Return the number or id to write to: the number that was given, unless its owner has another one by now."""
        if row["phone"] and not self._has_left(row):
            return str(row["phone"])
        # Meta prefers numbers: it then keeps them in its webhooks. An id belongs to nobody else, however old it is.
        has_left = row["replaced_at"] is not None
        found = row["current_phone"] or (has_left and row["current_user_id"]) or row["user_id"] or row["phone"]
        return str(found)

    def _has_no_room(self, row: Any) -> bool:  # noqa: ANN401 - a row of the ledger
        if self.recipients_left is None or self.recipients_left > 0:
            return False
        return row["owner"] not in self.reached and not self._is_reached(row)

    def _is_reached(self, row: Any) -> bool:  # noqa: ANN401 - a row of the ledger
        return row["reached_at"] is not None and row["reached_at"] > self.now - _DAY


def _charge(content: dict[str, Any], category: str) -> str:
    of_template = "marketing" if category == "marketing" else "utility"
    return FREE_FORM if is_free_form(content) else of_template


def with_one_name(row: Any) -> dict[str, Any]:  # noqa: ANN401 - a row of the ledger
    """Return what is known of a recipient who has no other name than the one that the message gives."""
    names = {"owner": row["person"], "ids": [row["person"]], "own_ids": [row["person"]], "is_one_person": False}
    return names | {
        "replaced_at": None,
        "taken_at": None,
        "current_phone": None,
        "current_user_id": None,
        "has_other_names": False,
    }
