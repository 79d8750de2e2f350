"""The published contract: up to date with the models, and complete."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import wch_common.events
from wch_common.contract.asyncapi import asyncapi
from wch_common.contract.event import EventData
from wch_common.contract.schemas import contract_files, data_schema
from wch_common.events import published_contract

ROOT = Path(__file__).parents[2]


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
