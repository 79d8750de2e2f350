"""Events of the broadcast family: campaigns, their lists of recipients, and what became of them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from wch_common.contract.event import Fact, Part, Request
from wch_common.events.whatsapp import Category, Phone, Reason
from wch_common.events.whatsapp_content import Content, Fallback, Media, Name, Parameter, TemplateButton

CampaignId = Annotated[
    str, Field(min_length=1, max_length=100, description="The requester's name for the campaign, unique per shop.")
]
ListId = Annotated[str, Field(min_length=1, max_length=100, description="The name of a list, unique per shop.")]
By = Annotated[Name, Field(description="Who asked for it.")]


class CampaignRecipient(Part):
    """One person, with values of their own for the message's placeholders."""

    to: Phone
    header: Parameter | Media | None = None
    body: tuple[Parameter, ...] | None = None
    buttons: tuple[TemplateButton, ...] | None = None


Recipients = Annotated[tuple[CampaignRecipient, ...], Field(max_length=1000)]


# -- requests


class CampaignRequested(Request):
    """Send one message to many people, in batches, at a pace; free text without a fallback reaches open windows only."""

    TYPE = "broadcast.campaign.requested.v1"

    campaign_id: CampaignId
    message: Content
    category: Category
    fallback: Fallback = None
    sender: Annotated[
        str | None,
        Field(pattern="^[0-9]{1,20}$", description="Phone number id to send from; the shop's first if left out."),
    ] = None
    recipients: Annotated[Recipients | None, Field(description="Up to 1,000; more are a list.")] = None
    list_id: Annotated[ListId | None, Field(description="A list that was uploaded before, or is being uploaded.")] = (
        None
    )
    batch_size: Annotated[int, Field(ge=1, le=1000)] = 50
    pause_seconds: Annotated[
        float, Field(ge=0, le=86_400, description="From the start of one batch to the start of the next.")
    ] = 1.0
    start_at: Annotated[datetime | None, Field(description="Not before.")] = None
    stop_at: Annotated[datetime | None, Field(description="What is not sent by then is not sent at all.")] = None
    exclusive: Annotated[
        bool, Field(description="Waits for the shop's other exclusive campaigns, and they for this one.")
    ] = True

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if (self.recipients is None) == (self.list_id is None):
            raise ValueError("give either recipients or list_id")
        if self.start_at is not None and self.stop_at is not None and self.stop_at <= self.start_at:
            raise ValueError("stop_at is not after start_at")
        for name in ("start_at", "stop_at"):
            timestamp = getattr(self, name)
            if timestamp is not None and timestamp.tzinfo is None:
                raise ValueError(f"{name} needs an offset from UTC, like 2030-01-31T09:00:00+01:00")
        return self

    def subject(self) -> str:
        """Name the campaign."""
        return f"campaign/{self.campaign_id}"


class _Control(Request):
    campaign_id: CampaignId
    reason: Reason = ""
    by: By

    def subject(self) -> str:
        """Name the campaign."""
        return f"campaign/{self.campaign_id}"


class CampaignPauseRequested(_Control):
    """Begin no further batch of a campaign."""

    TYPE = "broadcast.campaign.pause_requested.v1"


class CampaignResumeRequested(_Control):
    """Go on with a campaign that paused, or stopped for a reason that is mended; those it failed for that are tried again."""

    TYPE = "broadcast.campaign.resume_requested.v1"


class CampaignCancelRequested(_Control):
    """End a campaign and take back what WhatsApp was not yet asked to send."""

    TYPE = "broadcast.campaign.cancel_requested.v1"


class RecipientsRequested(Request):
    """Add a part to a list; parts may come in any order, and the last one says how many there are."""

    TYPE = "broadcast.recipients.requested.v1"

    list_id: ListId
    part: Annotated[int, Field(ge=1, le=9_999, description="Counted from 1.")]
    parts: Annotated[
        int | None, Field(ge=1, le=9_999, description="How many there are; at least one part says it.")
    ] = None
    recipients: Recipients

    def subject(self) -> str:
        """Name the list."""
        return f"list/{self.list_id}"


# -- facts


