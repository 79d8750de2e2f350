"""Recipients by number and by Meta's ids: an id is never read as a number, wherever it is written."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from wch_common.errors import field_errors
from wch_common.events.recipient import MalformedRecipient, Recipient, recipient_in
from wch_common.events.whatsapp import MessageRequested
from wch_common.integrations import phone as phones
from wch_common.integrations.recipients import country, masked, of_meta, one_form, person, person_of, resolved
from wch_common.observability.redact import redact

REGIONS = (None, "US", "DE", "EG", "GB", "IN")
ID = "EG.1234567890"
PARENT = "EG.ENT.1234567890"


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("text", [ID, f" {ID} ", f"\u200e{ID}\u200f", f"{ID}\n", "US.4155550123", "DE.4915112345678"])
def test_an_id_is_the_id_whatever_the_shops_country(text: str, region: str | None) -> None:
    expected = text.strip("\u200e\u200f \n")
    assert resolved(text, region) == Recipient(user_id=expected)
    assert resolved(text, region).names == (expected,)
    assert person(text, region) == Recipient(user_id=expected)


def test_a_parent_id_is_told_from_a_users_id() -> None:
    assert resolved(PARENT) == Recipient(parent_id=PARENT)
    assert resolved("EG.ENT") == Recipient(user_id="EG.ENT"), "an id of a user may have these characters"


# What lists, spreadsheets and people make of an id. Its digits are somebody's number in many countries.
SPELLINGS = [
    "eg.1234567890", "Eg.1234567890", "EG. 1234567890", "EG .1234567890", "EG,1234567890", "EG-1234567890",
    "EG1234567890", "EG 1234567890", "EG.12345-67890", "EG.123 456 7890", "EG..1234567890", "EG.", "EG.ENT.",
    "EG.ENT.123.456", "E.1234567890", "EGY.1234567890", "EG.1234567890.0", "EG.1234567890;",
    '="EG.1234567890";', "whatsapp:eg.1234567890", "ЕG.1234567890", "EG．1234567890", f"{ID},{ID}", f"{ID} {ID}",
    "EG." + "1" * 129, "EG.ENT." + "1" * 129, "9" * 101, "EG." + "1" * 300, "EG.٤٩١٥١", "+EG.1234567890", "EG.+11234567890",
]  # fmt: skip


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("text", SPELLINGS)
def test_what_is_nearly_an_id_is_refused_and_never_a_number(text: str, region: str | None) -> None:
    for read in (resolved, person):
        with pytest.raises(MalformedRecipient) as error:
            read(text, region)
        assert text.strip() not in str(error.value)


@given(st.from_regex(r"[A-Z]{2}\.(ENT\.)?[A-Za-z0-9]{1,128}", fullmatch=True), st.sampled_from(REGIONS))
def test_no_id_becomes_a_number(id_: str, region: str | None) -> None:
    assert resolved(id_, region).names == (id_,)
    with pytest.raises(MalformedRecipient):
        phones.normalised(id_, region)


@pytest.mark.parametrize(
    ("to", "field"),
    [
        ({"user_id": "eg.1"}, "data.to.object.user_id"),
        ({"user_id": PARENT}, "data.to.object.user_id"),
        ({"parent_id": ID}, "data.to.object.parent_id"),
        ({}, "data.to.object"),
        ({"phone": None}, "data.to.object"),
        (5, "data.to.object"),
    ],
)
def test_a_wrong_recipient_is_refused_by_the_name_of_its_field(to: object, field: str) -> None:
    data = {"to": to, "send_key": "k", "category": "service", "message": {"kind": "text", "body": "x"}}
    with pytest.raises(ValidationError) as error:
        MessageRequested.model_validate_json(json.dumps(data))
    assert [f"data.{one.field}" for one in field_errors(error.value)] == [field]


@pytest.mark.parametrize("key", [f"hello-{ID}", "x1234567890", "order.1234567890.1", "EG-1234567890"])
def test_a_send_key_must_not_contain_the_id(key: str) -> None:
    with pytest.raises(ValidationError, match="send_key contains the number or the id of a person"):
        MessageRequested.model_validate(
            {"to": {"user_id": ID}, "send_key": key, "category": "service", "message": {"kind": "text", "body": "x"}}
        )


def test_metas_words_are_read_and_an_unknown_form_of_an_id_does_not_hide_the_number() -> None:
    assert of_meta("5215512345678") == Recipient(phone="+525512345678")
    assert of_meta(None, ID, PARENT) == Recipient(user_id=ID, parent_id=PARENT)
    assert of_meta("15550100001", "a new form") == Recipient(phone="+15550100001")
    assert of_meta("erased", ID) == Recipient(user_id=ID)
    assert of_meta("15550100001", "x" * 200) == Recipient(phone="+15550100001")
    for nothing in ((None, None), ("", ""), ("erased", "erased")):
        with pytest.raises(MalformedRecipient):
            of_meta(*nothing)


def test_a_person_with_several_names_is_found_by_each() -> None:
    ada = person_of("+4915112345678", ID, "+15550100001")
    for text in ("0151 12345678", ID, f" {ID}", "+1 555 010 0001"):
        assert ada.is_same(text), text
    for text in (
        "EG.123456789",
        "eg.1234567890",
        "+4915112345679",
        "1234567890",
        "",
        "DE.4915112345678",
        "US.15550100001",
    ):
        assert not ada.is_same(text), text
    assert ada.keys == ("+4915112345678", ID, "+15550100001")
    assert ada.ids == (ID,)


def test_an_id_has_a_country_and_one_form_and_is_masked_like_a_number() -> None:
    assert country(ID) == "EG"
    assert country("+4915112345678") == "DE"
    assert one_form(ID) == ID
    assert masked(ID) == "EG.…90"


@pytest.mark.parametrize("id_", [ID, PARENT, "DE.a1B2c3D4", "US.13491208655302741918", "US.abcdefgh"])
def test_an_id_does_not_reach_logs_and_headers(id_: str) -> None:
    text = redact(f"the message to {id_}, or to '{id_}' ({id_}), key-{id_}_x failed")
    assert text == "the message to <user id>, or to '<user id>' (<user id>), key-<user id>_x failed"


@pytest.mark.parametrize(
    "text", ["Table PUBLIC.messages", "RFC.9110", "e.g.123456", "see A.B12345", "v24.0", "NO.5", "DE.json"]
)
def test_other_words_with_a_full_stop_stay(text: str) -> None:
    assert redact(text) == text


def test_a_text_is_read_as_an_id_before_anything_else() -> None:
    assert recipient_in(ID).user_id == ID
    assert recipient_in("0151 12345678") == Recipient(phone="0151 12345678")


@pytest.mark.parametrize(
    "text", ["wa.me/4915112345678", "https://wa.me/4915112345678", "api.whatsapp.com/send?phone=49"]
)
def test_a_link_to_a_person_is_refused_as_a_link(text: str) -> None:
    with pytest.raises(MalformedRecipient, match="it is a link"):
        resolved(text, "DE")
