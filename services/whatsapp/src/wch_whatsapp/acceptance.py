"""Accepting requests into the ledger: a row per message, committed with the inbox row; sending comes after."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson

from wch_common.events.whatsapp import BatchCompleted, BatchRequested, MessageFailed, MessageRequested, RecipientOutcome
from wch_common.integrations.phone import MalformedNumber, normalised
from wch_common.outcome import Reject, Throttled
from wch_whatsapp import bodies
from wch_whatsapp.identity import batch_id, message_id
from wch_whatsapp.ledger import SOURCE, TOLD, ask_alone, ask_also, batch_completed, complete, fact_data, members

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from wch_common.contract.event import Event
    from wch_common.events.whatsapp import Recipient
    from wch_common.integrations.shops import Shops
    from wch_common.store.store import Transaction
    from wch_whatsapp.identity import People
    from wch_whatsapp.settings import WhatsAppShop

_FULL_SECONDS = 60.0
_INSERT = """
INSERT INTO messages (id, shop, requester, send_key, sender, phone, person, category, content, fallback, own_values, batch,
                      state, due_at, expires_at, reason, detail, answered, correlationid, causationid)
SELECT new.id, %(shop)s, %(requester)s, new.send_key, %(sender)s, new.phone, new.person, %(category)s, new.content::jsonb,
       new.fallback::jsonb, new.own_values, %(batch)s::uuid, new.state,
       CASE WHEN new.state = 'queued' THEN greatest(now(), %(not_before)s::timestamptz) END, %(expires_at)s::timestamptz, new.reason, new.detail,
       %(batch)s::uuid IS NOT NULL AND new.state <> 'queued', %(correlationid)s, %(causationid)s
FROM unnest(%(ids)s::uuid[], %(send_keys)s::text[], %(phones)s::text[], %(people)s::bytea[], %(contents)s::text[],
            %(fallbacks)s::text[], %(own_values)s::bool[], %(states)s::text[], %(reasons)s::text[],
            %(details)s::text[])
  AS new (id, send_key, phone, person, content, fallback, own_values, state, reason, detail)
