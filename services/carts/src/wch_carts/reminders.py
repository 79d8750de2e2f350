"""ReminderSection: a scan takes idle carts up, each is looked at again and asked for, and what came of it is noted."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import structlog

from wch_carts.carts import SOURCE, is_before, recover
from wch_carts.identity import cart_uuid, parsed_key, send_key
from wch_carts.topology import REQUESTER
from wch_common.events.carts import (
    ReminderFailed,
    ReminderRequested,
    ReminderScanRequested,
    ReminderSent,
    ReminderSkipped,
)
from wch_common.events.whatsapp import (
    MessageAccepted,
    MessageCancelled,
    MessageDelivered,
    MessageFailed,
    MessageRead,
    MessageRequested,
    MessageSuppressed,
    MessageUnknown,
    RetryRequested,
)

if TYPE_CHECKING:
    from wch_carts.settings import CartsShop, ReminderSection
    from wch_common.contract.event import Event, EventData
    from wch_common.integrations.shops import Shops
    from wch_common.store.database import Row
    from wch_common.store.store import Transaction

log = structlog.get_logger(__name__)

CHUNK = 500
_NOW = "SELECT now() AS now"
# By array, so that the carts found are updated by their key however many there are. Idle by the fact's time, and known here
# for as long: a shop whose clock is behind would have people reminded who are still at it.
CLAIM = """
UPDATE carts SET remindable = false WHERE id = ANY(ARRAY(
  SELECT id FROM carts WHERE shop = %(shop)s AND status = 'active' AND remindable
  AND idle_since <= now() - %(delay)s * interval '1 hour' AND idle_since > now() - %(oldest)s * interval '1 hour'
  AND updated_at <= now() - %(delay)s * interval '1 hour' AND expires_at >= now() AND (remind_after IS NULL OR remind_after <= now())
  ORDER BY idle_since LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)) RETURNING id, cart_id, filled_version AS period
"""
_NOTE_CLAIMS = """
INSERT INTO reminders AS r (cart, period, shop, state)
SELECT cart, period, %(shop)s, 'claimed' FROM unnest(%(ids)s::uuid[], %(periods)s::bigint[]) AS new (cart, period)
ON CONFLICT (cart, period) DO UPDATE SET state = 'claimed', tries = r.tries + 1, changed_at = now()
WHERE r.state IN ('claimed', 'skipped', 'failed')
"""
_CART = "SELECT *, now() AS now FROM carts WHERE id = %(id)s FOR UPDATE"
# One that has no answer for so long may be asked for again: its request or its answer was lost, and the send key holds.
_REMINDER = """
SELECT state, in_ledger, state = 'sent' OR (state = 'asked' AND changed_at > now() - interval '6 hours') AS is_under_way
FROM reminders WHERE cart = %(id)s AND period = %(period)s
"""
_NOTE = """
INSERT INTO reminders AS r (cart, period, shop, state, reason, requester)
VALUES (%(id)s, %(period)s, %(shop)s, %(state)s, %(reason)s, %(requester)s)
ON CONFLICT (cart, period) DO UPDATE SET state = excluded.state, reason = excluded.reason, requester = excluded.requester, rank = 0,
  taken_back = false, changed_at = now()
"""
_TAKE_UP = "UPDATE carts SET remindable = false WHERE id = %(id)s"
_GIVE_BACK = "UPDATE carts SET remindable = true WHERE id = %(id)s AND filled_version = %(period)s"
# A fact of an earlier attempt, or one that comes before another of the same, is old news.
_OUTCOME = """
WITH before AS (SELECT state FROM reminders WHERE cart = %(id)s AND period = %(period)s)
UPDATE reminders AS r SET state = %(state)s, reason = %(reason)s, attempt = %(attempt)s, rank = %(rank)s,
       in_ledger = r.in_ledger OR %(in_ledger)s, changed_at = now(),
       sent_at = CASE WHEN %(state)s = 'sent' THEN coalesce(r.sent_at, now()) ELSE r.sent_at END
FROM before
WHERE r.cart = %(id)s AND r.period = %(period)s AND (r.attempt, r.rank) < (%(attempt)s, %(rank)s)
RETURNING r.requester, r.tries, before.state AS was
"""
# What is known of it once the cart was emptied starts no clock: its owner has answered.
_SENT = """
UPDATE carts SET reminder_sent_at = coalesce(reminder_sent_at, now())
WHERE id = %(id)s AND filled_version = %(period)s AND item_count > 0
"""
_NOT_SENT = """
UPDATE carts SET reminder_sent_at = NULL, remindable = %(passes)s AND status = 'active' AND item_count > 0 AND phone IS NOT NULL,
       remind_after = now() + %(wait)s * interval '1 second'
