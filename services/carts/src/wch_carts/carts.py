"""Handlers of the shop's facts: a cart has the state of the newest fact of each kind, in whatever order they arrive."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from psycopg.types.json import Jsonb

from wch_carts import queries
from wch_carts.identity import cart_uuid, send_key
from wch_carts.links import names_of_owner
from wch_carts.queries import LockedCart
from wch_carts.topology import REQUESTER, SOURCE
from wch_carts.versions import Versions
from wch_common.contract.personal import ERASED
from wch_common.events.carts import CartRecovered
from wch_common.events.recipient import MalformedRecipient, Recipient, is_id
from wch_common.events.whatsapp import MessageCancelRequested
from wch_common.integrations.recipients import one_form, resolved

if TYPE_CHECKING:
    from datetime import datetime

    from wch_carts.settings import CartsShop
    from wch_common.contract.event import Event
    from wch_common.events.shop import CartCompleted, CartDeleted, CartUpdated
    from wch_common.integrations.shops import Shops
    from wch_common.store.database import Row
    from wch_common.store.store import Transaction


class Carts:
    """Handlers of `shop.cart.updated`, `shop.cart.completed` and `shop.cart.deleted`."""

    def __init__(self, shops: Shops[CartsShop], *, expiry_hours: float) -> None:
        self._shops = shops
        self._expiry_hours = expiry_hours

    async def updated(self, event: Event[CartUpdated], tx: Transaction) -> None:
        """Store the cart's contents; a version older than the known one leaves them unchanged."""
        version, cart = event.data.version, await self._locked(event, tx)
        before = Versions.of(cart)
        filled = max(before.filled, version) if event.data.items else before.filled
        after = replace(before, updated=max(before.updated, version), filled=filled)
        if after == before:
            return
        is_newest = version > before.updated
        await _set_versions(tx, cart, after, keeps_abandoned=not is_newest)
        if is_newest and after.status != "deleted":
            await tx.rows(queries.SET_CONTENTS, {"id": cart.id} | self._values(event))
        if after.status == "completed" and is_newest:  # the order has arrived before the cart, which names the customer
            await _cancel_of_older_carts(event, tx, (await tx.rows(queries.LOCK_CART, {"id": cart.id}))[0])
        reason = "bought" if after.status == "completed" else "changed" if event.data.items else "emptied"
        await _cancel_reminders(event, tx, cart, after, reason if is_newest else "changed")

    async def completed(self, event: Event[CartCompleted], tx: Transaction) -> None:
        """Store the order, cancel a reminder that is not sent, and publish a recovery if one was."""
        data, cart = event.data, await self._locked(event, tx)
        before = Versions.of(cart)
        if data.version > before.ordered:
            after = replace(before, ordered=data.version)
            await _set_versions(tx, cart, after, keeps_abandoned=True)
            (row,) = await tx.rows(queries.SET_ORDER, {"id": cart.id, "time": event.time} | data.model_dump())
            await _cancel_reminders(event, tx, cart, after, "bought")
            await _cancel_of_older_carts(event, tx, row)
            await publish_recovery(event, tx, row, data.total)

    async def deleted(self, event: Event[CartDeleted], tx: Transaction) -> None:
        """Delete the cart's contents and cancel its reminder; an ordered cart is kept."""
        cart = await self._locked(event, tx)
        before = Versions.of(cart)
        after = replace(before, deleted=max(before.deleted, event.data.version))
        if after == before:
            return
        await _set_versions(tx, cart, after, keeps_abandoned=True)
        if after.status == "deleted":
            await tx.rows(queries.CLEAR_CONTENTS, {"id": cart.id})
            await _cancel_reminders(event, tx, cart, after, "deleted")

    async def _locked(
        self, event: Event[CartUpdated] | Event[CartCompleted] | Event[CartDeleted], tx: Transaction
    ) -> LockedCart:
        """Return the cart, added if it is unknown, and lock it until the transaction ends."""
        shop, data = self._shops.key(event.shop), event.data
        names = {"id": cart_uuid(shop, data.cart_id), "shop": shop, "cart_id": data.cart_id, "version": data.version}
        (cart,) = await tx.typed(LockedCart, queries.LOCK_OR_ADD_CART, names)
        return cart

    def _values(self, event: Event[CartUpdated]) -> dict[str, Any]:
        data = event.data
        phone, no_phone_reason = _number(data.phone, self._shops.named(event.shop).whatsapp.region)
        user_id = data.user_id if is_id(data.user_id) else None
        owner = phone or user_id
        # Without a number or an id the owner cannot be reminded, nor found to be erased; nothing about them is stored.
        address = data.shipping_address if owner else None
        consent = data.consent if owner else None
        return {
            "phone": phone,
            "user_id": user_id,
            "person": one_form(owner) if owner else None,
            "no_phone_reason": no_phone_reason,
            "customer_name": data.customer_name if owner else "",
            "items": Jsonb([item.model_dump(mode="json", exclude_none=True) for item in data.items]),
            "item_count": len(data.items),
            "total": data.total,
            "currency": data.currency,
            "coupon": data.coupon,
            "link": data.link if owner else "",
            "address": Jsonb(address.model_dump(mode="json", exclude_defaults=True)) if address else None,
            "consent": Jsonb(consent.model_dump(mode="json", exclude_defaults=True)) if consent else None,
            "time": event.time,
            "expiry": self._expiry_hours,
        }