ORDER BY new.id
ON CONFLICT (id) DO NOTHING RETURNING id, state
"""
_ADD_BATCH = """
INSERT INTO batches (id, shop, requester, batch_id, open, asked, correlationid, causationid)
VALUES (%(id)s, %(shop)s, %(requester)s, %(batch_id)s, 0, true, %(correlationid)s, %(causationid)s)
ON CONFLICT (id) DO UPDATE SET asked = true, correlationid = excluded.correlationid, causationid = excluded.causationid
WHERE NOT batches.asked RETURNING *
"""
_FIND_BATCH = "SELECT * FROM batches WHERE id = %(id)s"
_OPEN_BATCH = "UPDATE batches SET open = %(open)s WHERE id = %(id)s RETURNING *"


@dataclass(frozen=True)
class Message:
    """One row to be: where it goes, or why it does not."""

    id: UUID
    send_key: str
    phone: str | None
    person: bytes
    content: dict[str, Any] | None = None
    fallback: dict[str, Any] | None = None
    own_values: bool = False
    state: str = "queued"
    reason: str = ""
    detail: str = ""


class Acceptance:
    """The handlers of `whatsapp.message.requested` and `whatsapp.batch.requested`."""

    def __init__(
        self,
        shops: Shops[WhatsAppShop],
        people: People,
        *,
        expiry_seconds: float,
        nudge: Callable[[str], None],
        full: Callable[[str], str | None] = lambda _shop: None,
    ) -> None:
        self._shops = shops
        self._people = people
        self._expiry = timedelta(seconds=expiry_seconds)
        self._nudge = nudge
        self._full = full

    async def message(self, event: Event[MessageRequested], tx: Transaction) -> None:
        """Accept one message; a key that was asked for before is answered from the ledger."""
        data, shop = event.data, self._shops.key(event.shop)
        sender = self._sender(shop, data.sender)
        try:
            phone = normalised(data.to, self._shops.named(event.shop).whatsapp.region)
        except MalformedNumber as error:
            raise Reject(f"data.to: {error}") from None
        id_ = message_id(shop, event.requester or "", data.send_key)
        content = bodies.content(data.message, reply_to=data.reply_to)
        fallback = bodies.fallback(data.fallback) if data.fallback else None
        row = Message(id_, data.send_key, phone, self._people.person(phone), content, fallback)
        if not await tx.rows(_INSERT, self._values(event, sender, [row])):
            known = await ask_alone(tx, id_)
            if known["state"] in TOLD:
                tx.emit(event.derive(fact_data(known), SOURCE, key="known"))
        tx.then(partial(self._nudge, sender))

    async def batch(self, event: Event[BatchRequested], tx: Transaction) -> None:
        """Accept a batch; what is wrong with one recipient is that recipient's answer."""
        data, shop = event.data, self._shops.key(event.shop)
        sender = self._sender(shop, data.sender)
        id_ = batch_id(shop, event.requester or "", data.batch_id)
        names = self._names(event) | {"id": id_, "batch_id": data.batch_id}
        added = await tx.rows(_ADD_BATCH, names)
        if not added:
            await self._answer_again(event, tx, id_)
            return
        rows = [self._recipient(event, shop, one, cancelled=added[0]["cancelled"]) for one in data.recipients]
        inserted = await tx.rows(_INSERT, self._values(event, sender, rows, batch=id_))
        mine = {row["id"] for row in inserted}
        open_ = sum(row["state"] == "queued" for row in inserted)
        if others := [row.id for row in rows if row.id not in mine]:
            open_ += await ask_also(tx, id_, others)
        (batch,) = await tx.rows(_OPEN_BATCH, {"id": id_, "open": open_})
        if not open_:
            await complete(tx, batch)
        tx.then(partial(self._nudge, sender))

    async def _answer_again(self, event: Event[BatchRequested], tx: Transaction, id_: UUID) -> None:
        """Answer a batch that was asked for before with what became of it, where all of it has an answer."""
        (batch,) = await tx.rows(_FIND_BATCH, {"id": id_})
        if batch["completed_at"] is not None:
            known = batch_completed(batch, await members(tx, batch))
            tx.emit(event.derive(known.data, SOURCE, key="known"))

    def _sender(self, shop: str, asked: str | None) -> str:
        """Return the number to send from; raises Reject for one that is not the shop's."""
        if (why := self._full(shop)) is not None:
            # Its own requests wait; other shops' do not.
            raise Throttled(why, scope=f"accepting/{shop}", after=_FULL_SECONDS)
        known = self._shops.named(shop or None).whatsapp.phone_number_ids
        if asked is not None and asked not in known:
            raise Reject(f"data.sender: the shop does not send from {asked}; it has {', '.join(known)}")
        return asked or known[0]

    def _recipient(self, event: Event[BatchRequested], shop: str, one: Recipient, *, cancelled: str | None) -> Message:
        id_ = message_id(shop, event.requester or "", one.send_key)
        try:
            phone = normalised(one.to, self._shops.named(event.shop).whatsapp.region)
        except MalformedNumber:
            unknown = self._people.person(one.to)
            return Message(id_, one.send_key, None, unknown, state="failed", reason="malformed_number")
        row = Message(id_, one.send_key, phone, self._people.person(phone), own_values=_has_values(one))
        try:
            content = bodies.content(event.data.message, own=one)
        except bodies.MissingValue as error:
            return replace(row, state="failed", reason="value_missing", detail=str(error))
        template = event.data.fallback
        row = replace(row, content=content, fallback=bodies.fallback(template, one) if template else None)
        return row if cancelled is None else replace(row, state="cancelled", reason=cancelled)

    def _names(self, event: Event[Any]) -> dict[str, Any]:
        return {
            "shop": self._shops.key(event.shop),
            "requester": event.requester or "",
            "correlationid": event.correlationid or event.id,
            "causationid": event.id,
        }

    def _values(
        self,
        event: Event[MessageRequested] | Event[BatchRequested],
        sender: str,
        rows: Sequence[Message],
        *,
        batch: UUID | None = None,
    ) -> dict[str, Any]:
        data = event.data
        return self._names(event) | {
            "sender": sender,
            "category": data.category,
            "batch": batch,
            "not_before": data.not_before,
            "expires_at": data.expires_at or event.expirytime or (data.not_before or datetime.now(UTC)) + self._expiry,
            "ids": [row.id for row in rows],
            "send_keys": [row.send_key for row in rows],
            "phones": [row.phone for row in rows],
            "people": [row.person for row in rows],
            "contents": [_json(row.content) for row in rows],
            "fallbacks": [_json(row.fallback) for row in rows],
            "own_values": [row.own_values for row in rows],
            "states": [row.state for row in rows],
            "reasons": [row.reason for row in rows],
            "details": [row.detail for row in rows],
        }


def _has_values(one: Recipient) -> bool:
    return bool(one.body or one.header or one.buttons)


def _json(content: dict[str, Any] | None) -> str | None:
    return None if content is None else orjson.dumps(content).decode()


def message_dead_lettered(event: Event[MessageRequested], reason: str) -> MessageFailed | None:
    """Tell that a request for a message was refused before the ledger knew it."""
    if not isinstance(event.data, MessageRequested):
        return None
    return MessageFailed(send_key=event.data.send_key, message_id="", reason="refused", detail=reason[:500])


def batch_dead_lettered(event: Event[BatchRequested], reason: str) -> BatchCompleted:
    """Tell that a request for a batch was refused: every recipient failed with it."""
    outcomes = tuple(
        RecipientOutcome(send_key=one.send_key, outcome="failed", reason=f"refused: {reason}"[:200])
        for one in event.data.recipients
    )
    return BatchCompleted(batch_id=event.data.batch_id, recipients=outcomes)
