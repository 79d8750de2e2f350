"""The gate before and after 1.0, the entries of contracts/breaking.toml, and the order of releases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from wch_local.compatibility_gate import (
    Entry,
    InvalidVersion,
    Release,
    findings,
    gate,
    newest_release,
    read_entries,
    version_order,
)

TYPE = "stock.item.requested.v1"
OLD: dict[str, Any] = {"type": "object", "properties": {"sku": {"type": "string"}}, "required": ["sku"]}
NEW: dict[str, Any] = {"type": "object", "properties": {}}
ENTRY = Entry(TYPE, "sku", "The shop has no such numbers.", "Send product_id.")
WRITTEN = f'[[breaking]]\nevent = "{TYPE}"\nfield = "sku"\nreason = "Because."\nwhat_to_do = "Send product_id."\n'


def test_until_1_0_an_entry_allows_a_breaking_change() -> None:
    release = Release("0.9.0", {TYPE: OLD})
    [found] = gate(release, {TYPE: NEW}, [])
    assert found == (
        "stock.item.requested.v1, field sku: it was removed. Instead, keep the field as it is, and add a new optional "
        "field beside it; or add stock.item.requested.v2 beside it; or, until 1.0, add an entry with field 'sku' to "
        "contracts/breaking.toml."
    )
    assert gate(release, {TYPE: NEW}, [ENTRY]) == []


def test_from_1_0_on_only_a_new_version_of_the_event_helps() -> None:
    release = Release("1.0.0", {TYPE: OLD, TYPE.replace("v1", "v2"): OLD})
    finding, without_effect = gate(release, {TYPE: NEW, TYPE.replace("v1", "v2"): OLD}, [ENTRY])
    assert finding.endswith("or add stock.item.requested.v3 beside it.")
    assert without_effect == f"contracts/breaking.toml, {TYPE} sku: since 1.0 an entry allows nothing; remove it"
    assert gate(release, {**release.schemas, TYPE.replace("v1", "v3"): NEW}, []) == []


@pytest.mark.parametrize("entry", [Entry(TYPE, "name", "r", "w"), Entry("stock.item.requested.v2", "sku", "r", "w")])
def test_an_entry_that_matches_no_breaking_change_is_refused(entry: Entry) -> None:
    [found] = gate(Release("0.9.0", {TYPE: OLD}), {TYPE: NEW}, [ENTRY, entry])
    assert found.startswith(
        f"contracts/breaking.toml, {entry.event} {entry.field}: nothing was broken there since 0.9.0;"
    )
    assert found.endswith("remove the entry, or correct its field")


def test_before_the_first_release_nothing_is_compared_and_no_entry_is_allowed() -> None:
    assert gate(None, {TYPE: NEW}, []) == []
    [found] = gate(None, {TYPE: NEW}, [ENTRY])
    assert "nothing has been released, so nothing can break; remove the entry" in found


def test_entries_are_read_with_their_four_texts() -> None:
    assert read_entries("# comments only\n") == ([], [])
    assert read_entries(WRITTEN) == ([Entry(TYPE, "sku", "Because.", "Send product_id.")], [])


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        (WRITTEN.replace('reason = "Because."\n', ""), f"entry 1 ({TYPE} sku): reason is missing; say why"),
        (WRITTEN.replace('"Because."', '"  "'), f"entry 1 ({TYPE} sku): reason is empty or not a text; say why"),
        (WRITTEN + WRITTEN.replace('"sku"', "7"), f"entry 2 ({TYPE} 7): field is empty or not a text; give the field"),
        (WRITTEN.replace("event", "type"), "entry 1 (sku): event is missing; give the type of the event"),
        (
            WRITTEN + 'note = "x"',
            f"entry 1 ({TYPE} sku): note is unknown; the keys are event, field, reason, what_to_do",
        ),
        (
            WRITTEN.replace('"Send product_id."', '""'),
            "what_to_do is empty or not a text; say what publishers and readers",
        ),
        (WRITTEN + WRITTEN, f"{TYPE} `sku` has several entries; keep one"),
        (WRITTEN.replace("[[breaking]]", "[breaking]"), "write [[breaking]] with two brackets above each entry"),
        (WRITTEN.replace("[[breaking]]", "[[broken]]"), "'broken' is unknown; write [[breaking]] above each entry"),
        (WRITTEN.replace(" =", ""), "is not valid TOML: "),
        ('breaking = ["x"]', "write [[breaking]] with two brackets above each entry"),
    ],
)
def test_an_entry_that_cannot_be_used_is_refused_with_its_place(written: str, problem: str) -> None:
    _, problems = read_entries(written)
    assert any(one.startswith("contracts/breaking.toml") and problem in one for one in problems), problems


def released(contracts: Path, version: str, **schemas: Any) -> None:
    folder = contracts / "released" / version
    folder.mkdir(parents=True)
    for name, schema in schemas.items():
        (folder / f"{name}.json").write_text(json.dumps(schema))


def test_the_newest_release_is_the_one_with_the_highest_version(tmp_path: Path) -> None:
    assert newest_release(tmp_path) is None
    for version in ("0.9.0", "0.10.0", "0.2.11"):
        released(tmp_path, version, **{TYPE: OLD})
    newest = newest_release(tmp_path)
    assert newest is not None
    assert (newest.version, newest.schemas) == ("0.10.0", {TYPE: OLD})


def test_findings_compare_with_the_newest_release_and_read_the_entries(tmp_path: Path) -> None:
    released(tmp_path, "0.9.0", **{TYPE: OLD, "stock.item.counted.v1": OLD})
    released(tmp_path, "0.10.0", **{TYPE: OLD})
    assert len(findings(tmp_path, {TYPE: NEW})) == 1
    (tmp_path / "breaking.toml").write_text(WRITTEN)
    assert findings(tmp_path, {TYPE: NEW}) == []
    (tmp_path / "breaking.toml").write_text(WRITTEN.replace('"Because."', '""'))
    assert len(findings(tmp_path, {TYPE: NEW})) == 2


@pytest.mark.parametrize("version", ["1", "0.1", "v0.1.0", "0.1.0rc1", "0.01.0", "0.1.0.0", "", "0.1.0\n"])
def test_a_version_is_three_numbers(version: str) -> None:
    with pytest.raises(InvalidVersion):
        version_order(version)


def test_a_folder_of_another_name_is_no_release(tmp_path: Path) -> None:
    released(tmp_path, "latest", **{TYPE: OLD})
    with pytest.raises(InvalidVersion):
        newest_release(tmp_path)
