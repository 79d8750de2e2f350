"""The connection pool, and what its failures mean to the runtime."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

import psycopg
import psycopg_pool
from psycopg import errors as postgres
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus
from psycopg.rows import class_row, dict_row

from wch_common.errors import Contended, DatabaseAway, DatabaseSlow
from wch_common.observability.redact import error_text

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractContextManager

    from psycopg.abc import PQGen


Row: TypeAlias = dict[str, Any]
AsyncConnection: TypeAlias = "psycopg.AsyncConnection[Row]"

T = TypeVar("T")

MOST_CONNECTIONS = 5
RESERVED_CONNECTIONS = 3
_POOL_SECONDS = _CHECK_SECONDS = 5.0
ANSWER_SECONDS: Final = 35.0
"""How long a service waits for the answer to a statement, before it takes the connection for lost."""
_SESSION: Final = {
    # The server ends a statement before its client takes the connection for lost, so that none is left running.
    "statement_timeout": "30s",
    "lock_timeout": "10s",
    # A process that freezes in a transaction keeps its row locks no longer than that.
    "idle_in_transaction_session_timeout": "10s",
}
# A connection whose other end is gone is noticed after about 10 s, and not after the kernel's two hours.
_NETWORK: Final = {
    "connect_timeout": "5",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}
# The pool doubles its pause between attempts to connect; an attempt that it gives up lets the next request begin anew.
_RECONNECT_SECONDS = 3.0
_CONNECT: Final[dict[str, Any]] = {"autocommit": True, "row_factory": dict_row, "prepare_threshold": 1}
# Refused where no write is possible, as on a standby, although it changes and locks nothing.
_WRITE_NOTHING = "DELETE FROM leases WHERE false"
_CONTENDED = (postgres.SerializationFailure, postgres.DeadlockDetected)
_SLOW = (postgres.QueryCanceled, postgres.LockNotAvailable, postgres.IdleInTransactionSessionTimeout)
# SQLSTATE classes of an outage: connection, insufficient resources, shutdown or start-up; and a read-only standby.
_AWAY = ("08", "53", "57P", "25006")


class Waits:
    """How long a task, with the tasks it starts, has waited for the database; waits at the same time count once."""

    def __init__(self) -> None:
        self._active = 0
        self._began = self._total = 0.0

    @property
    def seconds(self) -> float:
        """The sum up to now."""
        return self._total + (time.monotonic() - self._began if self._active else 0.0)

    def __enter__(self) -> None:
        if not self._active:
            self._began = time.monotonic()
        self._active += 1

    def __exit__(self, *_: object) -> None:
        self._active -= 1
        if not self._active:
            self._total += time.monotonic() - self._began


_waits: ContextVar[Waits | None] = ContextVar("waits", default=None)


def count_waits() -> Waits:
    """Return what counts the waits for the database of the current task and of those it starts from now on."""
    waits = Waits()
    _waits.set(waits)
    return waits


def _counted() -> AbstractContextManager[None]:
    return _waits.get() or nullcontext()


class _Connection(psycopg.AsyncConnection[Any]):
    """A connection on which no wait is endless."""

    answer_seconds = ANSWER_SECONDS

    async def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:  # noqa: ASYNC109 - psycopg's own
        with _counted():
            try:
                return await super().wait(gen, interval, timeout or self.answer_seconds)
            except psycopg.OperationalError as error:
                if self.pgconn.transaction_status != TransactionStatus.ACTIVE:
                    raise
                # In the middle of a statement it serves nobody else; closed, its pool replaces it.
                self.pgconn.finish()
                raise psycopg.OperationalError(f"no answer in {self.answer_seconds:g} s") from error


def connection_parameters(url: str, **parameters: str) -> str:
    """Return how to connect: in UTF-8, also to a database without an encoding, and with limits on the network's silence.

    What `url` says about the network is kept.
    """
    return make_conninfo(url, client_encoding="utf8", **{**_NETWORK, **conninfo_to_dict(url), **parameters})


def _options(url: str, schema: str) -> str:
    """Return the session's options, those of the URL last, as the last one holds."""
    ours = {"search_path": schema, **_SESSION}
    return " ".join(
        [*(f"-c {name}={value}" for name, value in ours.items()), str(conninfo_to_dict(url).get("options", ""))]
    )


