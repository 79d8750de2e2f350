"""The gate before and after 1.0, what it compares beside the data, the files of releases, and their order."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from wch_local.breaking_entries import Entry, read_entries
from wch_local.compatibility_gate import (
    Contract,
    InvalidVersion,
    Release,
    findings,
    gate,
    newest_release,
    version_order,
)

TYPE = "stock.item.requested.v1"
COUNTED = "stock.item.counted.v1"
OLD: dict[str, Any] = {"type": "object", "properties": {"sku": {"type": "string"}}, "required": ["sku"]}
NEW: dict[str, Any] = {"type": "object", "properties": {}}
ENTRY = Entry(TYPE, "sku", "it was removed", "The shop has no such numbers.", "Send product_id.")
ENVELOPE: dict[str, Any] = {
    "type": "object",
    "required": ["id"],
    "properties": {"id": {"type": "string", "maxLength": 255}, "shop": {"type": "string"}},
}
WRITTEN = f"""[[breaking]]
event = "{TYPE}"
field = "sku"
change = "it was removed"
reason = "Because."
what_to_do = "Send product_id."
"""


def document(*types: str) -> dict[str, Any]:
    """Return the parts of an AsyncAPI document that the gate reads."""
    return {
        "channels": {type_: channel(type_) for type_ in types},
        "components": {
            "messages": {type_: message(type_) for type_ in types},
            "schemas": {"CloudEvent": deepcopy(ENVELOPE)},
        },
    }


def channel(type_: str) -> dict[str, Any]:
    exchange = {"name": "wch.requests", "type": "topic", "durable": True}
    return {"address": type_, "bindings": {"amqp": {"is": "routingKey", "exchange": exchange}}}


def message(type_: str) -> dict[str, Any]:
    own = {"type": {"const": type_}, "data": {"$ref": f"#/components/schemas/{type_}"}}
    payload = {"allOf": [{"$ref": "#/components/schemas/CloudEvent"}, {"type": "object", "properties": own}]}
    return {"contentType": "application/cloudevents+json", "payload": payload}


def contract(**schemas: Any) -> Contract:
    return Contract(schemas, document(*schemas))


def gated(version: str, old: Any, new: Any, *entries: Entry) -> list[str]:
    return gate(Release(version, contract(**old)), contract(**new), list(entries))


def test_until_1_0_an_entry_allows_a_breaking_change() -> None:
    [found] = gated("0.9.0", {TYPE: OLD}, {TYPE: NEW})
    assert found == (
        "stock.item.requested.v1, field sku: it was removed. Instead, keep the field as it is, and add a new optional "
        "field beside it; or add stock.item.requested.v2 beside it; or, until 1.0, add this entry to "
        'contracts/breaking.toml:\n[[breaking]]\nevent = "stock.item.requested.v1"\nfield = "sku"\n'
        'change = "it was removed"\nreason = ""\nwhat_to_do = ""'
    )
    assert gated("0.9.0", {TYPE: OLD}, {TYPE: NEW}, ENTRY) == []


def test_from_1_0_on_only_a_new_version_of_the_event_helps() -> None:
    second = TYPE.replace("v1", "v2")
    finding, without_effect = gated("1.0.0", {TYPE: OLD, second: OLD}, {TYPE: NEW, second: OLD}, ENTRY)
    assert finding.endswith("or add stock.item.requested.v3 beside it.")
    place = f"contracts/breaking.toml, {TYPE} sku (it was removed)"
    assert without_effect == f"{place}: since 1.0 an entry allows nothing; remove it"
    assert gated("1.0.0", {TYPE: OLD, second: OLD}, {TYPE: OLD, second: OLD, TYPE.replace("v1", "v3"): NEW}) == []


def pasted(finding: str) -> Entry:
    """Return the entry that a finding prints, with its empty texts filled in."""
    text = finding.partition("[[breaking]]")
    [entry], problems = read_entries("".join(text[1:]).replace('""', '"Because."'))
    assert problems == []
    return entry


def test_an_entry_allows_one_change_of_a_field_and_no_other() -> None:
    values = {"enum": ["sent", "failed"]}
    old, more, number = (
        {COUNTED: {"type": "object", "properties": {"outcome": its}}}
        for its in (values, {"enum": [*values["enum"], "late"]}, {"type": "integer"})
    )
    [found] = gated("0.9.0", old, more)
    entry = pasted(found)
    assert (entry.field, entry.change) == ("outcome", 'it can be "late", which readers do not know')
    assert gated("0.9.0", old, more, entry) == []
    further, unused = gated("0.9.0", old, number, entry)
    assert further.startswith(f"{COUNTED}, field outcome: its type changed from string to integer.")
    assert unused.endswith("remove the entry, or correct its field or change")
    assert gated("0.9.0", old, number, pasted(further)) == []


@pytest.mark.parametrize(
    "entry",
    [
        Entry(TYPE, "name", ENTRY.change, "r", "w"),
        Entry("stock.item.requested.v2", "sku", ENTRY.change, "r", "w"),
        Entry(TYPE, "sku", "it was made required", "r", "w"),
    ],
)
def test_an_entry_that_matches_no_breaking_change_is_refused(entry: Entry) -> None:
    [found] = gated("0.9.0", {TYPE: OLD}, {TYPE: NEW}, ENTRY, entry)
    place = f"contracts/breaking.toml, {entry.event} {entry.field} ({entry.change})"
    assert found == f"{place}: there is no such change since 0.9.0; remove the entry, or correct its field or change"


def test_before_the_first_release_nothing_is_compared_and_no_entry_is_allowed() -> None:
    assert gate(None, contract(**{TYPE: NEW}), []) == []
    [found] = gate(None, contract(**{TYPE: NEW}), [ENTRY])
    assert "nothing has been released, so nothing can break; remove the entry" in found


def in_exchange(found: dict[str, Any], **changed: Any) -> None:
    found["channels"][TYPE]["bindings"]["amqp"]["exchange"].update(changed)


def required(found: dict[str, Any], name: str) -> None:
    found["components"]["schemas"]["CloudEvent"]["required"].append(name)


DELIVERY: list[Any] = [
    (lambda one: in_exchange(one, name="wch.orders"), "exchange", "its name changed from wch.requests to wch.orders"),
    (lambda one: in_exchange(one, type="direct"), "exchange", "its type changed from topic to direct"),
    (lambda one: one["channels"][TYPE].update(address="x.y"), "address", f"it changed from {TYPE} to x.y"),
    (
        lambda one: one["components"]["messages"][TYPE].update(contentType="application/json"),
        "contentType",
        "it changed from application/cloudevents+json to application/json",
    ),
    (
        lambda one: one["components"]["messages"][TYPE].update({"x-signed": True}),
        "signed",
        "publishers must sign it now",
    ),
    (
        lambda one: one["components"]["messages"][TYPE]["payload"]["allOf"][1].update(required=["shop"]),
        "CloudEvent.shop",
        "it was made required",
    ),
]


@pytest.mark.parametrize(("change", "field", "problem"), DELIVERY, ids=[problem for _, _, problem in DELIVERY])
def test_a_change_of_how_an_event_is_published_is_refused_and_can_be_allowed(
    change: Any, field: str, problem: str
) -> None:
    present = contract(**{TYPE: OLD, COUNTED: OLD})
    release = Release("0.9.0", deepcopy(present))
    change(present.document)
    [found] = gate(release, present, [])
    assert found.startswith(f"{TYPE}, field {field}: {problem}. Instead, ")
    assert f"; or add {TYPE.replace('v1', 'v2')} beside it; or, until 1.0, add this entry" in found
    assert gate(release, present, [pasted(found)]) == []


def test_an_event_that_no_longer_needs_to_be_signed_breaks_no_publisher() -> None:
    present = contract(**{TYPE: OLD})
    old = deepcopy(present)
    old.document["components"]["messages"][TYPE]["x-signed"] = True
    assert gate(Release("0.9.0", old), present, []) == []


def test_a_change_of_the_envelope_is_refused_once_and_can_be_allowed() -> None:
    present = contract(**{TYPE: OLD, COUNTED: OLD})
    release = Release("0.9.0", deepcopy(present))
    required(present.document, "shop")
    [found] = gate(release, present, [])
    assert found.startswith(
        "CloudEvent, field shop: it was made required. Instead, make it optional, with a default; or,"
    )
    assert gate(release, present, [pasted(found)]) == []
    [stable] = gate(Release("1.0.0", release.contract), present, [])
    assert stable.endswith("make it optional, with a default.")


@pytest.mark.parametrize(
    ("attribute", "compatible"),
    [
        ({"type": "string"}, True),
        ({"type": "string", "maxLength": 300}, True),
        ({"type": "string", "maxLength": 200}, False),
        ({"type": ["string", "null"], "maxLength": 255}, False),
    ],
)
def test_the_envelope_is_compared_for_publishers_and_readers(attribute: Any, compatible: bool) -> None:
    present = contract(**{TYPE: OLD})
    release = Release("0.9.0", deepcopy(present))
    present.document["components"]["schemas"]["CloudEvent"]["properties"] |= {"id": attribute, "new": {}}
    assert (gate(release, present, []) == []) is compatible


def test_a_change_of_the_whole_envelope_names_it() -> None:
    present = contract(**{TYPE: OLD})
    release = Release("0.9.0", deepcopy(present))
    present.document["components"]["schemas"]["CloudEvent"]["additionalProperties"] = False
    [found] = gate(release, present, [])
    assert found.startswith("CloudEvent, the envelope: fields that it does not name are refused now.")


def released(contracts: Path, version: str, *types: str) -> Path:
    folder = contracts / "released" / version
    folder.mkdir(parents=True)
    for name in types:
        (folder / f"{name}.json").write_text(json.dumps(OLD))
    (folder / "asyncapi.json").write_text(json.dumps(document(*types)))
    return folder


def test_the_newest_release_is_the_one_with_the_highest_version(tmp_path: Path) -> None:
    assert newest_release(tmp_path) is None
    for version in ("0.9.0", "0.10.0", "0.2.11"):
        released(tmp_path, version, TYPE)
    assert newest_release(tmp_path) == Release("0.10.0", contract(**{TYPE: OLD}))


def test_findings_compare_with_the_newest_release_and_read_the_entries(tmp_path: Path) -> None:
    released(tmp_path, "0.9.0", TYPE, COUNTED)
    released(tmp_path, "0.10.0", TYPE)
    present = contract(**{TYPE: NEW})
    assert len(findings(tmp_path, present)) == 1
    (tmp_path / "breaking.toml").write_text(WRITTEN)
    assert findings(tmp_path, present) == []
    (tmp_path / "breaking.toml").write_text(WRITTEN.replace('"Because."', '""'))
    assert len(findings(tmp_path, present)) == 2


@pytest.mark.parametrize("present", [{TYPE: OLD, COUNTED: OLD}, {COUNTED: OLD}])
def test_a_schema_that_is_missing_in_the_newest_release_is_reported(tmp_path: Path, present: Any) -> None:
    """Also if its event was removed, which would be a breaking change that nothing shows."""
    folder = released(tmp_path, "0.9.0", TYPE, COUNTED)
    assert findings(tmp_path, contract(**{TYPE: OLD, COUNTED: OLD})) == []
    (folder / f"{TYPE}.json").unlink()
    [found] = findings(tmp_path, contract(**present))
    assert found == (
        f"contracts/released/0.9.0 has no {TYPE}.json, but its asyncapi.json names the event: "
        "restore it with `git checkout v0.9.0 -- contracts/released/0.9.0`"
    )


def test_an_asyncapi_document_that_is_missing_or_lacks_an_event_is_reported(tmp_path: Path) -> None:
    folder = released(tmp_path, "0.9.0", TYPE, COUNTED)
    present = contract(**{TYPE: NEW, COUNTED: OLD})
    (folder / "asyncapi.json").write_text(json.dumps(document(COUNTED)))
    lacks, change = findings(tmp_path, present)
    assert lacks.startswith(f"contracts/released/0.9.0/asyncapi.json does not name {TYPE}, which has a schema there: ")
    assert change.startswith(f"{TYPE}, field sku: ")
    (folder / "asyncapi.json").unlink()
    missing, change = findings(tmp_path, present)
    assert missing.startswith("contracts/released/0.9.0 has no asyncapi.json: restore it with ")
    assert change.startswith(f"{TYPE}, field sku: ")


@pytest.mark.parametrize("version", ["1", "0.1", "v0.1.0", "0.1.0rc1", "0.01.0", "0.1.0.0", "", "0.1.0\n"])
def test_a_version_is_three_numbers(version: str) -> None:
    with pytest.raises(InvalidVersion):
        version_order(version)


def test_a_folder_of_another_name_is_no_release(tmp_path: Path) -> None:
    released(tmp_path, "latest", TYPE)
    with pytest.raises(InvalidVersion):
        newest_release(tmp_path)
