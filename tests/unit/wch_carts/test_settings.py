"""Settings of reminders: wrong ones are refused with their place."""

from __future__ import annotations

from datetime import time
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from wch_carts.quiet_hours import QuietHours
from wch_carts.settings import CartsSettings
from wch_common.errors import SettingsError
from wch_common.settings import load_settings

NEEDED = {"WCH_AMQP_URL": "amqp://u:p@host/wch", "WCH_DATABASE_URL": "postgresql://u:p@host/wch"}
NEEDED |= {"WCH_PERSON_HASH_KEY": "sixteen characters"}


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("WCH_CARTS_BODY", '["{name}", "for {totl}"]', "WCH_CARTS_BODY: character 5 of 'for {totl}': unknown placeholder {totl}; use {name}"),
        ("WCH_CARTS_BODY", '["{name.__class__}"]', "unknown placeholder {name.__class__}"),
        ("WCH_CARTS_BODY", '["open {name"]', "character 6 of 'open {name': a brace outside of a placeholder"),
        ("WCH_CARTS_BODY", '["{name|there}", "{items}",]', "WCH_CARTS_BODY: is not a JSON list"),
        ("WCH_CARTS_BODY", "Hello {name}, your cart", "WCH_CARTS_BODY: is not a JSON list"),
        ("WCH_CARTS_BUTTON", "c/}", "WCH_CARTS_BUTTON: character 3"),
        ("WCH_CARTS_TIME_ZONE", "Europe/Bärlin", "WCH_CARTS_TIME_ZONE: 'Europe/Bärlin' is not a time zone: write it like Europe/Berlin"),
        ("WCH_CARTS_TEMPLATE", "Cart Reminder", "WCH_CARTS_TEMPLATE"),
        ("WCH_CARTS_LANGUAGE", "es-419", "WCH_CARTS_LANGUAGE: must be written as Meta writes it: es_419"),
        ("WCH_CARTS_OLDEST_HOURS", "4", "oldest_hours must be greater than delay_hours"),
        ("WCH_CARTS_QUIET_FROM", "9 pm", "WCH_CARTS_QUIET_FROM: must be a time of day like 21:00"),
        ("WCH_CARTS_QUIET_FROM", "21:00Z", "WCH_CARTS_QUIET_FROM: must be a time of day like 21:00"),
        ("WCH_CARTS_QUIET_UNTIL", "9", "WCH_CARTS_QUIET_UNTIL: must be a time of day like 21:00"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, problem: str
) -> None:
    for known, text in (NEEDED | {name: value}).items():
        monkeypatch.setenv(known, text)
    with pytest.raises(SettingsError) as refused:
        load_settings(CartsSettings)
    assert problem in str(refused.value)


def test_a_wrong_field_in_the_file_of_shops_is_refused_by_its_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    file = tmp_path / "shops.json"
    file.write_text(
        '{"north": {"carts": {"body": ["{nam}"]}}, "south": {"carts": {"time_zone": "Nowhere", "quiet_from": 21}}}'
    )
    for name, text in (NEEDED | {"WCH_SHOPS_FILE": str(file)}).items():
        monkeypatch.setenv(name, text)
    with pytest.raises(SettingsError) as refused:
        load_settings(CartsSettings)
    assert "north.carts.body.0: character 1 of '{nam}'" in str(refused.value)
    assert "south.carts.quiet_from: must be a time of day like 21:00 (as text)" in str(refused.value)
    assert "south.carts.time_zone: 'Nowhere' is not a time zone" in str(refused.value)


def test_the_settings_of_one_shop_define_its_reminders(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"WCH_CARTS_BODY": '["{items}"]', "WCH_CARTS_TIME_ZONE": "Europe/Berlin", "WCH_CARTS_QUIET_FROM": "22:30"}
    for name, text in (NEEDED | given).items():
        monkeypatch.setenv(name, text)
    section = load_settings(CartsSettings).shops().named(None).carts
    assert section.reminder_text.body == ("{items}",)
    assert section.quiet == QuietHours(time(22, 30), time(9), ZoneInfo("Europe/Berlin"))
