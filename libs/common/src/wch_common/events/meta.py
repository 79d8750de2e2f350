"""Facts that the webhook receiver publishes about Meta's webhooks: message statuses and messages from customers."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from wch_common.contract.event import Fact, Part

SenderId = Annotated[str, Field(pattern="^[0-9]{1,20}$", description="Phone number id of the business's number.")]


class StatusError(Part):
    """Why a message failed."""

    code: int
    title: str = ""
    details: str = ""


class StatusReceived(Fact):
    """Meta reported the status of a message; statuses arrive at least once and in any order."""

    TYPE = "meta.status.received.v1"

    phone_number_id: SenderId
    wamid: Annotated[str, Field(min_length=1, max_length=300)]
    status: Annotated[str, Field(description="sent, delivered, read, played or failed; others are ignored.")]
    timestamp: datetime
    tag: Annotated[
        str | None, Field(max_length=512, description="The value that was sent as biz_opaque_callback_data.")
    ] = None
    errors: tuple[StatusError, ...] = ()


class MessageReceived(Fact):
    """A customer wrote, pressed a button, or changed their marketing preference."""

    TYPE = "meta.message.received.v1"

    phone_number_id: SenderId
    message_id: Annotated[str, Field(min_length=1, max_length=300)]
    sender: Annotated[str, Field(description="The customer's number as Meta writes it: digits, no plus sign.")]
    timestamp: datetime
    kind: Annotated[
        str, Field(description="text, button, interactive, order, …; `preference` for a changed marketing preference.")
    ]
    text: Annotated[str | None, Field(description="The text, or the payload of the button.")] = None
    marketing: Annotated[
        Literal["stop", "resume"] | None, Field(description="The new preference, if the kind is `preference`.")
    ] = None


EVENTS = (StatusReceived, MessageReceived)
