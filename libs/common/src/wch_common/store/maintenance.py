"""Loops beside the queues of a service: periodic work, and the deletion of old rows in chunks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import psycopg
import structlog

from wch_common.errors import Interrupted
from wch_common.observability.redact import error_text

if TYPE_CHECKING:
    from wch_common.store.database import Database

log = structlog.get_logger(__name__)

Loop: TypeAlias = Callable[[], Awaitable[None]]
"""Runs until it is cancelled."""
RETENTION_SECONDS = 3600.0
CHUNK = 5000
_BETWEEN_CHUNKS_SECONDS = 0.1


def periodic(name: str, action: Callable[[], Awaitable[None]], seconds: float) -> Loop:
    """Return a loop that runs `action`, waits `seconds`, and starts again; a failing database is logged and waited for."""

    async def run() -> None:
        while True:
            try:
                await action()
            except (Interrupted, psycopg.Error) as error:
                log.warning("periodic_work_failed", work=name, error=error_text(error), next_try_seconds=seconds)
            await asyncio.sleep(seconds)

    return run


async def in_chunks(
    database: Database, statement: str, parameters: Mapping[str, object] | None = None, *, chunk: int = CHUNK
) -> None:
    """Repeat a statement until it affects fewer rows than %(chunk)s; it returns one row for each row it affects.

    The pause between chunks lets other transactions reach the table.
    """
    names = {**(parameters or {}), "chunk": chunk}
    while len(await database.rows(statement, names)) == chunk:
        await asyncio.sleep(_BETWEEN_CHUNKS_SECONDS)


def retention(
    database: Database,
    statements: Sequence[str],
    parameters: Mapping[str, object] | None = None,
    *,
    chunk: int = CHUNK,
) -> Loop:
    """Return a loop that deletes old rows once an hour, each statement in chunks of at most `chunk` rows."""

    async def delete() -> None:
        for statement in statements:
            await in_chunks(database, statement, parameters, chunk=chunk)

    return periodic("retention", delete, RETENTION_SECONDS)
