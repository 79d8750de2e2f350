"""The outbox: events committed with the work that caused them, published after the commit, deleted after the confirm."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import psycopg
import structlog

from wch_common.contract.envelope import STRUCTURED, encode
from wch_common.contract.event import REQUESTS_EXCHANGE
from wch_common.contract.message import Message, Publication
from wch_common.errors import Interrupted, PublishError
from wch_common.observability.redact import error_text
from wch_common.store.due_rows import DueRows, claim_due

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from wch_common.contract.event import Event, EventData
    from wch_common.contract.message import Publish
    from wch_common.store.database import AsyncConnection, Database, Row

log = structlog.get_logger(__name__)

_DELETE_PAUSE_SECONDS = 0.05
_LIMIT = 200
_INSERT = """
INSERT INTO outbox (id, exchange, routing_key, signed, body, due_at)
SELECT id, exchange, routing_key, signed, body, coalesce(due_at, now() + %(lease)s * interval '1 second')
FROM unnest(%(ids)s::text[], %(exchanges)s::text[], %(keys)s::text[], %(signed)s::boolean[], %(bodies)s::bytea[],
            %(due)s::timestamptz[]) AS new (id, exchange, routing_key, signed, body, due_at)
ON CONFLICT (id) DO NOTHING
"""
# One row costs a third less than arrays of one.
_INSERT_ONE = """
INSERT INTO outbox (id, exchange, routing_key, signed, body, due_at)
VALUES (%s, %s, %s, %s, %s, coalesce(%s, now() + %s * interval '1 second')) ON CONFLICT (id) DO NOTHING
"""
_CLAIM = claim_due("outbox", returning="id, exchange, routing_key, signed, body")
_DELETE = "DELETE FROM outbox WHERE id = ANY(%(ids)s)"


class Outbox:
    """Publishes events once the work that caused them has committed: at least once, under a fixed id, in no order."""

    def __init__(self, database: Database, publish: Publish, *, confirm_timeout_seconds: float) -> None:
        self._database = database
        self._publish = publish
        # Longer than any publish may take, so that the sweep never publishes what is still in flight here.
        self._lease = 2 * confirm_timeout_seconds
        self._confirmed: list[str] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._deleting = asyncio.Event()
        self.sweep = DueRows(database, _CLAIM, self._publish_rows, lease=self._lease, limit=_LIMIT)

    @property
    def unconfirmed(self) -> int:
        """How many committed events of this process are not confirmed yet."""
        return len(self._tasks)

    async def add(
        self, connection: AsyncConnection, events: Sequence[tuple[Event[EventData], datetime | None]]
    ) -> list[Publication]:
        """Insert events in the caller's transaction; returns those without a due time, to be relayed after the commit."""
        publications = [encode(event) for event, _ in events]
        if len(events) == 1:
            (event, due), (publication,) = events[0], publications
            where = (publication.exchange, publication.routing_key, publication.signed, publication.message.body)
            await connection.execute(_INSERT_ONE, (event.id, *where, due, self._lease))
            return publications if due is None else []
        await connection.execute(
            _INSERT,
            {
                "ids": [event.id for event, _ in events],
                "exchanges": [publication.exchange for publication in publications],
                "keys": [publication.routing_key for publication in publications],
                "signed": [publication.signed for publication in publications],
                "bodies": [publication.message.body for publication in publications],
                "due": [due for _, due in events],
                "lease": self._lease,
            },
        )
        return [publication for publication, (_, due) in zip(publications, events, strict=True) if due is None]

    def relay(self, publications: Iterable[Publication]) -> None:
        """Publish committed events now; the sweep publishes those that fail."""
        for publication in publications:
            task = asyncio.get_running_loop().create_task(self._relay_one(publication))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def run_deletes(self) -> None:
        """Delete confirmed rows in batches until cancelled; a row deleted too late is published twice, never lost."""
        while True:
            await self._deleting.wait()
            await asyncio.sleep(_DELETE_PAUSE_SECONDS)
            self._deleting.clear()
            await self.delete_confirmed()

    async def delete_confirmed(self) -> None:
        """Delete the rows confirmed so far."""
        ids, self._confirmed = self._confirmed, []
        try:
            if ids:
                await self._database.rows(_DELETE, {"ids": ids})
        except BaseException as error:
            # Whatever happened: what is forgotten here is published again.
            self._confirmed += ids
            self._deleting.set()
            if not isinstance(error, (Interrupted, psycopg.Error)):
                raise
            log.warning("outbox_rows_not_deleted", rows=len(ids), error=error_text(error))

    async def finish(self) -> None:
        """Wait for publishes in flight and delete the confirmed rows; called at the end of the process."""
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
                signed=row["signed"],
            )
            for row in rows
        ]
        await asyncio.gather(*map(self._relay_one, publications))
        await self.delete_confirmed()

    async def _relay_one(self, publication: Publication) -> None:
        try:
            await self._publish(publication)
        except PublishError as error:
            log.warning("outbox_publish_failed", key=publication.routing_key, error=error_text(error))
        else:
            self._confirmed.append(publication.message.message_id or "")
            self._deleting.set()
