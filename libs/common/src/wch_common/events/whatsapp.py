"""Events of the whatsapp family: messages to people, asked for by other programs, and what became of them."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from wch_common.contract.event import Fact, Part, Request
from wch_common.events.whatsapp_content import PLACEHOLDER, Content, Fallback, Media, Name, Parameter, TemplateButton

Phone = Annotated[
    str,
    Field(
        max_length=100,
        description="A telephone number, best as +<country><number>; a wrong one is one recipient's answer.",
    ),
]
SendKey = Annotated[
    str,
    Field(
        min_length=1,
        max_length=200,
        description="Under one key of an requester one message is sent at most once; never holds the telephone number.",
    ),
]
Category = Annotated[
    Literal["marketing", "utility", "service"],
    Field(description="What the message is; suppressions and the handling of unknown outcomes follow it."),
]
Reason = Annotated[str, Field(max_length=500)]

# -- requests


def refuse_number_in(name: str, value: str, phone: str) -> None:
    """Raise ValueError where a field's value holds the telephone number, with or without its country."""
    digits = re.sub(r"\D", "", phone)[-8:]
    if len(digits) == 8 and digits in re.sub(r"\D", "", value):
        raise ValueError(f"{name} holds the telephone number: choose one that does not name the person")


def refuse_placeholders(message: Content | None, why: str) -> None:
    """Raise ValueError where a message's body waits for values it is not given."""
    body = getattr(message, "body", None)
    if isinstance(body, str) and (found := PLACEHOLDER.search(body)):
        raise ValueError(f"message.body has the placeholder {found[0]}, but {why}: write it out")


class _Sending(Request):
    message: Content
    category: Category
    sender: Annotated[
        str | None,
        Field(pattern="^[0-9]{1,20}$", description="Phone number id to send from; the shop's first if left out."),
    ] = None
    not_before: datetime | None = None
    expires_at: Annotated[datetime | None, Field(description="After it, it is not worth sending.")] = None
    fallback: Fallback = None


class MessageRequested(_Sending):
    """Send one message to one person, at most once under its key."""

    TYPE = "whatsapp.message.requested.v1"

    to: Phone
    send_key: SendKey
    reply_to: Annotated[str | None, Field(description="Id (wamid…) of the message this one answers.")] = None

    @model_validator(mode="after")
    def _keeps_the_number_private(self) -> Self:
        refuse_number_in("send_key", self.send_key, self.to)
        return self

    @model_validator(mode="after")
    def _says_it_all(self) -> Self:
        refuse_placeholders(self.message, "only a batch's recipients have values of their own")
        return self

    def subject(self) -> str:
        """Name the message."""
        return f"message/{self.send_key}"


class Recipient(Part):
    """One person of a batch, with values of their own for the message's placeholders."""

    to: Phone
    send_key: SendKey
    header: Parameter | Media | None = None
    body: tuple[Parameter, ...] | None = None
    buttons: tuple[TemplateButton, ...] | None = None

    @model_validator(mode="after")
    def _keeps_the_number_private(self) -> Self:
        refuse_number_in("send_key", self.send_key, self.to)
        return self


class BatchRequested(_Sending):
    """Send one message to up to 1,000 people, each at most once under a key of their own."""

    TYPE = "whatsapp.batch.requested.v1"

    batch_id: Annotated[Name, Field(description="The requester's name for it, unique per shop.")]
    recipients: Annotated[tuple[Recipient, ...], Field(min_length=1, max_length=1000)]

    @model_validator(mode="after")
    def _names_each_once(self) -> Self:
        if len({recipient.send_key for recipient in self.recipients}) < len(self.recipients):
            raise ValueError("two recipients have the same send_key")
        return self

    def subject(self) -> str:
        """Name the batch."""
        return f"batch/{self.batch_id}"


class MessageCancelRequested(Request):
    """Do not send a message that is not yet under way; also one whose request arrives after this."""

    TYPE = "whatsapp.message.cancel_requested.v1"

    send_key: SendKey
    reason: Reason = ""

    def subject(self) -> str:
        """Name the message."""
        return f"message/{self.send_key}"


class BatchCancelRequested(Request):
    """Do not send what is not yet under way of a batch; also of one whose request arrives after this."""

    TYPE = "whatsapp.batch.cancel_requested.v1"

    batch_id: Name
    reason: Reason = ""

    def subject(self) -> str:
        """Name the batch."""
        return f"batch/{self.batch_id}"


