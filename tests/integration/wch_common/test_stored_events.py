"""Erasing and exporting a person in the events that tables keep, in a real database."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import psycopg
import pytest
from psycopg.rows import dict_row
from sqlalchemy import MetaData

from support.whatsapp_stage import batch, message, phone, wrote
from wch_common.contract.envelope import STRUCTURED, encode
from wch_common.contract.event import new_event
from wch_common.contract.message import Message, Publication
from wch_common.events import published_contract
from wch_common.events.whatsapp import SuppressionAddRequested
from wch_common.integrations.recipients import person_of
from wch_common.store.erasure import erasable_rows, erase_person, export_person
from wch_common.store.migrate import migrate
from wch_common.store.store import Store

NONE = MetaData()
ADA = person_of(phone(1))
ADAS_DIGITS = phone(1).removeprefix("+")


@pytest.fixture
def url(database_url: str) -> str:
    migrate(database_url, "demo", [])
    return database_url


@contextmanager
def reading(url: str) -> Iterator[Any]:
    with psycopg.connect(url, autocommit=True, row_factory=dict_row, options="-csearch_path=demo") as connection:
        yield connection


def parked(url: str) -> list[Message]:
    """Return the parked messages as they will be released, in the order of their ids."""
    released: list[Message] = []

    async def release() -> None:
        async def publish(publication: Publication) -> None:
            released.append(publication.message)

        store = Store(url, "demo", publish)
        await store.open()
        await store.database.rows("UPDATE parked SET due_at = now()")
        await store.database.rows("UPDATE scopes SET paused_until = now(), probing = false")
        await store.parking.release.once()
        await store.close()

    asyncio.run(release())
    return sorted(released, key=lambda one: str(one.message_id))


async def not_published(_publication: Publication) -> None:
    raise AssertionError("nothing is due")


def run(url: str, *messages: Message, outbox: Any = None, erase: bool = True) -> dict[str, int]:
    """Park messages and write an event into the outbox, erase Ada, and return the counts."""

    async def play() -> dict[str, int]:
        store = Store(url, "demo", not_published)
        await store.open()
        for number, one in enumerate(messages):
            await store.park("whatsapp.message", one, seconds=3600, scope=f"scope/{number}")
        if outbox is not None:
            async with store.transaction() as tx:
                tx.emit(new_event(outbox, "/tests", id="outbox"), due=datetime.now(UTC) + timedelta(hours=1))
        rows: tuple[Any, ...] = ()
        if erase:
            async with store.transaction() as tx:
                rows = await erase_person(tx, NONE, published_contract(), ADA)
        await store.close()
        return {one.table: one.rows for one in rows}

    return asyncio.run(play())


def structured(data: Any, id_: str) -> Message:
    return encode(new_event(data, "/tests", id=id_, shop="north")).message


def binary(data: Any, id_: str) -> Message:
    """Return an event in binary mode, whose body is only the data."""
    names = {"specversion": "1.0", "id": id_, "source": "/tests", "type": data.TYPE}
    headers = {f"cloudEvents_{name}": value for name, value in names.items()}
    return Message(data.model_dump_json().encode(), "application/json", None, id_, headers)


def in_base64(data: Any, id_: str) -> Message:
    body = orjson.loads(structured(data, id_).body)
    body["data_base64"] = base64.b64encode(orjson.dumps(body.pop("data"))).decode()
    return Message(orjson.dumps(body), STRUCTURED, None, id_)


def test_parked_events_of_a_person_lose_their_data_and_others_stay_as_they_are(url: str) -> None:
    other = structured(message(2), "4")
    kept = Message(b"\xff not an event " + phone(1).encode(), STRUCTURED, None, "5")
    messages = (structured(batch("b", (1, 2)), "1"), binary(message(1), "2"), in_base64(message(1), "3"), other, kept)
    assert run(url, *messages) == {"outbox": 0, "parked": 3}
    one, two, three, four, five = parked(url)
    assert (four.body, five.body) == (other.body, kept.body)
    recipients = orjson.loads(one.body)["data"]["recipients"]
    assert [recipient["to"] for recipient in recipients] == ["erased", phone(2)]
    assert {name: orjson.loads(one.body)[name] for name in ("id", "type", "shop")} == {
        "id": "1", "type": "whatsapp.batch.requested.v1", "shop": "north"
    }  # fmt: skip
    assert (two.headers, orjson.loads(two.body)["to"]) == (messages[1].headers, "erased")
    assert orjson.loads(three.body)["data"]["to"] == "erased"
    assert "data_base64" not in orjson.loads(three.body)
    for changed in (one, two, three):
        assert ADAS_DIGITS not in changed.body.decode()


@pytest.mark.parametrize(
    "separators", ["() -", "\u00a0\u00a0\u00a0\u00a0", "\u2011\u2011\u2011\u2011"], ids=["ascii", "nbsp", "hyphen"]
)
@pytest.mark.parametrize("escaped", [False, True], ids=["utf-8", "escaped"])
@pytest.mark.parametrize("digits", ["0123456789", "٠١٢٣٤٥٦٧٨٩"], ids=["latin", "arabic"])
def test_a_number_is_found_however_it_is_written(url: str, separators: str, escaped: bool, digits: str) -> None:
    a, b, c, d = tuple(separators)
    written = f"+1{a}{phone(1)[2:5]}{b}{c}{phone(1)[5:8]}{d}{phone(1)[8:]}".translate(
        str.maketrans("0123456789", digits)
    )
    event = orjson.loads(structured(message(1), "1").body)
    event["data"]["to"] = written
    body = json.dumps(event, ensure_ascii=escaped).encode()
    assert run(url, Message(body, STRUCTURED, None, "1")) == {"outbox": 0, "parked": 1}
    (released,) = parked(url)
    assert orjson.loads(released.body)["data"]["to"] == "erased"


def test_what_a_person_has_requested_is_exported_and_stays(url: str) -> None:
    stop = SuppressionAddRequested(phone=phone(1), category="all", reason="asked to stop", by="ada")
    assert run(url, structured(wrote(1, "STOP"), "1"), structured(stop, "2")) == {"outbox": 0, "parked": 0}
    with reading(url) as connection:
        found = export_person(connection, NONE, published_contract(), ADA)["parked"]
        assert erasable_rows(connection, NONE, published_contract(), ADA)["parked"] == 0
    assert {one["type"] for one in found} == {"meta.message.received.v1", SuppressionAddRequested.TYPE}
    assert len(parked(url)) == 2


def test_an_event_that_is_replaced_while_it_is_erased_stays_as_replaced(url: str) -> None:
    run(url, outbox=message(1), erase=False)
    other = structured(message(2), "outbox").body
    replaced = threading.Event()

    def replace() -> None:
        with reading(url) as connection:
            connection.execute("UPDATE outbox SET body = %s WHERE id = 'outbox'", (other,))
        replaced.set()

    class Interrupted:
        """A person whose number is compared while somebody else replaces the event."""

        def __init__(self) -> None:
            self.thread: threading.Thread | None = None

        def is_same(self, text: str) -> bool:
            if self.thread is None:
                self.thread = threading.Thread(target=replace)
                self.thread.start()
                assert not replaced.wait(0.5), "the row is locked until the erasure has committed"
            return ADA.is_same(text)

    interrupted = Interrupted()
    person = dataclasses.replace(ADA, is_same=interrupted.is_same)

    async def erase() -> None:
        store = Store(url, "demo", not_published)
        await store.open()
        async with store.transaction() as tx:
            await erase_person(tx, NONE, published_contract(), person)
        await store.close()

    asyncio.run(erase())
    assert interrupted.thread is not None
    interrupted.thread.join(180)
    with reading(url) as connection:
        (row,) = connection.execute("SELECT body FROM outbox").fetchall()
    assert orjson.loads(row["body"])["data"]["to"] == phone(2)


def test_an_event_of_the_outbox_is_counted_exported_and_erased(url: str) -> None:
    run(url, outbox=message(1), erase=False)
    with reading(url) as connection:
        assert erasable_rows(connection, NONE, published_contract(), ADA) == {"outbox": 1, "parked": 0}
        (found,) = export_person(connection, NONE, published_contract(), ADA)["outbox"]
        assert (found["type"], found["data"]["to"]) == ("whatsapp.message.requested.v1", phone(1))
    assert run(url) == {"outbox": 1, "parked": 0}
    with reading(url) as connection:
        assert export_person(connection, NONE, published_contract(), ADA) == {"outbox": [], "parked": []}
        (row,) = connection.execute("SELECT body FROM outbox").fetchall()
    assert orjson.loads(row["body"])["data"]["to"] == "erased"
