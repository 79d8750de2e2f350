"""Erasing and exporting a person, driven by what each table says about its columns.

A table states in `info=personal_data(…)` which of its columns are personal, what erasing leaves in them, and which of its
texts name nobody. A test fails for a column of text, JSON or bytes that is in neither list, so that no new personal column is
forgotten.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg.types.json import Jsonb
from sqlalchemy import JSON, LargeBinary, String
from sqlalchemy.dialects.postgresql import ARRAY

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy import MetaData, Table

    from wch_common.store.store import Transaction

_KEY = "personal_data"


@dataclass(frozen=True)
class PersonalData:
    """What a table knows about people; see `personal_data`."""

    persons: tuple[str, ...]
    erased: Mapping[str, object]
    impersonal: Sequence[str]
    until_deleted: Sequence[str] = ()
    event: str | None = None
    delete: bool = False
    also: str = ""
    export: str = ""


def personal_data(  # noqa: PLR0913 - the marks, each by name
    *,
    person: str | tuple[str, ...] = (),
    erased: Mapping[str, object] | None = None,
    impersonal: Sequence[str] = (),
    until_deleted: Sequence[str] = (),
    event: str | None = None,
    delete: bool = False,
    also: str = "",
    export: str = "",
) -> dict[str, Any]:
    """Return the `info` of a table.

    `person` is the column that identifies a person, or several columns any of which does; without, no row is found by person. `erased` maps each personal
    column to the value that erasing leaves; `impersonal` names the other columns of text, JSON or bytes. `until_deleted` are
    personal columns of rows that nothing finds by person: they stay until the row is deleted. `event` is the column that
    holds an event, whose fields say what in it is personal (`stored_events`). With `delete` the rows are deleted instead of
    changed. `also` are further SQL assignments of the erasing UPDATE; `export` is a SELECT that replaces
    the plain one, with the keys as the array %(person)s; it names every personal column.
    """
    values = {
        name: Jsonb(value) if isinstance(value, (list, dict)) else value for name, value in (erased or {}).items()
    }
    persons = (person,) if isinstance(person, str) else person
    return {_KEY: PersonalData(persons, values, impersonal, until_deleted, event, delete, also, export)}


def marks_of(table: Table) -> PersonalData | None:
    """Return what a table says about its columns, or None."""
    marks: PersonalData | None = table.info.get(_KEY)
    return marks


def unmarked_columns(metadata: MetaData) -> list[str]:
    """Return the columns of text, JSON or bytes that are not marked as personal or impersonal, and marks of unknown columns."""
    found = []
    for table in metadata.sorted_tables:
        marks = marks_of(table)
        marked: set[str] = set()
        if marks is not None:
            single = (marks.event,) if marks.event else ()
            marked = {*marks.erased, *marks.impersonal, *marks.until_deleted, *marks.persons, *single}
        texts = {one.name for one in table.columns if _holds_text(one.type)}
        found += [f"{table.name}.{name}" for name in sorted((texts - marked) | (marked - set(table.columns.keys())))]
    return found


def unexported_columns(metadata: MetaData) -> list[str]:
    """Return the personal columns that a table's own export statement leaves out."""
    found = []
    for table, marks in _with_people(metadata):
        words = set(re.findall(r"\w+", export_statement(table, marks)))
        hashes = {column.name for column in table.columns if isinstance(column.type, LargeBinary)}
        found += [f"{table.name}.{name}" for name in marks.erased if name not in {*words, *hashes, *marks.persons}]
    return found


def _holds_text(type_: object) -> bool:
    return isinstance(type_, (String, JSON, LargeBinary)) or (isinstance(type_, ARRAY) and _holds_text(type_.item_type))


async def erase(tx: Transaction, metadata: MetaData, person: Sequence[object]) -> dict[str, int]:
    """Erase a person, whom tables call by these keys, from every table and return how many rows were changed or deleted, by table."""
    return {
        str(table.name): len(await tx.rows(erase_statement(table, marks), _parameters(marks, person)))
        for table, marks in _with_people(metadata)
    }


def erasable(connection: Any, metadata: MetaData, person: Sequence[object]) -> dict[str, int]:  # noqa: ANN401 - a psycopg connection
    """Return how many rows of each table `erase` would change or delete, without changing any."""
    counts = {}
    for table, marks in _with_people(metadata):
        counting = f"SELECT 1 FROM {table.name} WHERE {_affected(marks)}"  # noqa: S608 - names of columns
        counts[str(table.name)] = len(connection.execute(counting, _parameters(marks, person)).fetchall())
    return counts


def export(connection: Any, metadata: MetaData, person: Sequence[object]) -> dict[str, list[dict[str, Any]]]:  # noqa: ANN401 - a psycopg connection
    """Return every row about a person, by table."""
    return {
        str(table.name): connection.execute(export_statement(table, marks), {"person": list(person)}).fetchall()
        for table, marks in _with_people(metadata)
    }


def _with_people(metadata: MetaData) -> Iterator[tuple[Table, PersonalData]]:
    for table in metadata.sorted_tables:
        marks = marks_of(table)
        if marks is not None and marks.persons:
            yield table, marks


def erase_statement(table: Table, marks: PersonalData) -> str:
    """Return the statement that erases a person from a table; it returns one row for each row it affects."""
    if marks.delete:
        return f"DELETE FROM {table.name} WHERE {_affected(marks)} RETURNING 1"  # noqa: S608 - names of columns
    changes = ", ".join([*(f"{name} = %({name})s" for name in marks.erased), *([marks.also] if marks.also else [])])
    return f"UPDATE {table.name} SET {changes} WHERE {_affected(marks)} RETURNING 1"  # noqa: S608


def _affected(marks: PersonalData) -> str:
    """Return the condition for the rows of a person that still hold something to erase."""
    if marks.delete:
        return _is_person(marks, "of")
    present = " OR ".join(f"{name} IS DISTINCT FROM %({name})s" for name in marks.erased)
    return f"({_is_person(marks, 'of')}) AND ({present})"


def _is_person(marks: PersonalData, keys: str) -> str:
    return " OR ".join(f"{name} = ANY(%({keys})s)" for name in marks.persons)


def _parameters(marks: PersonalData, person: Sequence[object]) -> dict[str, object]:
    """Return the parameters of `erase_statement`, whose `person` may be the value that erasing leaves in that column."""
    return {**marks.erased, "of": list(person)}


def export_statement(table: Table, marks: PersonalData) -> str:
    """Return the statement that reads every row about a person; hashes and other bytes are left out."""
    if marks.export:
        return marks.export
    columns = ", ".join(column.name for column in table.columns if not isinstance(column.type, LargeBinary))
    return f"SELECT {columns} FROM {table.name} WHERE {_is_person(marks, 'person')}"  # noqa: S608 - names of columns
