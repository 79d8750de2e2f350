"""The entries of contracts/breaking.toml: how they are read, and how the gate prints those that are needed."""

from __future__ import annotations

import pytest

from wch_local.breaking_entries import Entry, entry_for, read_entries
from wch_local.compatibility import Break

TYPE = "stock.item.requested.v1"
WRITTEN = f"""[[breaking]]
event = "{TYPE}"
field = "sku"
change = "it was removed"
reason = "Because."
what_to_do = "Send product_id."
"""


def test_entries_are_read_with_their_five_texts() -> None:
    assert read_entries("# comments only\n") == ([], [])
    assert read_entries(WRITTEN) == ([Entry(TYPE, "sku", "it was removed", "Because.", "Send product_id.")], [])


def test_a_field_may_have_an_entry_for_each_of_its_changes() -> None:
    entries, problems = read_entries(WRITTEN + WRITTEN.replace("it was removed", "it was made required"))
    assert (len(entries), problems) == (2, [])


@pytest.mark.parametrize("change", ["it was removed", 'only "a\\d", "ü\x7f😀" are still allowed', "a 'b'\n\tc"])
def test_a_printed_entry_is_read_again_when_its_empty_texts_are_written(change: str) -> None:
    printed = entry_for(TYPE, Break("sku", change, "keep it"))
    entries, problems = read_entries(printed)
    place = f"contracts/breaking.toml, entry 1 ({TYPE} sku): "
    assert entries == []
    assert problems == [
        f"{place}reason is empty or not a text; say why the change is necessary",
        f"{place}what_to_do is empty or not a text; say what publishers and readers of the event must do",
    ]
    assert read_entries(printed.replace('""', '"Text."')) == ([Entry(TYPE, "sku", change, "Text.", "Text.")], [])


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        (WRITTEN.replace('reason = "Because."\n', ""), f"entry 1 ({TYPE} sku): reason is missing; say why"),
        (
            WRITTEN.replace('change = "it was removed"\n', ""),
            "change is missing; give the change in the words of the gate",
        ),
        (WRITTEN.replace('"Because."', '"  "'), f"entry 1 ({TYPE} sku): reason is empty or not a text; say why"),
        (WRITTEN + WRITTEN.replace('"sku"', "7"), f"entry 2 ({TYPE} 7): field is empty or not a text; give the field"),
        (WRITTEN.replace("event", "type"), "entry 1 (sku): event is missing; give the type of the event"),
        (
            WRITTEN + 'note = "x"',
            f"entry 1 ({TYPE} sku): note is unknown; the keys are event, field, change, reason, what_to_do",
        ),
        (
            WRITTEN.replace('"Send product_id."', '""'),
            "what_to_do is empty or not a text; say what publishers and readers",
        ),
        (
            WRITTEN + WRITTEN.replace("Because", "Again"),
            f"{TYPE} sku (it was removed): this change has several entries; keep one",
        ),
        (WRITTEN.replace("[[breaking]]", "[breaking]"), "write [[breaking]] with two brackets above each entry"),
        (WRITTEN.replace("[[breaking]]", "[[broken]]"), "'broken' is unknown; write [[breaking]] above each entry"),
        (WRITTEN.replace(" =", ""), "is not valid TOML: "),
        ('breaking = ["x"]', "write [[breaking]] with two brackets above each entry"),
    ],
)
def test_an_entry_that_cannot_be_used_is_refused_with_its_place(written: str, problem: str) -> None:
    _, problems = read_entries(written)
    assert any(problem in one for one in problems), problems
    assert all(one.startswith("contracts/breaking.toml") for one in problems)
