"""Which numbers and ids name one person, whatever order Meta's statements arrive in; on a real database."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg.rows import dict_row

from support.whatsapp_stage import HASH_KEY, NUMBER, phone
from wch_common.contract.message import Publication
from wch_common.events import published_contract
from wch_common.events.recipient import Recipient
from wch_common.integrations.recipients import PersonHash
from wch_common.store.erasure import erase_person
from wch_common.store.migrate import migrate
from wch_common.store.store import Store, Transaction
from wch_whatsapp.main import MIGRATIONS
from wch_whatsapp.people import Name, People, release_numbers
from wch_whatsapp.queries_people import all_ids, holding
from wch_whatsapp.suppressions import resume_marketing, suppress, suppressible
from wch_whatsapp.tables import METADATA

START = datetime(2026, 11, 1, tzinfo=UTC)
HASH = PersonHash(HASH_KEY)
PORTFOLIO, ANOTHER = "portfolio", "another portfolio"
PEOPLE = People(HASH, {NUMBER: PORTFOLIO, "3003": ANOTHER})
WAITING = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
ALL_IDS = all_ids("%(id)s::bytea", "%(portfolio)s")
SUPPRESSED = f"SELECT s.reason {holding('%(shop)s', '%(category)s', f'ARRAY({ALL_IDS})')}"


def user(number: int) -> str:
    """Return the id of a user."""
    return f"US.{1555010000000000 + number}"


def named(phone_: str | None = None, user_id: str | None = None, parent_id: str | None = None) -> Recipient:
    return Recipient(phone=phone_, user_id=user_id, parent_id=parent_id)


def names(recipient: Recipient) -> list[Name]:
    return PEOPLE.names(recipient)


def at(minutes: int) -> datetime:
    return START + timedelta(minutes=minutes)


@dataclass
class Ledger:
    """The service's tables, changed by what the handlers call."""

    url: str
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)

    def open(self) -> None:
        async def publish(_publication: Publication) -> None: ...

        migrate(self.url, "whatsapp", list(MIGRATIONS))
        self.store = Store(self.url, "whatsapp", publish)
        self._loop.run_until_complete(self.store.open())

    def close(self) -> None:
        self._loop.run_until_complete(self.store.close())
        self._loop.close()

    def run(self, *steps: Any) -> None:
        """Run steps, each a function of the transaction, in one transaction."""

        async def play() -> None:
            async with self.store.transaction() as tx:
                for step in steps:
                    await step(tx)

        self._loop.run_until_complete(play())

    def run_all(self, play: Any) -> None:
        """Run a coroutine that opens transactions of its own."""
        self._loop.run_until_complete(play)

    def said(
        self,
        recipient: Recipient,
        minutes: int = 0,
        previous: Recipient | None = None,
        *,
        portfolio: str = PORTFOLIO,
        restores: bool = False,
    ) -> None:
        """Meta has used these names for one person."""
        before = names(previous) if previous else ()
        self.run(
            lambda tx: PEOPLE.said_by_meta(
                tx, portfolio, names(recipient), at(minutes), previous=before, restores=restores
            )
        )

    def stop(self, recipient: Recipient, minutes: int = 0) -> None:
        """The person has written STOP."""

        async def handle(tx: Transaction) -> None:
            own = (await PEOPLE.said_by_meta(tx, PORTFOLIO, names(recipient), at(minutes), restores=True)).names
            for one in suppressible("", own):
                await suppress(tx, one, "marketing", reason="asked_to_stop", by="recipient", since=at(minutes))

        self.run(handle)

    def resume(self, recipient: Recipient, minutes: int = 0) -> None:
        """The person has changed their preference back."""
        first = suppressible("", names(recipient))[0]
        self.run(lambda tx: resume_marketing(tx, first, PORTFOLIO, at(minutes)))

    def rows(self, statement: str, **values: Any) -> list[dict[str, Any]]:
        with psycopg.connect(self.url, row_factory=dict_row, options="-csearch_path=whatsapp") as connection:
            return connection.execute(statement.encode(), values or None).fetchall()

    def is_suppressed(self, name: str) -> bool:
        values = {"shop": "", "category": "marketing", "portfolio": PORTFOLIO, "id": HASH.of(name)}
        return bool(self.rows(SUPPRESSED, **values))

    def people(self) -> list[set[str]]:
        """Return the names of each person."""
        found: dict[bytes, set[str]] = {}
        for row in self.rows("SELECT person, value FROM person_ids WHERE value IS NOT NULL"):
            found.setdefault(bytes(row["person"]), set()).add(row["value"])
        return sorted(found.values(), key=sorted)

    def current(self) -> set[str]:
        return {
            row["value"]
            for row in self.rows("SELECT value FROM person_ids WHERE replaced_at IS NULL AND value IS NOT NULL")
        }

    def clear(self) -> None:
        with psycopg.connect(self.url, options="-csearch_path=whatsapp") as connection:
            connection.execute("TRUNCATE person_ids, suppressions")


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    made = Ledger(database_url)
    made.open()
    yield made
    made.close()


