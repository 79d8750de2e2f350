"""Events of the whatsapp family: requests to send messages to recipients, and the results of sending."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from wch_common.contract.event import Fact, Part, Request, Time
from wch_common.contract.operations import AsOf, ErasureId, TableRows
from wch_common.contract.personal import IDENTIFIES, IDENTIFIES_AND_STAYS, IMPERSONAL, PERSONAL
from wch_common.events.failure_reasons import Concerns, FailureReasonName, Retryable
from wch_common.events.meta import ErrorCode
from wch_common.events.recipient import About, Recipient, To, names_in
from wch_common.events.whatsapp_content import Content, Fallback, Header, Name, TemplateButton, Value
from wch_common.events.whatsapp_text import PLACEHOLDER

SendKey = Annotated[
    str,
    IMPERSONAL,
    Field(
        min_length=1,
        max_length=200,
        description="At most one message is sent under a requester's key. It must not contain the number or id of the recipient.",
    ),
]
Category = Annotated[
    Literal["marketing", "utility", "service"],
    Field(
        description="The kind of message. Suppressions apply by category, and so does the handling of unknown results."
    ),
]
Reason = Annotated[str, IMPERSONAL, Field(max_length=500)]

# -- requests


def refuse_name_in(field: str, value: str, to: str | Recipient) -> None:
    """Raise ValueError if the value of a field contains the recipient's number, with or without its country, or their id."""
    plain, number = re.sub(r"[^0-9A-Za-z]", "", value), re.sub(r"\D", "", value)
    for name in names_in(to):
        # Without the country, with which both a number and an id begin.
        digits, id_ = re.sub(r"\D", "", name)[-8:], re.sub(r"[^0-9A-Za-z]", "", name)[2:]
        if (len(digits) == 8 and digits in number) or (len(id_) >= 8 and id_ in plain):
            raise ValueError(
                f"{field} contains the number or the id of a person: choose one that does not identify them"
            )


def refuse_placeholders(message: Content | None, reason: str) -> None:
    """Raise ValueError if the text of a message has a placeholder; `reason` completes the sentence of the error."""
    for field in ("body", "caption"):
        text = getattr(message, field, None)
        if isinstance(text, str) and (found := PLACEHOLDER.search(text)):
            raise ValueError(
                f"message.{field} has the placeholder {found[0]}, but {reason}: write the value into the text"
            )


class _Sending(Request):
    message: Content
    category: Category
    sender: Annotated[
        str | None,
        IMPERSONAL,
        Field(pattern="^[0-9]{1,20}$", description="Phone number id to send from; by default the shop's first."),
    ] = None
    not_before: Time | None = None
    expires_at: Annotated[Time | None, Field(description="The message is not sent after this time.")] = None
    as_of: AsOf = None
    fallback: Fallback = None


class MessageRequested(_Sending):
    """Send one message to one recipient, at most once under its key."""

    TYPE = "whatsapp.message.requested.v1"

    to: To
    send_key: SendKey
    reply_to: Annotated[
        str | None, PERSONAL, Field(description="Id (wamid…) of the message that this one answers.")
    ] = None

    @model_validator(mode="after")
    def _keeps_the_recipient_private(self) -> Self:
        refuse_name_in("send_key", self.send_key, self.to)
        return self

    @model_validator(mode="after")
    def _has_no_placeholder(self) -> Self:
        refuse_placeholders(self.message, "only the recipients of a batch have values of their own")
        return self

    def subject(self) -> str:
        """Name the message."""
        return f"message/{self.send_key}"


class BatchRecipient(Part):
    """A recipient of a batch, with their own values for the placeholders of the message."""

    to: Annotated[
        To,
        Field(
            description="A phone number, preferably as +<country><number>, or Meta's id of a user, like DE.1234567890; or an "
            "object, if more than one of them is known. A text that is neither fails this recipient only."
        ),
    ]
    send_key: SendKey
    header: Header | None = None
    body: tuple[Value, ...] | None = None
    buttons: tuple[TemplateButton, ...] | None = None

    @model_validator(mode="after")
    def _keeps_the_recipient_private(self) -> Self:
        refuse_name_in("send_key", self.send_key, self.to)
        return self


class BatchRequested(_Sending):
    """Send one message to up to 1,000 recipients, to each at most once under a key of its own."""

    TYPE = "whatsapp.batch.requested.v1"

    batch_id: Annotated[Name, Field(description="The requester's name for the batch, unique per shop.")]
    recipients: Annotated[tuple[BatchRecipient, ...], Field(min_length=1, max_length=1000)]
    values_required: Annotated[
        bool,
        Field(description="Whether a recipient without values of their own for the body fails with `value_missing`."),
    ] = False

    @model_validator(mode="after")
    def _has_unique_keys(self) -> Self:
        if len({recipient.send_key for recipient in self.recipients}) < len(self.recipients):
            raise ValueError("two recipients have the same send_key")
        return self

    def subject(self) -> str:
        """Name the batch."""
        return f"batch/{self.batch_id}"


