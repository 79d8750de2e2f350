"""What time does to carts: an unanswered reminder makes them abandoned, they are counted, and deleted in the end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import psycopg
import structlog

from wch_common.errors import Interrupted
from wch_common.observability.redact import error_text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from wch_carts.metrics import CartMetrics
    from wch_carts.settings import CartsSettings
    from wch_common.store.store import Store

log = structlog.get_logger(__name__)

_ROUND_SECONDS = 15.0
_COUNT_SECONDS = 60.0
_RETENTION_SECONDS = 3600.0
_CHUNK = 1000
# Rows that somebody is at are not waited for: they are looked at again in the next round.
ABANDON = """
UPDATE carts SET status = 'abandoned', remindable = false, ended_at = now() WHERE id = ANY(ARRAY(
  SELECT id FROM carts WHERE status = 'active' AND reminder_sent_at <= now() - %(hours)s * interval '1 hour'
  LIMIT %(chunk)s FOR UPDATE SKIP LOCKED)) RETURNING 1
"""
# A reminder whose request ended as a dead letter, or whose answer was lost; should it come after all, the send key holds.
# One statement for each state, as each has an index.
FREE = tuple(
    f"""
    UPDATE carts SET remindable = true WHERE id = ANY(ARRAY(
      SELECT c.id FROM reminders AS r JOIN carts AS c ON c.id = r.cart AND c.filled_version = r.period
      WHERE r.state = '{state}' AND r.changed_at < now() - interval '{age}'
      AND c.status = 'active' AND NOT c.remindable AND c.item_count > 0 AND c.phone IS NOT NULL AND c.expires_at >= now()
      LIMIT %(chunk)s FOR UPDATE OF c SKIP LOCKED)) RETURNING 1
    """  # noqa: S608 - words of this module
    for state, age in (("claimed", "1 hour"), ("asked", "6 hours"))
)
# One whose cart is another by now is over, should its request not have come to say so.
OVER = """
UPDATE reminders AS r SET state = 'skipped', reason = 'changed', changed_at = now() WHERE r.state = 'claimed'
AND r.changed_at < now() - interval '1 day'
AND NOT EXISTS (SELECT 1 FROM carts AS c WHERE c.id = r.cart AND c.filled_version = r.period AND c.status = 'active')
"""
_CARTS = "SELECT status, count(*) AS carts FROM carts GROUP BY status"
_EXPIRED = "SELECT count(*) AS carts FROM carts WHERE status = 'active' AND expires_at < now()"
_REMINDERS = "SELECT state, count(*) AS reminders FROM reminders GROUP BY state"
_RECOVERED = "SELECT count(*) AS carts FROM reminders WHERE recovered_at IS NOT NULL"
# What came of reminders names nobody and is kept for the statistics; of each shop's cleanups the last is.
_RETAIN = (
    """
    DELETE FROM carts WHERE ctid = ANY(ARRAY(SELECT ctid FROM carts WHERE
      (status IN ('completed', 'deleted') AND ended_at < now() - %(completed)s * interval '1 day')
      OR (status = 'abandoned' AND ended_at < now() - %(abandoned)s * interval '1 day')
      LIMIT %(chunk)s FOR UPDATE SKIP LOCKED)) RETURNING 1
    """,
    """
    DELETE FROM reminders WHERE ctid = ANY(ARRAY(SELECT ctid FROM reminders
      WHERE changed_at < now() - %(abandoned)s * interval '1 day' LIMIT %(chunk)s FOR UPDATE SKIP LOCKED)) RETURNING 1
    """,
    """
    DELETE FROM cleanups WHERE ctid = ANY(ARRAY(SELECT c.ctid FROM cleanups AS c
      WHERE c.ended_at < now() - %(completed)s * interval '1 day'
      AND (c.dry_run OR EXISTS (
        SELECT 1 FROM cleanups AS later WHERE later.shop = c.shop AND NOT later.dry_run AND later.ended_at > c.ended_at))
      LIMIT %(chunk)s FOR UPDATE SKIP LOCKED)) RETURNING 1
    """,
)


class Maintenance:
    """The loops beside the queues; any replica runs them."""

    def __init__(self, store: Store, metrics: CartMetrics, settings: CartsSettings) -> None:
        self._database = store.database
        self._metrics = metrics
        self._abandoned = {"hours": settings.carts_abandoned_hours, "chunk": _CHUNK}
        self._keep = {
            "completed": settings.carts_keep_completed_days,
            "abandoned": settings.carts_keep_abandoned_days,
            "chunk": _CHUNK,
        }

    @property
    def background(self) -> list[Callable[[], Awaitable[None]]]:
        """The loops to be run."""
        return [self._round, self._count, self._retain]

    async def _round(self) -> None:
        while True:
            try:
                for statement in (ABANDON, *FREE):
                    while len(await self._database.rows(statement, self._abandoned)) == _CHUNK:
                        await asyncio.sleep(0.1)  # between chunks, so that others get at the table
                await self._database.rows(OVER)
            except (Interrupted, psycopg.Error) as error:
                log.warning("maintenance_waits", error=error_text(error))
            await asyncio.sleep(_ROUND_SECONDS)

    async def _count(self) -> None:
        while True:
            try:
                await self._counted()
            except (Interrupted, psycopg.Error) as error:
                log.warning("carts_not_counted", error=error_text(error))
            await asyncio.sleep(_COUNT_SECONDS)

    async def _counted(self) -> None:
        carts = {row["status"]: row["carts"] for row in await self._database.rows(_CARTS)}
        (expired,) = await self._database.rows(_EXPIRED)
        reminders = {row["state"]: row["reminders"] for row in await self._database.rows(_REMINDERS)}
        (recovered,) = await self._database.rows(_RECOVERED)
        carts |= {"expired": expired["carts"], "active": max(0, carts.get("active", 0) - expired["carts"])}
        self._metrics.counted(carts, reminders, recovered=recovered["carts"])

    async def _retain(self) -> None:
        """Delete what was kept long enough, in chunks, once an hour."""
        while True:
            try:
                for statement in _RETAIN:
                    while len(await self._database.rows(statement, self._keep)) == _CHUNK:
                        await asyncio.sleep(0.1)
            except (Interrupted, psycopg.Error) as error:
                log.warning("retention_waits", error=error_text(error))
            await asyncio.sleep(_RETENTION_SECONDS)