def test_one_name_needs_no_row_and_two_are_linked(ledger: Ledger) -> None:
    ledger.said(named(phone(1)))
    assert ledger.people() == []
    ledger.said(named(phone(1), user(1)))
    ledger.said(named(None, user(1), "US.ENT.15550100"))
    assert ledger.people() == [{phone(1), user(1), "US.ENT.15550100"}]


@pytest.mark.parametrize("first", ["stop", "link"])
@pytest.mark.parametrize("stopped", [named(phone(1)), named(None, user(1))], ids=["number", "id"])
def test_a_stop_under_one_name_holds_under_the_other_whichever_is_first(
    ledger: Ledger, first: str, stopped: Recipient
) -> None:
    if first == "link":
        ledger.said(named(phone(1), user(1)), 1)
    ledger.stop(stopped, 1)
    ledger.said(named(phone(1), user(1)), 1)
    assert ledger.is_suppressed(phone(1))
    assert ledger.is_suppressed(user(1))
    assert not ledger.is_suppressed(phone(2))


def test_the_last_wish_holds_under_whichever_name_it_was_made(ledger: Ledger) -> None:
    ledger.said(named(phone(1), user(1)))
    ledger.stop(named(phone(1)), 10)
    ledger.resume(named(None, user(1)), 20)
    assert not ledger.is_suppressed(phone(1))
    ledger.stop(named(None, user(1)), 15)
    assert not ledger.is_suppressed(user(1)), "an earlier STOP that arrives late does not hold"
    ledger.stop(named(None, user(1)), 30)
    assert ledger.is_suppressed(phone(1))
    ledger.resume(named(phone(1)), 25)
    assert ledger.is_suppressed(phone(1)), "an earlier wish that arrives late lifts nothing"
    ledger.resume(named(phone(1)), 40)
    assert not ledger.is_suppressed(user(1))


def test_a_person_cannot_lift_what_an_operator_set_under_their_other_name(ledger: Ledger) -> None:
    ledger.said(named(phone(1), user(1)))
    one = suppressible("", names(named(phone(1))))[0]
    ledger.run(lambda tx: suppress(tx, one, "marketing", reason="asked by mail", by="ada", since=at(1)))
    ledger.resume(named(None, user(1)), 20)
    assert ledger.is_suppressed(user(1))


def test_a_changed_number_takes_everything_along_and_the_old_names_are_not_used(ledger: Ledger) -> None:
    ledger.stop(named(phone(1), user(1)), 1)
    ledger.said(named(phone(2), user(2)), 5, previous=named(phone(1), user(1)))
    assert ledger.people() == [{phone(1), user(1), phone(2), user(2)}]
    assert ledger.current() == {phone(2), user(2)}
    assert ledger.is_suppressed(phone(2))
    assert ledger.is_suppressed(user(2))


def test_an_id_changes_without_a_number(ledger: Ledger) -> None:
    ledger.stop(named(None, user(1)), 1)
    ledger.said(named(None, user(2)), 5, previous=named(None, user(1)))
    assert ledger.is_suppressed(user(2))
    assert ledger.current() == {user(2)}


