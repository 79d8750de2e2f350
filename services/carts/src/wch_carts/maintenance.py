"""Background loops: abandon carts whose reminder is unanswered, release stale claims, count, and delete old rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wch_carts import queries
from wch_common.store.maintenance import in_chunks, periodic, retention

if TYPE_CHECKING:
    from wch_carts.metrics import CartMetrics
    from wch_carts.settings import CartsSettings
    from wch_common.store.maintenance import Loop
    from wch_common.store.store import Store

_AGE_SECONDS = 15.0
_COUNT_SECONDS = 60.0
_CHUNK = 1000


class Maintenance:
    """The background loops; every replica runs them."""

    def __init__(self, store: Store, metrics: CartMetrics, settings: CartsSettings) -> None:
        self._database = store.database
        self._metrics = metrics
        self._abandoned_hours = settings.carts_abandoned_hours
        self._person_hours = max(shop.carts.person_hours for _, shop in settings.shops())
        self._keep_days = {
            "completed": settings.carts_keep_completed_days,
            "abandoned": settings.carts_keep_abandoned_days,
            "expired": settings.carts_keep_expired_days,
        }

    @property
    def background(self) -> list[Loop]:
        """The loops to run."""
        return [
            periodic("age_carts", self._age, _AGE_SECONDS),
            periodic("count_carts", self._count, _COUNT_SECONDS),
            retention(self._database, queries.DELETE_OLD, self._keep_days, chunk=_CHUNK),
        ]

    async def _age(self) -> None:
        for statement in (queries.ABANDON, *queries.RELEASE_STALE):
            await in_chunks(self._database, statement, {"hours": self._abandoned_hours}, chunk=_CHUNK)
        await in_chunks(self._database, queries.FORGET_PERSONS, {"person_hours": self._person_hours}, chunk=_CHUNK)
        await self._database.rows(queries.SKIP_STALE_CLAIMS)

    async def _count(self) -> None:
        carts = {row["status"]: row["carts"] for row in await self._database.rows(queries.COUNT_CARTS)}
        (expired,) = await self._database.rows(queries.COUNT_EXPIRED)
        reminders = {row["state"]: row["reminders"] for row in await self._database.rows(queries.COUNT_REMINDERS)}
        (recovered,) = await self._database.rows(queries.COUNT_RECOVERED)
        carts |= {"expired": expired["carts"], "active": max(0, carts.get("active", 0) - expired["carts"])}
        self._metrics.counted(carts, reminders, recovered=recovered["carts"])
