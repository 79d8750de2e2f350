"""The published contract: JSON Schema 2020-12 files and one AsyncAPI 3 document, generated from the models."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import orjson

from wch_common.contract.event import FACTS_EXCHANGE, EventData, Request

if TYPE_CHECKING:
    from pathlib import Path

    from wch_common.contract.registry import Registry

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_ENVELOPE: dict[str, Any] = {
    "type": "object",
    "required": ["specversion", "id", "source", "type", "time", "data"],
    "properties": {
        "specversion": {"const": "1.0"},
        "id": {
            "type": "string",
            "minLength": 1,
            "description": "Unique per source; to repeat a publish, use the same id.",
        },
        "source": {"type": "string", "minLength": 1, "description": "The publishing program, like /shop/admin."},
        "time": {"type": "string", "format": "date-time"},
        "subject": {"type": "string", "description": "What the event is about; never a phone number."},
        "shop": {"type": "string", "description": "Name of the shop; optional where there is only one."},
        "requester": {
            "type": "string",
            "pattern": "^[a-z][a-z0-9_-]{0,62}$",
            "description": "Name that facts which answer a request carry.",
        },
        "correlationid": {"type": "string"},
        "causationid": {"type": "string"},
        "traceparent": {"type": "string"},
        "expirytime": {
            "type": "string",
            "format": "date-time",
            "description": "After this time the event is no longer handled.",
        },
        "datacontenttype": {"const": "application/json"},
    },
}


def data_schema(model: type[EventData]) -> dict[str, Any]:
    """Return the JSON Schema of an event's data."""
    schema = model.model_json_schema()
    schema.pop("title", None)
    return {"$schema": _DIALECT, "$id": f"{model.TYPE}.json", "title": model.TYPE, **schema}


def asyncapi(registry: Registry) -> dict[str, Any]:
    """Return the AsyncAPI document of every event."""
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    messages: dict[str, Any] = {}
    for model in registry:
        name = model.TYPE
        is_request = issubclass(model, Request)
        address = name if is_request or model.EXCHANGE != FACTS_EXCHANGE else f"{name}.{{requester}}"
        channels[name] = {
            "address": address,
            "messages": {name: {"$ref": f"#/components/messages/{name}"}},
            "bindings": {
                "amqp": {"is": "routingKey", "exchange": {"name": model.EXCHANGE, "type": "topic", "durable": True}}
            },
        }
        if "{requester}" in address:
            channels[name]["parameters"] = {
                "requester": {"description": "Absent, with its dot, if the request had no requester."}
            }
        operations[name] = {
            "action": "receive" if is_request else "send",
            "channel": {"$ref": f"#/channels/{name}"},
            "summary": inspect.getdoc(model) or "",
        }
        messages[name] = _message(model)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "WCH Jobs",
            "version": "1",
            "description": "Events as CloudEvents 1.0 in structured mode over AMQP 0-9-1. The routing key is the type.",
        },
        "defaultContentType": "application/cloudevents+json",
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages},
    }


def _message(model: type[EventData]) -> dict[str, Any]:
    data = data_schema(model)
    data.pop("$schema")
    data.pop("$id")
    return {
        "contentType": "application/cloudevents+json",
        "payload": {
            **_ENVELOPE,
            "properties": {**_ENVELOPE["properties"], "type": {"const": model.TYPE}, "data": data},
        },
    }


def contract_files(registry: Registry) -> dict[str, bytes]:
    """Return every file of the contract by name."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    files = {f"schemas/{model.TYPE}.json": orjson.dumps(data_schema(model), option=options) for model in registry}
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
