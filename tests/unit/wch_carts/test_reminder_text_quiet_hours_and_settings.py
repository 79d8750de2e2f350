"""What a reminder says, when nobody is written to, and settings that are refused with their place."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime, time
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from wch_carts.identity import cart_uuid, parsed_key, send_key
from wch_carts.quiet import QuietHours
from wch_carts.reminder_text import ReminderText, money
from wch_carts.settings import CartsSettings
from wch_common.errors import SettingsError
from wch_common.settings import load_settings

ITEM = {"name": "Tee", "quantity": 1, "price": "9.95"}


def row(**changes: Any) -> dict[str, Any]:
    values = {
        "customer_name": "Ada",
        "items": [ITEM],
        "total": Decimal("9.95"),
        "currency": "EUR",
        "coupon": "",
        "link": "",
    }
    return values | changes


def said(*texts: str, most_items: int = 3, language: str = "en_US", **changes: Any) -> list[str]:
    template = ReminderText("t", language, texts, None, most_items).filled(row(**changes))
    return [parameter.text for parameter in template.body]


def test_placeholders_are_filled_and_have_a_word_for_nothing() -> None:
    assert said("Hi {name|there}!", "{name}", customer_name="") == ["Hi there!", "–"]
    assert said(
        "{name|there}: {items}, {total} {coupon|no coupon} {link}", coupon="X", link="https://shop.example/c"
    ) == ["Ada: Tee, €9.95 X https://shop.example/c"]
    assert said("nothing to fill") == ["nothing to fill"]


def test_what_a_customer_is_called_is_never_taken_for_a_placeholder() -> None:
    assert said("{name}", customer_name="{coupon} {0.__class__}", coupon="SECRET") == ["{coupon} {0.__class__}"]


def test_only_the_first_items_are_named() -> None:
    items = [ITEM | {"name": f"Tee {n}", "quantity": n} for n in range(1, 6)]
    assert said("{items}", items=items) == ["Tee 1, Tee 2 ×2, Tee 3 ×3, +2"]
    assert said("{items}", items=items * 200, most_items=1) == ["Tee 1, +999"]
    assert said("{items}", items=[]) == ["–"]


@pytest.mark.parametrize("name", ["👩‍👩‍👧‍👦", "e\u0301", "ש", "👍🏽", "🇩🇪", "नि"])
def test_names_of_any_script_stay_whole_and_values_short_enough(name: str) -> None:
    (text,) = said("{name}", customer_name=name)
    assert text == name
    for before in range(90, 110):
        (text,) = said("{items}", items=[ITEM | {"name": "x" * before + name + "y" * 50}])
        assert len(text) <= 100
        assert text.endswith("…")
        assert text[before:-1].rstrip("y") in ("", name), "all of it, or nothing"
    (text,) = said("{name}" * 20, customer_name="z" * 100)
    assert len(text) == 1024


def test_line_breaks_and_wide_gaps_which_meta_refuses_are_closed() -> None:
    assert said("{name}", customer_name="A\n\tB     C") == ["A B C"]


@pytest.mark.parametrize(
    ("amount", "currency", "language", "text"),
    [
        ("19.90", "EUR", "de_DE", "19,90 €"),
        ("0", "EUR", "en_US", "€0.00"),
        ("1234.5", "USD", "en_US", "$1,234.50"),
        ("1500", "JPY", "ja", "￥1,500"),
        ("19.90", "XXQ", "en_US", "XXQ 19.90"),
        ("19.90", "EUR", "xx_YY", "€19.90"),
    ],
)
def test_amounts_are_written_as_people_of_the_language_do(amount: str, currency: str, language: str, text: str) -> None:
    assert " ".join(money(Decimal(amount), currency, language).split()) == text


def test_a_button_has_the_end_of_its_address() -> None:
    template = ReminderText("t", "en_US", (), "{link}", 3).filled(row(link="c/1?key=" + "x" * 300))
    (button,) = template.buttons
    assert (button.index, button.kind, len(button.value)) == (0, "url", 256)


# -- keys


def test_a_key_never_holds_eight_digits_and_is_read_back() -> None:
    cart = cart_uuid("", "c1")
    for period in (0, 1, 1_764_000_000_000, 2**63 - 1):
        key = send_key(cart, period)
        assert not re.search(r"\d", key)
        assert parsed_key(key) == (cart, period)
    assert parsed_key(f"{uuid.uuid4()}.1") is None
    assert cart_uuid("a", "b") != cart_uuid("", "a\nb")


# -- quiet hours

BERLIN = ZoneInfo("Europe/Berlin")


def berlin(day: int, hour: int, minute: int = 0, month: int = 1) -> datetime:
    return datetime(2026, month, day, hour, minute, tzinfo=BERLIN)


@pytest.mark.parametrize(
    ("timestamp", "quiet"), [((1, 20, 59), False), ((1, 21), True), ((2, 3), True), ((2, 8, 59), True), ((2, 9), False)]
)
def test_quiet_hours_are_those_of_the_shops_zone_over_midnight(timestamp: tuple[int, ...], quiet: bool) -> None:
    hours = QuietHours(time(21), time(9), BERLIN)
    assert hours.are_on(berlin(*timestamp).astimezone(UTC)) is quiet
    assert QuietHours(time(9), time(21), BERLIN).are_on(berlin(*timestamp)) is not quiet


def test_they_begin_next_tonight_or_tomorrow_also_when_the_clocks_change() -> None:
    hours = QuietHours(time(21), time(9), BERLIN)
    assert hours.next_begin(berlin(1, 12)) == berlin(1, 21)
    assert hours.next_begin(berlin(1, 21)) == berlin(2, 21)
    # On 29 March 2026 the clocks go from two to three.
    night = QuietHours(time(2, 30), time(6), BERLIN)
    assert night.next_begin(berlin(28, 12, month=3)) == datetime(2026, 3, 29, 1, 30, tzinfo=UTC)


def test_two_equal_times_are_no_quiet_hours() -> None:
    none = QuietHours(time(0), time(0), BERLIN)
    assert not none.are_on(berlin(1, 0))
    assert none.next_begin(berlin(1, 12)) is None


# -- settings

NEEDED = {"WCH_AMQP_URL": "amqp://u:p@host/wch", "WCH_DATABASE_URL": "postgresql://u:p@host/wch"}


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("WCH_CARTS_BODY", '["{name}", "for {totl}"]', "WCH_CARTS_BODY: character 5 of 'for {totl}': there is no {totl}; known are {name}"),
        ("WCH_CARTS_BODY", '["{name.__class__}"]', "there is no {name.__class__}"),
        ("WCH_CARTS_BODY", '["open {name"]', "character 6 of 'open {name': a brace that belongs to no placeholder"),
        ("WCH_CARTS_BUTTON", "c/}", "WCH_CARTS_BUTTON: character 3"),
        ("WCH_CARTS_TIME_ZONE", "Europe/Bärlin", "WCH_CARTS_TIME_ZONE: there is no time zone 'Europe/Bärlin': write it like Europe/Berlin"),
        ("WCH_CARTS_TEMPLATE", "Cart Reminder", "WCH_CARTS_TEMPLATE"),
        ("WCH_CARTS_OLDEST_HOURS", "4", "WCH_CARTS_OLDEST_HOURS must be longer than the delay"),
        ("WCH_CARTS_QUIET_FROM", "9 pm", "WCH_CARTS_QUIET_FROM: a time of day is written like 21:00"),
        ("WCH_CARTS_QUIET_FROM", "21:00Z", "WCH_CARTS_QUIET_FROM: a time of day is written like 21:00"),
        ("WCH_CARTS_QUIET_UNTIL", "9", "WCH_CARTS_QUIET_UNTIL: a time of day is written like 21:00"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_at_the_start_with_its_place(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str
) -> None:
    for known, text in (NEEDED | {name: value}).items():
        monkeypatch.setenv(known, text)
    with pytest.raises(SettingsError) as refused:
        load_settings(CartsSettings)
    assert told in str(refused.value)


def test_a_file_of_several_shops_is_refused_with_the_place_as_well(
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
    assert "south.carts.quiet_from: a time of day is written like 21:00 (a text)" in str(refused.value)
    assert "south.carts.time_zone: there is no time zone 'Nowhere'" in str(refused.value)


def test_the_one_shops_settings_are_its_reminding(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"WCH_CARTS_BODY": '["{items}"]', "WCH_CARTS_TIME_ZONE": "Europe/Berlin", "WCH_CARTS_QUIET_FROM": "22:30"}
    for name, text in (NEEDED | given).items():
        monkeypatch.setenv(name, text)
    reminding = load_settings(CartsSettings).shops().named(None).carts
    assert reminding.reminder_text.body == ("{items}",)
    assert reminding.quiet == QuietHours(time(22, 30), time(9), BERLIN)
