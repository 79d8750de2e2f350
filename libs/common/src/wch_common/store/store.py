"""A service's store: transactions with inbox and outbox, parking, leases and retention."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from psycopg.rows import class_row

from wch_common.errors import WchError
from wch_common.observability.logs import bound
from wch_common.outcome import Throttled
from wch_common.store import inbox, leases
from wch_common.store.database import Database, Row
from wch_common.store.maintenance import retention
from wch_common.store.outbox import Outbox
from wch_common.store.parking import ParkingLot

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime

    from wch_common.contract.event import Event, EventData
    from wch_common.contract.message import Message, Publish
    from wch_common.store.database import AsyncConnection
    from wch_common.store.erased_people import ErasedPeople
    from wch_common.store.maintenance import Loop

T = TypeVar("T")

_SHARED_SECONDS = 10.0
_LOOK_SECONDS, _LOOKS, _LATER_SECONDS = 0.05, 100, 5.0
# Who writes the inbox locks it before looking for erased people, and until the end of the transaction.
_WRITING = """
SELECT virtualtransaction AS id FROM pg_locks
WHERE locktype = 'relation' AND relation = 'inbox'::regclass AND pid <> pg_backend_pid() AND mode = 'RowExclusiveLock'
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_REMOVE_SWITCHES = "DELETE FROM switches WHERE NOT setting = ANY(%(settings)s)"
_SET_SWITCH = """
INSERT INTO switches AS known (setting, effect) VALUES (%(setting)s, %(effect)s)
ON CONFLICT (setting) DO UPDATE SET effect = excluded.effect,
  since = CASE WHEN known.effect = excluded.effect THEN known.since ELSE excluded.since END
"""
_UNPUBLISHED = "SELECT count(*) AS rows FROM outbox"
_PARKED = "SELECT queue, count(*) AS rows FROM parked GROUP BY queue"
_DELETE_SCOPES = """
DELETE FROM scopes WHERE ctid = ANY(ARRAY(
  SELECT ctid FROM scopes WHERE paused_until < now() - interval '1 day'
  AND NOT EXISTS (SELECT 1 FROM parked WHERE parked.scope = scopes.scope)
  LIMIT %(chunk)s FOR UPDATE SKIP LOCKED)) RETURNING 1
"""


class AlreadySeen(WchError):
    """The inbox already knows one of several events that were to share a transaction."""


class Transaction:
    """One transaction: domain statements, events to publish with its commit, and the inbox."""

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection
        self.emitted: list[tuple[Event[EventData], datetime | None]] = []
        self.afterwards: list[Callable[[], None]] = []
        self.last_erasure: datetime | None = None
        """When somebody was last erased; known once an event is in the inbox."""

    async def rows(self, statement: str, parameters: Any = None) -> list[Row]:  # noqa: ANN401 - psycopg's own
        """Run one statement and return its rows."""
        cursor = await self.connection.execute(statement, parameters)
        return await cursor.fetchall() if cursor.description else []

    async def typed(self, row: type[T], statement: str, parameters: Any = None) -> list[T]:  # noqa: ANN401 - psycopg's own
        """Run one statement and return its rows as objects of a class, built from the columns by name."""
        async with self.connection.cursor(row_factory=class_row(row)) as cursor:
            await cursor.execute(statement, parameters)
            return await cursor.fetchall()

    def emit(self, event: Event[EventData], *, due: datetime | None = None) -> None:
        """Publish an event if the transaction commits, at its due time if one is given."""
        self.emitted.append((event, due))

    def then(self, call: Callable[[], None]) -> None:
        """Call a function after the transaction has committed; not called if it does not commit."""
        self.afterwards.append(call)

    async def first_time(self, event: Event[Any]) -> bool:
        """Write the event into the inbox; False if its effects are already committed.

        Raises IdReused if a foreign source has used the id for other content.
        """
        values = (event.queue, event.source, event.id, inbox.content_hash(event))
        if rows := await self.rows(inbox.INSERT_ONE, values):
            self.last_erasure = rows[0]["last_erasure"]
            return True
        for error in inbox.compare([event], await self.rows(inbox.SEEN, inbox.keys([event]))).reused.values():
            raise error
        return False

    async def first_times(self, events: Iterable[Event[Any]]) -> set[tuple[str, str]]:
        """Write many events into the inbox, in key order; returns (source, id) of the new ones.

        Ids reused for other content are found by `Store.seen`, before the work.
        """
        ordered = sorted(events, key=lambda event: (event.queue, event.source, event.id))
        hashes = [inbox.content_hash(event) for event in ordered]
        rows = await self.rows(inbox.INSERT_MANY, inbox.keys(ordered) | {"hashes": hashes})
        self.last_erasure = rows[0]["last_erasure"] if rows else None
        return {(row["source"], row["id"]) for row in rows}