def test_a_number_that_another_person_has_now_is_theirs(ledger: Ledger) -> None:
    ledger.said(named(phone(1), user(1)), 1)
    ledger.stop(named(None, user(1)), 2)
    ledger.said(named(phone(1), user(9)), 10)
    assert ledger.people() == [{phone(1), user(9)}, {user(1)}]
    assert ledger.is_suppressed(user(1)), "the first person's STOP stays with them"
    assert ledger.is_suppressed(phone(1)), "and with the number, whose new owner can lift it"
    ledger.said(named(phone(1), user(1)), 3)
    assert ledger.people() == [{phone(1), user(9)}, {user(1)}], "an old statement that arrives late changes nothing"
    ledger.resume(named(phone(1), user(9)), 11)
    assert not ledger.is_suppressed(user(9))
    assert ledger.is_suppressed(user(1))


def test_a_stop_under_a_number_alone_stays_with_its_owner_when_the_number_is_given_to_somebody_else(
    ledger: Ledger,
) -> None:
    ledger.stop(named(phone(1)), 1)
    ledger.said(named(phone(1), user(1)), 2)
    ledger.said(named(phone(2), user(2)), 5, previous=named(phone(1), user(1)))
    ledger.said(named(phone(1), user(9)), 10)
    assert ledger.people() == [{phone(1), user(9)}, {user(1), phone(2), user(2)}]
    assert ledger.is_suppressed(phone(2))
    assert ledger.is_suppressed(user(2))
    assert ledger.is_suppressed(phone(1)), "nobody knows whose number it was when the STOP was stored"


def test_another_id_means_another_number_although_it_is_hidden(ledger: Ledger) -> None:
    ledger.said(named(phone(1), user(1)), 1)
    ledger.said(named(None, user(2)), 5, previous=named(None, user(1)))
    assert ledger.current() == {user(2)}
    ledger.said(named(phone(1), user(2)), 6)
    assert ledger.current() == {phone(1), user(2)}, "unless Meta says so"


def test_a_statement_from_before_a_change_does_not_undo_it(ledger: Ledger) -> None:
    ledger.said(named(phone(1), user(1)), 1)
    ledger.said(named(phone(2), user(2)), 5, previous=named(phone(1), user(1)))
    ledger.said(named(phone(1), user(1)), 3)
    assert ledger.current() == {phone(2), user(2)}


@pytest.mark.parametrize("late", [3, 5])
def test_a_late_statement_about_a_hidden_change_undoes_nothing(ledger: Ledger, late: int) -> None:
    """Meta gives times in seconds, so a status and a change may have the same."""
    ledger.said(named(None, user(2)), 5, previous=named(None, user(1)))
    ledger.said(named(phone(1), user(1)), late)
    assert ledger.current() == {user(2)}
    ledger.said(named(phone(2), user(2)), 6)
    assert ledger.current() == {phone(2), user(2)}


@pytest.mark.parametrize("order", [1, -1])
def test_a_change_holds_against_a_status_of_the_same_second(ledger: Ledger, order: int) -> None:
    ledger.said(named(phone(1), user(1)), 1)
    steps: list[tuple[Recipient, Recipient | None]] = [
        (named(phone(1), user(1)), None),
        (named(phone(2), user(2)), named(phone(1), user(1))),
    ]
    for now, before in steps[::order]:
        ledger.said(now, 5, before)
    assert ledger.current() == {phone(2), user(2)}


def test_a_number_that_was_replaced_months_ago_names_nobody(ledger: Ledger) -> None:
    ledger.stop(named(phone(1)), 1)
    ledger.said(named(phone(1), user(1)), 2)
    ledger.stop(named(None, user(1)), 3)
    ledger.said(named(phone(2), user(2)), 5, previous=named(phone(1), user(1)))

    def release(days: int) -> None:
        ledger.rows(
            f"UPDATE person_ids SET replaced_at = now() - interval '{days} days' WHERE kind = 'phone' AND replaced_at IS NOT NULL RETURNING 1"
        )
        ledger.run_all(release_numbers(ledger.store))

    release(89)
    assert len(ledger.people()) == 1
    release(91)
    assert ledger.people() == [{phone(1)}, {user(1), phone(2), user(2)}]
    assert ledger.is_suppressed(phone(2))
    assert ledger.is_suppressed(user(2))


