"""The outbox's relay: publishes at once after the commit, sweeps what a dead process left, deletes after the confirm."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

import structlog

from wch_common.envelope import STRUCTURED, encode
from wch_common.errors import Interrupted, PublishError
from wch_common.event import REQUESTS_EXCHANGE
from wch_common.events.scheduler import TimerCancelRequested, TimerRequested
from wch_common.message import Message, Publication
from wch_common.redact import error_text
from wch_common.store.due import DueRows

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from wch_common.event import Event, EventData
    from wch_common.store.database import AsyncConnection, Database, Row

log = structlog.get_logger(__name__)

_DELETE_PAUSE_SECONDS = 0.05
_LIMIT = 200
_INSERT = """
INSERT INTO outbox (id, exchange, routing_key, body, due_at)
SELECT id, exchange, routing_key, body, coalesce(due_at, now() + %(lease)s * interval '1 second')
FROM unnest(%(ids)s::text[], %(exchanges)s::text[], %(keys)s::text[], %(bodies)s::bytea[], %(due)s::timestamptz[])
  AS new (id, exchange, routing_key, body, due_at)
ON CONFLICT (id) DO NOTHING
"""
# One row costs a third less than arrays of one.
_INSERT_ONE = """
INSERT INTO outbox (id, exchange, routing_key, body, due_at)
VALUES (%s, %s, %s, %s, coalesce(%s, now() + %s * interval '1 second')) ON CONFLICT (id) DO NOTHING
"""
_CLAIM = """
UPDATE outbox SET due_at = now() + %(lease)s * interval '1 second'
WHERE id IN (SELECT id FROM outbox WHERE due_at <= now() ORDER BY due_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
RETURNING id, exchange, routing_key, body
"""
# What has to be signed, as `encode` says of the others.
_SIGNED = {TimerRequested.TYPE, TimerCancelRequested.TYPE}
_DELETE = "DELETE FROM outbox WHERE id = ANY(%(ids)s)"


class Publishing(Protocol):
    """The port the relay publishes through."""

    async def publish(self, publication: Publication) -> None:
        """Return once the broker has confirmed; raises PublishError."""


class Outbox:
    """Events that leave when the work that caused them is committed: at least once, under a fixed id, in no order."""

    def __init__(self, database: Database, publishing: Publishing, *, confirm_timeout_seconds: float) -> None:
        self._database = database
        self._publishing = publishing
        # Longer than any publish may take, so that the sweep never publishes what is still under way here.
        self._lease = 2 * confirm_timeout_seconds
        self._confirmed: list[str] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._deleting = asyncio.Event()
        self.sweep = DueRows(database, _CLAIM, self._publish_rows, lease=self._lease, limit=_LIMIT)

    @property
    def unrelayed(self) -> int:
        """How many committed events of this process are not confirmed yet."""
        return len(self._tasks)

    async def add(
        self, connection: AsyncConnection, events: Sequence[tuple[Event[EventData], datetime | None]]
    ) -> list[Publication]:
        """Insert events in the caller's transaction; returns those to `relay` after the commit (those without a due time)."""
        publications = [encode(event) for event, _ in events]
        if len(events) == 1:
            (event, due), (publication,) = events[0], publications
            where = (publication.exchange, publication.routing_key, publication.message.body)
            await connection.execute(_INSERT_ONE, (event.id, *where, due, self._lease))
            return publications if due is None else []
        await connection.execute(
            _INSERT,
            {
                "ids": [event.id for event, _ in events],
                "exchanges": [publication.exchange for publication in publications],
                "keys": [publication.routing_key for publication in publications],
                "bodies": [publication.message.body for publication in publications],
                "due": [due for _, due in events],
                "lease": self._lease,
            },
        )
        return [publication for publication, (_, due) in zip(publications, events, strict=True) if due is None]

    def relay(self, publications: Iterable[Publication]) -> None:
        """Publish committed events now; what fails is swept up later."""
        for publication in publications:
            task = asyncio.get_running_loop().create_task(self._publish(publication))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def run_deletes(self) -> None:
        """Delete confirmed rows in batches, until cancelled; a row deleted too late is published twice, never lost."""
        while True:
            await self._deleting.wait()
            await asyncio.sleep(_DELETE_PAUSE_SECONDS)
            self._deleting.clear()
            await self.delete_confirmed()

    async def delete_confirmed(self) -> None:
        """Delete what is confirmed so far."""
        ids, self._confirmed = self._confirmed, []
        try:
            if ids:
                await self._database.rows(_DELETE, {"ids": ids})
        except Interrupted as interruption:
            self._confirmed += ids
            log.warning("outbox_rows_kept", rows=len(ids), error=error_text(interruption))
            self._deleting.set()

    async def finish(self) -> None:
        """Wait for what is being published, and delete what was confirmed; at the end of the process."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)
        await self.delete_confirmed()

    async def _publish_rows(self, rows: Sequence[Row]) -> None:
        publications = [
            Publication(
                row["exchange"],
                row["routing_key"],
                Message(row["body"], STRUCTURED, None, row["id"]),
                mandatory=row["exchange"] == REQUESTS_EXCHANGE,
                signed=row["routing_key"] in _SIGNED,
            )
            for row in rows
        ]
        await asyncio.gather(*map(self._publish, publications))
        await self.delete_confirmed()

    async def _publish(self, publication: Publication) -> None:
        try:
            await self._publishing.publish(publication)
        except PublishError as error:
            log.warning("outbox_publish_failed", key=publication.routing_key, error=error_text(error))
        else:
            self._confirmed.append(publication.message.message_id or "")
            self._deleting.set()
