"""Forgetting a person, and showing what is known of them."""

from __future__ import annotations

from typing import Any

from wch_common.integrations.phone import one_form

# That there was a cart under the shop's name for it, and what it was worth, stays for the statistics.
_FORGET = """
UPDATE carts SET phone = NULL, person = NULL, flaw = 'forgotten', customer_name = '', items = '[]', item_count = 0, coupon = '',
       order_id = NULL, link = '', address = NULL, remindable = false
WHERE person = %(person)s RETURNING 1
"""
_EXPORT = """
SELECT shop, cart_id, version, status, phone, customer_name, items, total, currency, coupon, link, address, order_id, order_total,
       (SELECT coalesce(json_agg(json_build_object('state', r.state, 'reason', r.reason, 'at', r.changed_at)), '[]')
        FROM reminders AS r WHERE r.cart = carts.id) AS reminders, reminder_sent_at, created_at, updated_at, expires_at, ended_at
FROM carts WHERE person = %(person)s ORDER BY created_at
"""


def forget(connection: Any, phone: str) -> int:  # noqa: ANN401 - a psycopg connection
    """Erase a person (E.164) from all carts; returns how many."""
    return len(connection.execute(_FORGET, {"person": one_form(phone)}).fetchall())


def export(connection: Any, phone: str) -> list[dict[str, Any]]:  # noqa: ANN401 - a psycopg connection
    """Return what is known of a person (E.164)."""
    rows: list[dict[str, Any]] = connection.execute(_EXPORT, {"person": one_form(phone)}).fetchall()
    return rows
