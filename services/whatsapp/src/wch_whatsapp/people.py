"""Who is who: the numbers and Meta's ids that name one person, from what Meta says of them in a business portfolio.

Nothing that is stored about a person moves when two names turn out to be theirs: every row stays under the hash of the name
it was stored under, and whoever reads asks for all names. So a STOP holds whichever is stored first, it or the link. What
requests say links nothing, because they may be wrong.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from wch_common.integrations.recipients import person_of
from wch_whatsapp import queries_people as queries
from wch_whatsapp.queries_people import KnownName

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from wch_common.contract.personal import Person
    from wch_common.events.recipient import Recipient
    from wch_common.integrations.recipients import PersonHash
    from wch_common.store.database import Row
    from wch_common.store.store import Store, Transaction

PHONE: Final = "phone"
USER: Final = "user_id"
_WEEK_SECONDS: Final = 7 * 86_400
UNASSIGNED_DAYS: Final = 90
"""For so long, operators usually give a number that was given up to nobody else."""
_KINDS: Final = (PHONE, USER, "parent_id")


@dataclass(frozen=True)
class Said:
    """What a statement of Meta's says of a person: their names, and the number and the id of which it is news that both are theirs."""

    names: Sequence[Name]
    linked: tuple[str, str] | None = None


@dataclass(frozen=True)
class Name:
    """A number or an id, and the hash that stands for it."""

    id: bytes
    kind: str
    value: str


class UserId(NamedTuple):
    """Meta's id of a user, and the portfolio in which it holds."""

    portfolio: str
    value: str


class People:
    """Links the names of people in the caller's transaction; an id of a user holds in the portfolio of a number."""

    def __init__(self, person_hash: PersonHash, portfolio_of: Mapping[str, str]) -> None:
        self._hash = person_hash
        self._portfolio_of = portfolio_of
        self._portfolios = sorted(set(portfolio_of.values()))

    def portfolio(self, sender: str) -> str | None:
        """Return the portfolio of a number to send from; None if no shop has the number."""
        return self._portfolio_of.get(sender)

    def names(self, recipient: Recipient) -> list[Name]:
        """Return the names of a recipient; the first stands for what is stored about them."""
        values = ((kind, getattr(recipient, kind)) for kind in _KINDS)
        return [Name(self._hash.of(value), kind, value) for kind, value in values if value is not None]

    async def said_by_meta(
        self,
        tx: Transaction,
        portfolio: str,
        current: Sequence[Name],
        at: datetime,
        *,
        previous: Sequence[Name] = (),
        restores: bool = False,
    ) -> Said:
        """Link the names that Meta has used for one person at a time, and the `previous` ones that these replace.

        Returns the current names that are still theirs: a number changes hands, and of two statements about one the later
        holds, in whichever order they arrive. With `restores`, an erased person is known again.
        """
        link = _Link(tx, portfolio, at, restores=restores)
        names = [*current, *(one for one in previous if one not in current)]
        if len(names) < 2:
            await link.still_uses(names)
            return Said(current)
        if not previous and await link.is_known(current):
            return Said(current)
        known = await link.locked(names)
        for number in (others := _numbers_of_others(known, names)):
            if known[number.id].stated_at > at:
                names.remove(number)  # an old statement, delivered late
            else:
                await link.take_number(known, number.id)
        known = await link.locked(names) if others else known
        await link.merge(known, names)
        current = [one for one in current if one in names]
        is_kept = await link.state(known, current)
        if (ended := _ended(known, current, at)) is not None:
            # An old statement about a person who has another id by now: the number beside it is not theirs either.
            await replace(link, at=ended).replace([one.id for one in current], names)
            return Said(current)
        await link.replace(_left(known.values(), current, names), previous)
        return Said(current, _pair_to_tell(known, current, at) if is_kept else None)

    async def person(self, tx: Transaction, recipient: Recipient) -> Person:
        """Return a person with every number and id that is known of them; late statuses do not make them known again."""
        names = self.names(recipient)
        kinds, ids = [one.kind for one in names], {one.id for one in names}
        values = {"ids": [one.id for one in names], "kinds": kinds, "portfolios": self._portfolios}
        await tx.rows(queries.ADD_ERASED, values)
        before, rows = None, await tx.rows(queries.NAMES, {"ids": sorted(ids)})
        while before != rows:
            # Another transaction may have linked more names until the locks are acquired. In another portfolio the person
            # has the same number.
            ids |= _own_ids(rows)
            await tx.rows(queries.LOCK_NAMES, {"ids": sorted({*ids, *(bytes(row["id"]) for row in rows)})})
            before, rows = rows, await tx.rows(queries.NAMES, {"ids": sorted(ids)})
        return known_person(self._hash, recipient.names, rows)

    async def user_ids(self, tx: Transaction, person: Person, given: Recipient) -> set[UserId]:
        """Return the user ids of a person; a given one that Meta has not used, or not lately, may be of any portfolio."""
        rows = await tx.rows(queries.USER_IDS, {"ids": list(person.keys)})
        known = {UserId(row["portfolio"], row["value"]) for row in rows}
        if given.user_id is not None and all(one.value != given.user_id for one in known):
            known |= {UserId(portfolio, given.user_id) for portfolio in self._portfolios}
        return known


