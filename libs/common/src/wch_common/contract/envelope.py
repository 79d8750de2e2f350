"""CloudEvents 1.0 over AMQP 0-9-1: writes structured mode, reads structured and binary mode.

CloudEvents defines no binding for AMQP 0-9-1. Binary mode is read with the header prefixes in use: those of the AMQP 1.0
binding (`cloudEvents_`, `cloudEvents:`) and of the Python SDK's RabbitMQ binding (`ce-`).
"""

from __future__ import annotations

import base64
import re
from datetime import UTC
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import TypeAdapter, ValidationError

from wch_common.contract.event import (
    DELIVERY_FIELDS,
    FACTS_EXCHANGE,
    REQUESTER_PATTERN,
    REQUESTS_EXCHANGE,
    Event,
    EventData,
    complete,
)
from wch_common.contract.message import Message, Publication
from wch_common.errors import FieldError, InvalidData, Undecodable, field_errors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wch_common.contract.message import Headers
    from wch_common.contract.registry import Registry

STRUCTURED = "application/cloudevents+json"
_PREFIXES = ("cloudEvents_", "cloudEvents:", "ce-")
_REQUIRED_TEXT = ("id", "source", "type")
_LONGEST_TEXT = 255
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
NO_NUL = "must not contain the character U+0000, which cannot be stored"
"""What is wrong with a text that has this character, which PostgreSQL refuses."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_OPTIONAL_TEXT = ("subject", "shop", "requester", "correlationid", "causationid", "traceparent")
_TEXT = (*_REQUIRED_TEXT, *_OPTIONAL_TEXT)
_TIME = "must be an RFC 3339 time with an offset, like 2026-01-31T12:00:00Z"
_ONE_LINE = f"at most {_LONGEST_TEXT} bytes without control characters"
# What each attribute must be, in the order in which errors are reported.
_MUST = {
    "specversion": "must be 1.0",
    **dict.fromkeys(_REQUIRED_TEXT, f"must be a non-empty string, {_ONE_LINE}"),
    **dict.fromkeys(_OPTIONAL_TEXT, f"must be a string of {_ONE_LINE}"),
    "requester": "must match [a-z][a-z0-9_-]*, as it becomes part of the routing key",
    "time": _TIME,
    "expirytime": _TIME,
    "datacontenttype": "must be application/json",
}
_READER = TypeAdapter(Event[Any]).validator
_PLAIN_ENCODINGS = frozenset({"utf-8", "utf8", "binary", "identity"})


def encode(event: Event[EventData]) -> Publication:
    """Return the event as a structured-mode message, addressed to its exchange."""
    attributes: dict[str, Any] = {"specversion": "1.0", "id": event.id, "source": event.source, "type": event.type}
    for name in _OPTIONAL_TEXT:
        if value := getattr(event, name):
            attributes[name] = value
    for name, timestamp in (("time", event.time), ("expirytime", event.expirytime)):
        if timestamp is not None:
            attributes[name] = timestamp.astimezone(UTC).isoformat().replace("+00:00", "Z")
    attributes["datacontenttype"] = "application/json"
    attributes["data"] = orjson.Fragment(event.data.__pydantic_serializer__.to_json(event.data))
    message = Message(orjson.dumps(attributes), STRUCTURED, None, event.id)
    return Publication(
        event.exchange,
        event.routing_key,
        message,
        mandatory=event.exchange == REQUESTS_EXCHANGE,
        signed=event.data.SIGNED,
    )


def decode(
    message: Message,
    registry: Registry,
    *,
    exchange: str = "",
    routing_key: str = "",
    queue: str = "",
    attempt: int = 1,
    replay: int = 0,
) -> Event[EventData]:
    """Return the event in a message; raises a ContractError that names every wrong field.

    If the message came through `wch.requests` or `wch.facts`, its routing key must match its type.
    """
    event = _envelope(_attributes(message))
    _check_routing(event.type, event.requester, exchange, routing_key)
    model = registry.model(event.type)
    canonical = orjson.dumps(event.data, option=orjson.OPT_SORT_KEYS)
    try:
        data = model.__pydantic_validator__.validate_json(canonical, strict=True)
    except ValidationError as error:
        raise InvalidData(f"the data does not match the schema of {event.type}", data_errors(error)) from None
    complete(event, data, canonical, queue=queue, attempt=attempt, replay=replay, user=message.user)
    return event


def data_errors(error: ValidationError) -> list[FieldError]:
    """Return every wrong field of an event's data, without the values, which may be personal."""
    return [FieldError(f"data.{one.field}" if one.field else "data", one.problem) for one in field_errors(error)]


