"""Handlers of reminders: a scan claims idle carts, each is checked again and requested, and its result is stored."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from wch_carts import queries
from wch_carts.carts import is_not_after, publish_recovery
from wch_carts.identity import cart_uuid, parsed_key, send_key
from wch_carts.links import names_of_owner
from wch_carts.queries import ChangedReminder, KnownReminder, OtherCarts
from wch_carts.reminder_decisions import (
    ReminderResult,
    reminder_result,
    retry_wait_seconds,
    send_until,
    skip_reason,
)
from wch_carts.topology import REQUESTER, SOURCE
from wch_common.events.carts import (
    ReminderFailed,
    ReminderRequested,
    ReminderScanRequested,
    ReminderSent,
    ReminderSkipped,
)
from wch_common.events.failure_reasons import failure_reason
from wch_common.events.recipient import to_field
from wch_common.events.whatsapp import MessageRequested, RetryRequested

if TYPE_CHECKING:
    from wch_carts.metrics import CartMetrics
    from wch_carts.settings import CartsShop, ReminderSection
    from wch_common.contract.event import Event
    from wch_common.integrations.shops import Shops
    from wch_common.store.database import Row
    from wch_common.store.store import Transaction

log = structlog.get_logger(__name__)

CHUNK = 500
_DEAD_LETTERED = "dead_lettered"
_LIMIT = "hourly_limit"
# The cause passes: a later scan tries again.
_LATER = ("quiet_hours", "reminded_recently", _LIMIT)


class Reminders:
    """Handlers of scans, of reminder requests, and of whatsapp's facts about them."""

    def __init__(self, shops: Shops[CartsShop], metrics: CartMetrics) -> None:
        self._shops = shops
        self._metrics = metrics

    async def scan(self, event: Event[ReminderScanRequested], tx: Transaction) -> None:
        """Claim a chunk of idle carts and publish one request for each; the next chunk is an event of its own."""
        shop, section = self._shops.key(event.shop), self._shops.named(event.shop).carts
        if section.quiet.are_on((await tx.rows(queries.NOW))[0]["now"]):
            log.info("scan_skipped_in_quiet_hours", shop=shop)
            return
        idle = {"shop": shop, "delay": section.delay_hours, "oldest": section.oldest_hours}
        limit = min(CHUNK, await self._room(tx, shop, section))
        if not limit and await tx.rows(queries.ANY_IDLE_CART, idle):
            tx.then(partial(self._report_limit, shop, section.most_per_hour))
        found = await tx.rows(queries.CLAIM_IDLE_CARTS, idle | {"limit": limit}) if limit else []
        if not found:
            return
        ids, periods = [row["id"] for row in found], [row["period"] for row in found]
        await tx.rows(queries.ADD_CLAIMS, {"shop": shop, "ids": ids, "periods": periods})
        for row in found:
            request = ReminderRequested(cart_id=row["cart_id"], version=row["period"])
            tx.emit(event.derive(request, SOURCE, key=send_key(row["id"], row["period"])))
        if len(found) == CHUNK:
            tx.emit(event.derive(ReminderScanRequested(), SOURCE))

    async def _room(self, tx: Transaction, shop: str, section: ReminderSection) -> int:
        """Return how many more reminders of a shop may be requested within this hour; scans of a shop wait for each other."""
        await tx.rows(queries.LOCK_SHOP, {"shop": shop})
        (requested,) = await tx.rows(queries.REQUESTED_THIS_HOUR, {"shop": shop})
        return max(0, section.most_per_hour - int(requested["reminders"]))

    def _report_limit(self, shop: str, most: int) -> None:
        self._metrics.alert(_LIMIT)
        log.error("reminder_limit_reached", shop=shop, most_per_hour=most)

    async def remind(self, event: Event[ReminderRequested], tx: Transaction) -> None:
        """Check a cart again and request its reminder from whatsapp, or publish why it is skipped."""
        data, section = event.data, self._shops.named(event.shop).carts
        shop = self._shops.key(event.shop)
        id_ = cart_uuid(shop, data.cart_id)
        cart = next(iter(await tx.rows(queries.LOCK_CART, {"id": id_})), None)
        period = data.version if data.version is not None else (cart and cart["filled_version"]) or 0
        owner = {"names": [], "person": None, "user_id": None} if cart is None else await names_of_owner(tx, cart)
        names = {"id": id_, "period": period, "shop": shop, "requester": event.requester or ""} | owner
        known = next(iter(await tx.typed(KnownReminder, queries.REMINDER, names)), None)
        if event.source == SOURCE and known is not None and known.in_progress:
            return  # the scan's request is a duplicate, or another requester was faster
        others = OtherCarts() if cart is None else await _other_carts(tx, cart | owner, period, section)
        reason = "no_such_cart" if cart is None else skip_reason(cart, period, known, others, section)
        if reason is None and event.source != SOURCE and not await self._room(tx, shop, section):
            reason = _LIMIT
            tx.then(partial(self._report_limit, shop, section.most_per_hour))
        if cart is not None and reason is None:
            await self._request(event, tx, cart, names, retry=known is not None and known.in_ledger)
            return
        tx.emit(event.derive(ReminderSkipped(cart_id=data.cart_id, version=period, reason=reason or ""), SOURCE))
        if known is not None and known.state == "claimed":
            await tx.rows(queries.SET_REMINDER, names | {"state": "skipped", "reason": reason})
            if reason in _LATER:
                not_before = others.not_before if reason == "reminded_recently" else None
                await tx.rows(queries.MARK_REMINDABLE, names | {"not_before": not_before})

    async def _request(
        self, event: Event[ReminderRequested], tx: Transaction, cart: Row, names: dict[str, Any], *, retry: bool
    ) -> None:
        """Request the reminder from whatsapp; `retry` a failed one under the same key, with the current text."""
        section = self._shops.named(event.shop).carts
        key, expires_at = send_key(names["id"], names["period"]), send_until(cart, section)
        message = section.reminder_text.filled(cart)
        await tx.rows(queries.SET_REMINDER, names | {"state": "requested", "reason": ""})
        await tx.rows(queries.MARK_UNREMINDABLE, names)
        request: MessageRequested | RetryRequested
        if retry:
            request = RetryRequested(send_keys=(key,), expires_at=expires_at, message=message)
        else:
            request = MessageRequested(
                to=to_field(cart["phone"], cart["user_id"]),
                send_key=key,
                category="marketing",
                message=message,
                expires_at=expires_at,
                as_of=cart["updated_at"],
            )
        tx.emit(event.derive(request, SOURCE, key=key, requester=REQUESTER))

    async def result(self, event: Event[Any], tx: Transaction) -> None:
        """Store the result of a reminder, publish it, and decide whether the cart may be reminded of again."""
        found, result = parsed_key(event.data.send_key), reminder_result(event.data)
        if found is None:
            log.warning("result_without_reminder", send_key=event.data.send_key)
            return
        names: dict[str, Any] = {"id": found[0], "period": found[1]}
        # Every handler locks the cart before its reminder.
        cart = next(iter(await tx.rows(queries.LOCK_CART, names)), None)
        values = {"state": result.state, "reason": result.reason, "rank": result.rank, "attempt": event.data.attempt}
        values |= names | {"in_ledger": bool(event.data.message_id)}
        changed = next(iter(await tx.typed(ChangedReminder, queries.APPLY_RESULT, values)), None)
        if cart is not None and result.state == "sent" and is_not_after(event.time, cart["ordered_at"]):
            await publish_recovery(event, tx, cart, f"{cart['order_total'].normalize():f}")
        if changed is None:
            return
        will_retry = await _update_cart(tx, names, result, changed)
        if cart is not None and changed.was != result.state:
            fact = _fact(cart["cart_id"], names["period"], result, will_retry=will_retry)
            tx.emit(event.derive(fact, SOURCE, requester=changed.requester))


