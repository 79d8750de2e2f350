"""Erasing somebody for good: the order of its steps, crashes between them, and what is older than an erasure, in a real database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import orjson
import psycopg
import pytest
from sqlalchemy import Column, Integer, MetaData, Table, Text

from support.whatsapp_stage import batch, erased, message, phone, suppression, wrote
from wch_common.contract.envelope import encode
from wch_common.contract.event import Event, new_event
from wch_common.contract.message import Publication
from wch_common.contract.personal import ERASED, HashedPerson
from wch_common.events import published_contract
from wch_common.events.carts import CustomerErased
from wch_common.events.meta import StatusReceived
from wch_common.events.recipient import Recipient
from wch_common.events.whatsapp import RecipientErased
from wch_common.integrations.recipients import PersonHash, person_of
from wch_common.outcome import Reject, Throttled
from wch_common.store import store as store_module
from wch_common.store.erased_people import ErasedPeople, as_published, erased_since
from wch_common.store.erasure import Erasures
from wch_common.store.migrate import migrate
from wch_common.store.personal_data import personal_data
from wch_common.store.store import Store, Transaction

T = TypeVar("T")
HASH = PersonHash("a key for the tests")
ID = "DE.15550100001771"
TABLES = MetaData()
Table(
    "guests",
    TABLES,
    Column("id", Integer, primary_key=True),
    Column("person", Text),
    info=personal_data(person="person", erased={"person": None}),
)
NOW = datetime.now(UTC)
ADA = HashedPerson(person_of(phone(1)), frozenset({HASH.of(phone(1))}))


@pytest.fixture
def url(database_url: str) -> str:
    migrate(database_url, "demo", [])
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE demo.guests (id serial PRIMARY KEY, person text)")
    return database_url


def run(url: str, work: Callable[[Store], Coroutine[Any, Any, T]]) -> T:
    """Run something with a store that leaves out erased people; what it publishes stays in the outbox."""

    async def whole() -> T:
        async def publish(_publication: Publication) -> None:
            await asyncio.Event().wait()

        guard = ErasedPeople(published_contract(), HASH.in_regions(["US"]))
        store = Store(url, "demo", publish, erased_people=guard, confirm_timeout_seconds=0.01)
        await store.open()
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(whole())


def rows(url: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True, options="-csearch_path=demo") as connection:
        return connection.execute(statement.encode()).fetchall()


def asked(**changes: Any) -> Event[Any]:
    """Return the fact that asks a service to erase Ada."""
    at = changes.pop("at", NOW)
    event = new_event(erased(phone(1), at=at, erasure=f"as of {at}"), "/wch/whatsapp")
    return replace(event, queue="demo.control", canonical=orjson.dumps(event.data.model_dump(mode="json")), **changes)


def following(store: Store) -> Callable[[Event[Any]], Coroutine[Any, Any, None]]:
    erasures = Erasures(store, TABLES, published_contract(), "/wch/demo")
    handler = erasures.following(HASH.erased_in, CustomerErased)

    async def handle(event: Event[Any]) -> None:
        await handler(event)

    return handle


def older(data: Any, *, seconds: float = 60, **changes: Any) -> Event[Any]:
    """Return an event that was published before the erasure, as a worker has decoded it."""
    event = new_event(data, "/tests")
    values: dict[str, Any] = {"time": NOW - timedelta(seconds=seconds), "queue": "demo.work"}
    values["canonical"] = orjson.dumps(data.model_dump(mode="json"))
    return replace(event, **(values | changes))


def handled(url: str, *events: Event[Any]) -> list[Any]:
    """Return the data that a handler gets of each event."""
    seen: list[Any] = []

    async def handler(event: Event[Any], _tx: Transaction) -> None:
        seen.append(event.data)

    async def work(store: Store) -> None:
        for event in events:
            await store.handle(handler, event)

    run(url, work)
    return seen


def erase_ada(url: str, at: datetime = NOW) -> None:
    async def work(store: Store) -> None:
        await following(store)(asked(at=at))

    run(url, work)


def test_what_began_before_the_erasure_is_erased_with_it(url: str) -> None:
    """A transaction that had looked before the mark was committed writes the person only afterwards."""

    async def work(store: Store) -> list[bool]:
        looked, go_on = asyncio.Event(), asyncio.Event()

        async def slow(event: Event[Any], tx: Transaction) -> None:
            looked.set()
            await go_on.wait()
            await tx.rows("INSERT INTO guests (person) VALUES (%s)", (event.data.to,))

        before = asyncio.create_task(store.handle(slow, older(message(1))))
        await looked.wait()
        looks, rows_of = [], store.database.rows

        async def counted(statement: str, parameters: Any = None, *, reserved: bool = False) -> Any:
            looks.append("pg_locks" in statement)
            return await rows_of(statement, parameters, reserved=reserved)

        store.database.rows = counted  # type: ignore[method-assign]
        erasing = asyncio.create_task(following(store)(asked()))
        async with asyncio.timeout(300):
            while sum(looks) < 3 and not erasing.done():
                await asyncio.sleep(0.01)
        waits = not erasing.done()
        go_on.set()
        await before
        await erasing
        return [waits]

    assert run(url, work) == [True]
    assert rows(url, "SELECT person FROM guests") == [(None,)]
    assert rows(url, "SELECT rows->'guests', ended_at IS NOT NULL FROM erasures") == [(1, True)]


def test_an_erasure_that_crashed_after_its_first_step_is_finished_when_it_is_delivered_again(url: str) -> None:
    rows(url, f"INSERT INTO guests (person) VALUES ('{phone(1)}') RETURNING 1")
    event = asked()

    async def crash(store: Store) -> None:
        async def never(*_: Any) -> None:
            raise RuntimeError("killed")

        store.until_seen = never  # type: ignore[method-assign]
        with pytest.raises(RuntimeError, match="killed"):
            await following(store)(event)

    run(url, crash)
    assert rows(url, "SELECT person, ended_at FROM guests, erasures") == [(phone(1), None)]
    assert handled(url, older(message(1)))[0].to == ERASED, "from the first step on"

    async def again(store: Store) -> None:
        await following(store)(event)
        await following(store)(event)

    run(url, again)
    assert rows(url, "SELECT person, ended_at IS NOT NULL FROM guests, erasures") == [(None, True)]
    assert rows(url, "SELECT count(*) FROM outbox") == [(1,)], "one answer"


def test_an_erasure_waits_for_a_transaction_that_does_not_end(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_LOOKS", 2)
    with psycopg.connect(url) as open_:
        open_.execute("SET search_path TO demo")
        open_.execute("INSERT INTO inbox (queue, source, id, hash) VALUES ('q', 's', 'i', '')")

        async def work(store: Store) -> None:
            with pytest.raises(Throttled, match="began earlier"):
                await following(store)(asked())

        run(url, work)
    assert rows(url, "SELECT ended_at FROM erasures") == [(None,)]
    erase_ada(url)
    assert rows(url, "SELECT ended_at IS NOT NULL FROM erasures") == [(True,)]


def test_an_erasure_does_not_wait_for_who_only_reads(url: str) -> None:
    """Such as a backup, or an operator's session."""
    with psycopg.connect(url) as open_:
        open_.execute("SELECT count(*) FROM demo.inbox, demo.guests")
        erase_ada(url)
    assert rows(url, "SELECT ended_at IS NOT NULL FROM erasures") == [(True,)]