def _attributes(message: Message) -> dict[str, Any]:
    """Return the attributes and the data of a message in either mode, unchecked; raises Undecodable."""
    if message.content_encoding and message.content_encoding.lower() not in _PLAIN_ENCODINGS:
        raise Undecodable(
            f"content encoding {message.content_encoding!r} is not supported: publish the body uncompressed",
            [FieldError("content_encoding", "must be empty or utf-8")],
        )
    if message.content_type == STRUCTURED:
        return _structured(message.body)
    media_type = (message.content_type or "").partition(";")[0].strip().lower()
    if media_type == STRUCTURED:
        attributes = _structured(message.body)
    elif media_type in {"application/json", "text/json"} or media_type.endswith("+json"):
        attributes = _binary(message.headers, media_type)
        attributes["data"] = _parse(message.body)
    else:
        raise Undecodable(
            f"content type {message.content_type or 'missing'!r} is not supported: use {STRUCTURED}",
            [FieldError("content_type", f"must be {STRUCTURED}, or application/json with CloudEvents headers")],
        )
    return attributes


def _parse(body: bytes) -> Any:  # noqa: ANN401 - whatever JSON holds
    if _has_nul(body):
        wrong = FieldError("body", NO_NUL)
        raise Undecodable(str(wrong), [wrong])
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        what = "is empty" if not body else f"is not JSON (line {error.lineno}, column {error.colno})"
        raise Undecodable(f"the body {what}", [FieldError("body", what)]) from None


def _has_nul(body: bytes) -> bool:
    return b"\\u0000" in body and _NUL.search(body) is not None


def _structured(body: bytes) -> dict[str, Any]:
    parsed = _parse(body)
    if not isinstance(parsed, dict):
        raise Undecodable("the body is not a JSON object", [FieldError("body", "must be a JSON object")])
    if "data_base64" in parsed:
        parsed["data"] = _base64(parsed.pop("data_base64"))
    return parsed


def _base64(text: object) -> Any:  # noqa: ANN401 - whatever JSON holds
    try:
        return _parse(base64.b64decode(str(text), validate=True))
    except ValueError:  # not only binascii.Error: a text that is not ASCII raises its base class
        raise Undecodable("data_base64 is not base64", [FieldError("data_base64", "must be base64")]) from None


def _binary(headers: Headers, media_type: str) -> dict[str, Any]:
    attributes: dict[str, Any] = {"datacontenttype": media_type}
    for key, value in headers.items():
        for prefix in _PREFIXES:
            # A name that is not UTF-8 stays bytes.
            if isinstance(key, str) and key.startswith(prefix):
                attributes[key[len(prefix) :].lower()] = value
    if len(attributes) == 1:
        raise Undecodable(
            f"the message has no CloudEvents headers: set the content type {STRUCTURED}, or add cloudEvents_ headers",
            [FieldError("headers", "must contain cloudEvents_specversion, _id, _source and _type")],
        )
    return attributes


def _envelope(attributes: dict[str, Any]) -> Event[Any]:
    """Return the event with its data unchecked; raises Undecodable with every wrong attribute."""
    attributes.setdefault("data", None)
    if not DELIVERY_FIELDS.isdisjoint(attributes):
        # An extension attribute may have the name of a field of ours that is never sent.
        attributes = {name: value for name, value in attributes.items() if name not in DELIVERY_FIELDS}
    try:
        event: Event[Any] = _READER.validate_python(attributes)
    except ValidationError as error:
        raise _wrong_envelope(attributes, {str(one["loc"][0]) for one in error.errors()}) from None
    if (
        attributes.get("specversion") != "1.0"
        or not _is_json(attributes.get("datacontenttype"))
        or not _are_plain(event)
    ):
        raise _wrong_envelope(attributes, set())
    return event