async def _other_carts(tx: Transaction, cart: Row, period: int, section: ReminderSection) -> OtherCarts:
    """Return what the other carts of the owner say, and lock the owner until the transaction ends."""
    if cart["person"] is None:
        return OtherCarts()
    await tx.rows(queries.LOCK_PERSON, cart)
    of_person = {name: cart[name] for name in ("shop", "names", "id", "idle_since")}
    names = of_person | {"period": period, "hours": section.person_hours}
    return (await tx.typed(OtherCarts, queries.OTHERS_OF_PERSON, names))[0]


async def _update_cart(
    tx: Transaction, names: dict[str, Any], result: ReminderResult, changed: ChangedReminder
) -> bool:
    """Write a result into the cart; returns whether a later scan tries again."""
    if result.state == "sent":
        await tx.rows(queries.MARK_SENT, names)
        return False
    values = names | {"retryable": result.tries_again, "wait": retry_wait_seconds(changed.tries)}
    return any(row["remindable"] for row in await tx.rows(queries.MARK_NOT_SENT, values))


def _fact(
    cart_id: str, period: int, result: ReminderResult, *, will_retry: bool
) -> ReminderSent | ReminderSkipped | ReminderFailed:
    if result.state == "sent":
        return ReminderSent(cart_id=cart_id, version=period)
    if result.state == "skipped":
        return ReminderSkipped(cart_id=cart_id, version=period, reason=result.reason)
    return ReminderFailed(
        cart_id=cart_id,
        version=period,
        reason=result.reason,
        concerns=result.concerns,
        retryable=result.retryable,
        will_retry=will_retry,
    )


def reminder_dead_lettered(event: Event[ReminderRequested], reason: str) -> ReminderFailed:
    """Return the fact about a dead-lettered reminder request; only a scan's request is tried again, by a later scan."""
    del reason  # the dead letter has it
    data, known = event.data, failure_reason(_DEAD_LETTERED)
    return ReminderFailed(
        cart_id=data.cart_id,
        version=data.version or 0,
        reason=_DEAD_LETTERED,
        concerns=known.concerns,
        retryable=known.retryable,
        will_retry=event.source == SOURCE,
    )