async def release_numbers(store: Store, *, limit: int = 200) -> None:
    """Let numbers that their owners gave up some months ago name nobody; what holds for the owner is kept for both."""
    for row in await store.database.rows(queries.LONG_REPLACED, {"days": UNASSIGNED_DAYS, "limit": limit}):
        async with store.transaction() as tx:
            link = _Link(tx, row["portfolio"], datetime.now(UTC), restores=False)
            known = await link.locked_ids([row["id"]])
            if known[row["id"]].replaced_at is not None:
                await link.take_number(known, row["id"])


def known_person(person_hash: PersonHash, given: Sequence[str], rows: Iterable[Row]) -> Person:
    """Return a person with the given names, and those in the rows of `queries_people.NAMES`; tables call them by hashes."""
    rows = list(rows)
    names = dict.fromkeys([*given, *(row["value"] for row in rows if row["value"] is not None)])
    keys = {*map(person_hash.of, given), *(bytes(row[one]) for row in rows for one in ("id", "person"))}
    return replace(person_of(*names), keys=tuple(sorted(keys)))


def _own_ids(rows: Iterable[Row]) -> set[bytes]:
    """Return what names a person in other portfolios as well: their number, unless it may be somebody else's by now."""
    return {bytes(row["id"]) for row in rows if row["kind"] == PHONE and row["replaced_at"] is None}


def _ended(known: Mapping[bytes, KnownName], current: Sequence[Name], at: datetime) -> datetime | None:
    """Return when Meta gave another id to the user of a statement, if that was not before the statement."""
    times = [known[one.id].replaced_at for one in current if one.kind == USER]
    return max((time for time in times if time is not None and time >= at), default=None)


def _pair_to_tell(known: Mapping[bytes, KnownName], current: Sequence[Name], at: datetime) -> tuple[str, str] | None:
    """Return the number and the id of a statement if they were not one person's present ones before, and once a week.

    Who keeps such pairs forgets those that are not told again, and may have begun after one was new.
    """
    own = {one.kind: known[one.id] for one in current}
    if PHONE not in own or USER not in own:
        return None
    phone, user = own[PHONE], own[USER]
    is_told = phone.person == user.person and not any(one.erased or one.replaced_at for one in (phone, user))
    if is_told and _week(user, at) == _week(user, user.stated_at):
        return None
    values = {one.kind: one.value for one in current}
    return values[PHONE], values[USER]


def _week(name: KnownName, at: datetime) -> int:
    """Return the week of a time; a week begins for each name at another time, so that not all are told again on one day."""
    return int(at.timestamp() + int.from_bytes(name.id[:4], "big") % _WEEK_SECONDS) // _WEEK_SECONDS


def _numbers_of_others(known: Mapping[bytes, KnownName], names: Sequence[Name]) -> list[Name]:
    """Return the numbers that belong to somebody else: to a user with another id."""
    ids = {one.id for one in names}
    if all(one.kind != USER for one in names):
        return []
    owners = {
        one.person for one in known.values() if one.kind == USER and one.replaced_at is None and one.id not in ids
    }
    return [one for one in names if one.kind == PHONE and known[one.id].person in owners]


