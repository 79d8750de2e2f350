"""Who is who: the numbers and Meta's ids that name one person, from what Meta says and from what requests give together.

Nothing that is stored about a person moves when two names turn out to be theirs: every row stays under the hash of the name
it was stored under, and whoever reads asks for all names. So a STOP holds whichever is stored first, it or the link.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from wch_common.integrations.recipients import person_of
from wch_whatsapp import queries_people as queries
from wch_whatsapp.queries_people import KnownName

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from wch_common.contract.personal import Person
    from wch_common.events.recipient import Recipient
    from wch_common.store.database import Row
    from wch_common.store.store import Transaction
    from wch_whatsapp.identity import PersonHash

PHONE: Final = "phone"
USER: Final = "user_id"
_KINDS: Final = (PHONE, USER, "parent_id")
_NEVER: Final = datetime.fromtimestamp(0, UTC)
"""When Meta stated what only a requester has said: whatever Meta says is newer."""


class OtherPersonError(Exception):
    """The names that a request gives together belong to different people, as far as is known."""


@dataclass(frozen=True)
class Name:
    """A number or an id, and the hash that stands for it."""

    id: bytes
    kind: str
    value: str
    portfolio: str = ""


class People:
    """Links the names of people in the caller's transaction; ids of users hold in the portfolio of a number."""

    def __init__(self, person_hash: PersonHash, portfolio_of: Mapping[str, str]) -> None:
        self._hash = person_hash
        self._portfolio_of = portfolio_of

    def names(self, recipient: Recipient, sender: str) -> list[Name]:
        """Return the names of a recipient of the number `sender`; the first stands for what is stored about them."""
        values = ((kind, getattr(recipient, kind)) for kind in _KINDS)
        return [
            Name(self._hash.of(value), kind, value, self._portfolio_of.get(sender, "") if kind == USER else "")
            for kind, value in values
            if value is not None
        ]

    async def said_by_meta(
        self, tx: Transaction, current: Sequence[Name], at: datetime, previous: Sequence[Name] = ()
    ) -> None:
        """Link the names that Meta has used for one person at a time, and the `previous` ones that these replace.

        A number changes hands; of two statements about one, the later holds, in whichever order they arrive.
        """
        names = [*current, *(one for one in previous if one not in current)]
        if len(names) < 2 or (not previous and await _are_linked(tx, current, at)):
            return
        known = await _locked(tx, names, at)
        for number in list(_numbers_of_others(known, names)):
            if known[number.id].stated_at > at:
                names.remove(number)  # an old statement, delivered late
            else:
                await _leave(tx, known, number.id)
                known = await _locked(tx, names, at)
        await _merge(tx, known, names)
        current = [one for one in current if one in names]
        values = {"ids": [one.id for one in current], "values": [one.value for one in current], "at": at}
        await tx.rows(queries.STATE, values)
        await tx.rows(queries.REPLACE, {"ids": _replaced(known.values(), current, names), "at": at})

    async def said_by_requester(self, tx: Transaction, names: Sequence[Name]) -> None:
        """Link the names that a request gives together; raises OtherPersonError if one of them is known with another name."""
        if len(names) < 2 or await tx.rows(queries.ARE_KNOWN_AS_ONE, {"ids": [one.id for one in names]}):
            return
        known = await _locked(tx, names, _NEVER)
        ids = {one.id for one in names}
        people = {known[id_].person for id_ in ids}
        has_other_number = any(one.kind == PHONE and not one.replaced and one.id not in ids for one in known.values())
        if len(people) > 1 and (has_other_number or any(_numbers_of_others(known, names))):
            raise OtherPersonError
        await _merge(tx, known, names)

    async def person(self, tx: Transaction, recipient: Recipient) -> Person:
        """Return a person with every number and id that is known of them."""
        ids = [self._hash.of(name) for name in recipient.names]
        return known_person(self._hash, recipient.names, await tx.rows(queries.NAMES, {"ids": ids}))


def known_person(person_hash: PersonHash, given: Sequence[str], rows: Iterable[Row]) -> Person:
    """Return a person with the given names, and those in the rows of `queries_people.NAMES`; tables call them by hashes."""
    rows = list(rows)
    names = dict.fromkeys([*given, *(row["value"] for row in rows if row["value"] is not None)])
    ids = {*map(person_hash.of, given), *(bytes(row["id"]) for row in rows)}
    return replace(person_of(*names), keys=tuple(sorted(ids)))


async def _are_linked(tx: Transaction, names: Sequence[Name], at: datetime) -> bool:
    return bool(await tx.rows(queries.ARE_LINKED, {"ids": [one.id for one in names], "at": at}))


async def _locked(tx: Transaction, names: Sequence[Name], at: datetime) -> dict[bytes, KnownName]:
    """Add the names that are missing, and return and lock all names of the people who have one of them."""
    ids = [one.id for one in names]
    values = {"kinds": [one.kind for one in names], "portfolios": [one.portfolio for one in names]}
    await tx.rows(queries.ADD, values | {"ids": ids, "values": [one.value for one in names], "at": at})
    found: list[KnownName] = []
    while True:
        before, found = found, await tx.typed(KnownName, queries.OF_PEOPLE, {"ids": ids})
        if before == found:
            return {one.id: one for one in found}
        # Another transaction may have linked more names until the lock is acquired; so they are read again.
        await tx.rows(queries.LOCK, {"ids": [one.id for one in found]})


def _numbers_of_others(known: Mapping[bytes, KnownName], names: Sequence[Name]) -> Iterator[Name]:
    """Yield the numbers that belong to somebody else: to a user with another id in the same portfolio."""
    ids = {one.id for one in names}
    portfolios = {one.portfolio for one in names if one.kind == USER}
    for number in names:
        others = (one for one in known.values() if one.person == known[number.id].person and one.id not in ids)
        if number.kind == PHONE and any(
            one.kind == USER and one.portfolio in portfolios and not one.replaced for one in others
        ):
            yield number


def _replaced(known: Iterable[KnownName], current: Sequence[Name], names: Sequence[Name]) -> list[bytes]:
    """Return the names that a person has no more: a person has one number, and one id in a portfolio."""
    ids = {one.id for one in current}
    given = {(one.kind, one.portfolio) for one in current if one.kind in (PHONE, USER)}
    left = {one.id for one in names}
    return sorted(
        one.id for one in known if one.id not in ids and (one.id in left or (one.kind, one.portfolio) in given)
    )


async def _leave(tx: Transaction, known: Mapping[bytes, KnownName], number: bytes) -> None:
    """Take a number from the person who had it; what they asked for as long as they had it still holds for it."""
    person = known[number].person
    rest = [one.id for one in known.values() if one.person == person and one.id != number]
    if not known[number].replaced:
        await tx.rows(queries.KEEP_SUPPRESSIONS, {"id": number, "ids": [number, *rest]})
    # The hash that stands for a person is that of one of their names.
    await tx.rows(queries.LEAVE, {"id": number, "person": person, "rest": rest[0] if person == number else person})


async def _merge(tx: Transaction, known: Mapping[bytes, KnownName], names: Sequence[Name]) -> None:
    persons = list(dict.fromkeys(known[one.id].person for one in names))
    if len(persons) > 1:
        await tx.rows(queries.MERGE, {"person": persons[0], "persons": persons})
