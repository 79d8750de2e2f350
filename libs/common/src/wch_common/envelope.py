"""CloudEvents 1.0 over AMQP 0-9-1: structured mode is written, structured and binary mode are read.

There is no AMQP 0-9-1 binding; binary mode is read with the header prefixes in use: those of the AMQP 1.0 binding
(`cloudEvents_`, `cloudEvents:`) and of the Python SDK's RabbitMQ binding (`ce-`).
"""

from __future__ import annotations

import base64
import binascii
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import ValidationError

from wch_common.errors import FieldError, InvalidData, Undecodable
from wch_common.event import FACTS_EXCHANGE, REQUESTS_EXCHANGE, Event, EventData
from wch_common.message import Message, Publication

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wch_common.message import Headers
    from wch_common.registry import Registry

STRUCTURED = "application/cloudevents+json"
_PREFIXES = ("cloudEvents_", "cloudEvents:", "ce-")
_REQUIRED_TEXT = ("id", "source", "type")
_LONGEST_TEXT = 255
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_OPTIONAL_TEXT = ("subject", "shop", "asker", "correlationid", "causationid", "traceparent")
_TEXT = (*_REQUIRED_TEXT, *_OPTIONAL_TEXT)
_PLAIN_ENCODINGS = frozenset({"", "utf-8", "utf8", "binary", "identity"})
ASKER_PATTERN = re.compile(r"^[a-z][a-z0-9_-]{0,62}$")


def encode(event: Event[EventData]) -> Publication:
    """Return the event as a structured-mode message on its way to its exchange."""
    attributes: dict[str, Any] = {"specversion": "1.0", "id": event.id, "source": event.source, "type": event.type}
    for name in _OPTIONAL_TEXT:
        if value := getattr(event, name):
            attributes[name] = value
    for name, moment in (("time", event.time), ("expirytime", event.expirytime)):
        if moment is not None:
            attributes[name] = moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
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
    """Return the event a message carries; raises a ContractError that names every wrong field.

    Where the message came by one of the two public exchanges its routing key must be its type.
    """
    attributes, data = read_attributes(message)
    type_, asker = attributes["type"], attributes.get("asker")
    _check_routing(type_, asker, exchange, routing_key)
    model = registry.model(type_)
    canonical = orjson.dumps(data, option=orjson.OPT_SORT_KEYS)
    try:
        typed = model.__pydantic_validator__.validate_json(canonical, strict=True)
    except ValidationError as error:
        raise InvalidData(f"the data breaks the schema of {type_}", data_errors(error)) from None
    return Event(
        id=attributes["id"],
        source=attributes["source"],
        type=type_,
        data=typed,
        time=attributes.get("time"),
        subject=attributes.get("subject"),
        shop=attributes.get("shop"),
        asker=asker,
        correlationid=attributes.get("correlationid"),
        causationid=attributes.get("causationid"),
        traceparent=attributes.get("traceparent"),
        expirytime=attributes.get("expirytime"),
        queue=queue,
        attempt=attempt,
        replay=replay,
        canonical=canonical,
        user=message.user,
    )


