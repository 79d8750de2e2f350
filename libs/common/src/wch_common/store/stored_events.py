"""Erasing and exporting a person in the events that tables keep: parked ones, those of the outbox, and timers.

The fields of each event say what in it is personal, and which field names a person (`contract.personal`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
from psycopg.types.json import Jsonb
from sqlalchemy import LargeBinary

from wch_common.contract.envelope import STRUCTURED, peek
from wch_common.contract.message import Message
from wch_common.contract.personal import without_person
from wch_common.store.parking import unpacked
from wch_common.store.personal_data import marks_of
from wch_common.store.tables import RUNTIME

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy import MetaData, Table

    from wch_common.contract.personal import Person
    from wch_common.contract.registry import Registry
    from wch_common.store.database import Row
    from wch_common.store.store import Transaction


@dataclass(frozen=True)
class _Naming:
    """A row whose event names a person, and what erasing leaves in the column."""

    row: Row
    event: dict[str, Any]
    erased: object


async def erase_in_events(tx: Transaction, metadata: MetaData, registry: Registry, person: Person) -> dict[str, int]:
    """Erase a person from the events in every table, the runtime's included; returns how many events that changed, by table."""
    counts = {}
    for table, column in _tables(metadata):
        rows = await tx.rows(_select(table, column), {"pattern": person.pattern})
        named = list(_naming(rows, column, registry, person))
        for one in named:
            await tx.rows(_update(table, column), {**one.row, "erased": one.erased})
        counts[str(table.name)] = len(named)
    return counts


def events_about(
    connection: Any,  # noqa: ANN401 - a psycopg connection
    metadata: MetaData,
    registry: Registry,
    person: Person,
) -> dict[str, list[dict[str, Any]]]:
    """Return type and data of the events that name a person, by table."""
    found = {}
    for table, column in _tables(metadata):
        rows = connection.execute(_select(table, column), {"pattern": person.pattern}).fetchall()
        found[str(table.name)] = [one.event for one in _naming(rows, column, registry, person)]
    return found


def _tables(metadata: MetaData) -> Iterator[tuple[Table, str]]:
    for table in (*RUNTIME.sorted_tables, *metadata.sorted_tables):
        marks = marks_of(table)
        if marks is not None and marks.event is not None:
            yield table, marks.event


def _keys(table: Table) -> list[str]:
    return [column.name for column in table.primary_key]


def _select(table: Table, column: str) -> str:
    is_bytes = isinstance(table.columns[column].type, LargeBinary)
    text = f"encode({column}, 'escape')" if is_bytes else f"{column}::text"
    names = ", ".join([*_keys(table), column, *(["properties"] if "properties" in table.columns else [])])
    # No pattern finds a number in Base64, in which few publishers write.
    return f"SELECT {names} FROM {table.name} WHERE {text} ~ %(pattern)s OR {text} ~ 'data_base64'"  # noqa: S608


def _update(table: Table, column: str) -> str:
    same = " AND ".join(f"{name} = %({name})s" for name in _keys(table))
    return f"UPDATE {table.name} SET {column} = %(erased)s WHERE {same} RETURNING 1"  # noqa: S608 - names of columns


def _naming(rows: Iterable[Row], column: str, registry: Registry, person: Person) -> Iterator[_Naming]:
    """Yield the rows whose event names the person."""
    for row in rows:
        stored = row[column] if isinstance(row[column], dict) else None
        event = stored or _event(row, column)
        if event is None:
            continue
        erased = without_person(registry, event["type"], event["data"], person.is_same)
        if erased is not None:
            value = Jsonb({**event, "data": erased}) if stored else _body(row[column], erased)
            yield _Naming(row, event, value)


def _event(row: Row, column: str) -> dict[str, Any] | None:
    """Return type and data of an event that is stored as it is sent; None if it cannot be read."""
    body = bytes(row[column])
    message = unpacked(body, row["properties"]) if "properties" in row else Message(body, STRUCTURED)
    event = peek(message)
    return None if event is None else {"type": event.type, "data": event.data}


def _body(body: bytes, data: Any) -> bytes:  # noqa: ANN401 - JSON
    """Return the body of a message with other data, in the mode it has: the whole event, or only its data."""
    written = orjson.loads(body)
    if "specversion" not in written:
        return orjson.dumps(data)
    written.pop("data_base64", None)
    return orjson.dumps({**written, "data": data})
