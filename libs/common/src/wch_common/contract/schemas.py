"""The published contract: JSON Schema 2020-12 files and one AsyncAPI 3 document, generated from the models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from wch_common.contract.asyncapi import asyncapi
from wch_common.contract.examples import load_examples
from wch_common.contract.json_schema import model_schema

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from wch_common.contract.event import EventData
    from wch_common.contract.registry import Registry

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def data_schema(model: type[EventData], examples: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """Return the JSON Schema of an event's data, with the examples that are given."""
    names = {"$schema": _DIALECT, "$id": f"{model.TYPE}.json", "title": model.TYPE}
    return names | model_schema(model) | names | ({"examples": list(examples)} if examples else {})


def contract_files(registry: Registry) -> dict[str, bytes]:
    """Return every file of the contract by name."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    files = {
        f"schemas/{model.TYPE}.json": orjson.dumps(data_schema(model, load_examples(model)), option=options)
        for model in registry
    }
    return files | {"asyncapi.json": orjson.dumps(asyncapi(registry), option=options)}


def write_contract(registry: Registry, folder: Path) -> list[str]:
    """Write the contract; returns the files that changed."""
    changed = []
    for name, content in contract_files(registry).items():
        path = folder / name
        if not path.exists() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            changed.append(name)
    return changed
