"""Forgetting a person, and showing what is known of them."""

from __future__ import annotations

from typing import Any

from wch_common.integrations.phone import one_form

# Who was asked for already keeps an outcome that names nobody; who was not is passed over.
_FORGET = """
UPDATE recipients SET phone = NULL, person = NULL, own = NULL, flaw = coalesce(flaw, 'forgotten')
WHERE person = %(person)s RETURNING 1
"""
_EXPORT = """
SELECT l.shop, l.list_id, r.phone, r.own, r.flaw, c.campaign_id, o.outcome, o.reason
FROM recipients AS r JOIN lists AS l ON l.id = r.list
LEFT JOIN campaigns AS c ON c.list = r.list
LEFT JOIN outcomes AS o ON o.campaign = c.id AND o.position = r.position
WHERE r.person = %(person)s ORDER BY l.created_at, c.created_at
"""


def forget(connection: Any, phone: str) -> int:  # noqa: ANN401 - a psycopg connection
    """Erase a person (E.164) from all lists; returns how many rows."""
    return len(connection.execute(_FORGET, {"person": one_form(phone)}).fetchall())


def export(connection: Any, phone: str) -> list[dict[str, Any]]:  # noqa: ANN401 - a psycopg connection
    """Return what is known of a person (E.164): their lists, campaigns and outcomes."""
    rows: list[dict[str, Any]] = connection.execute(_EXPORT, {"person": one_form(phone)}).fetchall()
    return rows
