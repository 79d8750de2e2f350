"""CloudEvents in both modes: written events can be read, and errors name the attribute."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from support.demo_events import ThingDone, ThingRequested
from wch_common.contract.envelope import STRUCTURED, decode, encode
from wch_common.contract.event import Fact, Request, new_event
from wch_common.contract.message import Message
from wch_common.contract.registry import Registry
from wch_common.errors import (
    ContractError,
    DuplicateRegistration,
    InvalidData,
    Undecodable,
    UnknownType,
    UnknownVersion,
)

REGISTRY = Registry((ThingRequested, ThingDone))
GOOD = {"specversion": "1.0", "id": "1", "source": "/t", "type": "demo.thing.requested.v1", "data": {"number": 7}}


def structured(**changes: object) -> Message:
    event = {key: value for key, value in (GOOD | changes).items() if value is not None}
    return Message(orjson.dumps(event), STRUCTURED)


def test_an_encoded_event_decodes_to_the_same_event() -> None:
    event = new_event(
        ThingRequested(number=7, note="ü"),
        "/t",
        shop="north",
        requester="carts",
        expirytime=datetime(2027, 1, 1, tzinfo=UTC),
    )
    publication = encode(event)
    assert (publication.exchange, publication.routing_key) == ("wch.requests", "demo.thing.requested.v1")
    assert publication.message.message_id == event.id
    again = decode(publication.message, REGISTRY, exchange="wch.requests", routing_key="demo.thing.requested.v1")
    assert again == event
    assert again.subject == "thing/7"


def test_a_fact_is_routed_to_its_requester() -> None:
    fact = new_event(ThingDone(number=1), "/t", requester="carts")
    publication = encode(fact)
    assert (publication.routing_key, publication.mandatory) == ("demo.thing.finished.v1.carts", False)
    assert (
        decode(publication.message, REGISTRY, exchange="wch.facts", routing_key=publication.routing_key).data
        == fact.data
    )


@pytest.mark.parametrize("prefix", ["cloudEvents_", "cloudEvents:", "ce-"])
def test_binary_mode_is_read_with_every_prefix_in_use(prefix: str) -> None:
    headers = {f"{prefix}{name}": value for name, value in GOOD.items() if isinstance(value, str)}
    message = Message(b'{"number": 7}', "application/json; charset=utf-8", "utf-8", None, dict(headers))
    assert decode(message, REGISTRY).data == ThingRequested(number=7)


def test_a_header_whose_name_is_not_text_is_ignored() -> None:
    headers: Any = {f"ce-{key}": value for key, value in GOOD.items() if key != "data"} | {b"\xff": "x"}
    assert decode(Message(b'{"number": 7}', "application/json", headers=headers), REGISTRY).id == "1"


def test_base64_data_is_read() -> None:
    assert decode(structured(data=None, data_base64="eyJudW1iZXIiOiA3fQ=="), REGISTRY).data == ThingRequested(number=7)


def test_unknown_fields_are_ignored_and_kept_in_the_canonical_form() -> None:
    event = decode(structured(data={"number": 7, "zeal": 1, "a": None}), REGISTRY)
    assert event.data == ThingRequested(number=7)
    assert event.canonical == b'{"a":null,"number":7,"zeal":1}'


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"id": None, "source": ""}, ["id", "source"]),
        ({"id": 5}, ["id"]),
        ({"id": "x" * 256}, ["id"]),
        ({"id": "a\n"}, ["id"]),
        ({"specversion": "0.3"}, ["specversion"]),
        ({"time": "yesterday"}, ["time"]),
        ({"time": "2026-01-01T00:00:00"}, ["time"]),
        ({"shop": 7}, ["shop"]),
        ({"requester": "Carts!"}, ["requester"]),
        ({"requester": 7}, ["requester"]),
        ({"datacontenttype": "text/xml"}, ["datacontenttype"]),
        ({"datacontenttype": []}, ["datacontenttype"]),
        (
            {"datacontenttype": {}, "specversion": {}, "id": [], "requester": {}},
            ["specversion", "id", "requester", "datacontenttype"],
        ),
        ({"data": None, "data_base64": "%%"}, ["data_base64"]),
        ({"data": None, "data_base64": "ü"}, ["data_base64"]),
    ],
)
def test_every_wrong_attribute_is_named(changes: dict[str, object], fields: list[str]) -> None:
    with pytest.raises(Undecodable) as caught:
        decode(structured(**changes), REGISTRY)
    assert [error.field for error in caught.value.fields] == fields


def test_an_extension_may_have_the_name_of_a_delivery_field() -> None:
    extensions = {"queue": 7, "attempt": "x", "replay": [], "canonical": {}, "user": "somebody"}
    event = decode(structured(**extensions), REGISTRY, queue="demo.thing", attempt=2)
    assert (event.queue, event.attempt, event.replay, event.user) == ("demo.thing", 2, 0, None)
    assert event.canonical == b'{"number":7}'


@pytest.mark.parametrize("data", [None, 7, [], {}, {"number": "7"}, {"number": 7.5}, {"number": True}])
def test_wrong_fields_of_data_are_named_without_their_values(data: object) -> None:
    with pytest.raises(InvalidData) as caught:
        decode(structured(data=data, source="+49 170 1234567"), REGISTRY)
    assert all(error.field.startswith("data") for error in caught.value.fields)
    assert "7.5" not in str(caught.value) + str(caught.value.fields)


@pytest.mark.parametrize(
    ("message", "what"),
    [
        (Message(b"", STRUCTURED), "body"),
        (Message(b"\x1f\x8b", STRUCTURED, "gzip"), "content_encoding"),
        (Message(b"{}", "application/cloudevents-batch+json"), "headers"),
        (Message(b'"\\ud800"', STRUCTURED), "body"),
        (Message(b"[" * 5000, STRUCTURED), "body"),
        (Message(b'{"a": NaN}', STRUCTURED), "body"),
    ],
)
def test_unreadable_bytes_raise_an_error_of_ours(message: Message, what: str) -> None:
    with pytest.raises(ContractError) as caught:
        decode(message, REGISTRY)
    assert caught.value.fields[0].field == what


def test_unknown_types_and_unknown_versions_are_distinguished() -> None:
    with pytest.raises(UnknownVersion):
        decode(structured(type="demo.thing.requested.v2"), REGISTRY)
    with pytest.raises(UnknownType):
        decode(structured(type="demo.other.requested.v1"), REGISTRY)


def test_a_routing_key_that_is_not_the_type_is_refused_on_the_public_exchanges_only() -> None:
    with pytest.raises(Undecodable):
        decode(structured(), REGISTRY, exchange="wch.requests", routing_key="demo.other.requested.v1")
    decode(structured(), REGISTRY, exchange="wch.retry", routing_key="demo.thing")


def test_derived_events_have_the_same_id_until_a_replay() -> None:
    event = decode(structured(requester="carts", shop="north"), REGISTRY, queue="demo.thing")
    replayed = decode(structured(requester="carts", shop="north"), REGISTRY, queue="demo.thing", replay=1)
    one, two = (event.derive(ThingDone(number=1), "/wch/demo", key="a") for _ in range(2))
    assert one.id == two.id
    assert (one.requester, one.shop, one.causationid, one.correlationid) == ("carts", "north", "1", "1")
    elsewhere = decode(structured(requester="carts", shop="north"), REGISTRY, queue="demo.other")
    foreign = decode(structured(requester="carts", shop="north", source="/u"), REGISTRY, queue="demo.thing")
    others = {
        event.derive(ThingDone(number=1), "/wch/demo", key="b").id,
        event.derive(ThingRequested(number=1), "/wch/demo", key="a").id,
        replayed.derive(ThingDone(number=1), "/wch/demo", key="a").id,
        elsewhere.derive(ThingDone(number=1), "/wch/demo", key="a").id,
        foreign.derive(ThingDone(number=1), "/wch/demo", key="a").id,
    }
    assert one.id not in others
    assert len(others) == 5


class Wish(Request):
    """A request whose type does not end in `requested`."""

    TYPE = "demo.thing.wanted.v1"


class Present(Fact):
    """A fact whose name is not in the past tense."""

    TYPE = "demo.thing.happens.v1"


class Asking(Fact):
    """A fact that is named like a request."""

    TYPE = "demo.thing.requested.v3"


class Shouting(Fact):
    """Not lower case."""

    TYPE = "Demo.Thing.Happened.v1"


@pytest.mark.parametrize("model", [Wish, Present, Asking, Shouting])
def test_a_type_that_breaks_the_naming_rule_is_refused(model: type[Fact]) -> None:
    with pytest.raises(ValueError, match="cannot be registered"):
        Registry((model,))


def test_a_type_registered_twice_is_refused() -> None:
    with pytest.raises(DuplicateRegistration):
        Registry((ThingDone, ThingDone))


def test_the_null_character_is_refused_and_its_escape_in_text_is_not() -> None:
    wrong = structured(data={"number": 7, "note": "Ada\x00"})
    with pytest.raises(Undecodable, match="U\\+0000"):
        decode(wrong, REGISTRY)
    read = decode(structured(data={"number": 7, "note": "Ada\\u0000"}), REGISTRY)
    assert isinstance(read.data, ThingRequested)
    assert read.data.note == "Ada\\u0000"
