"""Settings of the whatsapp service from the environment of a deployment."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from wch_common.errors import SettingsError
from wch_common.settings import load_settings, masked
from wch_whatsapp.settings import WhatsAppSettings

NEEDED = {
    "AMQP_URL": "amqp://h",
    "DATABASE_URL": "postgresql://h/d",
    "GRAPH_TOKEN": "t",
    "WHATSAPP_PHONE_NUMBER_IDS": "2002",
    "PERSON_HASH_KEY": "sixteen characters",
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in [name for name in os.environ if name.startswith("WCH_")]:
        monkeypatch.delenv(name)
    for name, value in NEEDED.items():
        monkeypatch.setenv(f"WCH_{name}", value)
    return monkeypatch


def test_numbers_are_given_by_their_ids_separated_by_commas(environment: pytest.MonkeyPatch) -> None:
    assert load_settings(WhatsAppSettings).shops().named(None).whatsapp.phone_number_ids == ("2002",)
    environment.setenv("WCH_WHATSAPP_PHONE_NUMBER_IDS", "2002, 3003")
    environment.setenv("WCH_WHATSAPP_STOP_WORDS", "halt, aus")
    settings = load_settings(WhatsAppSettings)
    numbers = settings.shops().named(None).whatsapp
    assert numbers.phone_number_ids == ("2002", "3003")
    assert settings.whatsapp_stop_words == ("halt", "aus")
    assert (numbers.rate, numbers.messaging_limit) == (80, 250), "the limits of a new business"


def test_the_only_recipients_are_listed_and_their_numbers_hidden(environment: pytest.MonkeyPatch) -> None:
    assert load_settings(WhatsAppSettings).whatsapp_only_to is None
    environment.setenv("WCH_WHATSAPP_ONLY_TO", "nobody")
    assert load_settings(WhatsAppSettings).whatsapp_only_to == ()
    environment.setenv("WCH_WHATSAPP_ONLY_TO", "+15550100001, +1 (555) 010-0002, US.15550100001771")
    settings = load_settings(WhatsAppSettings)
    assert [one.get_secret_value() for one in settings.whatsapp_only_to or ()] == [
        "+15550100001",
        "+15550100002",
        "US.15550100001771",
    ]
    assert "5550100" not in str(masked(settings))
    environment.setenv("WCH_WHATSAPP_ONLY_TO", "+15550100001, 0170 1234567")
    with pytest.raises(SettingsError, match="WCH_WHATSAPP_ONLY_TO: entry 2 is not a phone number") as caught:
        load_settings(WhatsAppSettings)
    assert "0170" not in str(caught.value)


def test_every_wrong_setting_is_named(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("WCH_WHATSAPP_PHONE_NUMBER_IDS", "+49 170 1234567")
    environment.setenv("WCH_PERSON_HASH_KEY", "short")
    environment.setenv("WCH_WHATSAPP_REGION", "Germany")
    environment.delenv("WCH_GRAPH_TOKEN")
    with pytest.raises(SettingsError) as caught:
        load_settings(WhatsAppSettings)
    said = str(caught.value)
    wanted = ("WHATSAPP_PHONE_NUMBER_IDS", "WHATSAPP_REGION", "PERSON_HASH_KEY", "GRAPH_TOKEN")
    assert [name for name in wanted if f"WCH_{name}:" not in said] == []
    assert "short" not in said.replace("shorter", "")


def test_a_number_that_belongs_to_two_shops_is_refused(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "shops.json"
    shop = {"graph": {"token": "t"}, "whatsapp": {"phone_number_ids": ["17", "18"]}}
    file.write_text(json.dumps({"north": shop, "south": shop | {"whatsapp": {"phone_number_ids": ["17"]}}}))
    environment.setenv("WCH_SHOPS_FILE", str(file))
    with pytest.raises(SettingsError, match="phone number id 17 belongs to several shops"):
        load_settings(WhatsAppSettings).shops()
