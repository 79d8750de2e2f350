"""Erasing and exporting a person by the marks of the tables, in a real database."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row
from sqlalchemy import Column, Integer, LargeBinary, MetaData, Table, Text
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.schema import CreateTable

from wch_common.store.personal_data import erasable, erase, export, personal_data, unmarked_columns
from wch_common.store.store import Transaction

METADATA = MetaData()
ORDERS = Table(
    "orders",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("person", LargeBinary),
    Column("name", Text),
    Column("items", JSONB),
    Column("state", Text),
    info=personal_data(
        person="person", erased={"name": None, "items": []}, impersonal=("state",), also="id = id + 100"
    ),
)
VISITS = Table(
    "visits",
    METADATA,
    Column("person", LargeBinary),
    info=personal_data(person="person", delete=True),
)
CARDS = Table(
    "cards",
    METADATA,
    Column("person", LargeBinary),
    Column("name", Text),
    info=personal_data(person="person", erased={"person": None, "name": ""}),
)
PRICES = Table("prices", METADATA, Column("sku", Text), info=personal_data(impersonal=("sku",)))


@pytest.fixture
def connection(database_url: str) -> Any:
    with psycopg.connect(database_url, autocommit=True, row_factory=dict_row) as opened:
        for table in METADATA.sorted_tables:
            opened.execute(str(CreateTable(table).compile(dialect=postgresql.dialect())))  # type: ignore[no-untyped-call]
        opened.execute(r"INSERT INTO orders VALUES (1, '\x01', 'A', '[1]', 'paid'), (2, '\x02', 'B', '[2]', 'paid')")
        opened.execute(r"INSERT INTO orders VALUES (3, '\x01', NULL, '[]', 'paid')")  # holds nothing to erase
        opened.execute(r"INSERT INTO cards VALUES ('\x01', ''), ('\x02', 'B')")
        opened.execute(r"INSERT INTO visits VALUES ('\x01'), ('\x01'), ('\x02')")
        yield opened


def erase_person(database_url: str, person: bytes) -> dict[str, int]:
    async def run() -> dict[str, int]:
        async with await psycopg.AsyncConnection.connect(database_url, row_factory=dict_row) as connection:
            return await erase(Transaction(connection), METADATA, [person])

    return asyncio.run(run())


def test_erasing_changes_the_rows_that_were_counted_before_and_no_other(
    connection: psycopg.Connection[Any], database_url: str
) -> None:
    counted = erasable(connection, METADATA, [b"\1"])
    assert counted == {"cards": 1, "orders": 1, "visits": 2}
    assert erase_person(database_url, b"\1") == counted
    assert connection.execute("SELECT id, name, items, state FROM orders ORDER BY id").fetchall() == [
        {"id": 2, "name": "B", "items": [2], "state": "paid"},
        {"id": 3, "name": None, "items": [], "state": "paid"},
        {"id": 101, "name": None, "items": [], "state": "paid"},
    ]
    assert connection.execute("SELECT person, name FROM cards ORDER BY name").fetchall() == [
        {"person": None, "name": ""},
        {"person": b"\2", "name": "B"},
    ]
    assert connection.execute("SELECT person FROM visits").fetchall() == [{"person": b"\2"}]
    assert erasable(connection, METADATA, [b"\1"]) == {"cards": 0, "orders": 0, "visits": 0}


def test_an_export_has_every_row_of_the_person_without_hashes(connection: psycopg.Connection[Any]) -> None:
    assert export(connection, METADATA, [b"\2"]) == {
        "cards": [{"name": "B"}],
        "orders": [{"id": 2, "name": "B", "items": [2], "state": "paid"}],
        "visits": [{}],
    }


def test_a_column_that_no_table_marks_is_found() -> None:
    unmarked = MetaData()
    Table("notes", unmarked, Column("id", Integer), Column("text", Text), Column("raw", JSONB))
    Table("labels", unmarked, Column("text", Text), info=personal_data(impersonal=("text", "txet")))
    assert unmarked_columns(METADATA) == []
    assert unmarked_columns(unmarked) == ["labels.txet", "notes.raw", "notes.text"]
