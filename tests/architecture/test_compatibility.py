"""The gate of breaking changes: no event breaks the programs that were written for the last release.

The properties hold for the schema of every event, changed in every place.
"""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from wch_common.contract.asyncapi import asyncapi
from wch_common.contract.event import Request
from wch_common.events import published_contract
from wch_local.breaking_entries import Entry, read_entries
from wch_local.compatibility import changes
from wch_local.compatibility_gate import Contract, Release, findings, gate, kind_of, newest_release, present_contract

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTRACTS = Path(__file__).parents[2] / "contracts"
CONTRACT = present_contract()
PRESENT = CONTRACT.schemas
RELEASE = Release("0.1.0", deepcopy(CONTRACT))
Place = tuple[str, ...]


def test_no_event_breaks_programs_written_for_the_last_release() -> None:
    if found := findings(CONTRACTS, CONTRACT):
        pytest.fail("\n".join(["breaking changes since the last release:", *found]), pytrace=False)
    assert newest_release(CONTRACTS) is not None, "contracts/released/ is empty: restore it from git"


@pytest.mark.parametrize("model", list(published_contract()), ids=lambda model: model.TYPE)
def test_the_name_of_an_event_says_whether_it_is_a_request(model: Any) -> None:
    assert kind_of(model.TYPE) == ("request" if issubclass(model, Request) else "fact")


