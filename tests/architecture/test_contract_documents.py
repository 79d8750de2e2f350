"""The generated documents: each schema once, an example for every event, and what readers in other languages accept."""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
from collections.abc import Iterator
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import orjson
import pytest
from pydantic import Field, TypeAdapter

import wch_common.events
from wch_common.contract.asyncapi import asyncapi
from wch_common.contract.envelope import STRUCTURED, decode
from wch_common.contract.event import DELIVERY_FIELDS, Event, EventData, Fact, Part, Request
from wch_common.contract.examples import example_events, load_examples
from wch_common.contract.message import Message
from wch_common.contract.registry import Registry
from wch_common.contract.schemas import contract_files, data_schema
from wch_common.errors import DuplicateRegistration
from wch_common.events import published_contract
from wch_common.events.scheduler import TimerRequested
from wch_common.events.sync import ProductRequested
from wch_common.events.whatsapp import MessageRequested

ROOT = Path(__file__).parents[2]
REGISTRY = published_contract()
EXAMPLES = Path(wch_common.events.__file__).parent / "examples"
every_event = pytest.mark.parametrize("model", list(REGISTRY), ids=lambda model: model.TYPE)
# Keywords that mean the same in JSON Schema 2020-12, in draft 7 and in the dialect of AsyncAPI 3.
APPLY = {"properties", "items", "anyOf", "oneOf", "allOf", "$ref", "$defs", "additionalProperties"}
ASSERT = {"type", "const", "enum", "required", "pattern", "format", "minLength", "maxLength", "minimum", "maximum"}
ASSERT |= {"minItems", "maxItems", "minProperties"}
ANNOTATE = {"title", "description", "default", "examples", "$schema", "$id"}


@cache
def files() -> dict[str, Any]:
    """Return the content of every generated file by name."""
    return {name: json.loads(content) for name, content in contract_files(REGISTRY).items()}


def schemas() -> dict[str, Any]:
    found: dict[str, Any] = files()["asyncapi.json"]["components"]["schemas"]
    return found


def messages() -> dict[str, Any]:
    found: dict[str, Any] = files()["asyncapi.json"]["components"]["messages"]
    return found


