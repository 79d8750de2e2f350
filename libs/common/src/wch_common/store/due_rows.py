"""Rows with a due time, and the one loop that processes them: outbox, parking, and what families add.

From `due_at` on, any process may claim a row. A claim moves `due_at` forward by a lease, so that no transaction stays open
during the work, and the row of a process that died is claimed again when its lease has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

import psycopg
import structlog

from wch_common.errors import Interrupted
from wch_common.observability.redact import error_text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from wch_common.store.database import Database, Row

log = structlog.get_logger(__name__)

_LONGEST_PAUSE_SECONDS = 1.0
# When another process has locked a due row.
_SHORTEST_PAUSE_SECONDS = 0.02


def claim_due(table: str, *, returning: str, key: str = "id", where: str = "true") -> str:
    """Return the statement that claims due rows of a table by moving their `due_at` forward by %(lease)s seconds.

    It claims at most %(limit)s rows, the longest due first, and skips rows that another process is claiming.
    """
    return f"""
    UPDATE {table} SET due_at = now() + %(lease)s * interval '1 second'
    WHERE {key} IN (SELECT {key} FROM {table} WHERE due_at <= now() AND {where}
                    ORDER BY due_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
    RETURNING {returning}
    """  # noqa: S608 - names of tables and columns


def next_due(table: str) -> str:
    """Return the statement that finds how many `seconds` it is until the next row of a table is due."""
    return f"SELECT extract(epoch FROM min(due_at) - now())::float8 AS seconds FROM {table} WHERE due_at IS NOT NULL"  # noqa: S608


class DueRows:
    """A table of due rows: how they are claimed and processed.

    `claim` is one statement that moves `due_at` of at most %(limit)s due rows forward by %(lease)s seconds and returns
    them (see `claim_due`); `work` processes them and removes or changes each row it has finished. `next_due` is a
    statement for rows that must not be late (see `next_due`); without it the table is checked once a second.
    """

    def __init__(
        self,
        database: Database,
        claim: str,
        work: Callable[[Sequence[Row]], Awaitable[None]],
        *,
        lease: float,
        limit: int,
        next_due: str | None = None,
    ) -> None:
        self._database = database
        self._claim = claim
        self._work = work
        self._parameters = {"lease": lease, "limit": limit}
        self._limit = limit
        self._next_due = next_due
        self._nudged = asyncio.Event()
        self.last_success = time.monotonic()

    def nudge(self) -> None:
        """Check for due rows now."""
        self._nudged.set()

    async def run(self) -> None:
        """Process rows as they become due, until cancelled; an outage is logged and waited for."""
        while True:
            pause = _LONGEST_PAUSE_SECONDS
            try:
                full = await self.once() >= self._limit
                if not full and self._next_due is not None:
                    pause = await self._until_due(self._next_due)
            except (Interrupted, psycopg.Error) as error:
                full = False
                log.warning("due_rows_delayed", error=error_text(error))
            if not full:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._nudged.wait(), pause)
                self._nudged.clear()

    async def _until_due(self, statement: str) -> float:
        seconds = (await self._database.rows(statement))[0]["seconds"]
        return (
            _LONGEST_PAUSE_SECONDS
            if seconds is None
            else min(_LONGEST_PAUSE_SECONDS, max(_SHORTEST_PAUSE_SECONDS, float(seconds)))
        )

    async def once(self) -> int:
        """Claim and process the rows that are due now; returns how many were claimed."""
        rows = await self._database.rows(self._claim, self._parameters)
        if rows:
            await self._work(rows)
        self.last_success = time.monotonic()
        return len(rows)
