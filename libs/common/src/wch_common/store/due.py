"""Rows with a due time, and the one loop that works them off: outbox, parking, and what families add.

`due_at` says from when on anybody may take a row up. Who claims it moves `due_at` on by a lease, so no transaction stays
open during the work, and a row whose worker died is taken up again when the lease is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

import psycopg
import structlog

from wch_common.errors import Interrupted
from wch_common.redact import error_text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from wch_common.store.database import Database, Row

log = structlog.get_logger(__name__)

_LONGEST_PAUSE_SECONDS = 1.0
# Where a due row is held by somebody else.
_SHORTEST_PAUSE_SECONDS = 0.02


class DueRows:
    """A table of due rows: how they are claimed and what is done with them.

    `claim` is one statement that moves `due_at` of some due rows on by %(lease)s seconds, at most %(limit)s, and returns
    them; `work` does what is due and removes each row it finished. `next_due` is a statement that returns, as `seconds`,
    how long it is until the next row is due, for rows that must not be late; others are looked for once a second.
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
        """Look for due rows now."""
        self._nudged.set()

    async def run(self) -> None:
        """Work rows off as they become due, until cancelled; an outage is waited for."""
        while True:
            pause = _LONGEST_PAUSE_SECONDS
            try:
                full = await self.once() >= self._limit
                if not full and self._next_due is not None:
                    pause = await self._until_due(self._next_due)
            except (Interrupted, psycopg.Error) as error:
                full = False
                log.warning("due_rows_wait", error=error_text(error))
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
        """Claim and work off what is due now; returns how many rows were claimed."""
        rows = await self._database.rows(self._claim, self._parameters)
        if rows:
            await self._work(rows)
        self.last_success = time.monotonic()
        return len(rows)
