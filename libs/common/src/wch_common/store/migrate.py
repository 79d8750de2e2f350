"""Migrations: first the runtime's tables, then the service's, in the service's schema, one process at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from wch_common.errors import DatabaseAway
from wch_common.observability.redact import error_text
from wch_common.store.database import connection_parameters
from wch_common.store.tables import RUNTIME

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import MetaData

_LOCK = 0x7763_6800


@dataclass(frozen=True)
class MigrationSet:
    """A chain of migrations: the place of its scripts (`package:folder`), its version table, and the tables it results in."""

    scripts: str
    version_table: str
    metadata: MetaData


RUNTIME_MIGRATIONS = MigrationSet("wch_common:store/migrations", "runtime_version", RUNTIME)


def migrate(database_url: str, schema: str, sets: Sequence[MigrationSet]) -> None:
    """Migrate a service's schema to the newest version; every replica may call it at once. Raises DatabaseAway."""
    try:
        _migrate(_engine(database_url), schema, sets)
    except OperationalError as error:
        raise DatabaseAway(" ".join(error_text(error.orig or error).split())) from error


def _migrate(engine: Engine, schema: str, sets: Sequence[MigrationSet]) -> None:
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": _LOCK})
        connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{schema}"'))
        connection.execute(text(f'SET search_path TO "{schema}"'))
        connection.commit()
        try:
            for migrations in (RUNTIME_MIGRATIONS, *sets):
                command.upgrade(_config(migrations, connection), "head")
                connection.commit()
        finally:
            connection.rollback()
            connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": _LOCK})


def differences(database_url: str, schema: str, sets: Sequence[MigrationSet]) -> list[str]:
    """Return how the migrated tables differ from those in the code; empty if they match."""
    engine = _engine(database_url)
    found: list[str] = []
    with engine.connect() as connection:
        connection.execute(text(f'SET search_path TO "{schema}"'))
        for migrations in (RUNTIME_MIGRATIONS, *sets):
            known = set(migrations.metadata.tables)

            def ours(_object: object, name: str | None, kind: str, *_: object, known: set[str] = known) -> bool:
                return kind != "table" or name in known

            context = MigrationContext.configure(
                connection, opts={"include_object": ours, "compare_type": True, "compare_server_default": True}
            )
            found += [str(difference) for difference in compare_metadata(context, migrations.metadata)]
    return found


def _engine(database_url: str) -> Engine:
    """Return an engine that connects with psycopg, which accepts both an address and keywords."""
    return create_engine(
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(connection_parameters(database_url)),
        poolclass=NullPool,
    )


def _config(migrations: MigrationSet, connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", migrations.scripts)
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    config.attributes["version_table"] = migrations.version_table
    config.attributes["metadata"] = migrations.metadata
    return config


def run_environment() -> None:
    """Run the scripts on the connection passed to Alembic; every env.py calls it."""
    from alembic import context

    attributes = context.config.attributes
    context.configure(
        connection=attributes["connection"],
        target_metadata=attributes["metadata"],
        version_table=attributes["version_table"],
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()
