"""A campaign as it stands: read under a lock, changed in memory, written once, and told as facts."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

import orjson

from wch_broadcast.identity import event_id
from wch_broadcast.topology import REQUESTER
from wch_broadcast.totals import CampaignCounts
from wch_common.contract.event import Event, EventData

if TYPE_CHECKING:
    from uuid import UUID

    from wch_common.store.store import Transaction

SOURCE: Final = "/wch/broadcast"
FINAL: Final = frozenset({"completed", "cancelled", "failed"})
"""States in which nothing is begun any more; a failed one can be resumed."""
D = TypeVar("D", bound=EventData)
_LOCK = """
SELECT c.*, l.complete_at AS list_complete_at, l.deleted_at AS list_deleted_at, coalesce(l.given, 0) AS given,
       coalesce(l.malformed, 0) AS malformed, coalesce(l.duplicates, 0) AS duplicates
FROM campaigns AS c LEFT JOIN lists AS l ON l.id = c.list WHERE c.id = %(id)s FOR UPDATE OF c
"""


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
    given: int
    malformed: int
    duplicates: int
    # What changes:
    state: str
    cause: str
    said_by: str
    cursor: int
    batches: int
    released: bool
    stopped: bool
    share_from: int
    told: int
    next_batch_at: datetime | None
    due_at: datetime | None
    moved_at: datetime
    taken_up_at: datetime | None
    told_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None

    @property
    def is_final(self) -> bool:
        """Whether it has ended."""
        return self.state in FINAL

    @property
    def counts(self) -> CampaignCounts:
        """What its totals rest upon."""
        return CampaignCounts(self.state, self.given, self.malformed, self.duplicates, self.released, self.stopped)

    def move(self, state: str, cause: str = "", by: str = "") -> None:
        """Go over to another state, to be looked at no more unless something says when."""
        self.state, self.cause, self.said_by = state, cause, by
        self.due_at, self.moved_at, self.taken_up_at = None, self.now, None
        if state in FINAL:
            self.ended_at = self.now

    def tell(self, tx: Transaction, data: EventData) -> None:
        """Tell a fact to who asked for the campaign, with the commit."""
        self.told += 1
        tx.emit(self._event(data, f"{data.TYPE}\n{self.told}", self.requester))

    def ask(self, tx: Transaction, data: EventData, what: str) -> None:
        """Ask the whatsapp service, with the commit; `what` names the request among all of the campaign's."""
        tx.emit(self._event(data, f"{data.TYPE}\n{what}", REQUESTER))

    def _event(self, data: D, name: str, requester: str) -> Event[D]:
        return Event(
            id=event_id(self.id, name),
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


_CHANGING = [one.name for one in fields(Campaign)]
_CHANGING = _CHANGING[_CHANGING.index("state") :]
_SAVE = f"UPDATE campaigns SET {', '.join(f'{name} = %({name})s' for name in _CHANGING)} WHERE id = %(id)s"  # noqa: S608 - names of this module


async def locked(tx: Transaction, id_: UUID) -> Campaign | None:
    """Read a campaign and keep others from it until the transaction ends."""
    rows = await tx.rows(_LOCK, {"id": id_})
    if not rows:
        return None
    # Asked after the lock was had, which may have been waited for.
    row = rows[0] | (await tx.rows("SELECT clock_timestamp() AS now"))[0]
    return Campaign(**{one.name: row[one.name] for one in fields(Campaign)})


async def save(tx: Transaction, campaign: Campaign) -> None:
    """Write what changed."""
    await tx.rows(_SAVE, {name: getattr(campaign, name) for name in ("id", *_CHANGING)})


def as_json(value: Any) -> bytes:  # noqa: ANN401 - whatever JSON holds
    """Return canonical JSON."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