WHERE id = %(id)s AND filled_version = %(period)s RETURNING remindable
"""
# Failures that pass, or are mended; all others are the recipient's own, or may have been sent.
PASSING: Final = frozenset({
    "meta_failed", "meta_unavailable", "meta_unreachable", "number_in_maintenance", "template_syncing", "media_host_failed",
    "flow_throttled", "expired", "template_missing", "template_paused", "template_rejected", "template_disabled",
    "template_not_eligible", "template_values_wrong", "not_a_marketing_template", "marketing_switched_off", "flow_blocked",
    "request_refused", "refused",
})  # fmt: skip
_FIRST_WAIT, _LONGEST_WAIT = 900.0, 6 * 3600.0


@dataclass(frozen=True)
class Said:
    """What a fact of whatsapp says of a reminder; of two of one attempt the one of higher rank holds."""

    state: str
    rank: int
    reason: str = ""


def said(data: EventData) -> Said:
    """Read a fact of whatsapp."""
    match data:
        case MessageAccepted():
            return Said("sent", 2)
        case MessageDelivered():
            return Said("sent", 4)
        case MessageRead():
            return Said("sent", 5)
        case MessageFailed(reason=reason):
            return Said("failed", 3, reason)
        case MessageSuppressed(reason=reason) | MessageCancelled(reason=reason):
            return Said("skipped", 3, reason)
        case MessageUnknown():
            return Said("failed", 1, "unknown")
        case _:
            raise TypeError(f"{type(data).__name__} says nothing of a message")


class Reminders:
    """The handlers of scans, of reminders, and of what whatsapp says of them."""

    def __init__(self, shops: Shops[CartsShop]) -> None:
        self._shops = shops

    async def scan(self, event: Event[ReminderScanRequested], tx: Transaction) -> None:
        """Take a chunk of idle carts up, one request for each; the next chunk is an event of its own."""
        shop, reminding = self._shops.key(event.shop), self._shops.named(event.shop).carts
        if reminding.quiet.are_on((await tx.rows(_NOW))[0]["now"]):
            log.info("no_reminders_in_quiet_hours", shop=shop)
            return
        span = {"delay": reminding.delay_hours, "oldest": reminding.oldest_hours}
        found = await tx.rows(CLAIM, {"shop": shop, "limit": CHUNK} | span)
        if not found:
            return
        ids, periods = [row["id"] for row in found], [row["period"] for row in found]
        await tx.rows(_NOTE_CLAIMS, {"shop": shop, "ids": ids, "periods": periods})
        for row in found:
            request = ReminderRequested(cart_id=row["cart_id"], version=row["period"])
            tx.emit(event.derive(request, SOURCE, key=send_key(row["id"], row["period"])))
        if len(found) == CHUNK:
            tx.emit(event.derive(ReminderScanRequested(), SOURCE))

    async def remind(self, event: Event[ReminderRequested], tx: Transaction) -> None:
        """Look at a cart again and ask whatsapp for its reminder, or tell why not."""
        data, reminding = event.data, self._shops.named(event.shop).carts
        shop = self._shops.key(event.shop)
        id_ = cart_uuid(shop, data.cart_id)
        cart = next(iter(await tx.rows(_CART, {"id": id_})), None)
        period = data.version if data.version is not None else (cart and cart["filled_version"]) or 0
        names = {"id": id_, "period": period, "shop": shop, "requester": event.requester or ""}
        known = next(iter(await tx.rows(_REMINDER, names)), None)
        if event.source == SOURCE and known is not None and known["is_under_way"]:
            return  # the scan's request came twice, or somebody else asked for it in between
        reason = "no_such_cart" if cart is None else _why_not(cart, period, known, reminding)
        if cart is not None and reason is None:
            await self._ask(event, tx, cart, names, again=known is not None and known["in_ledger"])
            return
        tx.emit(event.derive(ReminderSkipped(cart_id=data.cart_id, version=period, reason=reason or ""), SOURCE))
        if known is not None and known["state"] == "claimed":
            await tx.rows(_NOTE, names | {"state": "skipped", "reason": reason})
            if reason == "quiet_hours":
                await tx.rows(_GIVE_BACK, names)

    async def _ask(
        self, event: Event[ReminderRequested], tx: Transaction, cart: Row, names: dict[str, Any], *, again: bool
    ) -> None:
        """Ask whatsapp for the reminder; where its ledger has it as failed, to try it again under the same key, as it says now."""
        reminding = self._shops.named(event.shop).carts
        key, expires_at = send_key(names["id"], names["period"]), _until(cart, reminding)
        message = reminding.reminder_text.filled(cart)
        await tx.rows(_NOTE, names | {"state": "asked", "reason": ""})
        await tx.rows(_TAKE_UP, names)
        request: MessageRequested | RetryRequested
        if again:
            request = RetryRequested(send_keys=(key,), expires_at=expires_at, message=message)
        else:
            request = MessageRequested(
                to=cart["phone"],
                send_key=key,
                category="marketing",
                message=message,
                expires_at=expires_at,
            )
        tx.emit(event.derive(request, SOURCE, key=key, requester=REQUESTER))

    async def outcome(self, event: Event[Any], tx: Transaction) -> None:
        """Note what became of a reminder, and whether its cart may be reminded of again."""
        found, what = parsed_key(event.data.send_key), said(event.data)
        if found is None:
            log.warning("outcome_of_nothing", send_key=event.data.send_key)
            return
        names: dict[str, Any] = {"id": found[0], "period": found[1]}
        cart = next(iter(await tx.rows(_CART, names)), None)  # in this order everywhere: the cart, then its reminder
        before_order = cart is not None and is_before(event.time, cart["ordered_at"])
        changed = await tx.rows(
            _OUTCOME,
            names
            | {"state": what.state, "reason": what.reason, "rank": what.rank, "attempt": event.data.attempt}
            | {"in_ledger": bool(event.data.message_id)},
        )
        if cart is not None and before_order and what.state == "sent":
            await recover(event, tx, cart, f"{cart['order_total'].normalize():f}")
        if not changed:
            return
        again = False
        if what.state == "sent":
            await tx.rows(_SENT, names)
        else:
            passes = what.state == "failed" and what.reason in PASSING
            given_back = await tx.rows(_NOT_SENT, names | {"passes": passes, "wait": _wait(changed[0]["tries"])})
            again = any(row["remindable"] for row in given_back)
        if cart is not None and changed[0]["was"] != what.state:
            _tell(event, tx, cart["cart_id"], names["period"], what, changed[0]["requester"], again=again)


def _why_not(cart: Row, period: int, known: Row | None, reminding: ReminderSection) -> str | None:
    """Return why a cart's owner is not reminded now, or None."""
    reasons = (
        ("deleted", cart["status"] == "deleted"),
        ("bought", cart["status"] == "completed"),
        ("emptied", cart["item_count"] == 0),
        ("changed", cart["filled_version"] != period),
        ("already_reminded", known is not None and known["is_under_way"]),
        (cart["flaw"].partition(":")[0], cart["phone"] is None),
        ("expired", cart["expires_at"] < cart["now"]),
        ("too_old", cart["idle_since"] + timedelta(hours=reminding.oldest_hours) <= cart["now"]),
        ("quiet_hours", reminding.quiet.are_on(cart["now"])),
    )
    return next((reason for reason, applies in reasons if applies), None)


