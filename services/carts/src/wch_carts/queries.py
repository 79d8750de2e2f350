"""What `wch carts` reads from the service's database."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

CART = """
SELECT id, shop, cart_id, version, status, phone, flaw, items, total, currency, coupon, order_id, order_total, remindable, remind_after,
       reminder_sent_at, created_at, updated_at, idle_since, expires_at, ended_at
FROM carts WHERE cart_id = %(cart)s AND (%(shop)s::text IS NULL OR shop = %(shop)s) ORDER BY shop
"""
REMINDERS = "SELECT period, state, reason, tries, sent_at, recovered_at, changed_at FROM reminders WHERE cart = %(id)s ORDER BY period"
CLEANUP = """
SELECT shop, deleted, kept, dry_run, ended_at, extract(epoch FROM ended_at - asked_at)::float8 AS seconds FROM cleanups
WHERE causationid = %(event)s
"""
SHOPS = """
SELECT cart_id, array_agg(shop ORDER BY shop) AS shops FROM carts
WHERE cart_id = ANY(%(carts)s) AND status <> 'deleted' AND (%(shop)s::text IS NULL OR shop = %(shop)s) GROUP BY cart_id
"""
WOULD_BE_REMINDED = """
SELECT count(*) AS carts FROM carts WHERE status = 'active' AND remindable AND (%(shop)s::text IS NULL OR shop = %(shop)s)
AND (%(carts)s::text[] IS NULL OR cart_id = ANY(%(carts)s))
"""
_CARTS = """
SELECT shop, status, count(*) AS carts FROM carts
WHERE status <> 'deleted' AND (%(shop)s::text IS NULL OR shop = %(shop)s) GROUP BY 1, 2 ORDER BY 1
"""
_EXPIRED = """
SELECT shop, count(*) AS carts FROM carts
WHERE status = 'active' AND expires_at < now() AND (%(shop)s::text IS NULL OR shop = %(shop)s) GROUP BY 1
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
    shops: dict[str, dict[str, Any]] = defaultdict(
        lambda: (
            dict.fromkeys(("active", "expired", "abandoned", "completed", "reminded", "recovered"), 0) | {"value": []}
        )
    )
    for row in connection.execute(_CARTS, names).fetchall():
        shops[row["shop"]][row["status"]] = row["carts"]
    for row in connection.execute(_EXPIRED, names).fetchall():
        shops[row["shop"]] |= {"expired": row["carts"], "active": shops[row["shop"]]["active"] - row["carts"]}
    for row in connection.execute(_REMINDED, names).fetchall():
        shops[row["shop"]] |= {"reminded": row["reminded"], "recovered": row["recovered"]}
    for row in connection.execute(_VALUES, names).fetchall():
        shops[row["shop"]]["value"].append(f"{row['value']:.2f} {row['currency']}")
    return {
        "shops": [{"shop": name} | counts for name, counts in sorted(shops.items())],
        "not_reminded": connection.execute(_NOT_REMINDED, names).fetchall(),
        "cleanups": connection.execute(_CLEANUPS, names).fetchall(),
    }
