"""The connection pool, and what its failures mean to the runtime."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import psycopg
import psycopg_pool
from psycopg import errors as postgres
from psycopg.conninfo import make_conninfo
from psycopg.rows import class_row, dict_row

from wch_common.errors import Contended, DatabaseAway
from wch_common.observability.redact import error_text

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


Row: TypeAlias = dict[str, Any]
AsyncConnection: TypeAlias = "psycopg.AsyncConnection[Row]"

T = TypeVar("T")

MOST_CONNECTIONS = 5
_OPEN_SECONDS = 5.0
_POOL_SECONDS = 5.0
_CONTENDED = (postgres.SerializationFailure, postgres.DeadlockDetected)
# SQLSTATE classes of an outage: connection, insufficient resources, shutdown or start-up; and a read-only standby.
_AWAY = ("08", "53", "57P", "25006")


def in_utf8(url: str, **parameters: str) -> str:
    """Return connection parameters with UTF-8 as client encoding, also for a database that was created without one."""
    return make_conninfo(url, client_encoding="utf8", **parameters)


def _means_away(error: Exception) -> bool:
    """Whether an error is an outage, rather than a fault of the statement that repeating it would not cure."""
    if isinstance(error, psycopg_pool.PoolTimeout):
        return True
    state = getattr(error, "sqlstate", None)
    if state is None:
        return isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))
    return str(state).startswith(_AWAY)


class Database:
    """A pool of at most 5 connections to a service's schema."""

    def __init__(self, url: str, schema: str) -> None:
        self._pool: psycopg_pool.AsyncConnectionPool[AsyncConnection] = psycopg_pool.AsyncConnectionPool(
            in_utf8(url, options=f"-c search_path={schema}", application_name=f"wch-{schema}"),
            min_size=1,
            max_size=MOST_CONNECTIONS,
            timeout=_POOL_SECONDS,
            kwargs={"autocommit": True, "row_factory": dict_row, "prepare_threshold": 1},
            open=False,
        )

    async def open(self) -> None:
        """Connect; raises DatabaseAway."""
        try:
            await self._pool.open(wait=True, timeout=_OPEN_SECONDS)
        except psycopg_pool.PoolTimeout as error:
            raise DatabaseAway(f"the database cannot be reached: {error_text(error)}") from error

    async def close(self) -> None:
        """Close every connection."""
        await self._pool.close()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AsyncConnection]:
        """Provide a connection in autocommit mode; its failures become DatabaseAway or Contended."""
        try:
            async with self._pool.connection() as connection:
                yield connection
        except _CONTENDED as error:
            raise Contended(error_text(error)) from error
        except (psycopg.Error, psycopg_pool.PoolTimeout) as error:
            if not _means_away(error):
                raise
            raise DatabaseAway(f"the database is unreachable: {error_text(error)}") from error

    async def rows(self, statement: str, parameters: Any = None) -> list[Row]:  # noqa: ANN401 - psycopg's own
        """Run one statement by itself and return its rows."""
        async with self.connection() as connection:
            cursor = await connection.execute(statement, parameters)
            return await cursor.fetchall() if cursor.description else []

    async def typed(self, row: type[T], statement: str, parameters: Any = None) -> list[T]:  # noqa: ANN401 - psycopg's own
        """Run one statement by itself and return its rows as objects of a class, built from the columns by name."""
        async with self.connection() as connection, connection.cursor(row_factory=class_row(row)) as cursor:
            await cursor.execute(statement, parameters)
            return await cursor.fetchall()

    async def ping(self) -> None:
        """Check that the database answers; raises DatabaseAway."""
        await self.rows("SELECT 1")