def _are_plain(event: Event[Any]) -> bool:
    """Whether all texts fit; checking them joined first saves 5 µs an event."""
    texts = (event.id, event.source, event.type, event.subject or "", event.shop or "", event.requester or "")
    together = "".join((*texts, event.correlationid or "", event.causationid or "", event.traceparent or ""))
    if len(together) <= _LONGEST_TEXT and together.isascii() and together.isprintable():
        return True
    return not any(_is_unfit(getattr(event, name)) for name in _TEXT)


def _wrong_envelope(attributes: dict[str, Any], names: set[str]) -> Undecodable:
    """Return the error that names every wrong attribute; `names` are those whose values cannot be read."""
    if attributes.get("specversion") != "1.0":
        names.add("specversion")
    if not _is_json(attributes.get("datacontenttype")):
        names.add("datacontenttype")
    names |= {name for name in _TEXT if _is_unfit(attributes.get(name))}
    wrong = [FieldError(name, must) for name, must in _MUST.items() if name in names]
    return Undecodable("the CloudEvents envelope is invalid: " + "; ".join(map(str, wrong)), wrong)


def envelope_problems(event: Event[EventData]) -> list[FieldError]:
    """Return the attributes that a consumer would refuse; empty if the envelope is valid."""
    wrong = [
        FieldError(name, f"must be at most {_LONGEST_TEXT} bytes without control characters")
        for name in ("id", "source", *_OPTIONAL_TEXT)
        if _is_unfit(getattr(event, name))
    ]
    wrong += [FieldError(name, "must not be empty") for name in ("id", "source") if not getattr(event, name)]
    if event.requester is not None and not REQUESTER_PATTERN.match(event.requester):
        wrong.append(FieldError("requester", _MUST["requester"]))
    return wrong


def data_problems(event: Event[EventData]) -> list[FieldError]:
    """Return the fields of the data that a consumer would refuse although the schema does not; empty if there are none."""
    if not _has_nul(event.data.__pydantic_serializer__.to_json(event.data)):
        return []
    return [FieldError(place, NO_NUL) for place in _with_nul("data", event.data.model_dump(mode="json"))]


def _with_nul(place: str, value: object) -> Iterator[str]:
    """Yield the places of the texts with the character U+0000; a field's name with it is in the place of its object."""
    if isinstance(value, str) and "\0" in value:
        yield place
    elif isinstance(value, dict):
        if any("\0" in name for name in value):
            yield place
        for name, one in value.items():
            yield from _with_nul(f"{place}.{name}", one)
    elif isinstance(value, list):
        for number, one in enumerate(value):
            yield from _with_nul(f"{place}.{number}", one)


def _is_unfit(value: object) -> bool:
    """Whether a text does not fit into an AMQP short string or a database key."""
    return isinstance(value, str) and (len(value.encode()) > _LONGEST_TEXT or _CONTROL.search(value) is not None)


def _is_json(media_type: object) -> bool:
    if media_type is None or media_type == "application/json":
        return True
    subtype = str(media_type).partition(";")[0].strip().lower().rpartition("/")[2]
    return subtype == "json" or subtype.endswith("+json")


def _check_routing(type_: str, requester: str | None, exchange: str, routing_key: str) -> None:
    if exchange not in {REQUESTS_EXCHANGE, FACTS_EXCHANGE} or routing_key == type_:
        return
    if exchange == FACTS_EXCHANGE and requester and routing_key == f"{type_}.{requester}":
        return
    raise Undecodable(
        f"the routing key {routing_key!r} does not match the event's type {type_!r}",
        [FieldError("type", "must equal the routing key, which for facts may end in .<requester>")],
    )


def peek(message: Message) -> Event[Any] | None:
    """Return the event with its data unchecked, or None if its envelope cannot be read; for tools that show any message."""
    try:
        return _envelope(_attributes(message))
    except Undecodable:
        return None
