"""Events of the carts family: cleanups, reminders, erasing a customer, and their results."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from wch_common.contract.event import Fact, Request
from wch_common.contract.operations import ErasureId, TableRows
from wch_common.contract.personal import IMPERSONAL
from wch_common.events.failure_reasons import Concerns, FailureReasonName, Retryable
from wch_common.events.shop import Amount, CartId, CartVersion, Currency, OrderId

# -- requests


class CleanupRequested(Request):
    """Delete a shop's expired carts."""

    TYPE = "carts.cleanup.requested.v1"

    older_than_hours: Annotated[
        float | None,
        Field(
            ge=0,
            le=1_000_000,
            description="Delete only expired carts that have not changed for so many hours.",
        ),
    ] = None
    dry_run: Annotated[bool, Field(description="Count the carts, and delete none.")] = False


class ReminderScanRequested(Request):
    """Remind the owners of a shop's idle carts, once for each change of a cart."""

    TYPE = "carts.reminder_scan.requested.v1"


class ReminderRequested(Request):
    """Remind the owner of one cart, however short the cart has been idle."""

    TYPE = "carts.reminder.requested.v1"

    cart_id: CartId
    version: Annotated[
        CartVersion | None,
        Field(description="The version the reminder is about; it is skipped if the cart has changed since."),
    ] = None

    def subject(self) -> str:
        """Name the cart."""
        return f"cart/{self.cart_id}"


# -- facts


class CleanupCompleted(Fact):
    """A shop's expired carts are deleted."""

    TYPE = "carts.cleanup.completed.v1"

    deleted: Annotated[int, Field(ge=0, description="Carts deleted; in a dry run, carts that would be deleted.")]
    kept: Annotated[int, Field(ge=0)]
    duration_seconds: Annotated[float, Field(ge=0)]
    dry_run: bool = False


class _ReminderFact(Fact):
    cart_id: CartId
    version: Annotated[CartVersion, Field(description="Version of the cart that the reminder is about.")]

    def subject(self) -> str:
        """Name the cart."""
        return f"cart/{self.cart_id}"


class ReminderSent(_ReminderFact):
    """WhatsApp accepted the reminder."""

    TYPE = "carts.reminder.sent.v1"


class ReminderSkipped(_ReminderFact):
    """The owner was not reminded, for a reason that is not a failure."""

    TYPE = "carts.reminder.skipped.v1"

    reason: Annotated[
        str,
        IMPERSONAL,
        Field(
            description="Such as bought, changed, emptied or quiet_hours; for a suppressed owner, the suppression's reason."
        ),
    ]


class ReminderFailed(_ReminderFact):
    """The reminder did not reach the owner."""

    TYPE = "carts.reminder.failed.v1"

    reason: FailureReasonName
    concerns: Concerns
    retryable: Retryable
    will_retry: Annotated[bool, Field(description="Whether a later scan tries again.")]


class CartRecovered(Fact):
    """A cart was ordered after its owner had been reminded."""

    TYPE = "carts.cart.recovered.v1"

    cart_id: CartId
    order_id: OrderId
    total: Amount
    currency: Currency

    def subject(self) -> str:
        """Name the cart."""
        return f"cart/{self.cart_id}"


class CustomerErased(Fact):
    """A customer was erased from every cart; 0 rows if no cart contained them."""

    TYPE = "carts.customer.erased.v1"

    rows: Annotated[tuple[TableRows, ...], Field(description="Rows changed in each table.")]
    erasure: ErasureId = ""


EVENTS = (
    CleanupRequested,
    ReminderScanRequested,
    ReminderRequested,
    CleanupCompleted,
    ReminderSent,
    ReminderSkipped,
    ReminderFailed,
    CartRecovered,
    CustomerErased,
)
