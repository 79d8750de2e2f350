"""A service's store: transactions with inbox and outbox, parking, leases and retention."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
import structlog

from wch_common.errors import IdReused, Interrupted, WchError
from wch_common.logs import bound
from wch_common.redact import error_text
from wch_common.store import lease as leases
from wch_common.store.database import Database, Row
from wch_common.store.outbox import Outbox
from wch_common.store.parking import ParkingLot

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime

    from wch_common.event import Event, EventData
    from wch_common.message import Message
    from wch_common.store.database import AsyncConnection
    from wch_common.store.outbox import Publishing

log = structlog.get_logger(__name__)

INBOX_DAYS = 35
_RETENTION_SECONDS = 3600.0
_CHUNK = 5000
_TOGETHER_SECONDS = 10.0
_OWN_SOURCES = "/wch/"
_SEEN = """
SELECT queue, source, id, hash FROM inbox
JOIN unnest(%(queues)s::text[], %(sources)s::text[], %(ids)s::text[]) AS wanted (queue, source, id)
USING (queue, source, id)
"""
_INBOX_ONE = "INSERT INTO inbox (queue, source, id, hash) VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING"
_INBOX = """
INSERT INTO inbox (queue, source, id, hash)
SELECT * FROM unnest(%(queues)s::text[], %(sources)s::text[], %(ids)s::text[], %(hashes)s::bytea[])
ON CONFLICT DO NOTHING RETURNING source, id
"""
_RETAIN = (
    f"DELETE FROM inbox WHERE ctid = ANY(ARRAY(SELECT ctid FROM inbox "  # noqa: S608 - two numbers of this module
    f"WHERE handled_at < now() - interval '{INBOX_DAYS} days' LIMIT {_CHUNK})) RETURNING 1"
)
_RETAIN_SCOPES = """
DELETE FROM scopes WHERE paused_until < now() - interval '1 day'
AND NOT EXISTS (SELECT 1 FROM parked WHERE parked.scope = scopes.scope)
"""


def content_hash(event: Event[Any]) -> bytes:
    """Return the hash over type and canonical data by which the inbox knows an id that was used twice."""
    return hashlib.blake2b(event.type.encode() + b"\n" + event.canonical, digest_size=16).digest()


_UNRELAYED = "SELECT count(*) AS rows FROM outbox"
_PARKED = "SELECT queue, count(*) AS rows FROM parked GROUP BY queue"


def _keys(events: Sequence[Event[Any]]) -> dict[str, list[Any]]:
    return {
        "queues": [event.queue for event in events],
        "sources": [event.source for event in events],
        "ids": [event.id for event in events],
    }


class AlreadySeen(WchError):
    """The inbox knows an event of several that were to be handled together."""


class Transaction:
    """One transaction: domain statements, events that leave with its commit, and the inbox."""

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection
        self.emitted: list[tuple[Event[EventData], datetime | None]] = []
        self.afterwards: list[Callable[[], None]] = []

    async def rows(self, statement: str, parameters: Any = None) -> list[Row]:  # noqa: ANN401 - psycopg's own
        """Run one statement and return its rows."""
        cursor = await self.connection.execute(statement, parameters)
        return await cursor.fetchall() if cursor.description else []

    def emit(self, event: Event[EventData], *, due: datetime | None = None) -> None:
        """Publish an event when, and only if, the transaction commits; at its due time if one is given."""
        self.emitted.append((event, due))

    def then(self, call: Callable[[], None]) -> None:
        """Call something when, and only if, the transaction is committed."""
        self.afterwards.append(call)

    async def first_time(self, event: Event[Any]) -> bool:
        """Write the event into the inbox; False where its effects are committed already.

        Raises IdReused where a foreign source used the id for other content.
        """
        # A statement of its own, as this is the hot path: one row costs 150 µs less than arrays of one.
        values = (event.queue, event.source, event.id, content_hash(event))
        if (await self.connection.execute(_INBOX_ONE, values)).rowcount:
            return True
        for error in compare([event], await self.rows(_SEEN, _keys([event]))).reused.values():
            raise error
        return False

    async def first_times(self, events: Iterable[Event[Any]]) -> set[tuple[str, str]]:
        """Write many into the inbox, in key order; returns (source, id) of those that are new.

        Ids used for other content are told apart by `Store.seen`, before the work.
        """
        ordered = sorted(events, key=lambda event: (event.queue, event.source, event.id))
        hashes = [content_hash(event) for event in ordered]
        rows = await self.rows(_INBOX, _keys(ordered) | {"hashes": hashes})
        return {(row["source"], row["id"]) for row in rows}


@dataclass(frozen=True)
class Seen:
    """What the inbox knows of some events, each by (source, id)."""

    done: frozenset[tuple[str, str]]
    reused: dict[tuple[str, str], IdReused]


def compare(events: Iterable[Event[Any]], rows: Iterable[Row]) -> Seen:
    """Tell duplicates from ids that a foreign source used again for other content; our own is a duplicate, and logged."""
    known = {(row["source"], row["id"]): bytes(row["hash"]) for row in rows}
    reused = {}
    for event in events:
        before = known.get((event.source, event.id))
        if before is None or before == content_hash(event):
            continue
        if event.source.startswith(_OWN_SOURCES):
            log.info("own_id_repeated_with_other_content", event_id=event.id, type=event.type)
        else:
            text = f"{event.source} used the id {event.id} before, for another {event.type}"
            reused[event.source, event.id] = IdReused(text)
    return Seen(frozenset(known) - frozenset(reused), reused)


class Store:
    """One service's schema. Effects in it happen once, whatever is delivered how often."""

    def __init__(self, url: str, schema: str, publishing: Publishing, *, confirm_timeout_seconds: float = 30.0) -> None:
        self.database = Database(url, schema)
        self.outbox = Outbox(self.database, publishing, confirm_timeout_seconds=confirm_timeout_seconds)
        self.parking = ParkingLot(self.database, publishing, confirm_timeout_seconds=confirm_timeout_seconds)

    async def open(self) -> None:
        """Connect; raises DatabaseAway."""
        await self.database.open()

    async def close(self) -> None:
        """Finish what is being relayed and disconnect."""
        await self.outbox.finish()
        await self.database.close()

    @property
    def background(self) -> list[Callable[[], Awaitable[None]]]:
        """The loops that have to run beside the queues."""
        return [self.outbox.sweep.run, self.outbox.run_deletes, self.parking.release.run, self._retain]

    async def ping(self) -> None:
        """Ask whether the database answers; raises DatabaseAway."""
        await self.database.ping()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Run a transaction; what it emitted is relayed once it is committed."""
        relayed = []
        async with self.database.connection() as connection, connection.transaction():
            transaction = Transaction(connection)
            yield transaction
            if transaction.emitted:
                relayed = await self.outbox.add(connection, transaction.emitted)
        self.outbox.relay(relayed)
        for call in transaction.afterwards:
            call()

    async def handle(self, handler: Callable[..., Awaitable[None]], event: Event[Any]) -> None:
        """Run a handler inside one transaction with its inbox row; a repeated event is not handled again."""
        async with self.transaction() as transaction:
            if await transaction.first_time(event):
                await handler(event, transaction)

    async def handle_together(
        self, handlers: Mapping[str, Callable[..., Awaitable[None]]], events: Sequence[Event[Any]]
    ) -> None:
        """Run the handlers of several events inside one transaction with their inbox rows: all of them, or none.

        Raises whatever one of them raises, AlreadySeen where the inbox knows one, TimeoutError after 10 seconds.
        """
        async with asyncio.timeout(_TOGETHER_SECONDS), self.transaction() as transaction:
            if len(await transaction.first_times(events)) < len(events):
                raise AlreadySeen("an event of these was handled before")
            # By subject, so that two transactions lock the rows of theirs in one order.
            for event in sorted(events, key=lambda event: event.subject or ""):
                with bound(event):
                    await handlers[event.type](event, transaction)

    async def seen(self, events: Iterable[Event[Any]]) -> Seen:
        """Return which events' effects are committed, and which carry an id that was used for other content."""
        wanted = list(events)
        return compare(wanted, await self.database.rows(_SEEN, _keys(wanted)))

    async def unrelayed(self) -> int:
        """Return how many committed events wait to be published, due ones and later ones, by any process."""
        return int((await self.database.rows(_UNRELAYED))[0]["rows"])

    async def parked(self) -> dict[str, int]:
        """Return how many events are parked, by queue."""
        return {row["queue"]: row["rows"] for row in await self.database.rows(_PARKED)}

    async def park(self, queue: str, message: Message, *, seconds: float, scope: str) -> None:
        """Park a message until its due time; returns once that is committed."""
        await self.parking.park(queue, message, seconds=seconds, scope=scope)

    def lease(
        self, name: str, *, seconds: float, wait_seconds: float = 0.0
    ) -> AbstractAsyncContextManager[leases.Lease | None]:
        """Hold a lease while the block runs; None where it was not free in time."""
        return leases.held(self.database, name, seconds=seconds, wait_seconds=wait_seconds)

    async def _retain(self) -> None:
        """Delete inbox rows that outlived every replay, in chunks, once an hour."""
        while True:
            try:
                while len(await self.database.rows(_RETAIN)) == _CHUNK:
                    await asyncio.sleep(0.1)  # between chunks, so that others get at the table
                await self.database.rows(_RETAIN_SCOPES)
            except (Interrupted, psycopg.Error) as error:
                log.warning("retention_waits", error=error_text(error))
            await asyncio.sleep(_RETENTION_SECONDS)