class MessageCancelRequested(Request):
    """Cancel a message whose sending has not begun; also holds for a request that arrives later."""

    TYPE = "whatsapp.message.cancel_requested.v1"

    send_key: SendKey
    reason: Reason = ""

    def subject(self) -> str:
        """Name the message."""
        return f"message/{self.send_key}"


class BatchCancelRequested(Request):
    """Cancel the messages of a batch whose sending has not begun; also holds for a batch that arrives later."""

    TYPE = "whatsapp.batch.cancel_requested.v1"

    batch_id: Name
    reason: Reason = ""

    def subject(self) -> str:
        """Name the batch."""
        return f"batch/{self.batch_id}"


class RetryRequested(Request):
    """Send failed messages again, each still at most once; the result of any other message is published again."""

    TYPE = "whatsapp.retry.requested.v1"

    send_keys: Annotated[tuple[SendKey, ...], Field(min_length=1, max_length=1000)]
    keys_of: Annotated[
        str | None,
        IMPERSONAL,
        Field(description="The requester whose keys these are; by default the requester of this event."),
    ] = None
    expires_at: Annotated[Time | None, Field(description="The messages are not sent after this time.")] = None
    message: Annotated[Content | None, Field(description="A corrected message to send instead of the failed one.")] = (
        None
    )

    @model_validator(mode="after")
    def _has_no_placeholder(self) -> Self:
        refuse_placeholders(self.message, "the corrected message is the same for all recipients")
        return self


class _Suppression(Request):
    phone: About
    category: Literal["marketing", "utility", "all"]
    reason: Reason
    by: Annotated[Name, Field(description="The person or program that makes the request.")]


class SuppressionAddRequested(_Suppression):
    """Send a recipient no more messages, in one category or at all."""

    TYPE = "whatsapp.suppression.add_requested.v1"


class SuppressionRemoveRequested(_Suppression):
    """Remove a recipient's suppression in exactly this category; others stay (`all` is a category of its own)."""

    TYPE = "whatsapp.suppression.remove_requested.v1"


class RecipientEraseRequested(Request):
    """Erase a person from every service; suppressions of them stay, under hashes of what names them."""

    TYPE = "whatsapp.recipient.erase_requested.v1"

    phone: About
    reason: Reason
    by: Annotated[Name, Field(description="The person or program that makes the request.")]
    contact_book: Annotated[
        bool,
        Field(
            description="Whether Meta is asked, too, to delete the person from the contact books of the business portfolios."
        ),
    ] = False


# -- facts


class _MessageFact(Fact):
    send_key: SendKey
    message_id: Annotated[str, IMPERSONAL, Field(description="Id in the ledger, for `wch whatsapp show`.")]
    attempt: Annotated[
        int,
        Field(
            ge=0,
            le=2**31 - 1,
            description="Grows: of two facts about a message, the one with the higher attempt holds.",
        ),
    ] = 0

    def subject(self) -> str:
        """Name the message."""
        return f"message/{self.send_key}"


class MessageAccepted(_MessageFact):
    """Meta accepted the message for delivery."""

    TYPE = "whatsapp.message.accepted.v1"


class MessageDelivered(_MessageFact):
    """The message reached the recipient's device."""

    TYPE = "whatsapp.message.delivered.v1"


class MessageRead(_MessageFact):
    """The recipient has seen the message."""

    TYPE = "whatsapp.message.read.v1"


class MessageFailed(_MessageFact):
    """The message did not reach its recipient and is not retried automatically."""

    TYPE = "whatsapp.message.failed.v1"

    reason: FailureReasonName
    concerns: Concerns
    retryable: Retryable
    code: Annotated[ErrorCode | None, Field(description="Meta's error code, if it gave one.")] = None
    detail: Annotated[Reason, PERSONAL] = ""


class MessageSuppressed(_MessageFact):
    """The message was not sent, because its recipient is suppressed."""

    TYPE = "whatsapp.message.suppressed.v1"

    reason: Reason


class MessageCancelled(_MessageFact):
    """The message was cancelled before its sending began."""

    TYPE = "whatsapp.message.cancelled.v1"

    reason: Reason


class MessageUnknown(_MessageFact):
    """Meta may or may not have accepted the message, so it is not sent again; a later status may settle it."""

    TYPE = "whatsapp.message.unknown.v1"