def is_not_after(timestamp: datetime | None, ordered_at: datetime | None) -> bool:
    """Whether a fact's time is not after the time of the cart's order; False if either is unknown."""
    return timestamp is not None and ordered_at is not None and timestamp <= ordered_at


async def publish_recovery(event: Event[Any], tx: Transaction, cart: Row, total: str) -> None:
    """Publish, once, that an ordered cart was recovered, if its owner had been reminded of it."""
    # Erasing the owner removes the order's id.
    if cart["order_id"] is not None and await tx.rows(queries.MARK_RECOVERED, cart):
        fact = CartRecovered(
            cart_id=cart["cart_id"],
            order_id=cart["order_id"],
            total=total,
            currency=cart["order_currency"],
        )
        tx.emit(event.derive(fact, SOURCE, requester=""))


def _number(text: str | None, region: str | None) -> tuple[str | None, str]:
    """Return the number in E.164, or why there is none; the cart is kept in either case."""
    if not text:
        return None, "no_number"
    if text == ERASED:
        return None, "erased"
    try:
        return resolved(Recipient(phone=text), region).phone, ""
    except MalformedRecipient as error:
        return None, f"malformed_number: {error}"


async def _set_versions(tx: Transaction, cart: LockedCart, after: Versions, *, keeps_abandoned: bool) -> None:
    """Write the versions and the status that follows from them."""
    status = after.status
    if status == "active" and cart.status == "abandoned" and keeps_abandoned:
        status = "abandoned"
    await tx.rows(queries.SET_VERSIONS, {"id": cart.id, "status": status} | after.columns)


async def _cancel_reminders(event: Event[Any], tx: Transaction, cart: LockedCart, after: Versions, reason: str) -> None:
    """Request the cancellation of reminders about an earlier state of the cart; whatsapp sends those it has started."""
    names = {"id": cart.id, "period": after.remindable_period}
    for reminder in await tx.rows(queries.CANCEL_REMINDERS, names):
        _request_cancellation(event, tx, send_key(cart.id, reminder["period"]), reason)


async def _cancel_of_older_carts(event: Event[Any], tx: Transaction, ordered: Row) -> None:
    """Request the cancellation of reminders of the other carts that the customer left before they ordered this one."""
    if ordered["person"] is None:
        return
    owner = await names_of_owner(tx, ordered)
    await tx.rows(queries.LOCK_PERSON, ordered | owner)
    for reminder in await tx.rows(queries.CANCEL_REMINDERS_OF_PERSON, ordered | owner):
        _request_cancellation(event, tx, send_key(reminder["cart"], reminder["period"]), "bought")


def _request_cancellation(event: Event[Any], tx: Transaction, key: str, reason: str) -> None:
    tx.emit(event.derive(MessageCancelRequested(send_key=key, reason=reason), SOURCE, key=key, requester=REQUESTER))
