"""Leases: named in the database and timed by its clock, for work that only one process may do at a time."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import structlog

from wch_common.errors import Interrupted, LeaseLost
from wch_common.observability.redact import error_text
from wch_common.tasks import cancel_and_wait

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from wch_common.store.database import Database

log = structlog.get_logger(__name__)

_ACQUIRE = """
INSERT INTO leases (name, holder, token, until)
VALUES (%(name)s, %(holder)s, 1, now() + %(seconds)s * interval '1 second')
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, token = leases.token + 1, until = excluded.until
WHERE leases.until <= now()
RETURNING token
"""
_RENEW = """
UPDATE leases SET until = now() + %(seconds)s * interval '1 second'
WHERE name = %(name)s AND holder = %(holder)s AND token = %(token)s AND until > now() RETURNING token
"""
_RELEASE = "UPDATE leases SET until = now() WHERE name = %(name)s AND holder = %(holder)s AND token = %(token)s"


class Lease:
    """An acquired lease; `token` rises with every new holder, so that a late holder can be recognised."""

    def __init__(self, name: str, holder: str, token: int, seconds: float, trusted_until: float) -> None:
        self.name = name
        self.token = token
        self._holder = holder
        self._seconds = seconds
        self._trusted_until = trusted_until

    @property
    def remaining_seconds(self) -> float:
        """How long it can be trusted, by this machine's monotonic clock, from before its last renewal."""
        return self._trusted_until - time.monotonic()

    def check(self, needs_seconds: float = 0.0) -> None:
        """Raise LeaseLost if it cannot be trusted for the next `needs_seconds`."""
        if self.remaining_seconds <= needs_seconds:
            raise LeaseLost(
                f"the lease {self.name} expired before it was renewed; another process may have acquired it"
            )


@asynccontextmanager
async def acquired(
    database: Database, name: str, *, seconds: float, wait_seconds: float
) -> AsyncIterator[Lease | None]:
    """Acquire a lease, renew it in the background, and release it at the end; None if it was not free in time."""
    holder, give_up = secrets.token_hex(8), time.monotonic() + wait_seconds
    while (lease := await _acquire(database, name, holder, seconds)) is None:
        if time.monotonic() >= give_up:
            yield None
            return
        await asyncio.sleep(min(0.5, seconds / 4))
    renewing = asyncio.create_task(_renew(database, lease))
    try:
        yield lease
    finally:
        await cancel_and_wait((renewing,))
        with contextlib.suppress(Interrupted):
            await database.rows(_RELEASE, {"name": name, "holder": holder, "token": lease.token}, reserved=True)


async def _acquire(database: Database, name: str, holder: str, seconds: float) -> Lease | None:
    before = time.monotonic()
    rows = await database.rows(_ACQUIRE, {"name": name, "holder": holder, "seconds": seconds}, reserved=True)
    return Lease(name, holder, rows[0]["token"], seconds, before + seconds) if rows else None


async def _renew(database: Database, lease: Lease) -> None:
    """Renew at a third of the term; trust counts from before the renewal, however slow that is."""
    while True:
        await asyncio.sleep(lease._seconds / 3)  # noqa: SLF001 - one module
        before = time.monotonic()
        parameters = {"name": lease.name, "holder": lease._holder, "token": lease.token, "seconds": lease._seconds}  # noqa: SLF001
        try:
            if not await database.rows(_RENEW, parameters, reserved=True):
                lease._trusted_until = 0.0  # noqa: SLF001
                return
            lease._trusted_until = before + lease._seconds  # noqa: SLF001
        except Interrupted as interruption:
            log.warning("lease_not_renewed", lease=lease.name, error=error_text(interruption))
