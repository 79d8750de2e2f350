"""The changes of the AsyncAPI document that break programs although the data of the event is the same.

They concern how an event is published (exchange, address, signature, content type) and its envelope.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from wch_local.compatibility import Break, changes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wch_local.compatibility import Kind

    Document = dict[str, Any]

ENVELOPE = "CloudEvent"
_REFERENCE = {"$ref": f"#/components/schemas/{ENVELOPE}"}


def event_types(document: Document) -> set[str]:
    """Return the types of the events that an AsyncAPI document names."""
    return set(document.get("channels", {}))


def message_changes(old: Document, new: Document, type_: str, kind: Kind) -> Iterator[Break]:
    """Return the breaking changes of how an event is published; both documents name it."""
    (before, message_before), (after, message_after) = (
        (document["channels"][type_], document["components"]["messages"][type_]) for document in (old, new)
    )
    exchange, new_exchange = (channel["bindings"]["amqp"]["exchange"] for channel in (before, after))
    for key in sorted({*exchange, *new_exchange}):
        yield from _changed("exchange", exchange.get(key), new_exchange.get(key), f"its {key}")
    yield from _changed("address", before["address"], after["address"])
    yield from _changed("contentType", message_before["contentType"], message_after["contentType"])
    if message_after.get("x-signed") and not message_before.get("x-signed"):
        yield Break("signed", "publishers must sign it now", "keep accepting it unsigned")
    for one in changes(_own_attributes(message_before), _own_attributes(message_after), kind):
        yield replace(one, field=f"{ENVELOPE}.{one.field}")


def _changed(field: str, old: object, new: object, what: str = "it") -> Iterator[Break]:
    if old != new:
        yield Break(field, f"{what} changed from {old} to {new}", f"keep the {field}")


def _own_attributes(message: dict[str, Any]) -> dict[str, Any]:
    """Return the rules of a message for attributes of the envelope, beside those of the envelope itself."""
    own = [part for part in message["payload"].get("allOf", ()) if part != _REFERENCE]
    return {"allOf": [{"type": "object"}, *(_without_data(part) for part in own)]}


def _without_data(schema: dict[str, Any]) -> dict[str, Any]:
    return {**schema, "properties": {**schema.get("properties", {}), "data": True}}


def envelope_changes(old: Document, new: Document) -> list[Break]:
    """Return the breaking changes of the envelope, which all programs write and read."""
    before, after = (document["components"]["schemas"][ENVELOPE] for document in (old, new))
    return changes(before, after, "fact")
