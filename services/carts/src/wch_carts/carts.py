"""The handlers of the shop's facts: a cart as it stands after the newest fact of each kind, in whatever order they come."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from psycopg.types.json import Jsonb

from wch_carts.identity import cart_uuid, send_key
from wch_carts.topology import REQUESTER
from wch_common.events.carts import CartRecovered
from wch_common.events.whatsapp import MessageCancelRequested
from wch_common.integrations.phone import MalformedNumber, normalised, one_form

if TYPE_CHECKING:
    from datetime import datetime

    from wch_carts.settings import CartsShop
    from wch_common.contract.event import Event
    from wch_common.events.shop import CartCompleted, CartDeleted, CartUpdated
    from wch_common.integrations.shops import Shops
    from wch_common.store.database import Row
    from wch_common.store.store import Transaction

SOURCE = "/wch/carts"
# Found or made, and locked until the transaction ends.
_MEET = """
INSERT INTO carts AS c (id, shop, cart_id, version, status, expires_at)
VALUES (%(id)s, %(shop)s, %(cart_id)s, %(version)s, 'active', now())
ON CONFLICT (id) DO UPDATE SET version = greatest(c.version, excluded.version)
RETURNING id, status, updated_version, filled_version, ordered_version, deleted_version
"""
_STAND = """
UPDATE carts SET updated_version = %(updated)s, filled_version = %(filled)s, ordered_version = %(ordered)s, deleted_version = %(deleted)s,
  status = %(status)s, remindable = remindable AND %(status)s = 'active',
  ended_at = CASE WHEN %(status)s = 'active' THEN NULL WHEN status = %(status)s AND ended_at IS NOT NULL THEN ended_at ELSE now() END
WHERE id = %(id)s
"""
# How long it is idle counts from the fact, should that come late; how long it lives from when it is known.
_FILL = """
UPDATE carts SET phone = %(phone)s, person = %(person)s, flaw = %(flaw)s, customer_name = %(customer_name)s, items = %(items)s,
  item_count = %(item_count)s, total = %(total)s, currency = %(currency)s, coupon = %(coupon)s, link = %(link)s,
  address = %(address)s, remindable = status = 'active' AND %(item_count)s > 0 AND %(phone)s::text IS NOT NULL, remind_after = NULL,
  reminder_sent_at = NULL, idle_since = least(now(), %(time)s::timestamptz), updated_at = now(),
  expires_at = now() + %(expiry)s * interval '1 hour'
WHERE id = %(id)s
"""
_ORDER = """
UPDATE carts SET order_id = %(order_id)s, order_total = %(total)s, order_currency = %(currency)s,
  ordered_at = least(now(), %(time)s::timestamptz) WHERE id = %(id)s RETURNING *
"""
# That the cart is gone stays for as long as an older fact may come.
_EMPTY = """
UPDATE carts SET phone = NULL, person = NULL, customer_name = '', items = '[]', item_count = 0, total = 0, coupon = '', link = '',
  address = NULL WHERE id = %(id)s
"""
# Also those that failed: somebody may have them tried again. Once is enough: whatsapp tries nothing again that was taken back.
_TAKE_BACK = """
UPDATE reminders SET taken_back = true
WHERE cart = %(id)s AND state IN ('asked', 'failed') AND NOT taken_back AND period <> %(period)s RETURNING period
"""
# The reminder that was sent last, once: a customer comes back, changes the cart and orders it.
_RECOVER = """
UPDATE reminders SET recovered_at = now(), value = %(order_total)s, currency = %(order_currency)s
WHERE cart = %(id)s AND state = 'sent' AND recovered_at IS NULL AND period = (
  SELECT max(period) FROM reminders WHERE cart = %(id)s AND state = 'sent' AND period <= %(ordered_version)s)
