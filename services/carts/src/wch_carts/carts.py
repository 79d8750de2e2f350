"""The handlers of the shop's facts: a cart as it stands, in its newest version, in whatever order they come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg.types.json import Jsonb

from wch_carts.identity import cart_uuid, send_key
from wch_carts.topology import ASKER
from wch_common.events.carts import CartRecovered
from wch_common.events.whatsapp import MessageCancelRequested
from wch_common.phone import MalformedNumber, normalised, one_form

if TYPE_CHECKING:
    from uuid import UUID

    from wch_carts.settings import CartsShop
    from wch_common.event import Event
    from wch_common.events.shop import CartCompleted, CartDeleted, CartUpdated
    from wch_common.shops import Shops
    from wch_common.store.store import Transaction

SOURCE = "/wch/carts"
# A shop empties the cart that was ordered: that does not make it active again.
_UPDATE = """
INSERT INTO carts AS c (id, shop, cart_id, version, status, phone, person, flaw, customer_name, items, item_count, total,
                        currency, coupon, link, address, remindable, expires_at)
VALUES (%(id)s, %(shop)s, %(cart_id)s, %(version)s, 'active', %(phone)s, %(person)s, %(flaw)s, %(customer_name)s, %(items)s,
        %(item_count)s, %(total)s, %(currency)s, %(coupon)s, %(link)s, %(address)s,
        %(item_count)s > 0 AND %(phone)s::text IS NOT NULL, now() + %(expiry)s * interval '1 hour')
ON CONFLICT (id) DO UPDATE SET
  version = excluded.version, status = 'active', phone = excluded.phone, person = excluded.person, flaw = excluded.flaw,
  customer_name = excluded.customer_name, items = excluded.items, item_count = excluded.item_count, total = excluded.total,
  currency = excluded.currency, coupon = excluded.coupon, link = excluded.link, address = excluded.address, order_id = NULL,
  remindable = excluded.remindable, remind_after = NULL, reminder_sent_at = NULL, expires_at = excluded.expires_at,
  ended_at = NULL, updated_at = now()
WHERE excluded.version > c.version AND NOT (c.status = 'completed' AND excluded.item_count = 0)
RETURNING id
"""
_COMPLETE = """
INSERT INTO carts AS c (id, shop, cart_id, version, status, order_id, total, currency, expires_at, ended_at)
VALUES (%(id)s, %(shop)s, %(cart_id)s, %(version)s, 'completed', %(order_id)s, %(total)s, %(currency)s, now(), now())
ON CONFLICT (id) DO UPDATE SET
  version = excluded.version, status = 'completed', order_id = excluded.order_id, total = excluded.total,
  currency = excluded.currency, remindable = false, ended_at = now(), updated_at = now()
WHERE excluded.version >= c.version AND c.status <> 'completed'
"""
# What is known of the customer goes; that the cart is gone stays for as long as an older fact may come.
_DELETE = """
INSERT INTO carts AS c (id, shop, cart_id, version, status, expires_at, ended_at)
VALUES (%(id)s, %(shop)s, %(cart_id)s, %(version)s, 'deleted', now(), now())
ON CONFLICT (id) DO UPDATE SET
  version = excluded.version, status = 'deleted', phone = NULL, person = NULL, customer_name = '', items = '[]', item_count = 0,
  coupon = '', link = '', address = NULL, remindable = false, ended_at = now(), updated_at = now()
WHERE excluded.version >= c.version AND c.status <> 'completed'
RETURNING id
"""
_ASKED = "SELECT period FROM reminders WHERE cart = %(id)s AND state = 'asked' AND period <= %(until)s ORDER BY period"
# The reminder that was sent last, once: a customer comes back, changes the cart and orders it.
_RECOVER = """
UPDATE reminders SET recovered_at = now(), value = %(total)s, currency = %(currency)s
WHERE cart = %(id)s AND state = 'sent' AND recovered_at IS NULL AND period = (
  SELECT max(period) FROM reminders WHERE cart = %(id)s AND state = 'sent' AND period <= %(version)s)
RETURNING period
"""


class Carts:
    """What customers have in their carts."""

    def __init__(self, shops: Shops[CartsShop], *, expiry_hours: float) -> None:
        self._shops = shops
        self._expiry_hours = expiry_hours

    async def updated(self, event: Event[CartUpdated], tx: Transaction) -> None:
        """Keep the cart as it is now; an older version than the one that is known changes nothing."""
        names = self._names(event)
        if await tx.rows(_UPDATE, names | self._values(event)):
            reason = "changed" if event.data.items else "emptied"
            await _take_back(event, tx, names["id"], until=event.data.version - 1, reason=reason)

    async def completed(self, event: Event[CartCompleted], tx: Transaction) -> None:
        """Note that the cart was ordered, take back its reminder, or tell that it was recovered."""
        data, names = event.data, self._names(event)
        await tx.rows(_COMPLETE, names | {"order_id": data.order_id, "total": data.total, "currency": data.currency})
        await _take_back(event, tx, names["id"], until=data.version, reason="bought")
        if await tx.rows(_RECOVER, names | {"total": data.total, "currency": data.currency}):
            told = CartRecovered(cart_id=data.cart_id, order_id=data.order_id, total=data.total, currency=data.currency)
            tx.emit(event.derive(told, SOURCE))

    async def deleted(self, event: Event[CartDeleted], tx: Transaction) -> None:
        """Forget what the cart held, and take back its reminder; a cart that was ordered stays."""
        names = self._names(event)
        if await tx.rows(_DELETE, names):
            await _take_back(event, tx, names["id"], until=event.data.version, reason="deleted")

    def _names(self, event: Event[CartUpdated] | Event[CartCompleted] | Event[CartDeleted]) -> dict[str, Any]:
        shop, data = self._shops.key(event.shop), event.data
        return {"id": cart_uuid(shop, data.cart_id), "shop": shop, "cart_id": data.cart_id, "version": data.version}

    def _values(self, event: Event[CartUpdated]) -> dict[str, Any]:
        data = event.data
        phone, flaw = _number(data.phone, self._shops.named(event.shop).whatsapp.region)
        address = data.shipping_address
        return {
            "phone": phone,
            "person": one_form(phone) if phone else None,
            "flaw": flaw,
            "customer_name": data.customer_name,
            "items": Jsonb([item.model_dump(mode="json", exclude_none=True) for item in data.items]),
            "item_count": len(data.items),
            "total": data.total,
            "currency": data.currency,
            "coupon": data.coupon,
            "link": data.link,
            "address": Jsonb(address.model_dump(mode="json", exclude_defaults=True)) if address else None,
            "expiry": self._expiry_hours,
        }


def _number(text: str | None, region: str | None) -> tuple[str | None, str]:
    """Return the number in E.164, or why there is none: the cart is kept all the same."""
    if not text:
        return None, "no_number"
    try:
        return normalised(text, region), ""
    except MalformedNumber as error:
        return None, f"malformed_number: {error}"


async def _take_back(event: Event[Any], tx: Transaction, id_: UUID, *, until: int, reason: str) -> None:
    """Take reminders back that whatsapp was asked for; what it has begun is sent."""
    for row in await tx.rows(_ASKED, {"id": id_, "until": until}):
        key = send_key(id_, row["period"])
        tx.emit(event.derive(MessageCancelRequested(send_key=key, reason=reason), SOURCE, key=key, asker=ASKER))