class RetryRequested(Request):
    """Try messages again that have failed, with the same guarantee; any other is answered with what became of it."""

    TYPE = "whatsapp.retry.requested.v1"

    send_keys: Annotated[tuple[SendKey, ...], Field(min_length=1, max_length=1000)]
    of: Annotated[str | None, Field(description="Whose keys they are; the requester's own if left out.")] = None
    expires_at: Annotated[datetime | None, Field(description="After it, they are not worth sending.")] = None
    message: Annotated[Content | None, Field(description="Sent instead of what failed, where that was mended.")] = None

    @model_validator(mode="after")
    def _is_the_same_for_all(self) -> Self:
        refuse_placeholders(self.message, "it is the same for all who are tried again")
        return self


class _Suppression(Request):
    phone: Phone
    category: Literal["marketing", "utility", "all"]
    reason: Reason
    by: Annotated[Name, Field(description="Who asked for it.")]


class SuppressionAddRequested(_Suppression):
    """Write to a person no more, in one category or at all."""

    TYPE = "whatsapp.suppression.add_requested.v1"


class SuppressionRemoveRequested(_Suppression):
    """Write to a person again, as far as this category held: what holds for others (`all` is one of its own) stays."""

    TYPE = "whatsapp.suppression.remove_requested.v1"


# -- facts


class _MessageFact(Fact):
    send_key: SendKey
    message_id: Annotated[str, Field(description="Its id in the ledger, for `wch whatsapp show`.")]
    attempt: Annotated[int, Field(description="Grows: of two facts about a message the later attempt's holds.")] = 0

    def subject(self) -> str:
        """Name the message."""
        return f"message/{self.send_key}"


class MessageAccepted(_MessageFact):
    """Meta took the message; it is on its way."""

    TYPE = "whatsapp.message.accepted.v1"

    wamid: Annotated[str, Field(description="Meta's id of the message.")]


class MessageDelivered(_MessageFact):
    """The message reached the recipient's device."""

    TYPE = "whatsapp.message.delivered.v1"


class MessageRead(_MessageFact):
    """The recipient has seen the message."""

    TYPE = "whatsapp.message.read.v1"


class MessageFailed(_MessageFact):
    """The message did not reach its recipient and is not tried again by itself."""

    TYPE = "whatsapp.message.failed.v1"

    reason: Annotated[str, Field(description="One of a closed list, like undeliverable, window_closed, expired.")]
    code: Annotated[int | None, Field(description="Meta's error code, if it gave one.")] = None
    detail: Reason = ""


class MessageSuppressed(_MessageFact):
    """The message was not sent, because its recipient must not be written to."""

    TYPE = "whatsapp.message.suppressed.v1"

    reason: Reason


class MessageCancelled(_MessageFact):
    """The message was taken back before it was begun."""

    TYPE = "whatsapp.message.cancelled.v1"

    reason: Reason


class MessageUnknown(_MessageFact):
    """It cannot be known whether Meta took the message; it is not sent again. A later status may still settle it."""

    TYPE = "whatsapp.message.unknown.v1"


Outcome = Literal["accepted", "delivered", "read", "failed", "suppressed", "cancelled", "unknown", "deferred"]


class RecipientOutcome(Part):
    """What became of one recipient; deferred ones wait until a time, for a reason."""

    send_key: SendKey
    outcome: Outcome
    reason: str = ""
    code: int | None = None
    until: datetime | None = None


class _BatchFact(Fact):
    batch_id: Name
    recipients: Annotated[tuple[RecipientOutcome, ...], Field(max_length=1000)]
    version: Annotated[int, Field(description="Grows: of two facts that name a recipient the higher one holds.")] = 0

    def subject(self) -> str:
        """Name the batch."""
        return f"batch/{self.batch_id}"


class BatchCompleted(_BatchFact):
    """Every recipient of a batch has a first answer."""

    TYPE = "whatsapp.batch.completed.v1"


class BatchUpdated(_BatchFact):
    """What changed for recipients of a batch after its first answers, in bundles."""

    TYPE = "whatsapp.batch.updated.v1"


EVENTS = (
    MessageRequested,
    BatchRequested,
    MessageCancelRequested,
    BatchCancelRequested,
    RetryRequested,
    SuppressionAddRequested,
    SuppressionRemoveRequested,
    MessageAccepted,
    MessageDelivered,
    MessageRead,
    MessageFailed,
    MessageSuppressed,
    MessageCancelled,
    MessageUnknown,
    BatchCompleted,
    BatchUpdated,
)
