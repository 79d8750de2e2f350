"""Facts that the webhook receiver tells of what Meta reported: statuses of messages, and what people wrote."""

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
    """Meta reported a message's status; it comes at least once, in any order."""

    TYPE = "meta.status.received.v1"

    phone_number_id: SenderId
    wamid: Annotated[str, Field(min_length=1, max_length=300)]
    status: Annotated[str, Field(description="sent, delivered, read, played or failed; others are ignored.")]
    timestamp: datetime
    tag: Annotated[str | None, Field(max_length=512, description="What was sent as biz_opaque_callback_data.")] = None
    errors: tuple[StatusError, ...] = ()


class MessageReceived(Fact):
    """A person wrote, pressed a button, or changed what they want to be sent."""

    TYPE = "meta.message.received.v1"

    phone_number_id: SenderId
    message_id: Annotated[str, Field(min_length=1, max_length=300)]
    sender: Annotated[str, Field(description="The person's number, as Meta writes it: digits, no plus sign.")]
    timestamp: datetime
    kind: Annotated[str, Field(description="text, button, interactive, order, …; preference for a changed wish.")]
    text: Annotated[str | None, Field(description="What was written, or the button's payload.")] = None
    marketing: Annotated[
        Literal["stop", "resume"] | None, Field(description="The wish, where the kind is preference.")
    ] = None


EVENTS = (StatusReceived, MessageReceived)