def _means_away(error: Exception) -> bool:
    """Whether an error is an outage, rather than a fault of the statement that repeating it would not cure."""
    state = getattr(error, "sqlstate", None)
    if state is None:
        return isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))
    return str(state).startswith(_AWAY)


class Database:
    """Connections to a service's schema: at most 5 for everything, and 3 apart for what must not wait behind the rest.

    A caller who finds all of them in use waits for one as long as the database answers.
    """

    def __init__(self, url: str, schema: str) -> None:
        self._address = connection_parameters(url, options=_options(url, schema), application_name=f"wch-{schema}")
        self._pool = self._new_pool(MOST_CONNECTIONS)
        self._reserved = self._new_pool(RESERVED_CONNECTIONS)
        self._check: asyncio.Task[None] | None = None
        self.last_commit = 0.0
        """When a transaction of this process was last committed, by the monotonic clock."""

    def _new_pool(self, most: int) -> psycopg_pool.AsyncConnectionPool[AsyncConnection]:
        return psycopg_pool.AsyncConnectionPool(
            self._address,
            connection_class=_Connection,
            min_size=1,
            max_size=most,
            timeout=_POOL_SECONDS,
            reconnect_timeout=_RECONNECT_SECONDS,
            kwargs={**_CONNECT},
            open=False,
        )

    async def open(self) -> None:
        """Connect; raises DatabaseAway, after which it may be tried again."""
        await self.check()
        await self._pool.open()
        await self._reserved.open()

    async def close(self) -> None:
        """Close every connection."""
        await self._pool.close()
        await self._reserved.close()

    @asynccontextmanager
    async def connection(self, *, reserved: bool = False) -> AsyncIterator[AsyncConnection]:
        """Provide a connection in autocommit mode; its failures become DatabaseAway, DatabaseSlow or Contended."""
        pool = self._reserved if reserved else self._pool
        try:
            connection = await self._taken(pool)
            try:
                async with connection:
                    yield connection
            finally:
                await pool.putconn(connection)
        except _CONTENDED as error:
            raise Contended(error_text(error)) from error
        except _SLOW as error:
            raise DatabaseSlow(error_text(error)) from error
        except psycopg.Error as error:
            if not _means_away(error):
                raise
            raise DatabaseAway(f"the database is unreachable: {error_text(error)}") from error

    async def _taken(self, pool: psycopg_pool.AsyncConnectionPool[AsyncConnection]) -> AsyncConnection:
        """Return a free connection; raises DatabaseAway once the database does not answer either."""
        with _counted():
            while True:
                try:
                    return await pool.getconn()
                except psycopg_pool.PoolTimeout:
                    await self._checked_together()

    async def _checked_together(self) -> None:
        """Check once for all who wait."""
        if self._check is None or self._check.done():
            self._check = asyncio.create_task(self.check())
            self._check.add_done_callback(lambda check: check.cancelled() or check.exception())
        await asyncio.shield(self._check)

    async def rows(self, statement: str, parameters: Any = None, *, reserved: bool = False) -> list[Row]:  # noqa: ANN401 - psycopg's own
        """Run one statement by itself and return its rows."""
        async with self.connection(reserved=reserved) as connection:
            cursor = await connection.execute(statement, parameters)
            return await cursor.fetchall() if cursor.description else []

    async def typed(self, row: type[T], statement: str, parameters: Any = None) -> list[T]:  # noqa: ANN401 - psycopg's own
        """Run one statement by itself and return its rows as objects of a class, built from the columns by name."""
        async with self.connection() as connection, connection.cursor(row_factory=class_row(row)) as cursor:
            await cursor.execute(statement, parameters)
            return await cursor.fetchall()

    async def check(self) -> None:
        """Check, on a connection of its own, that the database answers and takes writes; raises DatabaseAway."""
        try:
            async with await _Connection.connect(self._address, **_CONNECT) as connection:
                connection.answer_seconds = _CHECK_SECONDS
                await connection.execute(_WRITE_NOTHING)
        except psycopg.Error as error:
            raise DatabaseAway(f"the database cannot be reached: {error_text(error)}") from error
