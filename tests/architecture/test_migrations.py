"""The tables of every service: its migrations produce them, and their columns are marked as personal or impersonal."""

from __future__ import annotations

import importlib

import psycopg
import pytest
from alembic import command
from sqlalchemy import text

from support.families import services
from wch_common.store.migrate import RUNTIME_MIGRATIONS, _config, _engine, differences, migrate
from wch_common.store.personal_data import unexported_columns, unmarked_columns
from wch_whatsapp.main import MIGRATIONS as LEDGER

SERVICES = services()


@pytest.mark.parametrize("service", SERVICES)
def test_the_migrated_tables_match_the_code(empty_database_url: str, service: str) -> None:
    migrations = getattr(importlib.import_module(f"wch_{service}.main"), "MIGRATIONS", ())
    database_url = empty_database_url
    for _ in range(2):  # a replica that starts later has nothing to migrate
        migrate(database_url, service, migrations)
    assert differences(database_url, service, migrations) == []
    tables = [name for one in (RUNTIME_MIGRATIONS, *migrations) for name in one.metadata.tables]
    with psycopg.connect(database_url, autocommit=True) as connection:
        for table in tables:
            connection.execute(f"ALTER TABLE {service}.{table} ADD COLUMN surplus int".encode())
    found = differences(database_url, service, migrations)
    assert len(found) == len(tables), found
    assert all(any(f"'{table}'" in one for one in found) for table in tables), found


@pytest.mark.parametrize("service", SERVICES)
def test_every_text_column_is_marked_as_personal_or_impersonal(service: str) -> None:
    """Erasing and exporting a person rely on these marks."""
    migrations = getattr(importlib.import_module(f"wch_{service}.main"), "MIGRATIONS", ())
    for one in (RUNTIME_MIGRATIONS, *migrations):
        assert unmarked_columns(one.metadata) == []
        assert unexported_columns(one.metadata) == []


def test_a_ledger_of_the_previous_version_is_migrated(empty_database_url: str) -> None:
    database_url = empty_database_url
    migrate(database_url, "whatsapp", ())
    with _engine(database_url).connect() as connection:
        connection.execute(text("SET search_path TO whatsapp"))
        command.upgrade(_config(LEDGER[0], connection), "w0002")
        connection.commit()
    with psycopg.connect(database_url, options="-c search_path=whatsapp") as connection:
        connection.execute(
            """
            INSERT INTO messages (id, shop, requester, send_key, sender, person, category, state, expires_at, attempt, reason, due_at)
            SELECT md5(name)::uuid, '', '', name, '', '', '', 'queued', now(), 1, reason, now()
            FROM (VALUES ('again', 'resent_after_doubt'), ('known', ''), ('mine', '')) AS new (name, reason);
            INSERT INTO batches (id, shop, requester, batch_id, open, requested, others)
            VALUES (md5('b')::uuid, '', '', 'b', 1, true, ARRAY[md5('known')::uuid])
            """
        )
    migrate(database_url, "whatsapp", LEDGER)
    with psycopg.connect(database_url, options="-c search_path=whatsapp") as connection:
        kept = connection.execute(
            "SELECT send_key, in_other_batches, doubted_attempt FROM messages ORDER BY 1"
        ).fetchall()
        also = connection.execute(
            "SELECT batch = md5('b')::uuid, message = md5('known')::uuid, answered, changed FROM also_requested"
        )
        assert also.fetchall() == [(True, True, True, False)]
    assert kept == [("again", False, 1), ("known", True, None), ("mine", False, None)]
