"""Handlers of the requests that change accepted messages and suppressions."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
from psycopg.types.json import Jsonb

from wch_common.events.failure_reasons import reasons_with
from wch_common.integrations.recipients import requested_person
from wch_common.observability.redact import redact
from wch_common.outcome import Reject
from wch_whatsapp import queries
from wch_whatsapp.bodies import UnfitValues
from wch_whatsapp.bodies import content as content_of
from wch_whatsapp.changes import Change, StateReason
from wch_whatsapp.facts import REPORTED, SOURCE, fact_data
from wch_whatsapp.identity import batch_id, message_id
from wch_whatsapp.ledger import apply, find, is_reported_alone, report_again
from wch_whatsapp.suppressions import suppress, suppressible, unsuppress, without_erased

if TYPE_CHECKING:
    from collections.abc import Callable

    from wch_common.contract.event import Event
    from wch_common.events.whatsapp import (
        BatchCancelRequested,
        MessageCancelRequested,
        RetryRequested,
        SuppressionAddRequested,
        SuppressionRemoveRequested,
    )
    from wch_common.integrations.shops import Shops
    from wch_common.store.store import Transaction
    from wch_whatsapp.people import People
    from wch_whatsapp.settings import WhatsAppShop

log = structlog.get_logger(__name__)


class Control:
    """The handlers of cancellations, retries and suppressions."""

    def __init__(
        self,
        shops: Shops[WhatsAppShop],
        people: People,
        *,
        expiry_seconds: float,
        nudge: Callable[[str], None],
    ) -> None:
        self._shops = shops
        self._people = people
        self._expiry_seconds = expiry_seconds
        self._nudge = nudge

    async def cancel_message(self, event: Event[MessageCancelRequested], tx: Transaction) -> None:
        """Cancel a queued message; a message in a call is reported by its outcome."""
        shop, requester, data = self._shops.key(event.shop), event.requester or "", event.data
        id_, reason = message_id(shop, requester, data.send_key), data.reason or "cancelled"
        names = {"shop": shop, "requester": requester, "send_key": data.send_key, "causationid": event.id}
        if await tx.rows(queries.CANCEL_IN_ADVANCE, names | {"id": id_, "reason": reason}):
            return
        await tx.rows(queries.MARK_CANCELLED, {"id": id_, "reason": reason})
        await apply(tx, [Change(id_, "cancelled", reason=StateReason(reason))], before=("queued",))

    async def cancel_batch(self, event: Event[BatchCancelRequested], tx: Transaction) -> None:
        """Cancel the queued messages of a batch."""
        shop, requester, data = self._shops.key(event.shop), event.requester or "", event.data
        id_, reason = batch_id(shop, requester, data.batch_id), data.reason or "cancelled"
        names = {"id": id_, "shop": shop, "requester": requester, "batch_id": data.batch_id, "reason": reason}
        await tx.rows(queries.CANCEL_BATCH, names)
        await tx.rows(queries.MARK_CANCELLED, {"id": id_, "reason": reason})
        rows = await tx.rows(queries.LOCK_QUEUED_OF_BATCH, {"id": id_})
        changes = [Change(row["id"], "cancelled", reason=StateReason(reason)) for row in rows]
        await apply(tx, changes, before=("queued",))

    async def retry(self, event: Event[RetryRequested], tx: Transaction) -> None:
        """Queue failed messages again; the result of any other message is published again."""
        shop, requester = self._shops.key(event.shop), event.data.keys_of or event.requester or ""
        ids = [message_id(shop, requester, key) for key in event.data.send_keys]
        names = {"ids": ids, "expiry": self._expiry_seconds, "expires_at": event.data.expires_at}
        try:
            content = content_of(event.data.message) if event.data.message else None
        except UnfitValues as error:
            raise Reject(f"data.message: {error}") from None
        await tx.rows(queries.NAME_ERASED, names)
        values = {"content": Jsonb(content) if content else None, "waiting_a_day": reasons_with("waits_a_day")}
        rows = await tx.rows(queries.RETRY, names | values)
        retried = {row["id"] for row in rows}
        others = [row for id_, row in (await find(tx, ids)).items() if id_ not in retried and row["state"] in REPORTED]
        await report_again(tx, others)
        for row in others:
            if is_reported_alone(row):
                tx.emit(event.derive(fact_data(row), SOURCE, key=row["send_key"]))
        for sender in {row["sender"] for row in rows}:
            tx.then(partial(self._nudge, sender))

    async def suppress(self, event: Event[SuppressionAddRequested], tx: Transaction) -> None:
        """Suppress a recipient; raises Reject if the number or id is malformed."""
        data = event.data
        for name in await without_erased(tx, self._names(event), event.time):
            await suppress(tx, name, data.category, reason=data.reason, by=data.by)

    async def unsuppress(self, event: Event[SuppressionRemoveRequested], tx: Transaction) -> None:
        """Remove a suppression; raises Reject if the number or id is malformed."""
        portfolio = self._people.portfolio(self._shops.named(event.shop).whatsapp.phone_number_ids[0])
        for name in self._names(event):
            await unsuppress(tx, name, event.data.category, portfolio)
        details = {"category": event.data.category, "by": event.data.by, "reason": redact(event.data.reason, 200)}
        tx.then(partial(log.info, "suppression_removed", **details))

    def _names(self, event: Event[SuppressionAddRequested] | Event[SuppressionRemoveRequested]) -> list[dict[str, Any]]:
        """Return what a suppression is stored under: every name that the request gives."""
        region = self._shops.named(event.shop).whatsapp.region
        about, shop = requested_person(event.data.phone, "data.phone", region), self._shops.key(event.shop)
        return suppressible(shop, self._people.names(about))