def test_a_persons_hash_is_kept_when_they_get_another_name(ledger: Ledger) -> None:
    """What limits count is kept under it."""
    ledger.said(named(phone(1), user(1)), 1)
    before = ledger.rows("SELECT DISTINCT person FROM person_ids")
    ledger.said(named(phone(2), user(2)), 5, previous=named(phone(1), user(1)))
    assert ledger.rows("SELECT DISTINCT person FROM person_ids") == before


def test_a_person_with_one_name_is_remembered_while_they_write(ledger: Ledger) -> None:
    ledger.said(named(phone(1), user(1)), 0)
    ledger.rows("UPDATE person_ids SET value = NULL RETURNING 1")
    days = 24 * 60
    ledger.said(named(None, user(1)), 50 * days, restores=True)
    assert ledger.rows("SELECT value, stated_at FROM person_ids WHERE value IS NOT NULL") == [
        {"value": user(1), "stated_at": at(50 * days)}
    ]
    ledger.said(named(phone(1), user(1)), 51 * days)
    assert ledger.current() == {phone(1), user(1)}, "nobody was erased, so a status says it again"


def test_a_person_is_erased_in_every_portfolio_that_has_their_number(ledger: Ledger) -> None:
    ledger.said(named(phone(1), user(1)), 1)
    ledger.said(named(phone(1), user(2)), 1, portfolio=ANOTHER)
    ledger.said(named(phone(3), user(3)), 1, portfolio=ANOTHER)

    async def erase(tx: Transaction) -> None:
        await erase_person(tx, METADATA, published_contract(), await PEOPLE.person(tx, named(None, user(1))))

    ledger.run(erase)
    left = ledger.rows("SELECT value FROM person_ids WHERE value IS NOT NULL ORDER BY value")
    assert [row["value"] for row in left] == [phone(3), user(3)]


def test_what_is_known_in_one_portfolio_says_nothing_in_another(ledger: Ledger) -> None:
    ledger.said(named(phone(1), user(1)), 1)
    ledger.said(named(phone(1), user(2)), 5, portfolio=ANOTHER)
    ledger.said(named(phone(3), user(1)), 6, portfolio=ANOTHER)
    assert ledger.people() == [{phone(1), user(1)}, {phone(1), user(2)}, {phone(3), user(1)}]


def test_a_wish_for_more_lifts_under_all_names(ledger: Ledger) -> None:
    """A lifted suppression is deleted some time later; nothing else may hold then."""
    ledger.stop(named(phone(1), user(1)), 1)
    ledger.resume(named(phone(1)), 5)
    assert ledger.rows("SELECT 1 FROM suppressions WHERE lifted_at IS NULL") == []
    assert len(ledger.rows("SELECT 1 FROM suppressions")) == 2


@pytest.mark.parametrize("known", [True, False], ids=["names are linked", "only the number is known"])
def test_a_late_status_does_not_bring_an_erased_person_back_but_they_do(ledger: Ledger, known: bool) -> None:
    both = named(phone(1), user(1))
    if known:
        ledger.said(both, 1)

    async def erase(tx: Transaction) -> None:
        person = await PEOPLE.person(tx, named(phone(1)))
        await erase_person(tx, METADATA, published_contract(), person)

    ledger.run(erase)
    ledger.said(both, 5)
    assert ledger.rows("SELECT value FROM person_ids WHERE value IS NOT NULL") == []
    ledger.stop(named(None, user(1)), 6)
    assert ledger.is_suppressed(phone(1)), "the link is known, without the names"
    ledger.said(both, 7, restores=True)
    assert {phone(1), user(1)} <= ledger.current()