def schemas_in(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield a schema and every schema inside it."""
    if isinstance(schema, dict):
        yield schema
        inner = [schema.get("items"), schema.get("additionalProperties")]
        inner += [one for key in ("anyOf", "oneOf", "allOf") for one in schema.get(key, ())]
        inner += [one for key in ("properties", "$defs") for one in schema.get(key, {}).values()]
        for one in inner:
            yield from schemas_in(one)


def core_types(schema: Any) -> Iterator[str]:
    """Yield the types in a core schema of pydantic."""
    if isinstance(schema, dict):
        yield str(schema.get("type"))
    for one in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, (list, tuple)) else ():
        yield from core_types(one)


# -- schemas


def test_schemas_are_written_once_and_referenced() -> None:
    parts = {name for model in REGISTRY for name in data_schema(model).get("$defs", {})}
    assert schemas().keys() == {"CloudEvent", *parts, *(model.TYPE for model in REGISTRY)}
    payloads = [message["payload"] for message in messages().values()]
    used = {one["$ref"] for schema in [*payloads, *schemas().values()] for one in schemas_in(schema) if "$ref" in one}
    assert used == {f"#/components/schemas/{name}" for name in schemas()}
    for name, message in messages().items():
        envelope, own = message["payload"]["allOf"]
        assert envelope == {"$ref": "#/components/schemas/CloudEvent"}
        assert own["properties"]["data"] == {"$ref": f"#/components/schemas/{name}"}
        assert own["properties"]["type"]["const"] == name
    assert len(orjson.dumps(files()["asyncapi.json"])) < 200_000


def test_schemas_use_only_keywords_that_every_reader_understands() -> None:
    payloads = [message["payload"] for message in messages().values()]
    for schema in [*payloads, *schemas().values(), *(data_schema(model, load_examples(model)) for model in REGISTRY)]:
        for one in schemas_in(schema):
            assert set(one) <= APPLY | ASSERT | ANNOTATE, one
            # Before 2020-12 a reference has no siblings, so nothing beside it may matter.
            assert "$ref" not in one or set(one) <= {"$ref", *ANNOTATE}, one


def test_unions_are_distinguished_by_tags_that_are_required() -> None:
    unions = [one for schema in schemas().values() for one in schemas_in(schema) if "oneOf" in one]
    # A recipient is a text or an object, which no tag needs to distinguish.
    tagged = [union for union in unions if all("$ref" in one for one in union["oneOf"])]
    assert tagged
    for union in unions:
        assert union in tagged or [one.get("type") for one in union["oneOf"]] == ["string", None]
    for union in tagged:
        options = [schemas()[one["$ref"].rpartition("/")[2]] for one in union["oneOf"]]
        assert all("kind" in one["required"] for one in options)
        tags = [one["properties"]["kind"]["const"] for one in options]
        assert len(set(tags)) == len(tags) > 1


def test_the_envelope_has_every_attribute_of_an_event() -> None:
    attributes = {field.name for field in dataclasses.fields(Event)} - DELIVERY_FIELDS
    assert schemas()["CloudEvent"]["properties"].keys() == attributes | {"specversion", "datacontenttype"}


@every_event
def test_the_message_of_a_signed_event_says_that_publishers_must_set_user_id(model: type[EventData]) -> None:
    message = messages()[model.TYPE]
    assert message.get("x-signed", False) is model.SIGNED
    assert ("AMQP property `user_id`" in message.get("description", "")) is model.SIGNED


def test_some_events_are_signed_and_others_are_not() -> None:
    assert {model.SIGNED for model in REGISTRY} == {True, False}


def with_part(name: str, part: type[Part]) -> type[Fact]:
    annotations = {"TYPE": f"demo.{name}.changed.v1", "__annotations__": {"part": part}, "__module__": __name__}
    return type(name, (Fact,), annotations)


def one_part(of: Any) -> type[Part]:
    return type("Detail", (Part,), {"__annotations__": {"value": of}, "__module__": __name__})


def test_parts_of_one_name_that_differ_are_refused() -> None:
    same = one_part(int)
    shared = asyncapi(
        Registry([with_part("first", same), with_part("second", same)]), lambda _: [{"part": {"value": 1}}]
    )
    assert shared["components"]["schemas"].keys() == {
        "CloudEvent", "Detail", "demo.first.changed.v1", "demo.second.changed.v1",
    }  # fmt: skip
    different = Registry([with_part("first", same), with_part("second", one_part(str))])
    with pytest.raises(DuplicateRegistration, match=r"Detail of demo.second.changed.v1 .* of demo.first.changed.v1"):
        asyncapi(different, lambda model: [{"part": {"value": 1 if "first" in model.TYPE else "1"}}])


@every_event
def test_no_schema_comes_from_a_decimal(model: type[EventData]) -> None:
    """Versions of pydantic publish different schemas for Decimal; amounts are text with a pattern."""
    assert "decimal" not in set(core_types(model.__pydantic_core_schema__))
    assert "decimal" in set(core_types(TypeAdapter(Annotated[Decimal | None, Field(ge=0)]).core_schema))


# -- examples


def test_every_event_has_an_example_file_and_every_file_an_event() -> None:
    assert {path.name for path in EXAMPLES.iterdir()} == {f"{model.TYPE}.json" for model in REGISTRY}


def test_the_examples_are_installed_with_the_package() -> None:
    package = ROOT / "libs/common"
    patterns = tomllib.loads((package / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    installed = {path for pattern in patterns["wch_common"] for path in (package / "src/wch_common").glob(pattern)}
    assert set(EXAMPLES.iterdir()) <= installed


def test_a_missing_example_file_is_named() -> None:
    class Unknown(Request):
        TYPE = "demo.unknown.requested.v1"

    Unknown.__module__ = ProductRequested.__module__
    with pytest.raises(
        FileNotFoundError, match=r"demo\.unknown\.requested\.v1 has no examples: .*unknown.requested.v1.json"
    ):
        load_examples(Unknown)


@pytest.mark.parametrize("content", ["[]", "{}", "[1]", "[{"])
def test_a_wrong_example_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str) -> None:
    file = tmp_path / f"{ProductRequested.TYPE}.json"
    file.write_text(content)
    monkeypatch.setattr("wch_common.contract.examples._file", lambda _model: file)
    with pytest.raises(ValueError, match=re.escape(str(file))):
        load_examples(ProductRequested)


@every_event
def test_every_example_is_an_event_that_consumers_accept(model: type[EventData]) -> None:
    for data, event in zip(load_examples(model), example_events(model), strict=True):
        decoded = decode(Message(orjson.dumps(event), STRUCTURED), REGISTRY)
        assert event["data"] == data
        assert event.get("subject") == decoded.data.subject()
        assert (decoded.type, decoded.requester is not None) == (model.TYPE, issubclass(model, Request))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"unknown": 1}, "data.unknown"),
        ({"message": {"kind": "text", "body": "Hello", "unknown": 1}}, "data.message.text.unknown"),
        ({"send_key": 7}, "data.send_key"),
        ({"expires_at": 1769860800}, "data.expires_at"),
    ],
)
def test_an_example_that_does_not_match_its_model_is_refused(change: dict[str, Any], field: str) -> None:
    data = load_examples(MessageRequested)[0] | change
    with pytest.raises(ValueError, match=rf"example 1 in .*whatsapp.message.requested.v1.json [\s\S]*{field}"):
        example_events(MessageRequested, [data])


def test_the_timed_events_of_examples_are_events() -> None:
    for data in load_examples(TimerRequested):
        timed = data["event"]
        REGISTRY.model(timed["type"]).model_validate_json(orjson.dumps(timed["data"]), strict=True, extra="forbid")


def test_the_forms_of_a_message_have_examples() -> None:
    forms = {
        one["$ref"].rpartition("/")[2] for one in schemas()[MessageRequested.TYPE]["properties"]["message"]["oneOf"]
    }
    kinds = {schemas()[form]["properties"]["kind"]["const"] for form in forms}
    assert {data["message"]["kind"] for data in load_examples(MessageRequested)} == kinds


@every_event
def test_the_files_contain_the_examples(model: type[EventData]) -> None:
    assert files()[f"schemas/{model.TYPE}.json"]["examples"] == load_examples(model)
    published = messages()[model.TYPE]["examples"]
    assert published == [{"payload": event} for event in example_events(model)]


def test_examples_have_ids_of_their_own() -> None:
    ids = [one["payload"]["id"] for message in messages().values() for one in message["examples"]]
    assert len(set(ids)) == len(ids)
