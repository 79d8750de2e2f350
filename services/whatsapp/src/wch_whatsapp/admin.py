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
    ContactBook,
    RecipientEraseRequested,
    RetryRequested,
    SuppressionAddRequested,
    SuppressionRemoveRequested,
)
from wch_common.integrations.recipients import PersonHash, masked
from wch_common.integrations.templates import MetaTemplate
from wch_whatsapp import queries, queries_people, queries_templates
from wch_whatsapp.limits import steady_rate
from wch_whatsapp.people import known_person
from wch_whatsapp.queries import (
    ChargeCount,
    HashedName,
    MessageCount,
    MessageRecord,
    MessageSummary,
    NumberState,
    RetryCandidate,
)
from wch_whatsapp.queries_templates import SendingNumber, TemplateRead

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import psycopg

    from wch_common.contract.event import Event
    from wch_common.contract.personal import Person

T = TypeVar("T")
M = TypeVar("M", MessageSummary, MessageRecord)
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
    """Return messages, the newest first, with masked numbers and ids."""
    return [_masked(row) for row in _read(connection, MessageSummary, queries.LIST_MESSAGES, asdict(which))]


def show_messages(connection: psycopg.Connection[Any], key: str) -> list[MessageRecord]:
    """Return the messages with a send key, or the message with an id, with masked numbers and ids."""
    return [_masked(row) for row in _read(connection, MessageRecord, queries.SHOW_MESSAGE, {"key": key})]


def retry_candidates(connection: psycopg.Connection[Any], which: MessageFilter) -> list[RetryCandidate]:
    """Return messages with whether each can be retried; those that can come first."""
    return _read(connection, RetryCandidate, queries.RETRY_CANDIDATES, asdict(which))


def count_messages(connection: psycopg.Connection[Any], hours: float) -> list[MessageCount]:
    """Count the messages that changed within the last `hours`."""
    return _read(connection, MessageCount, queries.COUNT_MESSAGES, {"hours": hours})


def list_numbers(connection: psycopg.Connection[Any]) -> list[NumberState]:
    """Return the numbers to send from, with their pauses."""
    return _read(connection, NumberState, queries.LIST_NUMBERS)


def list_charges(connection: psycopg.Connection[Any]) -> list[ChargeCount]:
    """Return how many messages that may cost money each number has sent, the newest month first."""
    return _read(connection, ChargeCount, queries.LIST_CHARGES)


def templates(connection: psycopg.Connection[Any], shop: str) -> tuple[TemplateRead | None, list[MetaTemplate]]:
    """Return the message templates of a shop as Meta had them, and when they were read; None for an unknown shop."""
    read = _read(connection, TemplateRead, queries_templates.TEMPLATE_READ, {"shop": shop})
    found = _read(connection, MetaTemplate, queries_templates.TEMPLATES, {"shop": shop})
    return (read[0] if read else None), found


def sending_numbers(connection: psycopg.Connection[Any], shop: str) -> list[SendingNumber]:
    """Return the numbers of a shop, its default first, with what they may still send; the rate is the one that lasts."""
    found = _read(connection, SendingNumber, queries_templates.SENDING_NUMBERS, {"shop": shop})
    return [replace(one, rate=steady_rate(one.rate)) for one in found]


def known_as(connection: psycopg.Connection[Any], hash_key: str, name: str) -> Person:
    """Return the person with a number (E.164) or an id, and with every other name of theirs; raises WrongHashKey."""
    person_hash = PersonHash(hash_key)
    for row in _read(connection, HashedName, queries.ANY_HASHED_NAME):
        if person_hash.of(row.name) != row.person:
            raise WrongHashKey("this ledger was written with another hash key: use the service's WCH_PERSON_HASH_KEY")
    rows = connection.execute(queries_people.NAMES.encode(), {"ids": [person_hash.of(name)]}).fetchall()
    return known_person(person_hash, [name], rows)


def contact_books(connection: psycopg.Connection[Any], erasure: str) -> list[ContactBook]:
    """Return what Meta answered when an erasure asked it to delete the person from its contact books, by portfolio."""
    rows = connection.execute(queries_people.CONTACT_BOOKS.encode(), {"erasure": erasure}).fetchall()
    return [ContactBook(**row) for row in rows]


def export_person(connection: psycopg.Connection[Any], person: Person) -> dict[str, list[dict[str, Any]]]:
    """Return every row about a person, and the stored events that name them, by table."""
    # Imported here, because every `wch` command loads this module, and SQLAlchemy takes a fifth of a second to load.
    from wch_common.store import erasure
    from wch_whatsapp.tables import METADATA

    return erasure.export_person(connection, METADATA, published_contract(), person)


def erasable_rows(connection: psycopg.Connection[Any], person: Person) -> dict[str, int]:
    """Return how many rows of each table erasing a person would change or delete."""
    from wch_common.store import erasure
    from wch_whatsapp.tables import METADATA

    return erasure.erasable_rows(connection, METADATA, published_contract(), person)


def _read(
    connection: psycopg.Connection[Any], row: type[T], statement: str, parameters: dict[str, Any] | None = None
) -> list[T]:
    with connection.cursor(row_factory=class_row(row)) as cursor:
        return cursor.execute(statement.encode(), parameters).fetchall()


def _masked(row: M) -> M:
    return replace(row, phone=row.phone and masked(row.phone), user_id=row.user_id and masked(row.user_id))


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


def suppress_request(name: str, category: SuppressionCategory, *, reason: str, by: str) -> SuppressionAddRequested:
    """Return the request to suppress a recipient in a category."""
    return SuppressionAddRequested(phone=name, category=category, reason=reason, by=by)


def unsuppress_request(name: str, category: SuppressionCategory, *, reason: str, by: str) -> SuppressionRemoveRequested:
    """Return the request to remove a recipient's suppression in exactly this category."""
    return SuppressionRemoveRequested(phone=name, category=category, reason=reason, by=by)


def erase_request(name: str, *, reason: str, by: str, contact_book: bool) -> RecipientEraseRequested:
    """Return the request to erase a recipient, with `contact_book` also from Meta's contact books."""
    return RecipientEraseRequested(phone=name, reason=reason, by=by, contact_book=contact_book)
