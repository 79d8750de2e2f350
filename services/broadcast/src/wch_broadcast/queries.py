"""What `wch campaigns` reads from the service's database."""

from __future__ import annotations

from typing import Any

from wch_broadcast.totals import Standing, totalled

CAMPAIGNS = """
SELECT c.campaign_id, c.shop, c.asker, c.state, c.cause, coalesce(l.given, 0) AS recipients, c.batches, c.created_at, c.ended_at
FROM campaigns AS c LEFT JOIN lists AS l ON l.id = c.list
WHERE %(shop)s::text IS NULL OR c.shop = %(shop)s ORDER BY c.created_at DESC LIMIT %(limit)s
"""
LISTS = """
SELECT list_id, shop, given, malformed, duplicates, complete_at, created_at FROM lists
WHERE list_id <> '' AND (%(shop)s::text IS NULL OR shop = %(shop)s) ORDER BY created_at DESC LIMIT %(limit)s
"""
LIST_NAMED = """
SELECT 1 FROM lists WHERE list_id = %(list)s AND (%(shop)s::text IS NULL OR shop = %(shop)s) AND complete_at IS NOT NULL
"""
_FOUND = """
SELECT c.id, c.campaign_id, c.shop, c.asker, c.state, c.cause, c.said_by AS by, c.batches, c.batch_size, c.pause_seconds,
       c.exclusive, c.start_at, c.stop_at, c.created_at, c.started_at, c.ended_at, c.due_at, c.released, c.stopped,
       coalesce(l.given, 0) AS given, coalesce(l.malformed, 0) AS malformed, coalesce(l.duplicates, 0) AS duplicates
FROM campaigns AS c LEFT JOIN lists AS l ON l.id = c.list
WHERE c.campaign_id = %(campaign)s AND (%(shop)s::text IS NULL OR c.shop = %(shop)s) ORDER BY c.shop
"""
_COUNTS = """
SELECT key, sum(value::int)::int AS recipients FROM batches, jsonb_each_text(counts) WHERE campaign = %(id)s GROUP BY key
"""
REPORT = """
SELECT r.phone AS to, o.batch, CASE WHEN r.flaw IS NOT NULL AND o.outcome IS NULL THEN 'skipped'
         WHEN o.outcome IS NOT NULL THEN o.outcome
         WHEN c.state IN ('cancelling', 'cancelled') THEN 'cancelled' WHEN c.stopped THEN 'skipped' ELSE 'waiting' END AS outcome,
       CASE WHEN o.outcome IS NOT NULL THEN o.reason WHEN r.flaw IS NOT NULL THEN r.flaw
         WHEN c.stopped THEN 'stopped' ELSE '' END AS reason, o.code, o.until
FROM campaigns AS c JOIN recipients AS r ON r.list = c.list
LEFT JOIN outcomes AS o ON o.campaign = c.id AND o.position = r.position
WHERE c.id = %(id)s ORDER BY r.position
"""


def summary(connection: Any, campaign: str, shop: str | None) -> list[dict[str, Any]]:  # noqa: ANN401 - psycopg's
    """Return the campaigns of a name, with their totals."""
    rows: list[dict[str, Any]] = connection.execute(_FOUND, {"campaign": campaign, "shop": shop}).fetchall()
    for row in rows:
        names = ("state", "given", "malformed", "duplicates", "released", "stopped")
        counts = connection.execute(_COUNTS, {"id": row["id"]}).fetchall()
        standing = Standing(**{name: row[name] for name in names})
        told = totalled(standing, {one["key"]: one["recipients"] for one in counts})
        row["totals"] = told.model_dump(mode="json")
    return rows
