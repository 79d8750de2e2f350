"""What operators may see and do: typed reads of the ledger, and commands, which are requests to the service."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from psycopg.rows import class_row

from wch_common.contract.event import new_event
from wch_common.errors import WchError
from wch_common.events import published_contract
from wch_common.events.whatsapp import (
    RecipientEraseRequested,
    RetryRequested,
    SuppressionAddRequested,
    SuppressionRemoveRequested,
)
from wch_common.integrations.phone import masked, person_of
from wch_whatsapp import queries
from wch_whatsapp.identity import PersonHash
from wch_whatsapp.queries import (
    HashedNumber,
    MessageCount,
    MessageRecord,
    MessageSummary,
    NumberState,
    RetryCandidate,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import psycopg

    from wch_common.contract.event import Event
    from wch_common.contract.personal import Person

T = TypeVar("T")
SuppressionCategory = Literal["marketing", "utility", "all"]

_MOST_KEYS = 1000


class WrongHashKey(WchError):
    """The ledger was written with another hash key, under which no person would be found."""


@dataclass(frozen=True)
class MessageFilter:
    """Which messages to read; None for any."""

    state: str | None = None
    reason: str | None = None
    requester: str | None = None
    shop: str | None = None
    keys: Sequence[str] | None = None
    limit: int = 50


# -- reads


def list_messages(connection: psycopg.Connection[Any], which: MessageFilter) -> list[MessageSummary]:
    """Return messages, the newest first, with masked numbers."""
    rows = _read(connection, MessageSummary, queries.LIST_MESSAGES, asdict(which))
    return [replace(row, phone=_masked(row.phone)) for row in rows]


def show_messages(connection: psycopg.Connection[Any], key: str) -> list[MessageRecord]:
    """Return the messages with a send key, or the message with an id, with masked numbers."""
    rows = _read(connection, MessageRecord, queries.SHOW_MESSAGE, {"key": key})
    return [replace(row, phone=_masked(row.phone)) for row in rows]


def retry_candidates(connection: psycopg.Connection[Any], which: MessageFilter) -> list[RetryCandidate]:
    """Return messages with whether each can be retried; those that can come first."""
    return _read(connection, RetryCandidate, queries.RETRY_CANDIDATES, asdict(which))


def count_messages(connection: psycopg.Connection[Any], hours: float) -> list[MessageCount]:
    """Count the messages that changed within the last `hours`."""
    return _read(connection, MessageCount, queries.COUNT_MESSAGES, {"hours": hours})


def list_numbers(connection: psycopg.Connection[Any]) -> list[NumberState]:
    """Return the numbers to send from, with their pauses."""
    return _read(connection, NumberState, queries.LIST_NUMBERS)


def person(connection: psycopg.Connection[Any], hash_key: str, phone: str) -> Person:
    """Return the owner of a number (E.164); raises WrongHashKey."""
    person_hash = PersonHash(hash_key)
    for row in _read(connection, HashedNumber, queries.ANY_HASHED_NUMBER):
        if person_hash.of(row.phone) != row.person:
            raise WrongHashKey("this ledger was written with another hash key: use the service's WCH_WHATSAPP_HASH_KEY")
    return replace(person_of(phone), key=person_hash.of(phone))


def export(connection: psycopg.Connection[Any], of: Person) -> dict[str, list[dict[str, Any]]]:
    """Return every row about a person, and the stored events that name them, by table."""
    # Imported here, because every `wch` command loads this module, and SQLAlchemy takes a fifth of a second to load.
    from wch_common.store import erasure
    from wch_whatsapp.tables import METADATA

    return erasure.export_person(connection, METADATA, published_contract(), of)


def erasable_rows(connection: psycopg.Connection[Any], of: Person) -> dict[str, int]:
    """Return how many rows of each table erasing a person would change or delete."""
    from wch_common.store import erasure
    from wch_whatsapp.tables import METADATA

    return erasure.erasable_rows(connection, METADATA, published_contract(), of)


def _read(
    connection: psycopg.Connection[Any], row: type[T], statement: str, parameters: dict[str, Any] | None = None
) -> list[T]:
    with connection.cursor(row_factory=class_row(row)) as cursor:
        return cursor.execute(statement.encode(), parameters).fetchall()


def _masked(phone: str | None) -> str | None:
    return masked(phone) if phone else None


# -- commands


def retry_requests(messages: Iterable[RetryCandidate], source: str) -> list[Event[RetryRequested]]:
    """Return the requests to retry messages, for each shop and requester up to 1,000 messages."""
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for one in messages:
        groups[one.shop, one.requester].append(one.send_key)
    return [
        new_event(
            RetryRequested(send_keys=tuple(keys[start : start + _MOST_KEYS]), keys_of=requester or None),
            source,
            shop=shop or None,
            requester=requester or None,
        )
        for (shop, requester), keys in groups.items()
        for start in range(0, len(keys), _MOST_KEYS)
    ]


def suppress_request(phone: str, category: SuppressionCategory, *, reason: str, by: str) -> SuppressionAddRequested:
    """Return the request to suppress a recipient in a category."""
    return SuppressionAddRequested(phone=phone, category=category, reason=reason, by=by)


def unsuppress_request(
    phone: str, category: SuppressionCategory, *, reason: str, by: str
) -> SuppressionRemoveRequested:
    """Return the request to remove a recipient's suppression in exactly this category."""
    return SuppressionRemoveRequested(phone=phone, category=category, reason=reason, by=by)


def erase_request(phone: str, *, reason: str, by: str) -> RecipientEraseRequested:
    """Return the request to erase a recipient."""
    return RecipientEraseRequested(phone=phone, reason=reason, by=by)
