"""Facts that the webhook receiver publishes about Meta's webhooks: statuses, messages from customers, and changed numbers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from wch_common.contract.event import Fact, Part, Time
from wch_common.contract.personal import IDENTIFIES, IDENTIFIES_AND_STAYS, IMPERSONAL, PERSONAL

SenderId = Annotated[
    str, IMPERSONAL, Field(pattern="^[0-9]{1,20}$", description="Phone number id of the business's number.")
]
_WA_ID = "The customer's number as Meta writes it: digits, no plus sign; absent if it is hidden."
# Webhooks must not be lost, so any form of an id is read.
_USER_ID = "Meta's id of the customer in the business portfolio, like DE.1234567890."
_PARENT_ID = "Meta's id of the customer in all enrolled portfolios, like DE.ENT.1234567890."

ErrorCode = Annotated[int, Field(ge=-(2**31), le=2**31 - 1, description="An error code of Meta.")]


class StatusError(Part):
    """Why a message failed."""

    code: ErrorCode
    title: Annotated[str, PERSONAL] = ""
    details: Annotated[str, PERSONAL] = ""


class StatusReceived(Fact):
    """Meta reported the status of a message; statuses arrive at least once and in any order."""

    TYPE = "meta.status.received.v1"

    phone_number_id: SenderId
    wamid: Annotated[str, PERSONAL, Field(min_length=1, max_length=300)]
    status: Annotated[
        str, IMPERSONAL, Field(description="sent, delivered, read, played or failed; others are ignored.")
    ]
    timestamp: Time
    tag: Annotated[
        str | None,
        IMPERSONAL,
        Field(max_length=512, description="The value that was sent as biz_opaque_callback_data."),
    ] = None
    errors: tuple[StatusError, ...] = ()
    recipient: Annotated[str | None, IDENTIFIES, Field(max_length=50, description=_WA_ID)] = None
    user_id: Annotated[str | None, IDENTIFIES, Field(max_length=200, description=_USER_ID)] = None
    parent_id: Annotated[str | None, IDENTIFIES, Field(max_length=200, description=_PARENT_ID)] = None


class MessageReceived(Fact):
    """A customer wrote, pressed a button, or changed their marketing preference."""

    TYPE = "meta.message.received.v1"

    phone_number_id: SenderId
    message_id: Annotated[str, PERSONAL, Field(min_length=1, max_length=300)]
    # Erasing a person must not lose a STOP of theirs that is not handled yet.
    sender: Annotated[str | None, IDENTIFIES_AND_STAYS, Field(description=_WA_ID)] = None
    user_id: Annotated[str | None, IDENTIFIES_AND_STAYS, Field(max_length=200, description=_USER_ID)] = None
    parent_id: Annotated[str | None, IDENTIFIES_AND_STAYS, Field(max_length=200, description=_PARENT_ID)] = None
    timestamp: Time
    kind: Annotated[
        str,
        IMPERSONAL,
        Field(description="text, button, interactive, order, …; `preference` for a changed marketing preference."),
    ]
    text: Annotated[str | None, PERSONAL, Field(description="The text, or the payload of the button.")] = None
    marketing: Annotated[
        Literal["stop", "resume"] | None, Field(description="The new preference, if the kind is `preference`.")
    ] = None


class MetaUser(Part):
    """A customer as Meta's webhooks name them."""

    wa_id: Annotated[str | None, IDENTIFIES_AND_STAYS, Field(max_length=50, description=_WA_ID)] = None
    user_id: Annotated[str | None, IDENTIFIES_AND_STAYS, Field(max_length=200, description=_USER_ID)] = None
    parent_id: Annotated[str | None, IDENTIFIES_AND_STAYS, Field(max_length=200, description=_PARENT_ID)] = None


class UserChanged(Fact):
    """A customer has another number, or Meta has given them another id."""

    TYPE = "meta.user.changed.v1"

    phone_number_id: SenderId
    message_id: Annotated[str, PERSONAL, Field(min_length=1, max_length=300)]
    timestamp: Time
    previous: MetaUser
    current: MetaUser


EVENTS = (StatusReceived, MessageReceived, UserChanged)
