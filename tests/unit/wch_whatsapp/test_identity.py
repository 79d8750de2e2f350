"""Derived ids, tags and the hash that stands for a recipient."""

from __future__ import annotations

import uuid

import pytest

from wch_common.integrations.phone import one_form
from wch_common.integrations.recipients import PersonHash
from wch_whatsapp.identity import Tag, batch_id, fact_id, message_id

HASH_KEY = "a key for the tests"


@pytest.mark.parametrize(
    ("sent", "written"),
    [("+5215512345678", "+525512345678"), ("+5511987654321", "+551187654321"), ("+5491112345678", "+541112345678")],
)
def test_a_number_that_meta_writes_in_two_forms_is_one_person(sent: str, written: str) -> None:
    person_hash = PersonHash(HASH_KEY)
    assert one_form(sent) == one_form(written)
    assert person_hash.of(sent) == person_hash.of(written)
    assert person_hash.of("+4917012345678") != person_hash.of("+4917012345679")


def test_ids_are_derived_from_shop_requester_and_key() -> None:
    assert str(message_id("north", "carts", "key-1")) == "b357ecb1-ad60-5518-83bd-001d4b9efa82"
    assert str(batch_id("north", "carts", "b")) == "0f4fa333-9a85-59e5-a4c0-4d365b916543"
    assert fact_id(uuid.UUID(int=1), "whatsapp.message.accepted.v1", 2) == "7a615e5b-a166-5bda-90f0-65d2136d242a"


def test_only_a_tag_of_this_service_is_parsed() -> None:
    tag = Tag(uuid.UUID(int=1), 3)
    assert Tag.parsed(str(tag)) == tag
    assert [Tag.parsed(text) for text in (None, "", "another program's")] == [None] * 3