class Count(Part):
    """How many, for one reason."""

    reason: str
    recipients: Annotated[int, Field(ge=0)]


class Totals(Part):
    """Recipients by what became of them: recipients = sent + failed + unknown + skipped + cancelled + deferred + waiting."""

    recipients: int
    sent: Annotated[int, Field(description="Taken by Meta; those delivered and read are among them.")] = 0
    delivered: Annotated[int, Field(description="Those read are among them.")] = 0
    read: int = 0
    failed: int = 0
    failed_by: tuple[Count, ...] = ()
    unknown: Annotated[
        int, Field(description="It cannot be known whether they were sent; they are not sent again.")
    ] = 0
    skipped: int = 0
    skipped_by: Annotated[
        tuple[Count, ...],
        Field(description="Like suppressed, duplicate_number, malformed_number, window_closed, stopped, forgotten."),
    ] = ()
    cancelled: int = 0
    deferred: Annotated[int, Field(description="Asked for, and waiting for a limit of WhatsApp.")] = 0
    waiting: Annotated[int, Field(description="Not asked for yet, or without an answer yet.")] = 0
    percentage: Annotated[float, Field(ge=0, le=100, description="Of recipients with an outcome.")]


class _CampaignFact(Fact):
    campaign_id: CampaignId

    def subject(self) -> str:
        """Name the campaign."""
        return f"campaign/{self.campaign_id}"


class _CampaignTotals(_CampaignFact):
    totals: Totals


class CampaignStarted(_CampaignFact):
    """The first batch is about to be sent."""

    TYPE = "broadcast.campaign.started.v1"

    recipients: int


class CampaignProgressed(_CampaignTotals):
    """How far a campaign is; told about once a second while it runs, and in answer to a repeated request."""

    TYPE = "broadcast.campaign.progressed.v1"

    state: Literal["waiting", "running", "paused", "cancelling", "completed", "cancelled", "failed"]


class CampaignPaused(_CampaignTotals):
    """No further batch begins until the campaign is resumed."""

    TYPE = "broadcast.campaign.paused.v1"

    reason: Reason
    by: By


class CampaignResumed(_CampaignTotals):
    """The campaign goes on."""

    TYPE = "broadcast.campaign.resumed.v1"

    by: By


class CampaignCompleted(_CampaignTotals):
    """Every recipient has an outcome; told once."""

    TYPE = "broadcast.campaign.completed.v1"


class CampaignUpdated(_CampaignTotals):
    """What became known after a campaign's end, like deliveries, in bundles."""

    TYPE = "broadcast.campaign.updated.v1"


class CampaignCancelled(_CampaignTotals):
    """The campaign ended before its end was reached; told once."""

    TYPE = "broadcast.campaign.cancelled.v1"

    reason: Reason


class CampaignFailed(_CampaignTotals):
    """The campaign could not go on; it can be resumed."""

    TYPE = "broadcast.campaign.failed.v1"

    reason: Reason


class CampaignRefused(_CampaignFact):
    """A request was refused; a campaign of that name, if there is one, is not touched."""

    TYPE = "broadcast.campaign.refused.v1"

    reason: Reason


class RecipientsAdded(Fact):
    """A list is complete: what was given, and what is usable of it."""

    TYPE = "broadcast.recipients.added.v1"

    list_id: ListId
    recipients: int
    malformed: int
    duplicates: int

    def subject(self) -> str:
        """Name the list."""
        return f"list/{self.list_id}"


class RecipientsRefused(Fact):
    """A part of a list was refused, and so the list will not be complete, or is another one."""

    TYPE = "broadcast.recipients.refused.v1"

    list_id: ListId
    part: int
    reason: Reason

    def subject(self) -> str:
        """Name the list."""
        return f"list/{self.list_id}"


EVENTS = (
    CampaignRequested,
    CampaignPauseRequested,
    CampaignResumeRequested,
    CampaignCancelRequested,
    RecipientsRequested,
    CampaignStarted,
    CampaignProgressed,
    CampaignPaused,
    CampaignResumed,
    CampaignCompleted,
    CampaignUpdated,
    CampaignCancelled,
    CampaignFailed,
    CampaignRefused,
    RecipientsAdded,
    RecipientsRefused,
)
