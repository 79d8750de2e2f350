"""Events of the broadcast family: campaigns, their lists of recipients, and their results."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from wch_common.contract.event import Fact, Part, Request, Time
from wch_common.contract.operations import AsOf, ErasureId, TableRows
from wch_common.contract.personal import IMPERSONAL
from wch_common.events.recipient import To
from wch_common.events.whatsapp import Category, Reason
from wch_common.events.whatsapp_content import Content, Fallback, Header, Name, TemplateButton, Value

CampaignId = Annotated[
    str,
    IMPERSONAL,
    Field(min_length=1, max_length=100, description="The requester's name for the campaign, unique per shop."),
]
ListId = Annotated[
    str, IMPERSONAL, Field(min_length=1, max_length=100, description="The name of a list, unique per shop.")
]
By = Annotated[Name, Field(description="The person or program that requested it.")]


Count = Annotated[int, Field(ge=0, le=2**31 - 1)]


class CampaignRecipient(Part):
    """One recipient, optionally with their own values for the message's placeholders."""

    to: To
    header: Header | None = None
    body: tuple[Value, ...] | None = None
    buttons: tuple[TemplateButton, ...] | None = None


Recipients = Annotated[tuple[CampaignRecipient, ...], Field(max_length=1000)]


# -- requests


class CampaignRequested(Request):
    """Send one message to many recipients, in batches, at a pace.

    Free text without a fallback reaches only recipients whose customer-service window is open.
    """

    TYPE = "broadcast.campaign.requested.v1"

    campaign_id: CampaignId
    message: Content
    category: Category
    fallback: Fallback = None
    sender: Annotated[
        str | None,
        IMPERSONAL,
        Field(pattern="^[0-9]{1,20}$", description="Phone number id to send from; by default the shop's first."),
    ] = None
    recipients: Annotated[
        Recipients | None, Field(description="Up to 1,000 recipients; upload a list for more, and give list_id.")
    ] = None
    list_id: Annotated[ListId | None, Field(description="A list whose upload is complete or in progress.")] = None
    batch_size: Annotated[int, Field(ge=1, le=1000, description="Recipients per batch.")] = 50
    pause_seconds: Annotated[
        float, Field(ge=0, le=86_400, description="Seconds from the start of one batch to the start of the next.")
    ] = 1.0
    start_at: Annotated[Time | None, Field(description="The campaign does not start before this time.")] = None
    stop_at: Annotated[
        Time | None, Field(description="Messages that are not sent by this time are not sent at all.")
    ] = None
    as_of: AsOf = None
    exclusive: Annotated[
        bool,
        Field(description="The campaign waits for the shop's other exclusive campaigns, and they wait for it."),
    ] = True

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if (self.recipients is None) == (self.list_id is None):
            raise ValueError("give either recipients or list_id")
        if self.start_at is not None and self.stop_at is not None and self.stop_at <= self.start_at:
            raise ValueError("stop_at must be after start_at")
        return self

    def subject(self) -> str:
        """Name the campaign."""
        return f"campaign/{self.campaign_id}"


class _CampaignControl(Request):
    campaign_id: CampaignId
    reason: Reason = ""
    by: By

    def subject(self) -> str:
        """Name the campaign."""
        return f"campaign/{self.campaign_id}"


class CampaignPauseRequested(_CampaignControl):
    """Release no further batches of a campaign."""

    TYPE = "broadcast.campaign.pause_requested.v1"


class CampaignResumeRequested(_CampaignControl):
    """Continue a paused or failed campaign, and retry recipients that failed for a reason that affected the campaign."""

    TYPE = "broadcast.campaign.resume_requested.v1"


class CampaignCancelRequested(_CampaignControl):
    """End a campaign, and cancel its messages that WhatsApp has not started to send."""

    TYPE = "broadcast.campaign.cancel_requested.v1"


class RecipientsRequested(Request):
    """Add one part to a list; parts may arrive in any order."""

    TYPE = "broadcast.recipients.requested.v1"

    list_id: ListId
    part: Annotated[int, Field(ge=1, le=9_999, description="Number of this part, from 1.")]
    parts: Annotated[
        int | None, Field(ge=1, le=9_999, description="Number of parts of the list; at least one part must give it.")
    ] = None
    recipients: Recipients

    def subject(self) -> str:
        """Name the list."""
        return f"list/{self.list_id}"