RecipientResult = Annotated[
    Literal["accepted", "delivered", "read", "failed", "skipped", "suppressed", "cancelled", "unknown", "deferred"],
    Field(
        description="A `skipped` recipient was not sent the message although nothing failed: the number is invalid, the "
        "customer-service window is closed, or the recipient was erased."
    ),
]


class RecipientOutcome(Part):
    """The result for one recipient; a `deferred` message waits until a time, for a reason."""

    send_key: SendKey
    outcome: RecipientResult
    reason: Annotated[
        str,
        IMPERSONAL,
        Field(
            description="A reason of the table in services/whatsapp/README.md; of a suppression or a cancellation, its own."
        ),
    ] = ""
    concerns: Concerns | None = None
    retryable: Retryable = False
    detail: Annotated[Reason, Field(description="Why the request was refused.")] = ""
    code: ErrorCode | None = None
    until: Time | None = None


class _BatchFact(Fact):
    batch_id: Name
    recipients: Annotated[tuple[RecipientOutcome, ...], Field(max_length=1000)]
    version: Annotated[
        int,
        Field(
            ge=0,
            le=2**31 - 1,
            description="Grows: of two facts about a recipient, the one with the higher version holds.",
        ),
    ] = 0

    def subject(self) -> str:
        """Name the batch."""
        return f"batch/{self.batch_id}"


class BatchCompleted(_BatchFact):
    """Every recipient of a batch has a first result."""

    TYPE = "whatsapp.batch.completed.v1"


class BatchUpdated(_BatchFact):
    """Results of a batch that changed after it was completed, collected for a few seconds."""

    TYPE = "whatsapp.batch.updated.v1"


class RecipientLinked(Fact):
    """Meta has used a number and an id for one person: published when that is news, and again about once a week.

    A number has another id in each business portfolio; of the facts about a number in one, the latest holds.
    """

    TYPE = "whatsapp.recipient.linked.v1"

    phone: Annotated[str, IDENTIFIES, Field(description="Phone number in E.164.")]
    user_id: Annotated[str, IDENTIFIES, Field(description="Meta's business-scoped user id, like DE.1234567890.")]
    portfolio: Annotated[
        str,
        IMPERSONAL,
        Field(
            description="The portfolio's name in the settings of whatsapp; empty for the one of a deployment with one shop, "
            "and in old facts."
        ),
    ] = ""
    timestamp: Annotated[Time, Field(description="When Meta used them.")]


class ContactBook(Part):
    """What Meta answered when it was asked to delete a person from the contact book of a business portfolio, by user ids."""

    portfolio: Annotated[str, IMPERSONAL, Field(description="Its name in the settings of whatsapp.")]
    deleted: Annotated[
        int, Field(ge=0, description="Ids whose entry Meta has deleted, or for which it had no entry any more.")
    ]
    refused: Annotated[int, Field(ge=0, description="Ids that Meta refused to delete.")]
    failed: Annotated[
        int,
        Field(
            ge=0,
            description="Ids that Meta could not be asked to delete: it was unreachable, too busy or refused the token until the "
            "last attempt, or no shop has a number of the portfolio.",
        ),
    ]


class RecipientErased(Fact):
    """A recipient's personal data is erased here, and every other service erases the same person; the counts are 0 if there was none."""

    TYPE = "whatsapp.recipient.erased.v1"

    rows: Annotated[tuple[TableRows, ...], Field(description="Rows that were changed or deleted, by table.")]
    erasure: ErasureId = ""
    at: Annotated[
        Time | None, Field(description="What is older than this and names the person is handled without them.")
    ] = None
    names: Annotated[
        tuple[Annotated[str, IDENTIFIES_AND_STAYS], ...],
        Field(description="Every number (E.164) and id of the person that is known."),
    ] = ()
    hashes: Annotated[
        tuple[Annotated[str, IMPERSONAL, Field(pattern="^[0-9a-f]{32}$")], ...],
        Field(description="Hashes of these and of names that are no longer kept, under the key of all services."),
    ] = ()
    contact_books: Annotated[
        tuple[ContactBook, ...],
        Field(description="By portfolio; empty if that was not requested, or no user id of the person is known."),
    ] = ()


EVENTS = (
    MessageRequested,
    BatchRequested,
    MessageCancelRequested,
    BatchCancelRequested,
    RetryRequested,
    SuppressionAddRequested,
    SuppressionRemoveRequested,
    RecipientEraseRequested,
    MessageAccepted,
    MessageDelivered,
    MessageRead,
    MessageFailed,
    MessageSuppressed,
    MessageCancelled,
    MessageUnknown,
    BatchCompleted,
    BatchUpdated,
    RecipientLinked,
    RecipientErased,
)
