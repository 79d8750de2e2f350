"""Lists of recipients: parts are added in any order, each person counts once, and what is wrong with one is kept beside it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import orjson

from wch_broadcast.campaign import SOURCE, as_json
from wch_broadcast.identity import list_uuid
from wch_common.events.broadcast import RecipientsAdded, RecipientsRefused
from wch_common.integrations.phone import MalformedNumber, normalised, one_form
from wch_common.outcome import Reject

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from wch_broadcast.settings import BroadcastShop
    from wch_common.contract.event import Event
    from wch_common.events.broadcast import CampaignRecipient, RecipientsRequested
    from wch_common.integrations.shops import Shops
    from wch_common.store.database import Row
    from wch_common.store.store import Transaction

PART_SIZE = 1000
_ADD_LIST = "INSERT INTO lists (id, shop, list_id) VALUES (%(id)s, %(shop)s, %(list_id)s) ON CONFLICT DO NOTHING"
# Locked, so that the parts of one list are added one after the other.
_LIST = """
SELECT parts, complete_at, (SELECT max(part) FROM list_parts WHERE list = lists.id) AS last FROM lists WHERE id = %(id)s FOR UPDATE
"""
_PART = "SELECT hash FROM list_parts WHERE list = %(id)s AND part = %(part)s"
_ADD_PART = "INSERT INTO list_parts (list, part, hash) VALUES (%(id)s, %(part)s, %(hash)s)"
# In the order of people, so that nobody waits for somebody who waits for them.
_ADD = """
INSERT INTO recipients (list, position, phone, person, own)
SELECT DISTINCT ON (new.person) %(id)s, new.position, new.phone, new.person, new.own::jsonb
FROM unnest(%(positions)s::int[], %(phones)s::text[], %(people)s::text[], %(owns)s::text[])
  AS new (position, phone, person, own)
ORDER BY new.person, new.position
ON CONFLICT (list, person) WHERE flaw IS NULL DO NOTHING RETURNING position
"""
_ADD_FLAWED = """
INSERT INTO recipients (list, position, phone, person, flaw)
SELECT %(id)s, position, phone, person, flaw
FROM unnest(%(positions)s::int[], %(phones)s::text[], %(people)s::text[], %(flaws)s::text[])
  AS new (position, phone, person, flaw)
"""
_COUNT = """
UPDATE lists SET given = given + %(given)s, malformed = malformed + %(malformed)s, duplicates = duplicates + %(duplicates)s,
       parts = coalesce(parts, %(parts)s),
       complete_at = CASE WHEN (SELECT count(*) FROM list_parts WHERE list = %(id)s) = coalesce(parts, %(parts)s) THEN now() END
