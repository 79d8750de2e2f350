"""Derived names: send keys without phone numbers, batch names, and ids that stay the same."""

from __future__ import annotations

import re
import uuid

import pytest

from wch_broadcast.identity import (
    batch_name,
    campaign_uuid,
    content_hash,
    event_id,
    list_uuid,
    parsed_batch,
    position,
    send_key,
)
from wch_common.events.broadcast import CampaignRecipient, CampaignRequested
from wch_common.events.whatsapp_content import Media, Parameter, Template, TemplateButton


def test_a_send_key_contains_fewer_than_eight_digits_and_can_be_parsed() -> None:
    for number in range(200):
        campaign = campaign_uuid("shop", f"c{number}")
        key = send_key(campaign, 9_999_999)
        assert len(re.sub(r"\D", "", key)) < 8
        assert position(campaign, key) == 9_999_999
        assert position(uuid.uuid4(), key) is None


@pytest.mark.parametrize("name", ["spring", "a/b", "2026/1"])
def test_a_batch_name_can_be_parsed(name: str) -> None:
    assert parsed_batch(batch_name(name, 12)) == (name, 12)
    assert parsed_batch(name.replace("/", "-")) is None


def test_what_the_release_before_has_stored_is_recognised() -> None:
    """Another hash would refuse a repeated request as one with other content."""
    picture, button = (
        Media(kind="image", link="https://shop.example/a.jpg"),
        TemplateButton(index=0, kind="url", value="a"),
    )
    body = (Parameter(text="you"),)
    template = Template(name="t", language="en_US", header=picture, body=body, buttons=(button,))
    one = CampaignRecipient(to="+15550100001", header=picture, buttons=(button,))
    campaign = CampaignRequested(campaign_id="c", message=template, category="marketing", recipients=(one,))
    assert content_hash(campaign.model_dump(mode="json")).hex() == "33ae7c732051aecde2b687c5c79a6a9d"
    assert content_hash([one.model_dump(mode="json")]).hex() == "78ab204483770e5eb70d3455a87e5e1a"
    named = one.model_copy(update={"header": Media(kind="document", id="1", filename="a.pdf")})
    other = one.model_copy(update={"header": Media(kind="document", id="1", filename="b.pdf")})
    assert content_hash([named.model_dump(mode="json")]) != content_hash([other.model_dump(mode="json")])


def test_derived_ids_stay_the_same() -> None:
    """Another id would make a second campaign of a repeated request, and send its messages again."""
    campaign = campaign_uuid("shop", "spring")
    names = uuid.UUID("6e1a4c52-3c5e-5b63-8c57-0b6c1d8a9f27")
    assert campaign == uuid.uuid5(names, "campaign\nshop\nspring")
    assert list_uuid("shop", "guests") == uuid.uuid5(names, "list\nshop\nguests")
    assert event_id(campaign, "t.v1", 2) == str(uuid.uuid5(campaign, "t.v1\n2"))
    characters = str.maketrans("0123456789abcdef", "abcdefghijklmnop")
    assert send_key(campaign, 7) == f"{campaign.hex.translate(characters)}.7"