def _left(known: Iterable[KnownName], current: Sequence[Name], names: Sequence[Name]) -> list[bytes]:
    """Return the names that a person has no more: a person has one number, and one id of a user."""
    ids, given = {one.id for one in current}, {one.kind for one in current}
    if any(one.kind == USER and one.id not in ids for one in names):
        given.add(PHONE)  # Meta gives another id with another number
    left = {one.id for one in names}
    return sorted(
        one.id for one in known if one.id not in ids and (one.id in left or one.kind in given & {PHONE, USER})
    )


@dataclass(frozen=True)
class _Link:
    """Writes one statement of Meta's."""

    tx: Transaction
    portfolio: str
    at: datetime
    restores: bool

    async def is_known(self, names: Sequence[Name]) -> bool:
        """Whether the statement says nothing new."""
        return bool(await self._run(queries.ARE_LINKED, names))

    async def still_uses(self, names: Sequence[Name]) -> None:
        """Keep that a person uses their only name."""
        for one in names if self.restores else ():
            await self.tx.rows(
                queries.STILL_USED, {"portfolio": self.portfolio, "id": one.id, "value": one.value, "at": self.at}
            )

    async def locked(self, names: Sequence[Name]) -> dict[bytes, KnownName]:
        """Add the names that are missing, and return and lock all names of the people who have one of them."""
        await self._run(queries.ADD, names, kinds=[one.kind for one in names])
        return await self.locked_ids([one.id for one in names])

    async def locked_ids(self, ids: Sequence[bytes]) -> dict[bytes, KnownName]:
        """Return and lock all names of the people who have one of these."""
        before: list[KnownName] | None = None
        while before != (found := await self._of_people(ids)):
            # Another transaction may have linked more names until the lock is acquired; so they are read again.
            await self.tx.rows(queries.LOCK, {"portfolio": self.portfolio, "ids": [one.id for one in found]})
            before = found
        return {one.id: one for one in found}

    async def take_number(self, known: Mapping[bytes, KnownName], number: bytes) -> None:
        """Take a number from the person who had it; what holds for them holds for both from then on."""
        own = known[number]
        rest = [one.id for one in known.values() if one.person == own.person and one.id != own.id]
        targets = rest[:1] if own.replaced_at else [*rest[:1], own.id]
        await self.tx.rows(queries.COPY_SUPPRESSIONS, {"ids": [own.id, *rest], "targets": targets})
        await self.tx.rows(queries.LEAVE, {"portfolio": self.portfolio, "id": own.id, "at": self.at})

    async def merge(self, known: Mapping[bytes, KnownName], names: Sequence[Name]) -> None:
        """Make the names one person's, who keeps the hash under which most is counted."""
        sizes = Counter(one.person for one in known.values())
        persons = sorted({known[one.id].person for one in names}, key=lambda person: (-sizes[person], person))
        if len(persons) > 1:
            await self.tx.rows(queries.MERGE, {"person": persons[0], "persons": persons})

    async def state(self, known: Mapping[bytes, KnownName], current: Sequence[Name]) -> bool:
        """Keep when Meta has used the names, and, unless the person was erased, the names themselves; returns whether it keeps these."""
        is_erased = not self.restores and any(one.erased for one in known.values())
        await self._run(queries.STATE, current, values=[one.value for one in current], is_erased=is_erased)
        if is_erased:
            ids = [one.id for one in current]
            await self.tx.rows(queries.ALSO_ERASED, {"ids": ids, "known": [*known, *ids]})
        return not is_erased

    async def replace(self, left: Sequence[bytes], previous: Sequence[Name]) -> None:
        """Keep since when names are not the person's any more; what was asked for under them still holds for the person."""
        if left:
            values = {"portfolio": self.portfolio, "at": self.at, "previous": [one.id for one in previous]}
            await self.tx.rows(queries.REPLACE, values | {"ids": left})

    async def _of_people(self, ids: Sequence[bytes]) -> list[KnownName]:
        return await self.tx.typed(KnownName, queries.OF_PEOPLE, {"portfolio": self.portfolio, "ids": list(ids)})

    async def _run(self, statement: str, names: Sequence[Name], **values: object) -> list[Row]:
        common = {
            "portfolio": self.portfolio,
            "ids": [one.id for one in names],
            "at": self.at,
            "restores": self.restores,
        }
        return await self.tx.rows(statement, common | values)
