"""The progress that the demo shows, read from the broker, the databases and the simulators."""

from __future__ import annotations

from typing import Any

import httpx
import psycopg
from psycopg.rows import dict_row

from wch_broadcast.admin import campaigns_named
from wch_common.broker.blocking.dead_letters import NoSuchQueue, open_mailbox
from wch_local.rabbitmq import NO_TLS
from wch_local.story import CAMPAIGN, CATALOG


def depth(amqp_url: str, queue: str) -> int:
    """Return how many messages are in a queue."""
    try:
        with open_mailbox(amqp_url, queue) as mailbox:
            return mailbox.count()
    except NoSuchQueue:
        return 0


def items(graph_url: str) -> dict[str, Any]:
    """Return the items of the catalog."""
    return dict(httpx.get(f"{graph_url}/_simulator/catalog/{CATALOG}", timeout=10, verify=NO_TLS).json())


def messages(database_url: str) -> dict[str, str]:
    """Return the state of every message by its send key."""
    with psycopg.connect(database_url, options="-c search_path=whatsapp") as connection:
        alone = "SELECT send_key, state FROM messages WHERE batch IS NULL AND requester <> 'carts'"
        return dict(connection.execute(alone).fetchall())


def cart(database_url: str) -> str:
    """Return the state of the demo's cart or of its reminder."""
    far = """
    SELECT CASE WHEN r.recovered_at IS NOT NULL THEN 'recovered' WHEN r.state IS NOT NULL THEN r.state ELSE c.status END
    FROM carts AS c LEFT JOIN reminders AS r ON r.cart = c.id
    """
    with psycopg.connect(database_url, options="-c search_path=carts") as connection:
        return str(next(iter(connection.execute(far).fetchall()), ("",))[0])


def campaign(database_url: str) -> tuple[str, str]:
    """Return the campaign's state, and its progress as one line."""
    with psycopg.connect(database_url, options="-c search_path=broadcast", row_factory=dict_row) as connection:
        found = campaigns_named(connection, CAMPAIGN)
    if not found:
        return "", "–"
    totals = found[0].totals
    done = round(totals.percentage / 5)
    bar = f"[green]{'━' * done}[/][dim]{'━' * (20 - done)}[/] {totals.percentage:.0f} %"
    return found[0].state, f"{bar}, {totals.sent} sent, {totals.skipped} skipped"


def ticks(database_url: str) -> int:
    """Return how many times the schedule has been published."""
    with psycopg.connect(database_url, options="-c search_path=scheduler") as connection:
        return len(connection.execute("SELECT schedule FROM ticks").fetchall())


def suppressed(database_url: str) -> int:
    """Return how many recipients are suppressed."""
    with psycopg.connect(database_url, options="-c search_path=whatsapp") as connection:
        return len(connection.execute("SELECT person FROM suppressions").fetchall())
