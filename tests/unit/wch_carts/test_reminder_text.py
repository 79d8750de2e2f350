"""The text of a reminder: placeholders, limits, and formats of amounts."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from wch_carts.reminder_text import ReminderText, money

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


def filled(*texts: str, most_items: int = 3, language: str = "en_US", **changes: Any) -> list[str]:
    template = ReminderText("t", language, texts, None, most_items, ("shop.example",)).filled(row(**changes))
    return [parameter.text for parameter in template.body]


def test_placeholders_are_filled_and_empty_values_are_replaced() -> None:
    assert filled("Hi {name|there}!", "{name}", customer_name="") == ["Hi there!", "–"]
    assert filled(
        "{name|there}: {items}, {total} {coupon|no coupon} {link}", coupon="X", link="https://shop.example/c"
    ) == ["Ada: Tee, €9.95 X https://shop.example/c"]
    assert filled("nothing to fill") == ["nothing to fill"]


def test_braces_in_an_items_name_are_not_placeholders() -> None:
    items = [ITEM | {"name": "{coupon} {0.__class__}"}]
    assert filled("{items}", items=items, coupon="SECRET") == ["{coupon} {0.__class__}"]


def test_a_strangers_words_are_not_sent_to_the_number_they_typed() -> None:
    words: dict[str, Any] = {
        "customer_name": "You won, open evil.example",
        "coupon": "call 555",
        "link": "https://evil.example/c",
    }
    assert filled("Hi {name|there}, {coupon|no coupon}, {link|our shop}", **words) == ["Hi there, no coupon, our shop"]


def test_only_the_first_items_are_named() -> None:
    items = [ITEM | {"name": f"Tee {n}", "quantity": n} for n in range(1, 6)]
    assert filled("{items}", items=items) == ["Tee 1, Tee 2 ×2, Tee 3 ×3, +2"]
    assert filled("{items}", items=items * 200, most_items=1) == ["Tee 1, +999"]
    assert filled("{items}", items=[]) == ["–"]


@pytest.mark.parametrize("name", ["👩‍👩‍👧‍👦", "e\u0301", "ש", "👍🏽", "🇩🇪", "नि"])
def test_names_of_any_script_are_cut_between_graphemes_and_values_stay_within_the_limit(name: str) -> None:
    for before in range(90, 110):
        (text,) = filled("{items}", items=[ITEM | {"name": "x" * before + name + "y" * 50}])
        assert len(text) <= 100
        assert text.endswith("…")
        assert text[before:-1].rstrip("y") in ("", name), "the whole grapheme, or none of it"
    (text,) = filled("{items}" * 20, items=[ITEM | {"name": "z" * 90}])
    assert len(text) == 1024


def test_line_breaks_and_repeated_spaces_which_meta_refuses_become_one_space() -> None:
    assert filled("{items}", items=[ITEM | {"name": "A\n\tB     C"}]) == ["A B C"]


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
def test_amounts_have_the_format_of_the_language(amount: str, currency: str, language: str, text: str) -> None:
    assert " ".join(money(Decimal(amount), currency, language).split()) == text


def test_a_buttons_value_is_cut_to_the_limit() -> None:
    template = ReminderText("t", "en_US", (), "{link}", 3).filled(row(link="c/1?key=" + "x" * 300))
    (button,) = template.buttons
    assert (button.index, button.kind, len(button.value or "")) == (0, "url", 256)