def data_errors(error: ValidationError) -> list[FieldError]:
    """Return what a schema found wrong, field by field, without the values, which may be personal."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return [FieldError(".".join(("data", *map(str, item["loc"]))), item["msg"]) for item in found]


def read_attributes(message: Message) -> tuple[dict[str, Any], Any]:
    """Return the checked envelope attributes and the raw data, of either mode; raises Undecodable."""
    if (message.content_encoding or "").lower() not in _PLAIN_ENCODINGS:
        raise Undecodable(
            f"content encoding {message.content_encoding!r} is not read here: publish the body uncompressed",
            [FieldError("content_encoding", "must be empty or utf-8")],
        )
    media_type = (message.content_type or "").partition(";")[0].strip().lower()
    if media_type == STRUCTURED:
        attributes = _structured(message.body)
        data = attributes.pop("data", None)
        if "data_base64" in attributes:
            data = _base64(attributes.pop("data_base64"))
    elif media_type in {"application/json", "text/json"} or media_type.endswith("+json"):
        attributes = _binary(message.headers, media_type)
        data = _parse(message.body)
    else:
        raise Undecodable(
            f"content type {message.content_type or 'missing'!r} is not read here: use {STRUCTURED}",
            [FieldError("content_type", f"must be {STRUCTURED}, or application/json with CloudEvents headers")],
        )
    _check(attributes)
    return attributes, data


def _parse(body: bytes) -> Any:  # noqa: ANN401 - whatever JSON holds
    if b"\\u0000" in body and _NUL.search(body):
        raise Undecodable(
            "the body holds the character U+0000, which no database keeps as text",
            [FieldError("body", "must not hold \\u0000")],
        )
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        what = "is empty" if not body else f"is not JSON (line {error.lineno}, column {error.colno})"
        raise Undecodable(f"the body {what}", [FieldError("body", what)]) from None


def _structured(body: bytes) -> dict[str, Any]:
    parsed = _parse(body)
    if not isinstance(parsed, dict):
        raise Undecodable("the body is not a JSON object", [FieldError("body", "must be a JSON object")])
    return parsed


def _base64(text: object) -> Any:  # noqa: ANN401 - whatever JSON holds
    try:
        return _parse(base64.b64decode(str(text), validate=True))
    except binascii.Error:
        raise Undecodable("data_base64 is not base64", [FieldError("data_base64", "must be base64")]) from None


def _binary(headers: Headers, media_type: str) -> dict[str, Any]:
    attributes: dict[str, Any] = {"datacontenttype": media_type}
    for key, value in headers.items():
        for prefix in _PREFIXES:
            if key.startswith(prefix):
                attributes[key[len(prefix) :].lower()] = value
    if len(attributes) == 1:
        raise Undecodable(
            f"there are no CloudEvents headers: set content type {STRUCTURED}, or add cloudEvents_ headers",
            [FieldError("headers", "must hold cloudEvents_specversion, _id, _source and _type")],
        )
    return attributes


def _check(attributes: dict[str, Any]) -> None:
    """Check the envelope in place, parsing its times; raises Undecodable with every wrong attribute."""
    wrong: list[FieldError] = []
    if attributes.get("specversion") != "1.0":
        wrong.append(FieldError("specversion", "must be 1.0"))
    texts = [value for name in _TEXT if (value := attributes.get(name)) is not None]
    if not all(map(attributes.get, _REQUIRED_TEXT)) or not _are_plain(texts):
        _check_texts(attributes, wrong)
    if "asker" in attributes:
        _check_asker(attributes["asker"], wrong)
    for name in ("time", "expirytime"):
        if attributes.get(name) is not None:
            attributes[name] = _moment(attributes[name], name, wrong)
    if attributes.get("datacontenttype", "application/json") != "application/json":
        _check_data_type(str(attributes["datacontenttype"]), wrong)
    if wrong:
        raise Undecodable("the CloudEvents envelope is wrong: " + "; ".join(map(str, wrong)), wrong)


def _are_plain(values: list[Any]) -> bool:
    """Whether nothing is wrong with texts, seen at a glance: so nearly all are, and looking closer costs 5 µs an event."""
    try:
        together = "".join(values)
    except TypeError:
        return False
    return len(together) <= _LONGEST_TEXT and together.isascii() and together.isprintable()


def _check_texts(attributes: dict[str, Any], wrong: list[FieldError]) -> None:
    wrong += [
        FieldError(name, "must have at most 255 characters, none of them a control character")
        for name in _TEXT
        if _is_unfit(attributes.get(name))
    ]
    required = [name for name in _REQUIRED_TEXT if not _is_text(attributes.get(name))]
    wrong += [FieldError(name, "must be a string that is not empty") for name in required]
    optional = [name for name in _OPTIONAL_TEXT if not isinstance(attributes.get(name, ""), str | None)]
    wrong += [FieldError(name, "must be a string") for name in optional]


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def envelope_problems(event: Event[EventData]) -> list[FieldError]:
    """Return what a consumer would refuse of an event's envelope; empty where it is good."""
    wrong = [
        FieldError(name, f"must be at most {_LONGEST_TEXT} bytes without control characters")
        for name in ("id", "source", *_OPTIONAL_TEXT)
        if _is_unfit(getattr(event, name))
    ]
    wrong += [FieldError(name, "must not be empty") for name in ("id", "source") if not getattr(event, name)]
    _check_asker(event.asker, wrong)
    return wrong


def _is_unfit(value: object) -> bool:
    """Whether a text would not fit an AMQP short string or a database key."""
    return isinstance(value, str) and (len(value.encode()) > _LONGEST_TEXT or _CONTROL.search(value) is not None)


def _check_asker(asker: object, wrong: list[FieldError]) -> None:
    if isinstance(asker, str) and not ASKER_PATTERN.match(asker):
        wrong.append(FieldError("asker", "must be lower-case letters, digits, - and _, as it becomes a routing key"))


def _check_data_type(media_type: str, wrong: list[FieldError]) -> None:
    subtype = media_type.partition(";")[0].strip().lower().rpartition("/")[2]
    if subtype != "json" and not subtype.endswith("+json"):
        wrong.append(FieldError("datacontenttype", "must be application/json"))


def _moment(value: object, name: str, wrong: list[FieldError]) -> datetime | None:
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        wrong.append(FieldError(name, "must be an RFC 3339 time with an offset, like 2026-01-31T12:00:00Z"))
        return None
    return moment


def _check_routing(type_: str, asker: str | None, exchange: str, routing_key: str) -> None:
    if exchange not in {REQUESTS_EXCHANGE, FACTS_EXCHANGE} or routing_key == type_:
        return
    if exchange == FACTS_EXCHANGE and asker and routing_key == f"{type_}.{asker}":
        return
    raise Undecodable(
        f"the routing key {routing_key!r} is not the event's type {type_!r}",
        [FieldError("type", "must be the routing key, which for facts may end in .<asker>")],
    )


def peek_attributes(message: Message) -> Mapping[str, Any]:
    """Return the envelope's attributes where they can be read, else nothing; for tools that show any message."""
    try:
        return read_attributes(message)[0]
    except Undecodable:
        return {}