def objects(schema: Any, root: dict[str, Any], path: str = "", seen: tuple[int, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Return every object of a schema that has fields, with each path that leads to it."""
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    if id(schema) in seen:
        return
    seen = (*seen, id(schema))
    if "properties" in schema:
        yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from objects(inner, root, f"{path}.{name}".lstrip("."), seen)
    if "items" in schema:
        yield from objects(schema["items"], root, f"{path}[]", seen)
    union = [one for key in ("anyOf", "oneOf") for one in schema.get(key, ()) if one != {"type": "null"}]
    for one in union:
        yield from objects(one, root, path + (f"<{label(one, root)}>" if len(union) > 1 else ""), seen)


def label(alternative: dict[str, Any], root: dict[str, Any]) -> str:
    """Return the name of an alternative: its tag, or its class."""
    name = str(alternative.get("$ref", alternative.get("type"))).rpartition("/")[2]
    fields = root["$defs"][name]["properties"].values() if "$ref" in alternative else ()
    return next((str(one["const"]) for one in fields if "const" in one), name)


def changed_everywhere(type_: str, change: Any) -> Iterator[tuple[set[str], list[Any]]]:
    """Make a change in each field of an event in turn; return the paths of the field, and the breaks that are found."""
    schema = deepcopy(PRESENT[type_])
    paths: dict[int, set[str]] = {}
    definitions = {}
    for path, one in objects(schema, schema):
        definitions[id(one)] = one
        paths.setdefault(id(one), set()).add(path)
    for key, one in definitions.items():
        for name in list(one["properties"]):
            before = {**one, "properties": dict(one["properties"])}
            if change(one, name):
                yield (
                    {f"{path}.{name}".lstrip(".") for path in paths[key]},
                    changes(PRESENT[type_], schema, kind_of(type_)),
                )
            one.clear()
            one.update(before)


def remove(container: dict[str, Any], name: str) -> bool:
    del container["properties"][name]
    container["required"] = [one for one in container.get("required", ()) if one != name]
    return True


def rename(container: dict[str, Any], name: str) -> bool:
    container["properties"] = {f"{one}_x" if one == name else one: its for one, its in container["properties"].items()}
    container["required"] = [f"{one}_x" if one == name else one for one in container.get("required", ())]
    return True


def require(container: dict[str, Any], name: str) -> bool:
    optional = name not in container.get("required", ())
    container["required"] = [*container.get("required", ()), name]
    return optional


def retype(container: dict[str, Any], name: str) -> bool:
    other = "integer" if "boolean" in json.dumps(container["properties"][name]) else "boolean"
    container["properties"][name] = {"type": other}
    return True


def add_beside(container: dict[str, Any], name: str) -> bool:
    container["properties"][f"{name}_beside"] = {"type": "string", "default": ""}
    return True


@pytest.mark.parametrize("type_", PRESENT)
@pytest.mark.parametrize("change", [remove, rename, require, retype])
def test_a_breaking_change_of_any_field_is_found_under_each_of_its_paths(type_: str, change: Any) -> None:
    for paths, found in changed_everywhere(type_, change):
        # A retyped or removed tag makes its alternative one of another name, which is found at the alternative.
        fields = {one.field for one in found}
        assert paths <= fields | {path for path in paths if path.rpartition(".")[0] in fields}, paths
        assert all(one.problem and one.remedy for one in found)


@pytest.mark.parametrize("type_", PRESENT)
def test_an_optional_field_can_be_added_anywhere(type_: str) -> None:
    assert [found for _, found in changed_everywhere(type_, add_beside) if found] == []


def resolved(schema: Any, root: dict[str, Any], seen: tuple[str, ...] = ()) -> Any:
    """Return a schema without references, descriptions and tags of OpenAPI, in another order."""
    if isinstance(schema, list):
        return [resolved(one, root, seen) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if (reference := schema.get("$ref")) and reference not in seen:
        target = root["$defs"][reference.rpartition("/")[2]]
        return resolved(
            {**target, **{key: value for key, value in schema.items() if key != "$ref"}}, root, (*seen, reference)
        )
    texts = {key for key in ("description", "title") if isinstance(schema.get(key), str)}
    kept = {key: value for key, value in schema.items() if key not in {*texts, "discriminator", "$defs"}}
    return {("anyOf" if key == "oneOf" else key): resolved(kept[key], root, seen) for key in sorted(kept, reverse=True)}


@pytest.mark.parametrize("type_", PRESENT)
def test_the_text_of_a_schema_does_not_matter(type_: str) -> None:
    """The same rules without `$defs`, or with references and definitions under other names, break nothing."""
    schema = PRESENT[type_]
    inlined = resolved(schema, schema) if not recursive(schema) else schema
    renamed = json.loads(json.dumps(schema).replace("#/$defs/", "#/$defs/Other"))
    if "$defs" in renamed:
        renamed["$defs"] = {f"Other{name}": its for name, its in reversed(renamed["$defs"].items())}
    for old, new in ((schema, schema), (schema, inlined), (inlined, schema), (schema, renamed), (renamed, inlined)):
        assert changes(old, new, kind_of(type_)) == []


def recursive(schema: dict[str, Any]) -> bool:
    return any(f"#/$defs/{name}" in json.dumps(its) for name, its in schema.get("$defs", {}).items())


def narrow(container: dict[str, Any], name: str) -> bool:
    container["properties"][name] = {**container["properties"][name], "enum": container["properties"][name]["enum"][1:]}
    return True


def with_schemas(schemas: dict[str, Any]) -> Contract:
    return Contract(schemas, CONTRACT.document)


def entry_of(finding: str) -> Entry:
    """Return the entry that a finding prints, with its empty texts filled in."""
    _, mark, text = finding.partition("[[breaking]]")
    [entry], problems = read_entries(f"{mark}{text}".replace('= ""', '= "Because."'))
    assert problems == []
    return entry


ON_PURPOSE = {
    "whatsapp.message.requested.v1": {
        "message<template>.language": remove,
        "send_key": rename,
        "message<buttons>.buttons[].title": retype,
        "message<text>.preview_url": require,
        "category": narrow,
    },
    "broadcast.campaign.requested.v1": {
        "fallback.language": remove,
        "batch_size": rename,
        "message<list>.sections[].rows[].id": retype,
        "recipients[].body": require,
        "category": narrow,
    },
    "whatsapp.batch.completed.v1": {
        "recipients[].send_key": remove,
        "batch_id": rename,
        "recipients[].code": retype,
        "version": require,
        "recipients[].outcome": narrow,
    },
}
EXPECTED = {
    remove: "it was removed",
    rename: "renamed to",
    retype: "its type changed",
    require: "it was made required",
    narrow: "no longer allowed",
}


@pytest.mark.parametrize(
    ("type_", "field", "change"),
    [(type_, field, change) for type_, fields in ON_PURPOSE.items() for field, change in fields.items()],
)
def test_a_change_made_on_purpose_is_refused_by_event_and_field(type_: str, field: str, change: Any) -> None:
    schema = deepcopy(PRESENT[type_])
    place, _, name = field.rpartition(".")
    change(dict(objects(schema, schema))[place], name)
    present = with_schemas({**PRESENT, type_: schema})
    found = gate(RELEASE, present, [])
    own = [one for one in found if one.startswith(f"{type_}, field {field}: ")]
    assert any(EXPECTED[change] in one for one in own), found
    beside = (
        f"; or add {type_.replace('.v1', '.v2')} beside it; or, until 1.0, add this entry to contracts/breaking.toml:\n"
    )
    assert all(beside in one for one in own)
    # The entries that the gate prints are enough, and each of them is necessary.
    entries = [entry_of(one) for one in found]
    assert gate(RELEASE, present, entries) == []
    for entry in entries:
        assert gate(RELEASE, present, [one for one in entries if one != entry]) != []


@pytest.mark.parametrize("type_", ON_PURPOSE)
@pytest.mark.parametrize(
    "new_name", [lambda type_: type_.replace(".v1", ".v2"), lambda type_: f"{type_[:2]}x{type_[2:]}"]
)
def test_a_new_name_of_an_event_is_refused(type_: str, new_name: Any) -> None:
    present = {(new_name(name) if name == type_ else name): schema for name, schema in PRESENT.items()}
    [found] = gate(RELEASE, with_schemas(present), [])
    assert found.startswith(
        f"{type_}, the event: it was removed, or renamed to {new_name(type_)}. Instead, keep the event;"
    )
    assert gate(RELEASE, with_schemas(present), [Entry(type_, "*", "it was removed", "A reason.", "Do that.")]) == []


def test_a_new_event_and_a_new_version_beside_the_old_one_are_compatible() -> None:
    more = {"whatsapp.message.requested.v2": {"type": "object"}, "stock.item.counted.v1": {"type": "object"}}
    assert gate(RELEASE, with_schemas({**PRESENT, **more}), []) == []


def test_a_change_of_how_an_event_is_published_is_found_for_every_event(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = set()
    for model in published_contract():
        fields = {
            "exchange",
            *(() if issubclass(model, Request) else ("address",)),
            *(() if model.SIGNED else ("signed",)),
        }
        expected |= {f"{model.TYPE}, field {field}" for field in fields}
        monkeypatch.setattr(model, "EXCHANGE", "wch.elsewhere")
        monkeypatch.setattr(model, "SIGNED", not model.SIGNED)
    present = present_contract()
    found = gate(RELEASE, present, [])
    assert {one.partition(":")[0] for one in found} == expected
    assert gate(RELEASE, present, [entry_of(one) for one in found]) == []


def test_a_change_of_the_envelope_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    required = ["specversion", "id", "source", "type", "time", "data", "requester"]
    monkeypatch.setitem(asyncapi.__globals__["_ENVELOPE"], "required", required)
    [found] = gate(RELEASE, present_contract(), [])
    assert found.startswith("CloudEvent, field requester: it was made required.")
