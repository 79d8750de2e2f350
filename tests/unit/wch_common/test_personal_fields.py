"""Marks of the fields of events, and what erasing a person leaves of an event."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any

import phonenumbers
import pytest
from sqlalchemy import MetaData

from support.whatsapp_stage import phone
from wch_broadcast.tables import METADATA as BROADCAST
from wch_carts.tables import METADATA as CARTS
from wch_common.contract.event import Fact, Part
from wch_common.contract.examples import load_examples
from wch_common.contract.personal import (
    ERASED,
    IMPERSONAL,
    PERSONAL,
    Person,
    names_person,
    unmarked_fields,
    without_person,
)
from wch_common.events import published_contract
from wch_common.events.whatsapp import BatchRequested, MessageRequested
from wch_common.integrations.phone import normalised, one_form
from wch_common.integrations.recipients import person_of
from wch_common.store.personal_data import marks_of
from wch_whatsapp.tables import METADATA as WHATSAPP

CONTRACT = published_contract()


def test_every_field_that_can_hold_text_is_marked_as_personal_or_impersonal() -> None:
    assert unmarked_fields(CONTRACT) == []


class Inner(Part):
    """A part with a field that is not marked."""

    note: str | None = None


class Noted(Fact):
    """A fact in which some fields are not marked."""

    TYPE = "tests.thing.noted.v1"

    name: Annotated[str, PERSONAL]
    code: Annotated[str | None, IMPERSONAL] = None
    amount: int = 0
    notes: tuple[str, ...] = ()
    more: dict[str, Any]
    inner: tuple[Inner, ...] | None = None


def test_an_unmarked_field_is_named_wherever_it_is() -> None:
    assert unmarked_fields([Noted]) == ["Inner.note", "Noted.more", "Noted.notes"]


@pytest.mark.parametrize("metadata", [WHATSAPP, BROADCAST, CARTS], ids=["whatsapp", "broadcast", "carts"])
def test_a_column_is_marked_like_the_field_of_an_event_that_it_is_named_for(metadata: MetaData) -> None:
    personal, impersonal = personal_names(), impersonal_names()
    for table in metadata.sorted_tables:
        marks = marks_of(table)
        assert marks is not None
        assert set(marks.impersonal) & (personal - impersonal) == set(), table.name
        assert set(marks.erased) & (impersonal - personal) == set(), table.name


def personal_names() -> set[str]:
    return names(personal=True)


def impersonal_names() -> set[str]:
    return names(personal=False)


def names(*, personal: bool) -> set[str]:
    """Return the names of top-level fields with this mark, from what erasing changes in the examples of every event."""
    found = set()
    for model in CONTRACT:
        for name, field in model.model_fields.items():
            marks = [one for one in field.metadata if one in (PERSONAL, IMPERSONAL)]
            found |= {name for one in marks[-1:] if one.personal is personal}
    return found


ADA = person_of(phone(1))
ANYBODY = Person((), (), (), lambda text: re.search("1?555", text) is not None)
EXAMPLES = [(model, data) for model in CONTRACT for data in load_examples(model)]


# What a person has requested is carried out although they are erased meanwhile.
KEPT = {
    "meta.message.received.v1",
    "meta.user.changed.v1",
    "whatsapp.suppression.add_requested.v1",
    "whatsapp.suppression.remove_requested.v1",
    "whatsapp.recipient.erase_requested.v1",
    "whatsapp.recipient.erased.v1",
}


@pytest.mark.parametrize(("model", "data"), EXAMPLES, ids=[model.TYPE for model, _ in EXAMPLES])
def test_an_erased_event_names_nobody_and_is_still_valid(model: Any, data: dict[str, Any]) -> None:
    erased = without_person(CONTRACT, model.TYPE, data, ANYBODY)
    left = data if erased is None else erased
    model.model_validate_json(json.dumps(left), strict=True)
    names = re.search("1?555", json.dumps(data)) is not None
    assert names_person(CONTRACT, model.TYPE, data, ANYBODY) is names
    assert (re.search("1?555", json.dumps(left)) is not None) is (names and model.TYPE in KEPT)


def batch(*recipients: dict[str, Any]) -> dict[str, Any]:
    template = {"kind": "template", "name": "hello", "language": "en_US", "body": [{"text": "there"}]}
    return {"batch_id": "b", "category": "marketing", "message": template, "recipients": list(recipients)}


def test_only_the_part_that_names_the_person_is_erased() -> None:
    ada = {"to": phone(1), "send_key": "a", "body": [{"text": "Ada"}]}
    bob = {"to": phone(2), "send_key": "b", "body": [{"text": "Bob"}]}
    erased = {"to": ERASED, "send_key": "a", "body": [{"text": ERASED}]}
    assert without_person(CONTRACT, BatchRequested.TYPE, batch(ada, bob), ADA) == batch(erased, bob)
    assert without_person(CONTRACT, BatchRequested.TYPE, batch(bob), ADA) is None


def test_the_member_of_a_union_is_known_by_its_tag() -> None:
    data = {"to": phone(1), "send_key": "a", "category": "service", "message": {"kind": "text", "body": "Hello Ada"}}
    erased = without_person(CONTRACT, MessageRequested.TYPE, data, ADA)
    assert erased == data | {"to": ERASED, "message": {"kind": "text", "body": ERASED}}


def test_a_place_a_file_and_the_data_of_a_flow_are_erased_and_the_event_is_still_valid() -> None:
    place = {"kind": "location", "latitude": 37.5, "longitude": -122.25, "name": "Ada's", "address": "1 Street"}
    total = {"kind": "currency", "fallback_value": "1 €", "code": "EUR", "amount_1000": 1000, "name": "total"}
    buttons = [
        {"index": 0, "kind": "flow", "flow_token": "ada", "flow_action_data": {"name": ["Ada"]}},
        {"index": 1, "kind": "copy_code", "value": "ADA10"},
    ]
    file = {"kind": "document", "link": "https://shop.example/ada.pdf", "filename": "Ada.pdf"}
    own = {"to": phone(1), "send_key": "a", "header": place, "body": [total], "buttons": buttons}
    data = batch(own) | {"message": file | {"caption": "For Ada"}}
    (erased,) = (without_person(CONTRACT, BatchRequested.TYPE, data, ADA) or {})["recipients"]
    assert erased["header"] == dict.fromkeys(("name", "address"), ERASED) | {
        "kind": "location",
        "latitude": 0,
        "longitude": 0,
    }
    assert erased["body"] == [total | {"fallback_value": ERASED, "amount_1000": 0}]
    assert erased["buttons"][0] == {
        "index": 0,
        "kind": "flow",
        "flow_token": ERASED,
        "flow_action_data": {ERASED: ERASED},
    }
    assert erased["buttons"][1] == {"index": 1, "kind": "copy_code", "value": ERASED}
    with_file = without_person(CONTRACT, BatchRequested.TYPE, batch(own | {"header": file}), ADA) or {}
    assert with_file["recipients"][0]["header"] == {"kind": "document", "link": ERASED, "filename": ERASED}
    for one in (data | {"recipients": [erased]}, with_file):
        BatchRequested.model_validate_json(json.dumps(one), strict=True)
    single = {"to": phone(1), "send_key": "a", "category": "service", "message": file | {"caption": "For Ada"}}
    left = without_person(CONTRACT, MessageRequested.TYPE, single, ADA) or {}
    assert left["message"] == {"kind": "document", "link": ERASED, "filename": ERASED, "caption": ERASED}
    MessageRequested.model_validate_json(json.dumps(left), strict=True)


def test_the_event_of_a_timer_is_erased() -> None:
    message = load_examples(MessageRequested)[0] | {"to": phone(1)}
    timer = {"key": "k", "due": "2030-01-31T09:00:00Z", "event": {"type": MessageRequested.TYPE, "data": message}}
    erased = without_person(CONTRACT, "scheduler.timer.requested.v1", timer, ADA)
    assert (erased["key"], erased["event"]["data"]["to"]) == ("k", ERASED)
    assert without_person(CONTRACT, "scheduler.timer.requested.v1", erased, ADA) is None
    timer["event"] = {"type": "tests.unknown.requested.v1", "data": message}
    assert without_person(CONTRACT, "scheduler.timer.requested.v1", timer, ADA) is None


def test_what_a_person_has_requested_survives_their_erasure() -> None:
    stop = {"phone": phone(1), "category": "all", "reason": "asked to stop", "by": "ada"}
    assert without_person(CONTRACT, "whatsapp.suppression.add_requested.v1", stop, ADA) is None
    wrote = load_examples(CONTRACT.model("meta.message.received.v1"))[0] | {"sender": phone(1).removeprefix("+")}
    assert without_person(CONTRACT, "meta.message.received.v1", wrote, ADA) is None


def test_a_list_of_texts_and_a_null_are_erased_without_breaking_the_event() -> None:
    data = {"send_key": "k", "to": phone(1), "header": None, "body": [{"text": "Ada"}], "buttons": None}
    erased = without_person(CONTRACT, BatchRequested.TYPE, batch(data), ADA)
    assert erased["recipients"] == [data | {"to": ERASED, "body": [{"text": ERASED}]}]
    request = load_examples(MessageRequested)[0] | {"to": phone(1), "reply_to": None}
    assert without_person(CONTRACT, MessageRequested.TYPE, request, ADA)["reply_to"] is None
    wrote = {"phone": None, "customer_name": "Ada", "cart_id": "c"}
    assert without_person(CONTRACT, "shop.cart.updated.v1", wrote, ADA) is None


GERMAN = "+491701234567"
SAME = [
    (GERMAN, GERMAN),
    (GERMAN, "+49 170 123-4567"),
    (GERMAN, "491701234567"),
    (GERMAN, "0170 1234567"),
    (GERMAN, "00491701234567"),
    (GERMAN, "011 49 170 1234567"),
    (GERMAN, "0170\u00a0123\u00a045\u00a067"),
    (GERMAN, "0170 123\u20114567"),
    (GERMAN, "٠١٧٠١٢٣٤٥٦٧"),
    ("+79123456789", "8 (912) 345-67-89"),
    ("+5511987654321", "(11) 98765-4321"),
    ("+551187654321", "(11) 98765-4321"),
    ("+5491123456789", "011 15-2345-6789"),
    ("+525512345678", "+5215512345678"),
    ("+525512345678", "5215512345678"),
    ("+36201234567", "06 20 123 4567"),
    ("+390612345678", "06 1234 5678"),
]
OTHERS = [
    (GERMAN, "+491701234568"),
    (GERMAN, "01701234568"),
    (GERMAN, "4567"),
    (GERMAN, ""),
    (GERMAN, "Ada"),
    ("+525512345678", "+525512345679"),
]


@pytest.mark.parametrize(("number", "text"), SAME)
def test_a_number_is_recognised_in_every_form(number: str, text: str) -> None:
    assert person_of(number).is_same(text)


@pytest.mark.parametrize(("number", "text"), OTHERS)
def test_another_number_is_not_the_same(number: str, text: str) -> None:
    assert not person_of(number).is_same(text)


@pytest.mark.parametrize("region", ["AR", "BR", "DE", "EG", "GB", "HU", "ID", "IN", "IT", "MX", "NG", "RU", "US", "ZA"])
def test_what_a_shop_of_the_country_accepts_is_recognised(region: str) -> None:
    example = phonenumbers.example_number_for_type(region, phonenumbers.PhoneNumberType.MOBILE)
    assert example is not None
    own = phonenumbers.format_number(example, phonenumbers.PhoneNumberFormat.E164)
    for form in (phonenumbers.PhoneNumberFormat.NATIONAL, phonenumbers.PhoneNumberFormat.INTERNATIONAL):
        text = phonenumbers.format_number(example, form)
        assert one_form(normalised(text, region)) == one_form(own)
        assert person_of(own).is_same(text), text
        assert person_of(one_form(own)).is_same(text), text
