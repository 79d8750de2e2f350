"""Who was erased: what is older than their erasure is handled without them, so that nothing brings them back.

A message that waited in a queue, came late or was replayed may name somebody who was erased after it was published. Its parts
that name them lose everything personal before a handler sees them, as parts at rest do.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import orjson
import structlog

from wch_common.contract.event import EventData
from wch_common.contract.personal import Person, identifying_texts, without_person

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wch_common.contract.event import Event
    from wch_common.contract.registry import Registry
    from wch_common.store.database import Row

log = structlog.get_logger(__name__)

D = TypeVar("D", bound=EventData)

LAST_ERASURE = "(SELECT max(at) FROM erased_people) AS last_erasure"
"""Column of the statements that write the inbox: no event after that time needs to be read for people."""
_ERASED_SINCE = """
SELECT person FROM erased_people WHERE person = ANY(%(people)s) AND (%(since)s::timestamptz IS NULL OR at >= %(since)s)
"""


class Reading(Protocol):
    """A transaction with an event in the inbox."""

    last_erasure: datetime | None

    async def rows(self, statement: str, parameters: Any = None) -> list[Row]:  # noqa: ANN401 - psycopg's own
        """Run one statement and return its rows."""
        ...


@dataclass(frozen=True)
class ErasedPeople:
    """Finds erased people in events of the contract; `hashes_of` returns whom a text in an event may name."""

    registry: Registry
    hashes_of: Callable[[str], set[bytes]]

    def _hashes(self, type_: str, data: Any) -> dict[str, set[bytes]]:  # noqa: ANN401 - JSON
        return {text: self.hashes_of(text) for text in identifying_texts(self.registry, type_, data)}

    async def left_out(self, tx: Reading, event: Event[Any]) -> Event[Any]:
        """Return an event without everybody who was erased after it was published."""
        since = published(event)
        if _is_newer(since, tx) or event.type not in self.registry:
            return event
        left = await self.left_of(tx, event.type, orjson.loads(event.canonical), since)
        if left is None:
            return event
        log.info("erased_person_left_out", type=event.type, event_id=event.id)
        validated = type(event.data).__pydantic_validator__.validate_json(orjson.dumps(left), strict=True)
        return replace(event, data=validated, left_out=True)

    async def left_of(self, tx: Reading, type_: str, data: Any, since: datetime | None) -> Any:  # noqa: ANN401 - JSON
        """Return the data of an event, as read from JSON, without everybody who was erased since a time; None if there is nobody."""
        if _is_newer(since, tx):
            return None
        # In a thread, because reading the numbers of a large batch takes long enough to delay other work.
        hashes = await asyncio.to_thread(self._hashes, type_, data)
        people = sorted(set().union(*hashes.values()))
        erased = await erased_since(tx, people, since) if people else set()
        person = Person((), (), (), lambda text: not hashes.get(text, set()).isdisjoint(erased))
        return without_person(self.registry, type_, data, person) if erased else None


async def erased_since(tx: Reading, people: Sequence[bytes], since: datetime | None) -> set[bytes]:
    """Return which of these people were erased after a time; handlers of what erasing leaves in an event ask for it."""
    if _is_newer(since, tx):
        return set()
    return {bytes(row["person"]) for row in await tx.rows(_ERASED_SINCE, {"people": list(people), "since": since})}


def _is_newer(since: datetime | None, tx: Reading) -> bool:
    """Whether nobody was erased since a time; without a time, somebody may have been."""
    return tx.last_erasure is None or (since is not None and since > tx.last_erasure)


def published(event: Event[Any]) -> datetime | None:
    """Return how old an event is: when it was published or, if that is earlier, when what it says happened or was known."""
    own = (event.time, getattr(event.data, "timestamp", None), getattr(event.data, "as_of", None))
    return min((one for one in own if isinstance(one, datetime)), default=None)


def as_published(event: Event[D]) -> D:
    """Return the data of an event with everybody who was left out, only to recognise it."""
    if not event.left_out:
        return event.data
    data: D = type(event.data).__pydantic_validator__.validate_json(event.canonical, strict=True)
    return data
