"""Erasing and exporting a person in the events that tables keep: parked ones, those of the outbox, and timers.

The fields of each event say what in it is personal, and which field names a person (`contract.personal`).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from psycopg.types.json import Jsonb
from sqlalchemy import LargeBinary

from wch_common.contract.envelope import STRUCTURED, peek
from wch_common.contract.message import Message
from wch_common.contract.personal import names_person, without_person
from wch_common.store.parking import unpacked, with_data
from wch_common.store.personal_data import marks_of
from wch_common.store.tables import RUNTIME

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy import MetaData, Table

    from wch_common.contract.personal import Person
    from wch_common.contract.registry import Registry
    from wch_common.store.database import Row
    from wch_common.store.store import Transaction


async def erase_in_events(tx: Transaction, metadata: MetaData, registry: Registry, person: Person) -> dict[str, int]:
    """Erase a person from the events in every table, the runtime's included; returns how many events that changed, by table."""
    counts = {}
    for table, column in _tables(metadata):
        rows = await tx.rows(f"{_select(table, column)} ORDER BY {', '.join(_keys(table))} FOR UPDATE", _like(person))
        changed = 0
        # In a thread, because reading the numbers of large batches takes long enough to delay other work.
        for row, erased in await asyncio.to_thread(_erased, rows, column, registry, person):
            changed += len(await tx.rows(_update(table, column), {**row, "erased": erased}))
        counts[str(table.name)] = changed
    return counts


def events_about(
    connection: Any,  # noqa: ANN401 - a psycopg connection
    metadata: MetaData,
    registry: Registry,
    person: Person,
) -> dict[str, list[dict[str, Any]]]:
    """Return type and data of the events that name a person, by table; also of those that erasing leaves as they are."""
    found = {}
    for table, column in _tables(metadata):
        rows = connection.execute(_select(table, column), _like(person)).fetchall()
        events = [event for row in rows if (event := _event(row, column)) is not None]
        found[str(table.name)] = [one for one in events if names_person(registry, one["type"], one["data"], person)]
    return found


def erasable_events(connection: Any, metadata: MetaData, registry: Registry, person: Person) -> dict[str, int]:  # noqa: ANN401 - a psycopg connection
    """Return how many events `erase_in_events` would change, by table."""
    return {
        str(table.name): len(
            _erased(connection.execute(_select(table, column), _like(person)), column, registry, person)
        )
        for table, column in _tables(metadata)
    }


def _tables(metadata: MetaData) -> Iterator[tuple[Table, str]]:
    for table in (*RUNTIME.sorted_tables, *metadata.sorted_tables):
        marks = marks_of(table)
        if marks is not None and marks.event is not None:
            yield table, marks.event


def _keys(table: Table) -> list[str]:
    return [column.name for column in table.primary_key]


# Removes what separates the digits of a number: escaped characters of JSON and of bytea, and everything that is no digit.
_DIGITS = r"regexp_replace({text}, '\\+u[0-9a-fA-F]{{4}}|\\[0-7]{{3}}|[^0-9]', '', 'g') LIKE ANY(%(digits)s::text[])"
_IDS = "{text} LIKE ANY(%(ids)s::text[])"
# Digits of other scripts (Arabic, Persian, full-width), raw, as bytes or escaped, and Base64 need to be read.
_UNREADABLE = r"{text} ~* '[٠-٩۰-۹０-９]|\\331\\2[45]|\\333\\2[67]|\\357\\274\\2[23]|\\u(066|06f|ff1)|data_base64'"


def _select(table: Table, column: str) -> str:
    """Return the statement that finds the rows which may name the person."""
    is_bytes = isinstance(table.columns[column].type, LargeBinary)
    text = f"encode({column}, 'escape')" if is_bytes else f"{column}::text"
    names = ", ".join([*_keys(table), column, *(["properties"] if "properties" in table.columns else [])])
    condition = f"{_DIGITS} OR {_IDS} OR {_UNREADABLE}".format(text=text)
    return f"SELECT {names} FROM {table.name} WHERE {condition}"  # noqa: S608 - names of columns


def _like(person: Person) -> dict[str, list[str]]:
    return {"digits": [f"%{one}%" for one in person.digits], "ids": [f"%{one}%" for one in person.ids]}


def _update(table: Table, column: str) -> str:
    same = " AND ".join(f"{name} = %({name})s" for name in _keys(table))
    return f"UPDATE {table.name} SET {column} = %(erased)s WHERE {same} RETURNING 1"  # noqa: S608 - names of columns


def _erased(rows: Iterable[Row], column: str, registry: Registry, person: Person) -> list[tuple[Row, object]]:
    """Return the rows that erasing changes, with the new value of the column."""
    changed: list[tuple[Row, object]] = []
    for row in rows:
        event = _event(row, column)
        erased = event and without_person(registry, event["type"], event["data"], person)
        if erased is not None:
            stored = row[column]
            new = Jsonb({**stored, "data": erased}) if isinstance(stored, dict) else with_data(stored, erased)
            changed.append((row, new))
    return changed


def _event(row: Row, column: str) -> dict[str, Any] | None:
    """Return type and data of a stored event; None if it cannot be read."""
    if isinstance(row[column], dict):
        return {"type": row[column].get("type"), "data": row[column].get("data")}
    body = bytes(row[column])
    message = unpacked(body, row["properties"]) if "properties" in row else Message(body, STRUCTURED)
    event = peek(message)
    return None if event is None else {"type": event.type, "data": event.data}
