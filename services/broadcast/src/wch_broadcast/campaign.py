"""A campaign: read under a lock, changed in memory, written once, with the events it publishes."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

from wch_broadcast import queries
from wch_broadcast.identity import event_id
from wch_broadcast.topology import REQUESTER
from wch_broadcast.totals import CampaignCounts, campaign_totals
from wch_common.contract.event import Event, EventData

if TYPE_CHECKING:
    from uuid import UUID

    from wch_common.events.broadcast import CampaignTotals
    from wch_common.store.store import Transaction

SOURCE: Final = "/wch/broadcast"
SERVICE: Final = "broadcast"
"""The `by` of a campaign that paused itself."""
FINAL: Final = frozenset({"completed", "cancelled", "failed"})
"""States in which a campaign releases nothing; a failed campaign can be resumed."""
D = TypeVar("D", bound=EventData)


@dataclass
class Campaign:
    """One row, locked until the transaction ends; `now` is the database's clock."""

    id: UUID
    shop: str
    campaign_id: str
    requester: str
    request: dict[str, Any]
    hash: bytes
    list: UUID
    exclusive: bool
    batch_size: int
    pause_seconds: float
    start_at: datetime | None
    stop_at: datetime | None
    correlationid: str | None
    causationid: str | None
    created_at: datetime
    now: datetime
    list_complete_at: datetime | None
    list_deleted_at: datetime | None
    submitted: int
    malformed: int
    duplicates: int
    with_values: int
    """Recipients of the list that have values of their own."""
    # `save` writes the following fields:
    state: str
    cause: str
    changed_by: str
    cursor: int
    batches: int
    released: bool
    stopped: bool
    share_from_batch: int
    facts: int
    next_batch_at: datetime | None
    due_at: datetime | None
    progressed_at: datetime
    requested_again_at: datetime | None
    reported_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None

    @property
    def is_final(self) -> bool:
        """Whether it has ended."""
        return self.state in FINAL

    @property
    def values_required(self) -> bool:
        """Whether a recipient without values is a gap in the list: the template gives none, and most of the list has some."""
        message = self.request["message"]
        is_empty = message.get("kind", "template") == "template" and not message.get("body")
        return bool(is_empty and 2 * self.with_values > self.submitted - self.malformed - self.duplicates)

    @property
    def counts(self) -> CampaignCounts:
        """What its totals depend on besides outcomes."""
        return CampaignCounts(self.state, self.submitted, self.malformed, self.duplicates, self.released, self.stopped)

    def change_state(self, state: str, cause: str = "", by: str = "") -> None:
        """Change to another state; no step is due until something sets `due_at`."""
        self.state, self.cause, self.changed_by = state, cause, by
        self.due_at = None
        self.note_progress()
        if state in FINAL:
            self.ended_at = self.now

    def note_progress(self) -> None:
        """Note that the campaign is not stuck."""
        self.progressed_at, self.requested_again_at = self.now, None

    def publish(self, tx: Transaction, data: EventData) -> None:
        """Publish a fact to the requester of the campaign, with the commit."""
        self.facts += 1
        tx.emit(self._event(data, self.facts, self.requester))

    def request_whatsapp(self, tx: Transaction, data: EventData, key: object) -> None:
        """Publish a request to whatsapp, with the commit; `key` is unique among the campaign's requests of its type."""
        tx.emit(self._event(data, key, REQUESTER))

    def _event(self, data: D, key: object, requester: str) -> Event[D]:
        return Event(
            id=event_id(self.id, data.TYPE, key),
            source=SOURCE,
            type=data.TYPE,
            data=data,
            time=datetime.now(UTC),
            subject=data.subject(),
            shop=self.shop or None,
            requester=requester or None,
            correlationid=self.correlationid,
            causationid=self.causationid,
        )


_NAMES = [one.name for one in fields(Campaign)]
_WRITTEN = _NAMES[_NAMES.index("state") :]
_CHANGES = ", ".join(f"{name} = %({name})s" for name in _WRITTEN)
_SAVE = f"UPDATE campaigns SET {_CHANGES} WHERE id = %(id)s"  # noqa: S608 - names of fields


async def locked(tx: Transaction, id_: UUID) -> Campaign | None:
    """Read a campaign and lock it until the transaction ends; None if it does not exist."""
    rows = await tx.rows(queries.LOCK_CAMPAIGN, {"id": id_})
    if not rows:
        return None
    # Read after the lock was acquired, as waiting for it takes time.
    row = rows[0] | (await tx.rows(queries.CLOCK))[0]
    return Campaign(**{name: row[name] for name in _NAMES})


async def save(tx: Transaction, campaign: Campaign) -> None:
    """Write the fields that may have changed."""
    await tx.rows(_SAVE, {name: getattr(campaign, name) for name in ("id", *_WRITTEN)})


async def totals(tx: Transaction, campaign: Campaign) -> CampaignTotals:
    """Return the totals of a campaign."""
    rows = await tx.rows(queries.COUNTS, {"id": campaign.id})
    return campaign_totals(campaign.counts, {row["key"]: row["recipients"] for row in rows})