# -- facts


class ReasonCount(Part):
    """The number of recipients with one reason."""

    reason: Annotated[str, IMPERSONAL]
    recipients: Count


class CampaignTotals(Part):
    """Recipients by result: recipients = sent + failed + unknown + skipped + cancelled + deferred + waiting."""

    recipients: Count
    sent: Annotated[Count, Field(description="Accepted by Meta, including those delivered and read.")] = 0
    delivered: Annotated[Count, Field(description="Includes those read.")] = 0
    read: Count = 0
    failed: Count = 0
    failed_by: tuple[ReasonCount, ...] = ()
    unknown: Annotated[
        Count, Field(description="The answer of Meta was lost; these messages are not sent a second time.")
    ] = 0
    skipped: Count = 0
    skipped_by: Annotated[
        tuple[ReasonCount, ...],
        Field(description="Such as suppressed, duplicate_number, malformed_number, window_closed, stopped and erased."),
    ] = ()
    cancelled: Count = 0
    deferred: Annotated[Count, Field(description="Requested, and waiting for a limit of WhatsApp.")] = 0
    waiting: Annotated[Count, Field(description="Not requested yet, or requested and not answered yet.")] = 0
    percentage: Annotated[float, Field(ge=0, le=100, description="Share of recipients that have a result.")]


class _CampaignFact(Fact):
    campaign_id: CampaignId

    def subject(self) -> str:
        """Name the campaign."""
        return f"campaign/{self.campaign_id}"


class _CampaignTotalsFact(_CampaignFact):
    totals: CampaignTotals


class CampaignStarted(_CampaignFact):
    """The first batch is about to be sent."""

    TYPE = "broadcast.campaign.started.v1"

    recipients: Count


class CampaignProgressed(_CampaignTotalsFact):
    """The progress of a campaign: published about once a second while it runs, and in answer to a repeated request."""

    TYPE = "broadcast.campaign.progressed.v1"

    state: Literal["waiting", "running", "paused", "cancelling", "completed", "cancelled", "failed"]


class CampaignPaused(_CampaignTotalsFact):
    """The campaign releases no further batches until it is resumed."""

    TYPE = "broadcast.campaign.paused.v1"

    reason: Reason
    by: By


class CampaignResumed(_CampaignTotalsFact):
    """The campaign continues."""

    TYPE = "broadcast.campaign.resumed.v1"

    by: By


class CampaignCompleted(_CampaignTotalsFact):
    """Every recipient has a result; published once."""

    TYPE = "broadcast.campaign.completed.v1"


class CampaignUpdated(_CampaignTotalsFact):
    """Results that arrived after the campaign ended, such as deliveries, in bundles."""

    TYPE = "broadcast.campaign.updated.v1"


class CampaignCancelled(_CampaignTotalsFact):
    """The campaign was cancelled, and every message in progress has a result; published once."""

    TYPE = "broadcast.campaign.cancelled.v1"

    reason: Reason


class CampaignFailed(_CampaignTotalsFact):
    """The campaign could not continue; it can be resumed."""

    TYPE = "broadcast.campaign.failed.v1"

    reason: Reason


class CampaignRefused(_CampaignFact):
    """A request was refused; an existing campaign of that name is unchanged."""

    TYPE = "broadcast.campaign.refused.v1"

    reason: Reason


class RecipientsAdded(Fact):
    """A list is complete; how many recipients it received, and how many of them cannot be used."""

    TYPE = "broadcast.recipients.added.v1"

    list_id: ListId
    recipients: Count
    malformed: Count
    duplicates: Count

    def subject(self) -> str:
        """Name the list."""
        return f"list/{self.list_id}"


class RecipientsRefused(Fact):
    """A part of a list was refused."""

    TYPE = "broadcast.recipients.refused.v1"

    list_id: ListId
    part: Annotated[int, Field(ge=1, le=9_999)]
    reason: Reason

    def subject(self) -> str:
        """Name the list."""
        return f"list/{self.list_id}"


class CampaignRecipientErased(Fact):
    """A person was erased from every list; 0 rows if no list contained them."""

    TYPE = "broadcast.recipient.erased.v1"

    rows: Annotated[tuple[TableRows, ...], Field(description="Rows changed in each table.")]
    erasure: ErasureId = ""


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
    CampaignRecipientErased,
)
