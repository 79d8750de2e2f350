"""Taking back, trying again, and whom not to write to: the requests that change what was accepted."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
from psycopg.types.json import Jsonb

from wch_common.integrations.phone import MalformedNumber, normalised
from wch_common.observability.redact import redact
from wch_common.outcome import Reject
from wch_whatsapp import people
from wch_whatsapp.bodies import content as content_of
from wch_whatsapp.identity import batch_id, message_id
from wch_whatsapp.ledger import SOURCE, TOLD, Change, Why, apply, fact_data, find, is_told_alone, tell_batches_again

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
    from wch_whatsapp.identity import People
    from wch_whatsapp.settings import WhatsAppShop

log = structlog.get_logger(__name__)

# A cancellation that comes before its request: the request finds its key taken.
_CANCELLED_BEFORE = """
INSERT INTO messages (id, shop, requester, send_key, sender, person, category, state, expires_at, reason, causationid)
VALUES (%(id)s, %(shop)s, %(requester)s, %(send_key)s, '', '', '', 'cancelled', now(), %(reason)s, %(causationid)s)
ON CONFLICT (id) DO NOTHING RETURNING id
"""
_CANCEL_BATCH = """
INSERT INTO batches (id, shop, requester, batch_id, open, asked, cancelled)
VALUES (%(id)s, %(shop)s, %(requester)s, %(batch_id)s, 0, false, %(reason)s)
ON CONFLICT (id) DO UPDATE SET cancelled = coalesce(batches.cancelled, excluded.cancelled) RETURNING *
"""
# Also where a call is under way, was taken or has failed: should the message come back from it, or be tried again, it is not sent.
_CANCEL = """
UPDATE messages SET cancelled = %(reason)s WHERE (id = %(id)s OR batch = %(id)s) AND state IN (
  'queued', 'sending', 'in_doubt', 'accepted', 'unknown', 'failed')
"""
_OF_BATCH = "SELECT id FROM messages WHERE batch = %(id)s AND state = 'queued' ORDER BY id FOR UPDATE"
# A person's marketing limit is not tried again within a day: tries themselves are punished. What was taken back never is, also
# where the taking back was faster than this.
_RETRY = """
UPDATE messages SET state = 'queued', failures = 0, attempt = attempt + 1, wamid = NULL, reason = '', code = NULL, detail = '', as_fallback = false,
  content = coalesce(%(content)s::jsonb, content),
  expires_at = coalesce(%(expires_at)s::timestamptz, greatest(expires_at, now() + %(expiry)s * interval '1 second')),
  due_at = CASE WHEN reason = 'marketing_limit' THEN greatest(now(), updated_at + interval '24 hours') ELSE now() END,
  updated_at = now()
WHERE id = ANY(%(ids)s) AND state = 'failed' AND phone IS NOT NULL AND coalesce(%(content)s::jsonb, content) IS NOT NULL
AND cancelled IS NULL RETURNING id, sender
"""

_NOBODY = """
UPDATE messages SET reason = 'forgotten', code = NULL, updated_at = now() WHERE id = ANY(%(ids)s) AND state = 'failed' AND phone IS NULL
AND reason <> 'malformed_number'
"""


class Control:
    """The handlers of cancellations, retries and suppressions."""

    def __init__(
        self, shops: Shops[WhatsAppShop], known: People, *, expiry_seconds: float, nudge: Callable[[str], None]
    ) -> None:
        self._shops = shops
        self._people = known
        self._expiry_seconds = expiry_seconds
        self._nudge = nudge

    async def cancel_message(self, event: Event[MessageCancelRequested], tx: Transaction) -> None:
        """Take a message back that is not under way; one under way is answered by its outcome."""
        shop, requester, data = self._shops.key(event.shop), event.requester or "", event.data
        id_, reason = message_id(shop, requester, data.send_key), data.reason or "cancelled"
        names = {"shop": shop, "requester": requester, "send_key": data.send_key, "causationid": event.id}
        if await tx.rows(_CANCELLED_BEFORE, names | {"id": id_, "reason": reason}):
            return
        await tx.rows(_CANCEL, {"id": id_, "reason": reason})
        await apply(tx, [Change(id_, "cancelled", why=Why(reason))], before=("queued",))

    async def cancel_batch(self, event: Event[BatchCancelRequested], tx: Transaction) -> None:
        """Take back what is not under way of a batch."""
        shop, requester, data = self._shops.key(event.shop), event.requester or "", event.data
        id_, reason = batch_id(shop, requester, data.batch_id), data.reason or "cancelled"
        names = {"id": id_, "shop": shop, "requester": requester, "batch_id": data.batch_id, "reason": reason}
        await tx.rows(_CANCEL_BATCH, names)
        await tx.rows(_CANCEL, {"id": id_, "reason": reason})
        rows = await tx.rows(_OF_BATCH, {"id": id_})
        await apply(tx, [Change(row["id"], "cancelled", why=Why(reason)) for row in rows], before=("queued",))

    async def retry(self, event: Event[RetryRequested], tx: Transaction) -> None:
        """Try failed messages again; all others are answered with what became of them."""
        shop, requester = self._shops.key(event.shop), event.data.of or event.requester or ""
        ids = [message_id(shop, requester, key) for key in event.data.send_keys]
        names = {"ids": ids, "expiry": self._expiry_seconds, "expires_at": event.data.expires_at}
        content = content_of(event.data.message) if event.data.message else None
        await tx.rows(_NOBODY, names)
        rows = await tx.rows(_RETRY, names | {"content": Jsonb(content) if content else None})
        again = {row["id"] for row in rows}
        others = [row for id_, row in (await find(tx, ids)).items() if id_ not in again and row["state"] in TOLD]
        await tell_batches_again(tx, others)
        for row in others:
            if is_told_alone(row):
                tx.emit(event.derive(fact_data(row), SOURCE, key=row["send_key"]))
        for sender in {row["sender"] for row in rows}:
            tx.then(partial(self._nudge, sender))

    async def suppress(self, event: Event[SuppressionAddRequested], tx: Transaction) -> None:
        """Write to a person no more."""
        data = event.data
        await people.suppress(tx, self._who(event), data.category, reason=data.reason, by=data.by)

    async def release(self, event: Event[SuppressionRemoveRequested], tx: Transaction) -> None:
        """Write to a person again."""
        await people.release(tx, self._who(event), event.data.category)
        said = {"category": event.data.category, "by": event.data.by, "reason": redact(event.data.reason, 200)}
        tx.then(partial(log.info, "suppression_removed", **said))

    def _who(self, event: Event[Any]) -> dict[str, Any]:
        try:
            phone = normalised(event.data.phone, self._shops.named(event.shop).whatsapp.region)
        except MalformedNumber as error:
            raise Reject(f"data.phone: {error}") from None
        return {"shop": self._shops.key(event.shop), "phone": phone, "person": self._people.person(phone)}
