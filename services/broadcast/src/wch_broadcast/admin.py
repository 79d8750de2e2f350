"""Operators' reads, as functions on a psycopg connection, and operators' commands, as functions that build requests.

Nothing here prints, and nothing writes to a table: the service handles the requests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import psycopg
from psycopg.rows import class_row

from wch_broadcast import queries_admin as queries
from wch_broadcast.queries_admin import CampaignListed, CampaignStatus, ListFound, ListListed, ListRow, ReportRow
from wch_common.events import published_contract
from wch_common.events.broadcast import (
    CampaignCancelRequested,
    CampaignPauseRequested,
    CampaignRequested,
    CampaignResumeRequested,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from uuid import UUID

    from wch_common.contract.personal import Person

T = TypeVar("T")
Connection = psycopg.Connection[Any]

# -- reads


def campaigns(connection: Connection, *, shop: str | None = None, limit: int = 50) -> list[CampaignListed]:
    """Return the newest campaigns of a shop, or of all shops."""
    return _typed(connection, CampaignListed, queries.CAMPAIGNS, {"shop": shop, "limit": limit})


def lists(connection: Connection, *, shop: str | None = None, limit: int = 50) -> list[ListListed]:
    """Return the newest uploaded lists of a shop, or of all shops."""
    return _typed(connection, ListListed, queries.LISTS, {"shop": shop, "limit": limit})


def campaigns_named(connection: Connection, campaign: str, shop: str | None = None) -> list[CampaignStatus]:
    """Return the status of each campaign of a name: at most one per shop."""
    return _typed(connection, CampaignStatus, queries.CAMPAIGNS_NAMED, {"campaign": campaign, "shop": shop})


def campaign_exists(connection: Connection, name: str, shop: str | None = None) -> bool:
    """Whether a shop, or any shop, has a campaign of a name."""
    return connection.execute(queries.CAMPAIGN_EXISTS, {"name": name, "shop": shop}).fetchone() is not None


def complete_list_exists(connection: Connection, name: str, shop: str | None = None) -> bool:
    """Whether a shop, or any shop, has a complete list of a name."""
    return connection.execute(queries.COMPLETE_LIST_EXISTS, {"name": name, "shop": shop}).fetchone() is not None


def lists_named(connection: Connection, name: str, shop: str | None = None) -> list[ListFound]:
    """Return the list of a name of a shop, or of each shop that has one."""
    return _typed(connection, ListFound, queries.LISTS_NAMED, {"name": name, "shop": shop})


def list_rows(connection: Connection, id_: UUID) -> Generator[ListRow, None, None]:
    """Yield the usable recipients of a list in order, with complete numbers and ids, without loading all of them."""
    with (
        connection.transaction(),
        psycopg.ServerCursor(connection, "list", row_factory=class_row(ListRow)) as cursor,
    ):
        yield from cursor.execute(queries.LIST_ROWS, {"id": id_})


def campaigns_ahead(connection: Connection, shop: str) -> list[str]:
    """Return the campaigns of a shop for which another exclusive one would wait."""
    return [row["campaign_id"] for row in connection.execute(queries.CAMPAIGNS_AHEAD, {"shop": shop})]


def report(connection: Connection, campaign: UUID) -> Generator[ReportRow, None, None]:
    """Yield the result of each recipient of a campaign in order, without loading all of them."""
    with (
        connection.transaction(),
        psycopg.ServerCursor(connection, "report", row_factory=class_row(ReportRow)) as cursor,
    ):
        yield from cursor.execute(queries.REPORT, {"id": campaign})


def erasable_rows(connection: Connection, person: Person) -> dict[str, int]:
    """Return how many rows of each table erasing a person would change."""
    # Imported here, because every `wch` command loads this module, and SQLAlchemy takes a fifth of a second to load.
    from wch_broadcast.tables import METADATA
    from wch_common.store import erasure

    return erasure.erasable_rows(connection, METADATA, published_contract(), person)


def export_person(connection: Connection, person: Person) -> dict[str, list[dict[str, Any]]]:
    """Return every row about a person, and the stored events that name them, by table."""
    from wch_broadcast.tables import METADATA
    from wch_common.store import erasure

    return erasure.export_person(connection, METADATA, published_contract(), person)


# -- commands

CampaignRequest: TypeAlias = (
    CampaignRequested | CampaignPauseRequested | CampaignResumeRequested | CampaignCancelRequested
)


def start_request(values: Mapping[str, Any]) -> CampaignRequested:
    """Return the request to run a campaign; raises ValidationError for wrong values."""
    return CampaignRequested.model_validate(values, strict=False)


def pause_request(campaign: str, *, reason: str, by: str) -> CampaignPauseRequested:
    """Return the request to pause a campaign."""
    return CampaignPauseRequested(campaign_id=campaign, reason=reason, by=by)


def resume_request(campaign: str, *, by: str) -> CampaignResumeRequested:
    """Return the request to resume a campaign."""
    return CampaignResumeRequested(campaign_id=campaign, by=by)


def cancel_request(campaign: str, *, reason: str, by: str) -> CampaignCancelRequested:
    """Return the request to cancel a campaign."""
    return CampaignCancelRequested(campaign_id=campaign, reason=reason, by=by)


def _typed(connection: Connection, row: type[T], statement: str, parameters: Mapping[str, object]) -> list[T]:
    with connection.cursor(row_factory=class_row(row)) as cursor:
        return cursor.execute(statement, parameters).fetchall()
