"""Decisions about reminders without I/O: whether to skip one, until when to send it, and what whatsapp's facts mean."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from wch_common.events.failure_reasons import failure_reason
from wch_common.events.whatsapp import (
    MessageAccepted,
    MessageCancelled,
    MessageDelivered,
    MessageFailed,
    MessageRead,
    MessageSuppressed,
    MessageUnknown,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from wch_carts.queries import KnownReminder, OtherCarts
    from wch_carts.settings import ReminderSection
    from wch_common.contract.event import EventData
    from wch_common.events.failure_reasons import Concern

_UNKNOWN: Final = "unknown"
# Nobody can remove a cause that is the recipient, or their country.
_OF_ONE = frozenset({"recipient", "country"})
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 900.0, 6 * 3600.0


@dataclass(frozen=True)
class ReminderResult:
    """The result that a fact of whatsapp reports; of two facts of one attempt, the one of higher rank is current."""

    state: str
    rank: int
    reason: str = ""
    concerns: Concern = "recipient"
    retryable: bool = False
    """Whether the cause passes by itself."""
    may_be_sent: bool = False

    @property
    def tries_again(self) -> bool:
        """Whether a later scan may try again: the cause passes, or somebody can remove it for all recipients."""
        if self.state != "failed" or self.may_be_sent:
            return False
        return self.retryable or self.concerns not in _OF_ONE


def reminder_result(data: EventData) -> ReminderResult:
    """Return the result that a fact of whatsapp reports; raises TypeError for a fact of another kind."""
    match data:
        case MessageAccepted():
            return ReminderResult("sent", 2)
        case MessageDelivered():
            return ReminderResult("sent", 4)
        case MessageRead():
            return ReminderResult("sent", 5)
        case MessageFailed(reason=reason, concerns=concerns, retryable=retryable):
            return ReminderResult("failed", 3, reason, concerns, retryable)
        case MessageSuppressed(reason=reason) | MessageCancelled(reason=reason):
            return ReminderResult("skipped", 3, reason)
        case MessageUnknown():
            return ReminderResult("failed", 1, _UNKNOWN, failure_reason(_UNKNOWN).concerns, may_be_sent=True)
        case _:
            raise TypeError(f"{type(data).__name__} reports no result of a message")


def skip_reason(
    cart: Mapping[str, Any], period: int, known: KnownReminder | None, others: OtherCarts, section: ReminderSection
) -> str | None:
    """Return why a cart's owner is not reminded now, or None."""
    reasons = (
        ("deleted", cart["status"] == "deleted"),
        ("bought", cart["status"] == "completed"),
        ("emptied", cart["item_count"] == 0),
        ("changed", cart["filled_version"] != period),
        ("already_reminded", known is not None and known.in_progress),
        (cart["no_phone_reason"].partition(":")[0], not (cart["phone"] or cart["user_id"])),
        ("no_consent", section.consent_required and cart["consent"] is None),
        ("ordered_since", others.ordered_since),
        ("expired", cart["expires_at"] < cart["now"]),
        ("too_old", cart["idle_since"] + timedelta(hours=section.oldest_hours) <= cart["now"]),
        ("quiet_hours", section.quiet.are_on(cart["now"])),
        ("reminded_recently", others.not_before is not None and others.not_before > cart["now"]),
    )
    return next((reason for reason, applies in reasons if applies), None)


def send_until(cart: Mapping[str, Any], section: ReminderSection) -> datetime:
    """Return when a reminder expires: with the cart, when the cart is too old, or when the next quiet hours begin."""
    oldest: datetime = min(cart["idle_since"] + timedelta(hours=section.oldest_hours), cart["expires_at"])
    quiet = section.quiet.next_begin(cart["now"])
    return min(oldest, quiet) if quiet else oldest


def retry_wait_seconds(tries: int) -> float:
    """Return the wait before the next attempt: 15 minutes, doubled with each attempt up to 6 hours."""
    return min(_LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2.0**tries)