def test_a_fact_of_a_release_before_does_not_count_as_an_erasure(url: str) -> None:
    async def work(store: Store) -> None:
        event = new_event(RecipientErased(rows=()), "/wch/whatsapp")
        with pytest.raises(Reject, match="names nobody"):
            await following(store)(replace(event, queue="demo.control", canonical=b"{}"))

    run(url, work)
    assert rows(url, "SELECT count(*) FROM erasures") == [(0,)]


def test_a_request_says_how_old_what_it_knows_is(url: str) -> None:
    erase_ada(url)
    (found,) = handled(url, older(message(1, as_of=NOW - timedelta(days=9)), seconds=-60))
    assert found.to == ERASED


@pytest.mark.parametrize(
    ("to", "written"),
    [("+447911123456", "447911123456"), ("+4915112345678", "4915112345678"), ("+5215512345678", "5215512345678")],
)
def test_a_number_is_found_as_meta_writes_it(to: str, written: str) -> None:
    assert HASH.of(to) in HASH.in_regions(["US"])(written)
    assert HASH.of(to) in HASH.in_regions([])(written)


def test_what_was_published_is_recognised_although_somebody_is_left_out(url: str) -> None:
    erase_ada(url)
    event, seen = older(batch("b", (1, 2))), []

    async def handler(event: Event[Any], _tx: Transaction) -> None:
        seen.append((as_published(event), event.data == as_published(event)))

    async def work(store: Store) -> None:
        await store.handle(handler, event)
        await store.handle(handler, older(batch("c", (2,))))

    run(url, work)
    assert seen == [(event.data, False), (batch("c", (2,)), True)]


