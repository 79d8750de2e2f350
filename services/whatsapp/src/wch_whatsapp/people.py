"""What is known of people: who must not be written to, who may be answered freely; and forgetting them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime

    from wch_common.store.database import Row
    from wch_common.store.store import Transaction

# What a person, or Meta for them, says takes nothing from what others said, as they may take their own word back. Which of their
# words was the last is told by its time and not by when it is handled.
_SUPPRESS = """
INSERT INTO suppressions AS s (shop, person, category, phone, reason, by, since)
VALUES (%(shop)s, %(person)s, %(category)s, %(phone)s, %(reason)s, %(by)s, coalesce(%(since)s::timestamptz, now()))
ON CONFLICT (shop, person, category) DO UPDATE SET reason = excluded.reason, by = excluded.by, phone = coalesce(s.phone, excluded.phone),
  since = greatest(s.since, excluded.since), lifted_at = NULL
WHERE (s.by IN ('recipient', 'meta') AND (s.lifted_at IS NULL OR s.lifted_at <= excluded.since)) OR excluded.by NOT IN ('recipient', 'meta')
"""
_RELEASE = "DELETE FROM suppressions WHERE shop = %(shop)s AND person = %(person)s AND category = %(category)s"
# What a person takes back is what a person, or Meta for them, has said; and not what they said later.
_RESUME = """
INSERT INTO suppressions AS s (shop, person, category, reason, by, since, lifted_at)
VALUES (%(shop)s, %(person)s, 'marketing', 'asked to resume', 'recipient', %(since)s, %(since)s)
ON CONFLICT (shop, person, category) DO UPDATE SET lifted_at = greatest(s.lifted_at, excluded.lifted_at), phone = NULL
WHERE s.by IN ('recipient', 'meta') AND s.since <= excluded.since
"""
_OPEN = """
INSERT INTO windows (sender, person, open_until) VALUES (%(sender)s, %(person)s, %(since)s + interval '24 hours')
ON CONFLICT (sender, person) DO UPDATE SET open_until = greatest(windows.open_until, excluded.open_until)
"""
_FORGET = (
    """
    UPDATE messages SET phone = NULL, content = NULL, fallback = NULL, detail = '', wamid = NULL, updated_at = now(),
           expires_at = CASE WHEN state IN ('queued', 'sending', 'in_doubt') THEN now() ELSE expires_at END
    WHERE person = %(person)s AND (phone IS NOT NULL OR content IS NOT NULL)
    RETURNING id
    """,
    "UPDATE suppressions SET phone = NULL WHERE person = %(person)s AND phone IS NOT NULL RETURNING shop",
    "DELETE FROM windows WHERE person = %(person)s RETURNING sender",
    "DELETE FROM pairs WHERE person = %(person)s RETURNING sender",
    "DELETE FROM reached WHERE person = %(person)s RETURNING portfolio",
)
_TABLES = ("messages", "suppressions", "windows", "pairs", "reached")
_EXPORT = {
    "messages": "SELECT id, shop, requester, send_key, sender, phone, category, content, fallback, as_fallback, state, attempt, wamid, reason, "
    "code, detail, created_at, updated_at FROM messages WHERE person = %(person)s ORDER BY created_at",
    "suppressions": "SELECT shop, category, phone, reason, by, since, lifted_at FROM suppressions WHERE person = %(person)s",
    "windows": "SELECT sender, open_until FROM windows WHERE person = %(person)s",
    "pairs": "SELECT sender, slots_from, failures FROM pairs WHERE person = %(person)s",
    "reached": "SELECT portfolio, at FROM reached WHERE person = %(person)s",
}


async def suppress(
    tx: Transaction, who: Row | dict[str, Any], category: str, *, reason: str, by: str, since: datetime | None = None
) -> None:
    """Write to a person no more in a category, or in `all`, as they said then, or from now on; `who` has `shop`, `person` and `phone`."""
    names = {"shop": who["shop"], "person": who["person"], "phone": who["phone"], "since": since}
    await tx.rows(_SUPPRESS, names | {"category": category, "reason": reason, "by": by})


async def release(tx: Transaction, who: dict[str, Any], category: str) -> None:
    """Write to a person again, as far as this category held; what others hold stays, a person's own STOP among it."""
    await tx.rows(_RELEASE, {"shop": who["shop"], "person": who["person"], "category": category})


async def resume(tx: Transaction, who: dict[str, Any], since: datetime) -> None:
    """Send a person marketing again who at that time asked for it."""
    await tx.rows(_RESUME, {"shop": who["shop"], "person": who["person"], "since": since})


async def open_window(tx: Transaction, sender: str, person: bytes, since: datetime) -> None:
    """Let a person who wrote be answered freely for 24 hours."""
    await tx.rows(_OPEN, {"sender": sender, "person": person, "since": since})


def forget(connection: Any, person: bytes) -> dict[str, int]:  # noqa: ANN401 - a psycopg connection
    """Erase what is known of a person and keep whom not to write to, as a hash; returns how many rows, by table."""
    with connection.transaction():
        return {
            table: len(connection.execute(statement, {"person": person}).fetchall())
            for table, statement in zip(_TABLES, _FORGET, strict=True)
        }


def export(connection: Any, person: bytes) -> dict[str, list[dict[str, Any]]]:  # noqa: ANN401 - a psycopg connection
    """Return all that is known of a person, by table."""
    return {table: connection.execute(query, {"person": person}).fetchall() for table, query in _EXPORT.items()}
