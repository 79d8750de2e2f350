"""Lists of recipients: parts arrive in any order, each person counts once, and unusable recipients keep a reason."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import orjson

from wch_broadcast import queries
from wch_broadcast.campaign import SOURCE
from wch_broadcast.identity import content_hash, list_uuid
from wch_broadcast.queries import ListState
from wch_common.contract.personal import ERASED
from wch_common.events.broadcast import RecipientsAdded, RecipientsRefused
from wch_common.events.recipient import MalformedRecipient
from wch_common.integrations.recipients import one_form, resolved
from wch_common.outcome import Reject
from wch_common.store.erased_people import as_published

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from wch_broadcast.settings import BroadcastShop
    from wch_common.contract.event import Event
    from wch_common.events.broadcast import CampaignRecipient, RecipientsRequested
    from wch_common.events.recipient import Recipient
    from wch_common.integrations.shops import Shops
    from wch_common.store.database import Row
    from wch_common.store.store import Transaction

PART_SIZE = 1000


class Lists:
    """The handler of `broadcast.recipients.requested`, and the list of a campaign that brings its recipients."""

    def __init__(self, shops: Shops[BroadcastShop], nudge: Callable[[], None]) -> None:
        self._shops = shops
        self._nudge = nudge

    async def part(self, event: Event[RecipientsRequested], tx: Transaction) -> None:
        """Add one part of a list; a part that was added before is ignored."""
        data, shop = event.data, self._shops.key(event.shop)
        id_ = list_uuid(shop, data.list_id)
        known = await self._locked(tx, id_, shop, data.list_id)
        hash_ = _hash(as_published(event).recipients)
        before = await tx.rows(queries.PART_HASH, {"id": id_, "part": data.part})
        if before:
            if bytes(before[0]["hash"]) != hash_:
                raise Reject(f"data.part: the list {data.list_id} already has another part {data.part}")
            return
        if known.complete_at is not None:
            raise Reject(f"data.list_id: the list {data.list_id} is complete; upload a longer list under another name")
        _refuse_unfit(data, known)
        row = await self._add(tx, id_, event.shop, data.part, data.recipients, parts=data.parts, hash_=hash_)
        if row["complete_at"] is not None:
            counts = {name: row[name] for name in ("malformed", "duplicates")}
            tx.emit(event.derive(RecipientsAdded(list_id=data.list_id, recipients=row["submitted"], **counts), SOURCE))
            await tx.rows(queries.LOCK_LIST_CHECK, {"id": id_})
            await tx.rows(queries.WAKE_CAMPAIGNS_OF_LIST, {"id": id_})
            tx.then(self._nudge)

    async def with_campaign(
        self, tx: Transaction, id_: UUID, shop: str | None, recipients: Sequence[CampaignRecipient]
    ) -> None:
        """Add the complete list of a campaign that brings its recipients."""
        await self._locked(tx, id_, self._shops.key(shop), "")
        await self._add(tx, id_, shop, 1, recipients, parts=1, hash_=_hash(recipients))

    async def _locked(self, tx: Transaction, id_: UUID, shop: str, list_id: str) -> ListState:
        await tx.rows(queries.ADD_LIST, {"id": id_, "shop": shop, "list_id": list_id})
        (known,) = await tx.typed(ListState, queries.LOCK_LIST, {"id": id_})
        return known

    async def _add(
        self,
        tx: Transaction,
        id_: UUID,
        shop: str | None,
        part: int,
        recipients: Sequence[CampaignRecipient],
        *,
        parts: int | None,
        hash_: bytes,
    ) -> Row:
        """Add recipients and count them; returns the list."""
        region = self._shops.named(shop).whatsapp.region
        usable, skipped = _classified(part * PART_SIZE, recipients, region)
        names = {"id": id_, "part": part, "parts": parts, "hash": hash_}
        added: set[int] = set()
        if usable:
            rows = await tx.rows(queries.ADD_RECIPIENTS, names | _columns(usable))
            added = {row["position"] for row in rows}
        duplicates = [replace(one, skip_reason="duplicate_number") for one in usable if one.position not in added]
        if skipped or duplicates:
            await tx.rows(queries.ADD_SKIPPED_RECIPIENTS, names | _columns([*skipped, *duplicates]))
        await tx.rows(queries.ADD_PART, names)
        counts = {
            "submitted": len(recipients),
            "malformed": sum(one.skip_reason == "malformed_number" for one in skipped),
            "duplicates": len(duplicates),
        }
        first = part * PART_SIZE
        counts["with_values"] = sum(recipients[place - first].body is not None for place in added)
        return (await tx.rows(queries.COUNT_PART, names | counts))[0]


def _refuse_unfit(data: RecipientsRequested, known: ListState) -> None:
    """Raise Reject for a part that contradicts the number of parts of its list, or the parts that are already there."""
    parts, last = known.parts or data.parts, known.last or 0
    if data.parts not in (None, parts):
        raise Reject(f"data.parts: an earlier part gave the list {data.list_id} {parts} parts, not {data.parts}")
    if parts is not None and data.part > parts:
        raise Reject(f"data.part: the list {data.list_id} has {parts} parts, so it cannot have a part {data.part}")
    if parts is not None and last > parts:
        raise Reject(
            f"data.parts: the list {data.list_id} already has a part {last}, so it has more than {parts} parts"
        )


@dataclass(frozen=True)
class Placed:
    """A recipient at a position of a list, with own values, or with the reason to skip them."""

    position: int
    to: Recipient | None = None
    own_values: str | None = None
    skip_reason: str | None = None

    @property
    def person(self) -> str | None:
        """What identifies the recipient."""
        return one_form(self.to.names[0]) if self.to else None


def _classified(
    first: int, recipients: Sequence[CampaignRecipient], region: str | None
) -> tuple[list[Placed], list[Placed]]:
    """Return the usable recipients and the others; the first has the position `first`."""
    usable: list[Placed] = []
    skipped: list[Placed] = []
    for position, one in enumerate(recipients, first):
        if one.to == ERASED:
            skipped.append(Placed(position, skip_reason="erased"))
            continue
        try:
            usable.append(Placed(position, resolved(one.to, region), own_values=_own_values(one)))
        except MalformedRecipient:
            skipped.append(Placed(position, skip_reason="malformed_number"))
    return usable, skipped


def _own_values(one: CampaignRecipient) -> str | None:
    values = one.model_dump(mode="json", exclude={"to"}, exclude_none=True)
    return orjson.dumps(values).decode() if values else None


def _columns(placed: Sequence[Placed]) -> dict[str, list[Any]]:
    return {
        "positions": [one.position for one in placed],
        "phones": [one.to and one.to.phone for one in placed],
        "user_ids": [one.to and (one.to.user_id or one.to.parent_id) for one in placed],
        "persons": [one.person for one in placed],
        "own_values": [one.own_values for one in placed],
        "skip_reasons": [one.skip_reason for one in placed],
    }


def part_dead_lettered(event: Event[RecipientsRequested], reason: str) -> RecipientsRefused:
    """Return the fact about a part of a list that was dead-lettered."""
    return RecipientsRefused(list_id=event.data.list_id, part=event.data.part, reason=reason[:500])


def _hash(recipients: Sequence[CampaignRecipient]) -> bytes:
    return content_hash([one.model_dump(mode="json") for one in recipients])
