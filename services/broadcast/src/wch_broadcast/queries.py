"""What `wch campaigns` reads from the service's database."""

from __future__ import annotations

from typing import Any

from wch_broadcast.totals import SKIPPED, CampaignCounts, totalled

CAMPAIGNS = """
SELECT c.campaign_id, c.shop, c.requester, c.state, c.cause, coalesce(l.given, 0) AS recipients, c.batches, c.created_at, c.ended_at
FROM campaigns AS c LEFT JOIN lists AS l ON l.id = c.list
WHERE %(shop)s::text IS NULL OR c.shop = %(shop)s ORDER BY c.created_at DESC LIMIT %(limit)s
"""
LISTS = """
SELECT list_id, shop, given, malformed, duplicates, complete_at, created_at FROM lists
WHERE list_id <> '' AND (%(shop)s::text IS NULL OR shop = %(shop)s) ORDER BY created_at DESC LIMIT %(limit)s
"""
CAMPAIGN_NAMED = """
SELECT 1 FROM campaigns WHERE campaign_id = %(campaign)s AND (%(shop)s::text IS NULL OR shop = %(shop)s)
"""
LIST_NAMED = """
SELECT 1 FROM lists WHERE list_id = %(list)s AND (%(shop)s::text IS NULL OR shop = %(shop)s) AND complete_at IS NOT NULL
"""
_FOUND = """
SELECT c.id, c.campaign_id, c.shop, c.requester, c.state, c.cause, c.said_by AS by, c.batches, c.batch_size, c.pause_seconds,
       c.exclusive, c.start_at, c.stop_at, c.created_at, c.started_at, c.ended_at, c.due_at, c.released, c.stopped,
       coalesce(l.given, 0) AS given, coalesce(l.malformed, 0) AS malformed, coalesce(l.duplicates, 0) AS duplicates,
       l.deleted_at IS NOT NULL OR (c.batches > 0 AND NOT EXISTS (SELECT 1 FROM outcomes AS o WHERE o.campaign = c.id)) AS details_deleted
FROM campaigns AS c LEFT JOIN lists AS l ON l.id = c.list
WHERE c.campaign_id = %(campaign)s AND (%(shop)s::text IS NULL OR c.shop = %(shop)s) ORDER BY c.shop
"""
_COUNTS = """
SELECT key, sum(value::int)::int AS recipients FROM batches, jsonb_each_text(counts) WHERE campaign = %(id)s GROUP BY key
"""
# In the words of the totals, so that a count of it is the summary.
REPORT = f"""
SELECT r.phone AS to, o.batch, CASE
         WHEN o.outcome = 'asked' THEN 'waiting'
         WHEN o.outcome = 'suppressed' OR (o.outcome = 'failed' AND o.reason IN ({", ".join(f"'{one}'" for one in sorted(SKIPPED))})) THEN 'skipped'
         WHEN o.outcome IS NOT NULL THEN o.outcome
         WHEN r.flaw IN ('malformed_number', 'duplicate_number') THEN 'skipped'
         WHEN c.state IN ('cancelling', 'cancelled') THEN 'cancelled'
         WHEN c.stopped OR c.released THEN 'skipped' ELSE 'waiting' END AS outcome,
       CASE WHEN o.outcome IS NOT NULL THEN o.reason WHEN r.flaw IN ('malformed_number', 'duplicate_number') THEN r.flaw
         WHEN c.state IN ('cancelling', 'cancelled') THEN '' WHEN c.stopped THEN 'stopped' WHEN c.released THEN 'forgotten'
         ELSE '' END AS reason, o.code, o.until
FROM campaigns AS c JOIN recipients AS r ON r.list = c.list
LEFT JOIN outcomes AS o ON o.campaign = c.id AND o.position = r.position
WHERE c.id = %(id)s ORDER BY r.position
"""  # noqa: S608 - words of this package


def summary(connection: Any, campaign: str, shop: str | None) -> list[dict[str, Any]]:  # noqa: ANN401 - psycopg's
    """Return the campaigns of a name, with their totals."""
    rows: list[dict[str, Any]] = connection.execute(_FOUND, {"campaign": campaign, "shop": shop}).fetchall()
    for row in rows:
        names = ("state", "given", "malformed", "duplicates", "released", "stopped")
        counts = connection.execute(_COUNTS, {"id": row["id"]}).fetchall()
        campaign_counts = CampaignCounts(**{name: row[name] for name in names})
        told = totalled(campaign_counts, {one["key"]: one["recipients"] for one in counts})
        row["totals"] = told.model_dump(mode="json")
    return rows