RETURNING period
"""
_NEVER = -1


@dataclass(frozen=True)
class Versions:
    """The newest fact of each kind; what a cart is follows from them, and so not from the order in which they came."""

    updated: int = _NEVER
    filled: int = _NEVER
    """The newest change that left something in it: the idle period begins with it."""
    ordered: int = _NEVER
    deleted: int = _NEVER

    @classmethod
    def of(cls, row: Row) -> Self:
        """Read a row."""
        return cls(**{
            name: _NEVER if (known := row[f"{name}_version"]) is None else known for name in asdict(cls())
        })  # fmt: skip

    @property
    def status(self) -> str:
        """What the cart is: a shop empties and deletes the cart that was ordered, which stays ordered."""
        if self.ordered > _NEVER and self.ordered >= self.filled:
            return "completed"
        return "deleted" if self.deleted > _NEVER and self.deleted >= self.updated else "active"

    @property
    def columns(self) -> dict[str, int | None]:
        """The values of the row."""
        return {name: None if version == _NEVER else version for name, version in asdict(self).items()}


class Carts:
    """What customers have in their carts."""

    def __init__(self, shops: Shops[CartsShop], *, expiry_hours: float) -> None:
        self._shops = shops
        self._expiry_hours = expiry_hours

    async def updated(self, event: Event[CartUpdated], tx: Transaction) -> None:
        """Keep the cart as it is now; an older version than the one that is known changes nothing in it."""
        version, row = event.data.version, await self._met(event, tx)
        before = Versions.of(row)
        filled = max(before.filled, version) if event.data.items else before.filled
        after = replace(before, updated=max(before.updated, version), filled=filled)
        if after == before:
            return
        is_newest = version > before.updated
        await _stand(tx, row, after, keeps_abandoned=not is_newest)
        if is_newest and after.status != "deleted":
            await tx.rows(_FILL, {"id": row["id"]} | self._values(event))
        reason = "bought" if after.status == "completed" else "changed" if event.data.items else "emptied"
        await _take_back(event, tx, row, after, reason if is_newest else "changed")

    async def completed(self, event: Event[CartCompleted], tx: Transaction) -> None:
        """Note that the cart was ordered, take back its reminder, or tell that it was recovered."""
        data, row = event.data, await self._met(event, tx)
        before = Versions.of(row)
        if data.version > before.ordered:
            after = replace(before, ordered=data.version)
            await _stand(tx, row, after, keeps_abandoned=True)
            (cart,) = await tx.rows(_ORDER, {"id": row["id"], "time": event.time} | data.model_dump())
            await _take_back(event, tx, row, after, "bought")
            await recover(event, tx, cart, data.total)

    async def deleted(self, event: Event[CartDeleted], tx: Transaction) -> None:
        """Forget what the cart held, and take back its reminder; a cart that was ordered stays."""
        row = await self._met(event, tx)
        before = Versions.of(row)
        after = replace(before, deleted=max(before.deleted, event.data.version))
        if after == before:
            return
        await _stand(tx, row, after, keeps_abandoned=True)
        if after.status == "deleted":
            await tx.rows(_EMPTY, row)
            await _take_back(event, tx, row, after, "deleted")

    async def _met(self, event: Event[CartUpdated] | Event[CartCompleted] | Event[CartDeleted], tx: Transaction) -> Row:
        """Return the cart's row, new where it was not known, and keep others from it until the transaction ends."""
        shop, data = self._shops.key(event.shop), event.data
        names = {"id": cart_uuid(shop, data.cart_id), "shop": shop, "cart_id": data.cart_id, "version": data.version}
        return (await tx.rows(_MEET, names))[0]

    def _values(self, event: Event[CartUpdated]) -> dict[str, Any]:
        data = event.data
        phone, flaw = _number(data.phone, self._shops.named(event.shop).whatsapp.region)
        # Without a number nobody is written to, and nobody could ask for what else is known of them.
        address = data.shipping_address if phone else None
        return {
            "phone": phone,
            "person": one_form(phone) if phone else None,
            "flaw": flaw,
            "customer_name": data.customer_name if phone else "",
            "items": Jsonb([item.model_dump(mode="json", exclude_none=True) for item in data.items]),
            "item_count": len(data.items),
            "total": data.total,
            "currency": data.currency,
            "coupon": data.coupon,
            "link": data.link if phone else "",
            "address": Jsonb(address.model_dump(mode="json", exclude_defaults=True)) if address else None,
            "time": event.time,
            "expiry": self._expiry_hours,
        }


def is_before(timestamp: datetime | None, order: datetime | None) -> bool:
    """Whether what was told at a moment came before the cart's order."""
    return timestamp is not None and order is not None and timestamp <= order


async def recover(event: Event[Any], tx: Transaction, cart: Row, total: str) -> None:
    """Tell, once, that an ordered cart was recovered, where its owner had been reminded of it."""
    # A person who was forgotten takes the order's number along.
    if cart["order_id"] is not None and await tx.rows(_RECOVER, cart):
        told = CartRecovered(
            cart_id=cart["cart_id"],
            order_id=cart["order_id"],
            total=total,
            currency=cart["order_currency"],
        )
        tx.emit(event.derive(told, SOURCE, requester=""))


def _number(text: str | None, region: str | None) -> tuple[str | None, str]:
    """Return the number in E.164, or why there is none: the cart is kept all the same."""
    if not text:
        return None, "no_number"
    try:
        return normalised(text, region), ""
    except MalformedNumber as error:
        return None, f"malformed_number: {error}"


async def _stand(tx: Transaction, row: Row, after: Versions, *, keeps_abandoned: bool) -> None:
    """Write what the cart is now."""
    status = after.status
    if status == "active" and row["status"] == "abandoned" and keeps_abandoned:
        status = "abandoned"
    await tx.rows(_STAND, {"id": row["id"], "status": status} | after.columns)


async def _take_back(event: Event[Any], tx: Transaction, row: Row, after: Versions, reason: str) -> None:
    """Take reminders back whose cart is no more as it was when they were asked for; what was begun is sent."""
    still = after.filled if after.status == "active" and after.filled == after.updated else _NEVER
    for reminder in await tx.rows(_TAKE_BACK, {"id": row["id"], "period": still}):
        key = send_key(row["id"], reminder["period"])
        tx.emit(event.derive(MessageCancelRequested(send_key=key, reason=reason), SOURCE, key=key, requester=REQUESTER))