class Store:
    """One service's schema, in which effects happen once however often an event is delivered."""

    def __init__(
        self,
        url: str,
        schema: str,
        publish: Publish,
        *,
        confirm_timeout_seconds: float = 30.0,
        erased_people: ErasedPeople | None = None,
    ) -> None:
        self.database = Database(url, schema)
        self._erased_people = erased_people
        self.outbox = Outbox(self.database, publish, confirm_timeout_seconds=confirm_timeout_seconds)
        self.parking = ParkingLot(
            self.database, publish, confirm_timeout_seconds=confirm_timeout_seconds, erased_people=erased_people
        )

    async def open(self) -> None:
        """Connect; raises DatabaseAway."""
        await self.database.open()

    async def close(self) -> None:
        """Wait for the relay to finish its publishes, and disconnect."""
        await self.outbox.finish()
        await self.database.close()

    @property
    def background(self) -> list[Loop]:
        """The loops that must run beside the queues."""
        old = retention(self.database, (inbox.DELETE_OLD, _DELETE_SCOPES))
        return [self.outbox.sweep.run, self.outbox.run_deletes, self.parking.release.run, old]

    @asynccontextmanager
    async def transaction(self, *, reserved: bool = False) -> AsyncIterator[Transaction]:
        """Run a transaction; the events it emitted are published, and the calls given to `then` run, once it has committed.

        `reserved` is for the loop on which the others depend: it takes no connection that handlers take. Raises Contended
        for a deadlock or a serialization failure, DatabaseSlow for a statement that took too long, and DatabaseAway.
        """
        relayed = []
        async with self.database.connection(reserved=reserved) as connection, connection.transaction():
            transaction = Transaction(connection)
            yield transaction
            if transaction.emitted:
                relayed = await self.outbox.add(connection, transaction.emitted)
        self.database.last_commit = time.monotonic()
        self.outbox.relay(relayed)
        for call in transaction.afterwards:
            call()

    async def handle(self, handler: Callable[..., Awaitable[None]], event: Event[Any]) -> None:
        """Run a handler in one transaction with its inbox row; a duplicate is not handled again. Raises IdReused."""
        async with self.transaction() as transaction:
            if await transaction.first_time(event):
                await handler(await self._without_erased(transaction, event), transaction)

    async def handle_shared(
        self, handlers: Mapping[str, Callable[..., Awaitable[None]]], events: Sequence[Event[Any]]
    ) -> None:
        """Run the handlers of several events in one transaction with their inbox rows: all of them, or none.

        Raises what a handler raises, AlreadySeen if the inbox knows one of them, TimeoutError after 10 seconds.
        """
        async with asyncio.timeout(_SHARED_SECONDS), self.transaction() as transaction:
            if len(await transaction.first_times(events)) < len(events):
                raise AlreadySeen("one of these events was handled before")
            # Ordered by subject, so that two transactions lock their rows in the same order.
            for event in sorted(events, key=lambda event: event.subject or ""):
                with bound(event):
                    await handlers[event.type](await self._without_erased(transaction, event), transaction)

    async def _without_erased(self, transaction: Transaction, event: Event[Any]) -> Event[Any]:
        """Return an event without people who were erased after it was published."""
        return event if self._erased_people is None else await self._erased_people.left_out(transaction, event)

    async def until_seen(self) -> None:
        """Return once whatever is committed now is seen by all who handle events: those who began before have ended.

        Raises Throttled if one of them is still at it after some seconds.
        """
        before = {row["id"] for row in await self.database.rows(_WRITING)}
        for _ in range(_LOOKS):
            if not before:
                return
            await asyncio.sleep(_LOOK_SECONDS)
            before &= {row["id"] for row in await self.database.rows(_WRITING)}
        raise Throttled("a transaction that began earlier is still running", scope="", after=_LATER_SECONDS)

    async def seen(self, events: Iterable[Event[Any]]) -> inbox.Seen:
        """Return which events' effects are committed, and which reuse an id for other content."""
        wanted = list(events)
        return inbox.compare(wanted, await self.database.rows(inbox.SEEN, inbox.keys(wanted)))

    async def unpublished(self) -> int:
        """Return how many committed events of all processes are not published yet, later ones included."""
        return int((await self.database.rows(_UNPUBLISHED))[0]["rows"])

    async def parked(self) -> dict[str, int]:
        """Return how many events are parked, by queue."""
        return {row["queue"]: row["rows"] for row in await self.database.rows(_PARKED)}

    async def park(self, queue: str, message: Message, *, seconds: float, scope: str) -> None:
        """Park a message until its due time; returns once that is committed."""
        await self.parking.park(queue, message, seconds=seconds, scope=scope)

    async def set_switches(self, switches: Mapping[str, str]) -> None:
        """Keep which settings make the service leave work undone, and their effect, until its next start."""
        async with self.transaction() as tx:
            await tx.rows(_REMOVE_SWITCHES, {"settings": sorted(switches)})
            for setting in sorted(switches):
                await tx.rows(_SET_SWITCH, {"setting": setting, "effect": switches[setting]})

    def lease(
        self, name: str, *, seconds: float, wait_seconds: float = 0.0
    ) -> AbstractAsyncContextManager[leases.Lease | None]:
        """Hold a lease while the block runs; None if it was not free in time."""
        return leases.acquired(self.database, name, seconds=seconds, wait_seconds=wait_seconds)
