"""What `wch carts` reads from the service's database."""

from __future__ import annotations

from typing import Any

CART = """
SELECT id, shop, cart_id, version, status, phone, flaw, items, total, currency, coupon, order_id, remindable, remind_after,
       reminder_sent_at, created_at, updated_at, expires_at, ended_at
FROM carts WHERE cart_id = %(cart)s AND (%(shop)s::text IS NULL OR shop = %(shop)s) ORDER BY shop
"""
REMINDERS = "SELECT period, state, reason, tries, sent_at, recovered_at, changed_at FROM reminders WHERE cart = %(id)s ORDER BY period"
CLEANUP = """
SELECT shop, deleted, kept, dry_run, ended_at, extract(epoch FROM ended_at - asked_at)::float8 AS seconds FROM cleanups
WHERE causationid = %(event)s
"""
WOULD_BE_REMINDED = """
SELECT count(*) AS carts FROM carts WHERE status = 'active' AND remindable AND (%(shop)s::text IS NULL OR shop = %(shop)s)
AND (%(carts)s::text[] IS NULL OR cart_id = ANY(%(carts)s))
"""
_CARTS = """
SELECT shop, count(*) FILTER (WHERE status = 'active' AND expires_at >= now()) AS active,
       count(*) FILTER (WHERE status = 'active' AND expires_at < now()) AS expired,
       count(*) FILTER (WHERE status = 'abandoned') AS abandoned, count(*) FILTER (WHERE status = 'completed') AS completed
FROM carts WHERE %(shop)s::text IS NULL OR shop = %(shop)s GROUP BY shop ORDER BY shop
"""
_REMINDED = """
SELECT shop, count(*) FILTER (WHERE state = 'sent') AS reminded, count(recovered_at) AS recovered FROM reminders
WHERE %(shop)s::text IS NULL OR shop = %(shop)s GROUP BY shop
"""
_VALUES = """
SELECT shop, currency, sum(value) AS value FROM reminders
WHERE recovered_at IS NOT NULL AND (%(shop)s::text IS NULL OR shop = %(shop)s) GROUP BY 1, 2 ORDER BY 1, 2
"""
_NOT_REMINDED = """
SELECT state, reason, count(*) AS reminders FROM reminders
WHERE state IN ('skipped', 'failed') AND (%(shop)s::text IS NULL OR shop = %(shop)s) GROUP BY 1, 2 ORDER BY 3 DESC
"""
_CLEANUPS = """
SELECT DISTINCT ON (shop) shop, deleted, kept, dry_run, asked_at, ended_at, extract(epoch FROM ended_at - asked_at)::float8 AS seconds
FROM cleanups WHERE ended_at IS NOT NULL AND NOT dry_run AND (%(shop)s::text IS NULL OR shop = %(shop)s)
ORDER BY shop, ended_at DESC
"""


def statistics(connection: Any, shop: str | None) -> dict[str, list[dict[str, Any]]]:  # noqa: ANN401 - psycopg's
    """Return counts by shop with the value of recovered carts, why others were not reminded, and the last cleanups."""
    names = {"shop": shop}
    shops: dict[str, dict[str, Any]] = {row["shop"]: row for row in connection.execute(_CARTS, names).fetchall()}
    nothing = {"active": 0, "expired": 0, "abandoned": 0, "completed": 0}
    for row in connection.execute(_REMINDED, names).fetchall():
        shops.setdefault(row["shop"], row | nothing).update(row)
    for row in shops.values():
        row.setdefault("reminded", 0)
        row.setdefault("recovered", 0)
        row["value"] = []
    for row in connection.execute(_VALUES, names).fetchall():
        shops[row["shop"]]["value"].append(f"{row['value']:.2f} {row['currency']}")
    return {
        "shops": list(shops.values()),
        "not_reminded": connection.execute(_NOT_REMINDED, names).fetchall(),
        "cleanups": connection.execute(_CLEANUPS, names).fetchall(),
    }
