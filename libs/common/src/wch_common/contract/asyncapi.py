"""The AsyncAPI 3 document of every event: each schema and each shared part once, and everything else by reference.

Schemas are in AsyncAPI's own dialect, not declared as JSON Schema 2020-12: they use only keywords that mean the same in
both, tools check and generate code from the dialect, and pass over payloads in a format that they do not know.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from wch_common import __version__
from wch_common.contract.event import FACTS_EXCHANGE, REQUESTER_PATTERN, EventData, Request
from wch_common.contract.examples import example_events, load_examples
from wch_common.contract.json_schema import model_schema
from wch_common.errors import DuplicateRegistration

if TYPE_CHECKING:
    from collections.abc import Callable

    from wch_common.contract.registry import Registry

    Examples = Callable[[type[EventData]], list[dict[str, Any]]]

_CONTENT_TYPE = "application/cloudevents+json"
_SCHEMAS = "#/components/schemas/"
_ENVELOPE_NAME = "CloudEvent"
# At most 255 bytes; a schema can only count characters.
_TEXT: dict[str, Any] = {"type": "string", "maxLength": 255, "pattern": "^[^\\u0000-\\u001f\\u007f]*$"}
_TIME: dict[str, Any] = {"type": "string", "format": "date-time"}
_ENVELOPE: dict[str, Any] = {
    "type": "object",
    "description": "The attributes that every event has, those of CloudEvents 1.0 and ours.",
    "required": ["specversion", "id", "source", "type", "time", "data"],
    "properties": {
        "specversion": {"type": "string", "const": "1.0"},
        "id": {**_TEXT, "minLength": 1, "description": "Unique per source; to repeat a publish, use the same id."},
        "source": {**_TEXT, "minLength": 1, "description": "The publishing program, like /shop/admin."},
        "type": {**_TEXT, "minLength": 1, "description": "The type of the event, which is also its routing key."},
        "time": {**_TIME, "description": "When it happened or was requested."},
        "subject": {**_TEXT, "description": "What the event is about; never a phone number."},
        "shop": {**_TEXT, "description": "Name of the shop; optional where there is only one."},
        "requester": {
            "type": "string",
            "pattern": REQUESTER_PATTERN.pattern,
            "description": "Name of the program that makes the request; facts that answer it carry the name.",
        },
        "correlationid": {**_TEXT, "description": "Id of the event that began the chain this event belongs to."},
        "causationid": {**_TEXT, "description": "Id of the event that caused this one."},
        "traceparent": {**_TEXT, "description": "The trace, as W3C Trace Context writes it."},
        "expirytime": {**_TIME, "description": "After this time the event is no longer handled."},
        "datacontenttype": {"type": "string", "const": "application/json"},
        "data": {"type": "object", "description": "What the event says; each type has a schema for it."},
    },
}
_DESCRIPTION = """Events as CloudEvents 1.0 in structured mode over AMQP 0-9-1. The routing key is the type.

Consumers ignore fields they do not know. They refuse a few events that match the schemas, where JSON Schema cannot express
the rule: a whole number written as 1.0 or 1e2, a whole number beyond 64 bits, a text with U+0000 or a lone surrogate, a leap
second, the year 0, and an attribute of more than 255 bytes in UTF-8. The descriptions state rules that span fields.

Messages with `x-signed` must be signed; their descriptions say how."""
_SIGNED: dict[str, Any] = {
    "description": "Signed: the AMQP property `user_id` must be set to the AMQP user that publishes the event. The broker "
    "checks it, and consumers refuse the event without it.",
    "x-signed": True,
}


def asyncapi(registry: Registry, examples: Examples = load_examples) -> dict[str, Any]:
    """Return the AsyncAPI document; raises DuplicateRegistration if parts of one name differ between events."""
    models = list(registry)
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "WCH Jobs", "version": __version__, "description": _DESCRIPTION},
        "defaultContentType": _CONTENT_TYPE,
        "channels": {model.TYPE: _channel(model) for model in models},
        "operations": {model.TYPE: _operation(model) for model in models},
        "components": {
            "messages": {model.TYPE: _message(model, examples(model)) for model in models},
            "schemas": _schemas(models),
        },
    }


def _channel(model: type[EventData]) -> dict[str, Any]:
    exchange = {"name": model.EXCHANGE, "type": "topic", "durable": True}
    channel: dict[str, Any] = {
        "address": model.TYPE,
        "messages": {model.TYPE: {"$ref": f"#/components/messages/{model.TYPE}"}},
        "bindings": {"amqp": {"is": "routingKey", "exchange": exchange, "bindingVersion": "0.3.0"}},
    }
    if model.EXCHANGE == FACTS_EXCHANGE:
        channel["address"] = f"{model.TYPE}.{{requester}}"
        channel["parameters"] = {"requester": {"description": "Absent, with its dot, if the request had no requester."}}
    return channel


def _operation(model: type[EventData]) -> dict[str, Any]:
    return {
        "action": "receive" if issubclass(model, Request) else "send",
        "channel": {"$ref": f"#/channels/{model.TYPE}"},
        "summary": inspect.getdoc(model) or "",
    }


def _message(model: type[EventData], examples: list[dict[str, Any]]) -> dict[str, Any]:
    own = {"type": {"type": "string", "const": model.TYPE}, "data": {"$ref": _SCHEMAS + model.TYPE}}
    return {
        "name": model.TYPE,
        **(_SIGNED if model.SIGNED else {}),
        "contentType": _CONTENT_TYPE,
        "payload": {
            # Code generators name classes by titles.
            "title": f"{model.__name__}Event",
            "allOf": [{"$ref": _SCHEMAS + _ENVELOPE_NAME}, {"type": "object", "properties": own}],
        },
        "examples": [{"payload": event} for event in example_events(model, examples)],
    }


def _schemas(models: list[type[EventData]]) -> dict[str, Any]:
    """Return the schemas of the document by name: the envelope, the data of each event, and their parts."""
    schemas: dict[str, Any] = {_ENVELOPE_NAME: _ENVELOPE}
    used_by = dict.fromkeys(schemas, "the envelope")
    for model in models:
        data = model_schema(model, _SCHEMAS + "{model}")
        for name, schema in {model.TYPE: data, **data.pop("$defs", {})}.items():
            if schemas.setdefault(name, schema) != schema:
                raise DuplicateRegistration(
                    f"the part {name} of {model.TYPE} differs from the one of {used_by[name]}: rename one of the classes"
                )
            used_by.setdefault(name, model.TYPE)
    return dict(sorted(schemas.items()))