def test_a_statement_waits_for_another_one_about_the_same_people(ledger: Ledger) -> None:
    """The second of two that overlap, though they have no name in common, sees what the first has linked."""
    for one in (named(None, user(1), "US.ENT.1"), named(None, user(2), "US.ENT.2")):
        ledger.said(one, 1)
    first_statement, second_statement = named(None, user(1), "US.ENT.2"), named(None, user(4), "US.ENT.1")

    async def play() -> None:
        linked, waits = asyncio.Event(), asyncio.Event()

        async def first() -> None:
            async with ledger.store.transaction() as tx:
                await PEOPLE.said_by_meta(tx, PORTFOLIO, names(first_statement), at(2))
                linked.set()
                await waits.wait()

        async def other() -> None:
            await linked.wait()
            async with ledger.store.transaction() as tx:
                await PEOPLE.said_by_meta(tx, PORTFOLIO, names(second_statement), at(3))
            waits.set()  # only if it did not wait for the first

        async def watch() -> None:
            while not waits.is_set():
                if await asyncio.to_thread(ledger.rows, WAITING):
                    waits.set()

        async with asyncio.TaskGroup() as group:
            for one in (first, other, watch):
                group.create_task(one())

    ledger.run_all(play())
    assert len(ledger.people()) == 1


# -- any history, in any order


@dataclass
class World:
    """What Meta would say of some people, who change their numbers and write."""

    statements: list[tuple[str, Recipient, Recipient | None, int]] = field(default_factory=list)
    numbers: dict[int, str | None] = field(default_factory=dict)
    ids: dict[int, str] = field(default_factory=dict)
    owners: dict[str, int] = field(default_factory=dict)
    stopped: set[int] = field(default_factory=set)
    time: int = 0

    def play(self, person: int, act: str, number: int) -> None:
        """Let a person act."""
        self.time += 1
        if person not in self.ids:
            self._new_id(person)
            self.numbers[person] = None if self._is_taken(number) else phone(number)
        if act == "change" and not self._is_taken(number):
            before = named(self.numbers[person], self.ids[person])
            self.numbers[person] = phone(number)
            self._new_id(person)
            self.statements.append(("said", self._names(person), before, self.time))
        elif act == "stop":
            self.stopped.add(person)
            self.statements.append(("stop", self._names(person), None, self.time))
        elif act == "number stop":
            if self.numbers[person] is not None:
                self.stopped.add(person)
                self.statements.append(("stop", named(self.numbers[person]), None, self.time))
        elif act == "hidden stop":
            self.stopped.add(person)
            self.statements.append(("stop", named(None, self.ids[person]), None, self.time))
        else:
            self.statements.append(("said", self._names(person), None, self.time))

    def _new_id(self, person: int) -> None:
        self.ids[person] = user(len(self.owners))
        self.owners[self.ids[person]] = person

    def _is_taken(self, number: int) -> bool:
        return phone(number) in self.numbers.values()

    def _names(self, person: int) -> Recipient:
        return named(self.numbers[person], self.ids[person])


ACTS = st.tuples(
    st.integers(0, 2), st.sampled_from(["write", "change", "stop", "hidden stop", "number stop"]), st.integers(0, 3)
)

DELAYS = st.lists(st.integers(0, 4), min_size=20, max_size=20)


@settings(max_examples=150)
@given(acts=st.lists(ACTS, min_size=1, max_size=9), delays=DELAYS)
def check_history(ledger: Ledger, acts: list[tuple[int, str, int]], delays: list[int]) -> None:
    ledger.clear()
    world = World()
    for act in acts:
        world.play(*act)
    for person in list(world.ids):
        world.play(person, "write", 0)  # so that every present number has been seen with its id
    arrived = sorted(world.statements, key=lambda one: one[3] + delays[one[3]])
    for kind, now, before, minutes in arrived:
        if kind == "stop":
            ledger.stop(now, minutes)
        else:
            ledger.said(now, minutes, before)
    for found in ledger.people():
        assert len({world.owners[name] for name in found if name in world.owners}) <= 1, (arrived, found)
    for person, id_ in world.ids.items():
        number = world.numbers[person]
        if number is not None:
            assert any({number, id_} <= found for found in ledger.people()), (arrived, ledger.people())
            assert {number, id_} <= ledger.current(), (arrived, ledger.current())
        if person in world.stopped:
            assert ledger.is_suppressed(id_), arrived
            assert number is None or ledger.is_suppressed(number), arrived


def test_in_any_order_people_stay_apart_and_a_stop_survives(ledger: Ledger) -> None:
    check_history(ledger)
