"""Operators' reads, as functions on a psycopg connection, and operators' commands, as functions that build requests.

Nothing here prints, and nothing writes to a table: the service handles the requests.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from psycopg.rows import class_row

from wch_carts import queries_admin as queries
from wch_carts.queries_admin import (
    CartCount,
    CartDetails,
    CartShops,
    CleanupResult,
    RecoveredValue,
    ReminderCounts,
    ReminderDetails,
    StatusCount,
    UnsentReminders,
)
from wch_common.events import published_contract
from wch_common.events.carts import CleanupRequested, ReminderRequested, ReminderScanRequested

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wch_common.contract.personal import Person

T = TypeVar("T")
Connection = psycopg.Connection[Any]


@dataclass
class ShopStatistics:
    """The carts of one shop by status, its reminders that were sent, and its recovered carts with their value."""

    shop: str
    active: int = 0
    expired: int = 0
    abandoned: int = 0
    completed: int = 0
    reminded: int = 0
    recovered: int = 0
    value: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Statistics:
    """Counts by shop, reasons for which reminders were not sent, and each shop's last cleanup."""

    shops: list[ShopStatistics]
    not_reminded: list[UnsentReminders]
    cleanups: list[CleanupResult]


# -- reads


def statistics(connection: Connection, *, shop: str | None = None) -> Statistics:
    """Return the statistics of a shop, or of all shops."""
    names = {"shop": shop}
    found: dict[str, ShopStatistics] = {}

    def of(name: str) -> ShopStatistics:
        return found.setdefault(name, ShopStatistics(name))

    for count in _typed(connection, StatusCount, queries.COUNT_BY_STATUS, names):
        setattr(of(count.shop), count.status, count.carts)
    for count in _typed(connection, StatusCount, queries.COUNT_EXPIRED, names):
        of(count.shop).expired = count.carts
        of(count.shop).active -= count.carts
    for reminders in _typed(connection, ReminderCounts, queries.COUNT_REMINDED, names):
        of(reminders.shop).reminded = reminders.reminded
        of(reminders.shop).recovered = reminders.recovered
    for recovered in _typed(connection, RecoveredValue, queries.RECOVERED_VALUES, names):
        of(recovered.shop).value.append(f"{recovered.value:.2f} {recovered.currency}")
    return Statistics(
        shops=[found[name] for name in sorted(found)],
        not_reminded=_typed(connection, UnsentReminders, queries.UNSENT_REMINDERS, names),
        cleanups=_typed(connection, CleanupResult, queries.LAST_CLEANUPS, names),
    )


def carts_named(connection: Connection, cart: str, shop: str | None = None) -> list[CartDetails]:
    """Return each cart of a name: at most one per shop."""
    return _typed(connection, CartDetails, queries.CARTS_NAMED, {"cart": cart, "shop": shop})


def reminders_of(connection: Connection, cart: CartDetails) -> list[ReminderDetails]:
    """Return the reminders of a cart, oldest first."""
    return _typed(connection, ReminderDetails, queries.REMINDERS, {"id": cart.id})


def cleanup_of_request(connection: Connection, event_id: str) -> CleanupResult | None:
    """Return the result of the cleanup that an event requested; None until it has ended."""
    return next(iter(_typed(connection, CleanupResult, queries.CLEANUP_OF_REQUEST, {"event": event_id})), None)


def shops_of_carts(connection: Connection, carts: Sequence[str], shop: str | None = None) -> dict[str, list[str]]:
    """Return the shops that have each cart; unknown carts are left out."""
    found = _typed(connection, CartShops, queries.SHOPS_OF_CARTS, {"carts": list(carts), "shop": shop})
    return {one.cart_id: one.shops for one in found}


def remindable_carts(connection: Connection, carts: Sequence[str] | None, shop: str | None = None) -> int:
    """Return how many carts, of those given or of all, may be reminded of once they are idle long enough."""
    names = {"carts": list(carts) if carts else None, "shop": shop}
    return _typed(connection, CartCount, queries.REMINDABLE, names)[0].carts


def erasable_rows(connection: Connection, person: Person) -> dict[str, int]:
    """Return how many rows of each table erasing a person would change."""
    # Imported here, because every `wch` command loads this module, and SQLAlchemy takes a fifth of a second to load.
    from wch_carts.tables import METADATA
    from wch_common.store import erasure

    return erasure.erasable_rows(connection, METADATA, published_contract(), person)


def export_person(connection: Connection, person: Person) -> dict[str, list[dict[str, Any]]]:
    """Return every row about a person, and the stored events that name them, by table."""
    from wch_carts.tables import METADATA
    from wch_common.store import erasure

    return erasure.export_person(connection, METADATA, published_contract(), person)


# -- commands


def cleanup_request(*, older_than_hours: float | None, dry_run: bool) -> CleanupRequested:
    """Return the request to delete expired carts."""
    return CleanupRequested(older_than_hours=older_than_hours, dry_run=dry_run)


def scan_request() -> ReminderScanRequested:
    """Return the request to remind the owners of all idle carts."""
    return ReminderScanRequested()


def reminder_request(cart: str) -> ReminderRequested:
    """Return the request to remind the owner of one cart."""
    return ReminderRequested(cart_id=cart)


def _typed(connection: Connection, row: type[T], statement: str, parameters: Mapping[str, object]) -> list[T]:
    with connection.cursor(row_factory=class_row(row)) as cursor:
        return cursor.execute(statement, parameters).fetchall()
