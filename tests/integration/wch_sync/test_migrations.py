"""The service's migrations end with the tables its code describes."""

from __future__ import annotations

import psycopg

from wch_common.store.migrate import differences, migrate
from wch_sync.main import MIGRATIONS


def test_the_migrated_tables_are_those_of_the_code(database_url: str) -> None:
    migrate(database_url, "sync", MIGRATIONS)
    assert differences(database_url, "sync", MIGRATIONS) == []
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("ALTER TABLE sync.under_way DROP COLUMN since")
    assert differences(database_url, "sync", MIGRATIONS)
