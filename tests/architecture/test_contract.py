"""The published contract: up to date with the models, and compatible with every release."""

from __future__ import annotations

import importlib
import json
import pkgutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import wch_common.events
from wch_common.contract.event import EventData
from wch_common.contract.schemas import asyncapi, contract_files, data_schema
from wch_common.events import published_contract

ROOT = Path(__file__).parents[2]
RELEASED = sorted((ROOT / "contracts/released").glob("*.json"))


def test_the_committed_contract_matches_the_models() -> None:
    """`make contracts` regenerates it."""
    committed = {
        str(path.relative_to(ROOT / "contracts")): path.read_bytes()
        for path in (ROOT / "contracts").rglob("*.json")
        if "released" not in path.parts
    }
    assert committed == contract_files(published_contract())


def test_every_event_of_a_family_is_in_its_tuple_events() -> None:
    published = set(published_contract())
    for module in pkgutil.iter_modules(wch_common.events.__path__, "wch_common.events."):
        found = vars(importlib.import_module(module.name)).values()
        own = {one for one in found if isinstance(one, type) and issubclass(one, EventData) and hasattr(one, "TYPE")}
        assert own <= published, module.name


@pytest.mark.parametrize("model", list(published_contract()), ids=lambda model: model.TYPE)
def test_every_schema_is_json_schema_2020_12(model: Any) -> None:
    jsonschema.Draft202012Validator.check_schema(data_schema(model))


def test_the_asyncapi_document_names_every_event_once() -> None:
    document = asyncapi(published_contract())
    types = [model.TYPE for model in published_contract()]
    assert sorted(document["channels"]) == sorted(document["operations"]) == sorted(types)


def breaking_changes(old: dict[str, Any], new: dict[str, Any], place: str = "data") -> list[str]:
    """Return the changes that break a producer or consumer of the old schema; only adding an optional field is compatible."""
    found = []
    if gone := sorted(set(old.get("properties", {})) - set(new.get("properties", {}))):
        found.append(f"{place}: removed {gone}")
    if required := sorted(set(new.get("required", ())) ^ set(old.get("required", ()))):
        found.append(f"{place}: what is required changed: {required}")
    kept = set(old) | set(new)
    described_elsewhere = {"properties", "required", "description", "title", "$id", "$schema", "$defs", "default"}
    found += [f"{place}: {key} changed" for key in sorted(kept - described_elsewhere) if old.get(key) != new.get(key)]
    for section in ("properties", "$defs"):
        for name, schema in old.get(section, {}).items():
            if name in new.get(section, {}):
                found += breaking_changes(schema, new[section][name], f"{place}.{name}")
    return found


@pytest.mark.parametrize("path", RELEASED, ids=lambda path: path.stem)
def test_no_released_type_was_broken(path: Path) -> None:
    """Any change but an added optional field needs a new version of the type beside the old one."""
    assert path.stem in published_contract()
    assert breaking_changes(json.loads(path.read_bytes()), data_schema(published_contract().model(path.stem))) == []


def test_every_type_but_the_newest_was_released() -> None:
    assert RELEASED


BASE: dict[str, Any] = {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer", "minimum": 1}}}


@pytest.mark.parametrize(
    "change",
    [
        {"properties": {}},
        {"required": []},
        {"required": ["a", "b"]},
        {"properties": {"a": {"type": "string", "minimum": 1}}},
        {"properties": {"a": {"type": "integer", "minimum": 2}}},
        {"properties": {"a": {"type": "integer"}}},
    ],
)
def test_every_kind_of_breaking_change_is_seen(change: dict[str, Any]) -> None:
    assert breaking_changes(BASE, BASE | change)


def test_an_additional_optional_field_is_compatible() -> None:
    more = {"a": BASE["properties"]["a"], "b": {"type": "string"}}
    assert breaking_changes(BASE, BASE | {"properties": more}) == []
