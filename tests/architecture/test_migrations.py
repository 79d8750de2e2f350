"""The migrations of every service end with the tables its code describes."""

from __future__ import annotations

import importlib
from pathlib import Path

import psycopg
import pytest

from wch_common.store.migrate import RUNTIME_MIGRATIONS, differences, migrate

SERVICES = sorted(path.name for path in (Path(__file__).parents[2] / "services").iterdir() if path.is_dir())


@pytest.mark.parametrize("service", SERVICES)
def test_the_migrated_tables_are_those_of_the_code(database_url: str, service: str) -> None:
    migrations = getattr(importlib.import_module(f"wch_{service}.main"), "MIGRATIONS", ())
    for _ in range(2):  # a replica that comes later finds nothing to do
        migrate(database_url, service, migrations)
    assert differences(database_url, service, migrations) == []
    for table in [name for one in (RUNTIME_MIGRATIONS, *migrations) for name in one.metadata.tables]:
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute(f"ALTER TABLE {service}.{table} ADD COLUMN surplus int".encode())
        found = differences(database_url, service, migrations)
        assert len(found) == 1, found
        assert table in found[0]
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute(f"ALTER TABLE {service}.{table} DROP COLUMN surplus".encode())
