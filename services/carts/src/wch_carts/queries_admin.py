"""The SQL statements of operators' reads, each with the row it returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime
    from decimal import Decimal
    from uuid import UUID


@dataclass(frozen=True)
class CartDetails:
    """A cart without its owner's name and address."""

    id: UUID
    shop: str
    cart_id: str
    version: int
    status: str
    phone: str | None
    no_phone_reason: str
    items: list[dict[str, Any]]
    total: Decimal
    currency: str
    coupon: str
    order_id: int | None
    order_total: Decimal | None
    remindable: bool
    remind_after: datetime | None
    reminder_sent_at: datetime | None
    created_at: datetime
    updated_at: datetime
    idle_since: datetime
    expires_at: datetime
    ended_at: datetime | None


CARTS_NAMED = """
SELECT id, shop, cart_id, version, status, phone, no_phone_reason, items, total, currency, coupon, order_id,
       order_total, remindable, remind_after, reminder_sent_at, created_at, updated_at, idle_since, expires_at, ended_at
FROM carts WHERE cart_id = %(cart)s AND (%(shop)s::text IS NULL OR shop = %(shop)s) ORDER BY shop
"""


@dataclass(frozen=True)
class ReminderDetails:
    """The reminder of one idle period of a cart."""

    period: int
    state: str
    reason: str
    tries: int
    sent_at: datetime | None
    recovered_at: datetime | None
    changed_at: datetime


REMINDERS = """
SELECT period, state, reason, tries, sent_at, recovered_at, changed_at FROM reminders
WHERE cart = %(id)s ORDER BY period
"""


@dataclass(frozen=True)
class CleanupResult:
    """The result of a run of the cleanup."""

    shop: str
    deleted: int
    kept: int
    dry_run: bool
    requested_at: datetime
    ended_at: datetime
    seconds: float


_CLEANUP = """
shop, deleted, kept, dry_run, requested_at, ended_at, extract(epoch
  FROM ended_at - requested_at)::float8 AS seconds FROM cleanups
"""
CLEANUP_OF_REQUEST = f"SELECT {_CLEANUP} WHERE causationid = %(event)s AND ended_at IS NOT NULL"
LAST_CLEANUPS = f"""
SELECT DISTINCT ON (shop) {_CLEANUP}
WHERE ended_at IS NOT NULL AND NOT dry_run AND (%(shop)s::text IS NULL OR shop = %(shop)s)
ORDER BY shop, ended_at DESC
"""


@dataclass(frozen=True)
class CartShops:
    """The shops that have a cart of a name."""

    cart_id: str
    shops: list[str]


SHOPS_OF_CARTS = """
SELECT cart_id, array_agg(shop ORDER BY shop) AS shops FROM carts
WHERE cart_id = ANY(%(carts)s) AND status <> 'deleted' AND (%(shop)s::text IS NULL OR shop = %(shop)s) GROUP BY cart_id
"""


@dataclass(frozen=True)
class CartCount:
    """A number of carts."""

    carts: int


REMINDABLE = """
SELECT count(*) AS carts FROM carts WHERE status = 'active' AND remindable AND (%(shop)s::text IS NULL
  OR shop = %(shop)s)
AND (%(carts)s::text[] IS NULL OR cart_id = ANY(%(carts)s))
"""


@dataclass(frozen=True)
class StatusCount:
    """The number of carts of one shop with one status."""

    shop: str
    status: str
    carts: int


COUNT_BY_STATUS = """
SELECT shop, status, count(*) AS carts FROM carts
WHERE status <> 'deleted' AND (%(shop)s::text IS NULL OR shop = %(shop)s) GROUP BY 1, 2 ORDER BY 1
"""
COUNT_EXPIRED = """
SELECT shop, 'expired' AS status, count(*) AS carts FROM carts
WHERE status = 'active' AND expires_at < now() AND (%(shop)s::text IS NULL OR shop = %(shop)s) GROUP BY 1
"""


@dataclass(frozen=True)
class ReminderCounts:
    """The numbers of reminders of one shop that were sent, and of carts that were recovered."""

    shop: str
    reminded: int
    recovered: int


COUNT_REMINDED = """
SELECT shop, count(*) FILTER (WHERE state = 'sent') AS reminded, count(recovered_at) AS recovered FROM reminders
WHERE %(shop)s::text IS NULL OR shop = %(shop)s GROUP BY shop
"""


@dataclass(frozen=True)
class RecoveredValue:
    """The total of the recovered carts of one shop in one currency."""

    shop: str
    currency: str
    value: Decimal


RECOVERED_VALUES = """
SELECT shop, currency, sum(value) AS value FROM reminders
WHERE recovered_at IS NOT NULL AND (%(shop)s::text IS NULL OR shop = %(shop)s) GROUP BY 1, 2 ORDER BY 1, 2
"""


@dataclass(frozen=True)
class UnsentReminders:
    """The number of reminders that were skipped or failed for one reason."""

    state: str
    reason: str
    reminders: int


UNSENT_REMINDERS = """
SELECT state, reason, count(*) AS reminders FROM reminders
WHERE state IN ('skipped', 'failed') AND (%(shop)s::text IS NULL OR shop = %(shop)s) GROUP BY 1, 2 ORDER BY 3 DESC
"""