def _until(cart: Row, reminding: ReminderSection) -> datetime:
    """Return until when a reminder is worth sending: while the cart is there and not too old, and before it is quiet again."""
    oldest: datetime = min(cart["idle_since"] + timedelta(hours=reminding.oldest_hours), cart["expires_at"])
    quiet = reminding.quiet.next_begin(cart["now"])
    return min(oldest, quiet) if quiet else oldest


def _wait(tries: int) -> float:
    return min(_LONGEST_WAIT, _FIRST_WAIT * 2.0**tries)


def _tell(
    event: Event[Any], tx: Transaction, cart_id: str, period: int, what: Said, requester: str, *, again: bool
) -> None:
    fact: ReminderSent | ReminderSkipped | ReminderFailed
    if what.state == "sent":
        fact = ReminderSent(cart_id=cart_id, version=period)
    elif what.state == "skipped":
        fact = ReminderSkipped(cart_id=cart_id, version=period, reason=what.reason)
    else:
        fact = ReminderFailed(cart_id=cart_id, version=period, reason=what.reason, again=again)
    tx.emit(event.derive(fact, SOURCE, requester=requester))


def reminder_dead_lettered(event: Event[ReminderRequested], reason: str) -> ReminderFailed:
    """Tell that a request for a reminder was refused, or could not be done; only what a scan took up is taken up again."""
    del reason  # it is in the dead letter
    data = event.data
    return ReminderFailed(
        cart_id=data.cart_id, version=data.version or 0, reason="dead_lettered", again=event.source == SOURCE
    )