def test_a_message_is_parked_without_those_who_were_erased(url: str) -> None:
    """A handler that waits, for example because a shop has too many messages, does not bring them back."""
    erase_ada(url)
    wanted = (
        older(message(1)),
        older(message(2)),
        older(message(1, send_key="new"), seconds=-60),
        older(suppression(1)),
    )

    async def work(store: Store) -> None:
        for event in wanted:
            await store.park("q", encode(event).message, seconds=60, scope="shop")

    run(url, work)
    bodies = [orjson.loads(row[0]) for row in rows(url, "SELECT convert_from(body, 'UTF8') FROM parked")]
    found = {one["id"]: one["data"].get("to") or one["data"]["phone"] for one in bodies}
    assert [found[one.id] for one in wanted] == [ERASED, phone(2), phone(1), phone(1)]


def test_only_those_who_were_erased_are_left_out_of_an_older_event(url: str) -> None:
    erase_ada(url)
    both = batch("b", (1, 2))
    found, others, named = handled(
        url, older(both), older(message(2)), older(message(1, to=Recipient(phone="(555) 010-0001")))
    )
    assert [one.to for one in found.recipients] == [ERASED, phone(2)]
    assert others.to == phone(2)
    assert named.to == ERASED, "as it is written in the country of the shop"


@pytest.mark.parametrize("seconds", [0, 1, 10_000_000])
def test_an_event_of_the_erasure_s_own_time_or_before_is_older(url: str, seconds: float) -> None:
    erase_ada(url)
    assert handled(url, older(message(1), seconds=seconds))[0].to == ERASED


def test_an_event_without_a_time_may_be_older(url: str) -> None:
    erase_ada(url)
    assert handled(url, older(message(1), time=None))[0].to == ERASED


def test_a_newer_event_is_as_it_was(url: str) -> None:
    erase_ada(url)
    assert handled(url, older(message(1), seconds=-0.001))[0].to == phone(1)


def test_a_new_report_of_something_old_is_old(url: str) -> None:
    erase_ada(url)
    status = StatusReceived(
        phone_number_id="1", wamid="w", status="read", timestamp=NOW - timedelta(days=1), recipient=phone(1).lstrip("+")
    )
    (found,) = handled(url, older(status, seconds=-60))
    assert found.recipient == ERASED


def test_wishes_of_an_erased_person_are_kept(url: str) -> None:
    erase_ada(url)
    wish, stop = handled(url, older(suppression(1)), older(wrote(1, "STOP", timestamp=NOW - timedelta(days=1))))
    assert wish.phone == phone(1)
    assert stop.sender == phone(1).lstrip("+")


def test_the_last_of_two_erasures_decides(url: str) -> None:
    erase_ada(url, NOW - timedelta(days=1))
    assert handled(url, older(message(1)))[0].to == phone(1)
    erase_ada(url)
    assert handled(url, older(message(1)))[0].to == ERASED
    erase_ada(url, NOW - timedelta(days=2))
    assert handled(url, older(message(1)))[0].to == ERASED, "an old request that arrives late"


def test_an_erasure_is_not_of_the_future(url: str) -> None:
    """A requester's clock may be ahead; what the person does from now on counts."""
    erase_ada(url, NOW + timedelta(days=1))
    assert handled(url, older(message(1), time=datetime.now(UTC)))[0].to == phone(1)


def test_handlers_can_ask_who_was_erased(url: str) -> None:
    erase_ada(url)

    async def work(store: Store) -> list[set[bytes]]:
        people, answers = [HASH.of(phone(1)), HASH.of(phone(2)), HASH.of(ID)], []

        async def handler(_event: Event[Any], tx: Transaction) -> None:
            answers.extend([await erased_since(tx, people, NOW), await erased_since(tx, people, datetime.now(UTC))])

        await store.handle(handler, older(wrote(1)))
        return answers

    assert run(url, work) == [set(ADA.hashes), set()]