WHERE id = %(id)s RETURNING *
"""
_WAKE = "UPDATE campaigns SET due_at = now() WHERE list = %(id)s AND state = 'waiting' AND cause = 'list_incomplete'"


class Lists:
    """The handler of `broadcast.recipients.requested`, and the adding of recipients that come with their campaign."""

    def __init__(self, shops: Shops[BroadcastShop], nudge: Callable[[], None]) -> None:
        self._shops = shops
        self._nudge = nudge

    async def part(self, event: Event[RecipientsRequested], tx: Transaction) -> None:
        """Add one part; a part that is there already is not added again."""
        data, shop = event.data, self._shops.key(event.shop)
        id_ = list_uuid(shop, data.list_id)
        known = await self._opened(tx, id_, shop, data.list_id)
        hash_ = _hash(data.recipients)
        before = await tx.rows(_PART, {"id": id_, "part": data.part})
        if before:
            if bytes(before[0]["hash"]) != hash_:
                raise Reject(f"data.part: the list {data.list_id} has another part {data.part} already")
            return
        if known["complete_at"] is not None:
            raise Reject(f"data.list_id: the list {data.list_id} is complete; give a longer one another name")
        _refuse_unfit(data, known)
        row = await self._added(tx, id_, event.shop, data.part, data.recipients, parts=data.parts)
        if row["complete_at"] is not None:
            counts = {name: row[name] for name in ("malformed", "duplicates")}
            told = RecipientsAdded(list_id=data.list_id, recipients=row["given"], **counts)
            tx.emit(event.derive(told, SOURCE))
            await tx.rows(_WAKE, {"id": id_})
            tx.then(self._nudge)

    async def with_campaign(
        self, tx: Transaction, id_: UUID, shop: str | None, recipients: Sequence[CampaignRecipient]
    ) -> None:
        """Make a campaign's own list, complete at once."""
        await self._opened(tx, id_, self._shops.key(shop), "")
        await self._added(tx, id_, shop, 1, recipients, parts=1)

    async def _opened(self, tx: Transaction, id_: UUID, shop: str, list_id: str) -> Row:
        await tx.rows(_ADD_LIST, {"id": id_, "shop": shop, "list_id": list_id})
        return (await tx.rows(_LIST, {"id": id_}))[0]

    async def _added(
        self,
        tx: Transaction,
        id_: UUID,
        shop: str | None,
        part: int,
        recipients: Sequence[CampaignRecipient],
        *,
        parts: int | None,
    ) -> Row:
        """Add recipients and count them; returns the list."""
        region = self._shops.named(shop).whatsapp.region
        good, flawed = _sorted(part * PART_SIZE, recipients, region)
        names = {"id": id_, "part": part, "parts": parts, "hash": _hash(recipients)}
        added = {row["position"] for row in await tx.rows(_ADD, names | _columns(good, "owns"))} if good else set()
        twice = [(place, phone, person, "duplicate_number") for place, phone, person, _ in good if place not in added]
        if flawed or twice:
            await tx.rows(_ADD_FLAWED, names | _columns([*flawed, *twice], "flaws"))
        await tx.rows(_ADD_PART, names)
        counts = {"given": len(recipients), "malformed": len(flawed), "duplicates": len(twice)}
        return (await tx.rows(_COUNT, names | counts))[0]


def _refuse_unfit(data: RecipientsRequested, known: Row) -> None:
    """Refuse a part that does not fit what is known of its list: how many parts it has, and the last that is there."""
    parts, last = known["parts"] or data.parts, known["last"] or 0
    if data.parts not in (None, parts):
        raise Reject(f"data.parts: the list {data.list_id} was said to have {parts} parts, not {data.parts}")
    if parts is not None and data.part > parts:
        raise Reject(f"data.part: the list {data.list_id} has {parts} parts, so that there is no part {data.part}")
    if parts is not None and last > parts:
        raise Reject(f"data.parts: the list {data.list_id} has a part {last} already, so that it has more than {parts}")


Place = tuple[int, str | None, str | None, str | None]


def _sorted(first: int, recipients: Sequence[CampaignRecipient], region: str | None) -> tuple[list[Place], list[Place]]:
    """Tell numbers that can be written to from those that cannot; each with position, phone, person, and values or flaw."""
    good: list[Place] = []
    flawed: list[Place] = []
    for position, one in enumerate(recipients, first):
        try:
            phone = normalised(one.to, region)
        except MalformedNumber:
            flawed.append((position, None, None, "malformed_number"))
        else:
            good.append((position, phone, one_form(phone), _own(one)))
    return good, flawed


def _own(one: CampaignRecipient) -> str | None:
    own = one.model_dump(mode="json", exclude={"to"}, exclude_none=True)
    return orjson.dumps(own).decode() if own else None


def _columns(places: Sequence[Place], last: str) -> dict[str, list[Any]]:
    positions, phones, people, rest = (list(column) for column in zip(*places, strict=True))
    return {"positions": positions, "phones": phones, "people": people, last: rest}


def refused(event: Event[RecipientsRequested], reason: str) -> RecipientsRefused:
    """Tell that a part of a list was refused."""
    return RecipientsRefused(list_id=event.data.list_id, part=event.data.part, reason=reason[:500])


def _hash(recipients: Sequence[CampaignRecipient]) -> bytes:
    return hashlib.blake2b(as_json([one.model_dump(mode="json") for one in recipients]), digest_size=16).digest()
