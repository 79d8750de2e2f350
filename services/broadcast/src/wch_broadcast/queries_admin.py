"""The SQL statements of operators' reads, each with the row it returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wch_broadcast.totals import CampaignCounts, campaign_totals

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from wch_common.events.broadcast import CampaignTotals


@dataclass(frozen=True)
class CampaignListed:
    """A campaign in the list of campaigns."""

    campaign_id: str
    shop: str
    requester: str
    state: str
    cause: str
    recipients: int
    batches: int
    created_at: datetime
    ended_at: datetime | None


CAMPAIGNS = """
SELECT c.campaign_id, c.shop, c.requester, c.state, c.cause, coalesce(l.submitted, 0) AS recipients, c.batches,
       c.created_at, c.ended_at
FROM campaigns AS c LEFT JOIN lists AS l ON l.id = c.list
WHERE %(shop)s::text IS NULL OR c.shop = %(shop)s ORDER BY c.created_at DESC LIMIT %(limit)s
"""


@dataclass(frozen=True)
class ListListed:
    """A list of recipients in the list of lists."""

    list_id: str
    shop: str
    submitted: int
    malformed: int
    duplicates: int
    complete_at: datetime | None
    created_at: datetime


LISTS = """
SELECT list_id, shop, submitted, malformed, duplicates, complete_at, created_at FROM lists
WHERE list_id <> '' AND (%(shop)s::text IS NULL OR shop = %(shop)s) ORDER BY created_at DESC LIMIT %(limit)s
"""


@dataclass(frozen=True)
class ListFound:
    """A list that a campaign may be sent to."""

    id: UUID
    list_id: str
    shop: str
    submitted: int
    malformed: int
    duplicates: int
    with_values: int
    complete_at: datetime | None
    deleted_at: datetime | None

    @property
    def recipients(self) -> int:
        """How many recipients it has, without the unusable ones."""
        return self.submitted - self.malformed - self.duplicates


LISTS_NAMED = """
SELECT id, list_id, shop, submitted, malformed, duplicates, with_values, complete_at, deleted_at FROM lists
WHERE list_id = %(name)s AND (%(shop)s::text IS NULL OR shop = %(shop)s) ORDER BY shop
"""


@dataclass(frozen=True)
class ListRow:
    """A recipient of a list, with the values of their own."""

    position: int
    name: str
    own_values: dict[str, Any] | None


LIST_ROWS = """
SELECT position, coalesce(phone, user_id) AS name, own_values FROM recipients
WHERE list = %(id)s AND skip_reason IS NULL AND coalesce(phone, user_id) IS NOT NULL ORDER BY position
"""
# As they wait for each other; paused ones do not block.
CAMPAIGNS_AHEAD = """
SELECT campaign_id FROM campaigns
WHERE shop = %(shop)s AND exclusive AND ended_at IS NULL AND state <> 'paused' ORDER BY created_at, id
"""
CAMPAIGN_EXISTS = """
SELECT 1 FROM campaigns WHERE campaign_id = %(name)s AND (%(shop)s::text IS NULL OR shop = %(shop)s)
"""
COMPLETE_LIST_EXISTS = """
SELECT 1 FROM lists WHERE list_id = %(name)s AND (%(shop)s::text IS NULL OR shop = %(shop)s) AND complete_at IS NOT NULL
"""


@dataclass(frozen=True)
class CampaignStatus:
    """The status of a campaign; with `details_deleted` only its totals are left."""

    id: UUID
    campaign_id: str
    shop: str
    requester: str
    state: str
    cause: str
    changed_by: str
    batches: int
    batch_size: int
    pause_seconds: float
    exclusive: bool
    start_at: datetime | None
    stop_at: datetime | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    due_at: datetime | None
    released: bool
    stopped: bool
    submitted: int
    malformed: int
    duplicates: int
    details_deleted: bool
    outcomes: dict[str, int]

    @property
    def totals(self) -> CampaignTotals:
        """Its recipients by result."""
        counts = CampaignCounts(
            self.state, self.submitted, self.malformed, self.duplicates, released=self.released, stopped=self.stopped
        )
        return campaign_totals(counts, self.outcomes)


CAMPAIGNS_NAMED = """
SELECT c.id, c.campaign_id, c.shop, c.requester, c.state, c.cause, c.changed_by, c.batches, c.batch_size,
       c.pause_seconds, c.exclusive, c.start_at, c.stop_at, c.created_at, c.started_at, c.ended_at, c.due_at,
       c.released, c.stopped,
       coalesce(l.submitted, 0) AS submitted, coalesce(l.malformed, 0) AS malformed,
       coalesce(l.duplicates, 0) AS duplicates,
       l.deleted_at IS NOT NULL
       OR (c.batches > 0 AND NOT EXISTS (SELECT 1 FROM outcomes AS o WHERE o.campaign = c.id)) AS details_deleted,
       coalesce((
         SELECT jsonb_object_agg(key, recipients) FROM (
           SELECT key, sum(value::int)::int AS recipients FROM batches AS b, jsonb_each_text(b.counts)
           WHERE b.campaign = c.id GROUP BY key) AS counted), '{}') AS outcomes
FROM campaigns AS c LEFT JOIN lists AS l ON l.id = c.list
WHERE c.campaign_id = %(campaign)s AND (%(shop)s::text IS NULL OR c.shop = %(shop)s) ORDER BY c.shop
"""


@dataclass(frozen=True)
class ReportRow:
    """The result of one recipient, in the words of the totals; numbers are not masked."""

    to: str | None
    batch: int | None
    outcome: str
    reason: str
    code: int | None
    until: datetime | None


# Counting these rows by outcome gives the totals.
REPORT = """
SELECT coalesce(r.phone, r.user_id) AS to, o.batch, CASE
         WHEN o.outcome = 'requested' THEN 'waiting'
         WHEN o.outcome = 'suppressed' THEN 'skipped'
         WHEN o.outcome IS NOT NULL THEN o.outcome
         WHEN r.skip_reason IN ('malformed_number', 'duplicate_number') THEN 'skipped'
         WHEN c.state IN ('cancelling', 'cancelled') THEN 'cancelled'
         WHEN c.stopped OR c.released THEN 'skipped' ELSE 'waiting' END AS outcome,
       CASE WHEN o.outcome IS NOT NULL THEN o.reason
         WHEN r.skip_reason IN ('malformed_number', 'duplicate_number') THEN r.skip_reason
         WHEN c.state IN ('cancelling', 'cancelled') THEN '' WHEN c.stopped THEN 'stopped' WHEN c.released THEN 'erased'
         ELSE '' END AS reason, o.code, o.until
FROM campaigns AS c JOIN recipients AS r ON r.list = c.list
LEFT JOIN outcomes AS o ON o.campaign = c.id AND o.position = r.position
WHERE c.id = %(id)s ORDER BY r.position
"""
