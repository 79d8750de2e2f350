"""Events of the carts family: cleaning up, reminding, and what came of it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from wch_common.contract.event import Fact, Request
from wch_common.events.shop import Amount, CartId, CartVersion, Currency

# -- requests


class CleanupRequested(Request):
    """Delete a shop's carts that have expired, and nothing else."""

    TYPE = "carts.cleanup.requested.v1"

    older_than_hours: Annotated[
        float | None,
        Field(ge=0, le=1_000_000, description="Only those untouched for so long; those that have not expired stay."),
    ] = None
    dry_run: Annotated[bool, Field(description="Count, and delete nothing.")] = False


class ReminderScanRequested(Request):
    """Remind the owners of a shop's idle carts, each once since the cart last changed."""

    TYPE = "carts.reminder_scan.requested.v1"


class ReminderRequested(Request):
    """Remind the owner of one cart, however long it is idle."""

    TYPE = "carts.reminder.requested.v1"

    cart_id: CartId
    version: Annotated[
        CartVersion | None, Field(description="As the cart was found: one that has changed since is passed over.")
    ] = None

    def subject(self) -> str:
        """Name the cart."""
        return f"cart/{self.cart_id}"


# -- facts


class CleanupCompleted(Fact):
    """A shop's expired carts are deleted."""

    TYPE = "carts.cleanup.completed.v1"

    deleted: Annotated[int, Field(ge=0, description="In a dry run: how many would be.")]
    kept: Annotated[int, Field(ge=0)]
    duration_seconds: Annotated[float, Field(ge=0)]
    dry_run: bool = False


class _ReminderFact(Fact):
    cart_id: CartId
    version: Annotated[CartVersion, Field(description="Of the cart the reminder is about.")]

    def subject(self) -> str:
        """Name the cart."""
        return f"cart/{self.cart_id}"


class ReminderSent(_ReminderFact):
    """WhatsApp took the reminder."""

    TYPE = "carts.reminder.sent.v1"


class ReminderSkipped(_ReminderFact):
    """The owner was not reminded, for a reason that is no failure."""

    TYPE = "carts.reminder.skipped.v1"

    reason: Annotated[
        str, Field(description="Like bought, changed, emptied, quiet_hours; where they are suppressed: that reason.")
    ]


class ReminderFailed(_ReminderFact):
    """The reminder did not reach the owner."""

    TYPE = "carts.reminder.failed.v1"

    reason: Annotated[str, Field(description="One of the whatsapp service's, or unknown: it may have been sent.")]
    again: Annotated[bool, Field(description="Whether a later scan tries again.")]


class CartRecovered(Fact):
    """A cart was ordered after its owner had been reminded."""

    TYPE = "carts.cart.recovered.v1"

    cart_id: CartId
    order_id: int
    total: Amount
    currency: Currency

    def subject(self) -> str:
        """Name the cart."""
        return f"cart/{self.cart_id}"


EVENTS = (
    CleanupRequested,
    ReminderScanRequested,
    ReminderRequested,
    CleanupCompleted,
    ReminderSent,
    ReminderSkipped,
    ReminderFailed,
    CartRecovered,
)
