"""Erasing and exporting a person in everything that a service stores: its tables, and the events that they keep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wch_common.contract.operations import TableRows
from wch_common.store import personal_data, stored_events

if TYPE_CHECKING:
    from sqlalchemy import MetaData

    from wch_common.contract.personal import Person
    from wch_common.contract.registry import Registry
    from wch_common.store.store import Transaction


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
