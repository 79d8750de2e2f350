"""Handlers of requests to send: each message becomes a row of the ledger, and the sender sends it later."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson

from wch_common.contract.personal import ERASED
from wch_common.events.failure_reasons import REFUSED, failure_reason
from wch_common.events.recipient import MalformedRecipient, names_in
from wch_common.events.whatsapp import BatchCompleted, BatchRequested, MessageFailed, MessageRequested, RecipientOutcome
from wch_common.integrations.recipients import requested, resolved
from wch_common.outcome import Reject, Throttled
from wch_whatsapp import bodies, queries
from wch_whatsapp.facts import REPORTED, SOURCE, batch_completed, fact_data
from wch_whatsapp.identity import batch_id, message_id
from wch_whatsapp.ledger import complete, join_batch, members, request_alone

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from wch_common.contract.event import Event
    from wch_common.events.recipient import Recipient
    from wch_common.events.whatsapp import BatchRecipient
    from wch_common.integrations.recipients import PersonHash
    from wch_common.integrations.shops import Shops
    from wch_common.store.store import Transaction
    from wch_whatsapp.settings import WhatsAppShop

_FULL_SECONDS = 60.0
_REFUSED = failure_reason(REFUSED)


@dataclass(frozen=True)
class NewMessage:
    """A row for the ledger: queued to be sent, or in a final state with the reason."""

    id: UUID
    send_key: str
    recipient: Recipient | None
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
        person_hash: PersonHash,
        *,
        expiry_seconds: float,
        nudge: Callable[[str], None],
        full: Callable[[str], str | None] = lambda _shop: None,
    ) -> None:
        self._shops = shops
        self._person_hash = person_hash
        self._expiry = timedelta(seconds=expiry_seconds)
        self._nudge = nudge
        self._full = full

    async def message(self, event: Event[MessageRequested], tx: Transaction) -> None:
        """Accept one message; if its key is known, publish the known result instead. Raises Reject or Throttled."""
        data, shop = event.data, self._shops.key(event.shop)
        sender = self._sender(shop, data.sender)
        id_ = message_id(shop, event.requester or "", data.send_key)
        if data.to == ERASED:
            row = self._erased(id_, data.send_key)
        else:
            to = requested(data.to, "data.to", self._shops.named(event.shop).whatsapp.region)
            try:
                content = bodies.content(data.message, reply_to=data.reply_to)
                fallback = bodies.fallback(data.fallback) if data.fallback else None
            except bodies.UnfitValues as error:
                raise Reject(f"data.message: {error}") from None
            row = NewMessage(id_, data.send_key, to, self._person_hash.of(to.names[0]), content, fallback)
        if not await tx.rows(queries.ADD_MESSAGES, self._values(event, sender, [row])) or row.state in REPORTED:
            known = await request_alone(tx, id_)
            if known["state"] in REPORTED:
                tx.emit(event.derive(fact_data(known), SOURCE, key="known"))
        tx.then(partial(self._nudge, sender))

    async def batch(self, event: Event[BatchRequested], tx: Transaction) -> None:
        """Accept a batch; an invalid recipient fails alone. Raises Reject or Throttled."""
        data, shop = event.data, self._shops.key(event.shop)
        sender = self._sender(shop, data.sender)
        id_ = batch_id(shop, event.requester or "", data.batch_id)
        names = self._names(event) | {"id": id_, "batch_id": data.batch_id}
        added = await tx.rows(queries.ADD_BATCH, names)
        if not added:
            await self._report_known(event, tx, id_)
            return
        rows = [self._recipient(event, shop, one, cancelled=added[0]["cancelled"]) for one in data.recipients]
        inserted = await tx.rows(queries.ADD_MESSAGES, self._values(event, sender, rows, batch=id_))
        own = {row["id"] for row in inserted}
        open_ = sum(row["state"] == "queued" for row in inserted)
        if others := [row.id for row in rows if row.id not in own]:
            open_ += await join_batch(tx, id_, others)
        (batch,) = await tx.rows(queries.SET_OPEN, {"id": id_, "open": open_})
        if not open_:
            await complete(tx, batch)
        tx.then(partial(self._nudge, sender))

    async def _report_known(self, event: Event[BatchRequested], tx: Transaction, id_: UUID) -> None:
        """Publish the results of a batch that was requested before, if it is complete."""
        (batch,) = await tx.rows(queries.FIND_BATCH, {"id": id_})
        if batch["completed_at"] is not None:
            known = batch_completed(batch, await members(tx, batch))
            tx.emit(event.derive(known.data, SOURCE, key="known"))

    def _sender(self, shop: str, requested: str | None) -> str:
        """Return the number to send from; raises Reject if it does not belong to the shop."""
        if (reason := self._full(shop)) is not None:
            # Only the requests of this shop wait.
            raise Throttled(reason, scope=f"accepting/{shop}", after=_FULL_SECONDS)
        known = self._shops.named(shop or None).whatsapp.phone_number_ids
        if requested is not None and requested not in known:
            raise Reject(f"data.sender: the shop does not send from {requested}; it has {', '.join(known)}")
        return requested or known[0]

    def _recipient(
        self, event: Event[BatchRequested], shop: str, one: BatchRecipient, *, cancelled: str | None
    ) -> NewMessage:
        id_ = message_id(shop, event.requester or "", one.send_key)
        if one.to == ERASED:
            return self._erased(id_, one.send_key)
        try:
            to = resolved(one.to, self._shops.named(event.shop).whatsapp.region)
        except MalformedRecipient as error:
            row = NewMessage(id_, one.send_key, None, self._person_hash.of(names_in(one.to)[0]))
            return replace(row, state="failed", reason="malformed_number", detail=str(error))
        row = NewMessage(id_, one.send_key, to, self._person_hash.of(to.names[0]), own_values=_has_values(one))
        if event.data.values_required and one.body is None:
            return replace(row, state="failed", reason="value_missing", detail="the recipient has no values")
        template = event.data.fallback
        try:
            content = bodies.content(event.data.message, own=one)
            fallback = bodies.fallback(template, one) if template else None
        except bodies.UnfitValues as error:
            return replace(row, state="failed", reason=error.reason, detail=str(error))
        row = replace(row, content=content, fallback=fallback)
        return row if cancelled is None else replace(row, state="cancelled", reason=cancelled)

    def _erased(self, id_: UUID, send_key: str) -> NewMessage:
        """Return the row of a message whose recipient was erased while its request waited."""
        return NewMessage(id_, send_key, None, self._person_hash.of(ERASED), state="failed", reason="erased")

    def _further_person(self, recipient: Recipient | None, place: int) -> bytes | None:
        """Return the hash of the second or third name of a recipient who has so many."""
        names = recipient.names if recipient is not None else ()
        return self._person_hash.of(names[place]) if place < len(names) else None

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
        rows: Sequence[NewMessage],
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
            "phones": [row.recipient and row.recipient.phone for row in rows],
            "user_ids": [row.recipient and (row.recipient.user_id or row.recipient.parent_id) for row in rows],
            "persons": [row.person for row in rows],
            "other_persons": [self._further_person(row.recipient, 1) for row in rows],
            "third_persons": [self._further_person(row.recipient, 2) for row in rows],
            "contents": [_json(row.content) for row in rows],
            "fallbacks": [_json(row.fallback) for row in rows],
            "own_values": [row.own_values for row in rows],
            "states": [row.state for row in rows],
            "reasons": [row.reason for row in rows],
            "details": [row.detail for row in rows],
        }


def _has_values(one: BatchRecipient) -> bool:
    return bool(one.body or one.header or one.buttons)


def _json(content: dict[str, Any] | None) -> str | None:
    return None if content is None else orjson.dumps(content).decode()


def message_dead_lettered(event: Event[MessageRequested], reason: str) -> MessageFailed | None:
    """Return the fact for a message whose request is dead-lettered before it is in the ledger."""
    if not isinstance(event.data, MessageRequested):
        return None
    return MessageFailed(
        send_key=event.data.send_key,
        message_id="",
        reason=REFUSED,
        concerns=_REFUSED.concerns,
        retryable=_REFUSED.retryable,
        detail=reason[:500],
    )


def batch_dead_lettered(event: Event[BatchRequested], reason: str) -> BatchCompleted:
    """Return the fact for a batch whose request is dead-lettered: every recipient failed for that reason."""
    outcomes = tuple(
        RecipientOutcome(
            send_key=one.send_key,
            outcome="failed",
            reason=REFUSED,
            concerns=_REFUSED.concerns,
            retryable=_REFUSED.retryable,
            detail=reason[:200],
        )
        for one in event.data.recipients
    )
    return BatchCompleted(batch_id=event.data.batch_id, recipients=outcomes)
