"""Erasing and exporting a person in everything that a service stores: its tables, and the events that they keep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg.types.json import Jsonb

from wch_common.contract.operations import TableRows
from wch_common.outcome import Reject
from wch_common.store import personal_data, stored_events

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from sqlalchemy import MetaData

    from wch_common.contract.event import Event, EventData
    from wch_common.contract.personal import HashedPerson, Person
    from wch_common.contract.registry import Registry
    from wch_common.store.store import Store, Transaction

# As of when this service begins, by the database's clock: a requester's clock may be wrong, and a request may have waited. A
# service that follows takes the time of the one that it follows.
_BEGIN = """
INSERT INTO erasures (id, at) VALUES (%(id)s, least(%(at)s::timestamptz, clock_timestamp())) ON CONFLICT DO NOTHING
"""
_AT = "SELECT at FROM erasures WHERE id = %(id)s"
_MARK = """
INSERT INTO erased_people AS known (person, at)
SELECT new.person, erasures.at FROM erasures CROSS JOIN unnest(%(people)s::bytea[]) AS new (person)
WHERE erasures.id = %(id)s ORDER BY new.person
ON CONFLICT (person) DO UPDATE SET at = greatest(known.at, excluded.at)
"""
_END = "UPDATE erasures SET rows = %(rows)s, ended_at = now() WHERE id = %(id)s"


@dataclass(frozen=True)
class Erasures:
    """Erases people from a service's schema for good, in three steps that may be repeated after a crash.

    First it is committed that they are erased. Then whatever began before that comes to its end, so that from then on nobody
    takes up what is older. Last they are erased from all tables, and the answer is published with that.
    """

    store: Store
    metadata: MetaData
    registry: Registry
    source: str

    async def erase(
        self,
        event: Event[Any],
        id_: str,
        at: datetime | None,
        whom: Callable[[Transaction], Awaitable[HashedPerson]],
        answer: Callable[[Transaction, HashedPerson, datetime, tuple[TableRows, ...]], Awaitable[EventData]],
        *,
        elsewhere: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Erase whom the request `id_` names, as of a time or of now, and answer the event. May raise Throttled, and what `whom` raises.

        `elsewhere` is called while the names are still known, outside of transactions; what it raises leaves them.
        """
        async with self.store.transaction() as tx:
            await tx.rows(_BEGIN, {"id": id_, "at": at})
            await _mark(tx, id_, await whom(tx))
        await self.store.until_seen()
        if elsewhere is not None:
            await elsewhere()

        async def last(event: Event[Any], tx: Transaction) -> None:
            # More of their names may have become known since.
            erased = await whom(tx)
            await _mark(tx, id_, erased)
            rows = await erase_person(tx, self.metadata, self.registry, erased.person)
            await tx.rows(_END, {"id": id_, "rows": Jsonb({one.table: one.rows for one in rows})})
            (row,) = await tx.rows(_AT, {"id": id_})
            tx.emit(event.derive(await answer(tx, erased, row["at"], rows), self.source))

        await self.store.handle(last, event)

    def following(
        self, erased_in: Callable[[Any], HashedPerson], answer: Callable[..., EventData]
    ) -> Callable[[Event[Any]], Awaitable[None]]:
        """Return the handler of the fact that another service has erased a person; its answer gets `rows` and `erasure`."""

        async def erase(event: Event[Any]) -> None:
            erased, id_ = erased_in(event.data), event.data.erasure
            if not (id_ and erased.hashes):
                raise Reject("data.names: names nobody, as of a release before: request the erasure again")

            async def whom(_tx: Transaction) -> HashedPerson:
                return erased

            async def own(
                _tx: Transaction, _erased: HashedPerson, _at: datetime, rows: tuple[TableRows, ...]
            ) -> EventData:
                return answer(rows=rows, erasure=id_)

            await self.erase(event, id_, event.data.at, whom, own)

        return erase


async def _mark(tx: Transaction, id_: str, erased: HashedPerson) -> None:
    await tx.rows(_MARK, {"id": id_, "people": sorted(erased.hashes)})


async def erase_person(
    tx: Transaction, metadata: MetaData, registry: Registry, person: Person
) -> tuple[TableRows, ...]:
    """Erase a person and return how many rows of each table that changed or deleted."""
    counts = await personal_data.erase(tx, metadata, person.keys)
    counts |= await stored_events.erase_in_events(tx, metadata, registry, person)
    return tuple(TableRows(table=table, rows=rows) for table, rows in counts.items())


def erasable_rows(connection: Any, metadata: MetaData, registry: Registry, person: Person) -> dict[str, int]:  # noqa: ANN401 - a psycopg connection
    """Return how many rows of each table `erase_person` would change or delete, without changing any."""
    counts = personal_data.erasable(connection, metadata, person.keys)
    return counts | stored_events.erasable_events(connection, metadata, registry, person)


def export_person(
    connection: Any,  # noqa: ANN401 - a psycopg connection
    metadata: MetaData,
    registry: Registry,
    person: Person,
) -> dict[str, list[dict[str, Any]]]:
    """Return every row about a person, and type and data of the stored events that name them, by table."""
    rows = personal_data.export(connection, metadata, person.keys)
    return rows | stored_events.events_about(connection, metadata, registry, person)
