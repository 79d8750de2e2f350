"""Consumers and a strict JSON Schema validator accept the same events; every difference is listed with its reason."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from support.boundary_values import ABSENT, candidates, leaves, with_value
from support.contract_check import refused_by_ajv, require_node
from wch_common.contract.asyncapi import asyncapi
from wch_common.contract.envelope import STRUCTURED, decode
from wch_common.contract.examples import example_events
from wch_common.contract.message import Message
from wch_common.contract.schemas import write_contract
from wch_common.errors import ContractError
from wch_common.events import published_contract
from wch_common.events.broadcast import CampaignRequested
from wch_common.events.shop import CartUpdated

REGISTRY = published_contract()
Schema = dict[str, Any]
Applies = Callable[[Schema, str], bool]


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require_node()
    folder = tmp_path_factory.mktemp("contract")
    write_contract(REGISTRY, folder)
    return folder


def is_accepted(event: str) -> bool:
    """Whether a consumer accepts an event."""
    try:
        decode(Message(event.encode(), STRUCTURED), REGISTRY)
    except ContractError:
        return False
    return True


def breaks_a_rule_of_its_model(type_: str, event: str) -> bool:
    """Whether the model refuses it by a rule of its own, most of which span fields; no schema states them."""
    try:
        REGISTRY.model(type_).model_validate_json(json.dumps(json.loads(event)["data"]), strict=True)
    except ValidationError as error:
        return any(one["type"] == "value_error" and "must be a time" not in one["msg"] for one in error.errors())
    return False


def number(text: str) -> float:
    return float(text) if re.fullmatch(r"-?[0-9.]+([eE][+-]?[0-9]+)?", text) else 0


AMOUNTS = {
    **dict.fromkeys(["19.90", "0", "0.0", "00.5", "1.2345", "99999999999999", "99999999999999.9999"], True),
    **dict.fromkeys(["", "1.", ".5", ".", "-1", "+1", "1e3", "1E3", "19,90", "1.23456", "999999999999999"], False),
    **dict.fromkeys(
        ["19.90\n", " 1", "1 ", "1 000", "1.2.3", "٣", "１９", "²", "NaN", "Infinity", "0x10", "1_000"], False
    ),
}


def test_an_amount_is_accepted_by_both_or_by_neither(contract: Path) -> None:
    example = example_events(CartUpdated)[0]
    expected = {json.dumps(text): accepted for text, accepted in AMOUNTS.items()}
    expected |= {'"19.9\\u0000"': False, "19.9": False, "19": False, "null": False, "true": False, '["1"]': False}
    events = [with_value(example, ("data", "total"), text) for text in expected]
    by_ajv = [problem is None for problem in refused_by_ajv(contract, [(CartUpdated.TYPE, event) for event in events])]
    assert dict(zip(expected, by_ajv, strict=True)) == expected
    assert dict(zip(expected, map(is_accepted, events), strict=True)) == expected


# Why only ajv accepts a value, and to which it applies.
ACCEPTED_BY_AJV: dict[str, Applies] = {
    "to JSON Schema 1.0 is a whole number": lambda schema, text: (
        schema.get("type") == "integer" and bool(re.search(r"[.eE]", text)) and number(text) < 2**63
    ),
    "JavaScript reads whole numbers beyond 2^53 inexactly": lambda schema, text: (
        schema.get("type") == "integer" and number(text) >= 2**63
    ),
    "PostgreSQL stores no U+0000": lambda _schema, text: text == r'"\u0000"',
    "UTF-8 has no lone surrogates": lambda _schema, text: text == r'"\ud800"',
    "Python's times have no leap seconds": lambda schema, text: schema.get("format") == "date-time" and ":60Z" in text,
    "Python's times have no year 0": lambda schema, text: schema.get("format") == "date-time" and '"0000' in text,
    "the length of an attribute is limited in bytes, of which a schema knows nothing": lambda schema, text: (
        schema.get("maxLength") == 255 and "pattern" in schema and len(json.loads(text).encode(errors="replace")) > 255
    ),
}
# Why only consumers accept a value; a publisher who follows the schema is right.
ACCEPTED_BY_CONSUMERS: dict[str, Applies] = {
    "Python reads more forms of a time than RFC 3339 defines": lambda schema, text: (
        schema.get("format") == "date-time" and text.startswith('"')
    ),
    "an optional attribute may be null": lambda _schema, text: text == "null",
    "the attribute `time` is optional in CloudEvents": lambda schema, text: (
        schema.get("format") == "date-time" and text == ABSENT
    ),
    "other JSON media types are read": lambda schema, text: (
        schema.get("const") == "application/json" and "json" in text.lower()
    ),
    "a fallback is always a template, so its tag may be absent": lambda schema, text: (
        schema.get("const") == "template" and text == ABSENT
    ),
}


def boundary_cases() -> list[tuple[str, str, tuple[Any, ...], str, Schema]]:
    """Return type, event, path, value and schema of every boundary value of every field and attribute."""
    schemas = asyncapi(REGISTRY)["components"]["schemas"]
    found = []
    for model in REGISTRY:
        for event in example_events(model):
            for path, schema in leaves(schemas, schemas[model.TYPE], event["data"], ("data",)):
                found += [
                    (model.TYPE, with_value(event, path, text), path, text, schema) for text in candidates(schema)
                ]
    event = example_events(REGISTRY.model("sync.product.synced.v1"))[0]
    for path, schema in leaves(schemas, schemas["CloudEvent"], event):
        found += [(event["type"], with_value(event, path, text), path, text, schema) for text in candidates(schema)]
    return found


def test_every_boundary_value_is_accepted_by_both_or_the_reason_is_listed(contract: Path) -> None:
    cases = boundary_cases()
    assert len(cases) > 10_000
    by_ajv = refused_by_ajv(contract, [(type_, event) for type_, event, *_ in cases])
    unlisted, seen = [], set()
    for (type_, event, path, text, schema), problem in zip(cases, by_ajv, strict=True):
        accepted = is_accepted(event)
        if accepted == (problem is None) or (not accepted and breaks_a_rule_of_its_model(type_, event)):
            continue
        listed = ACCEPTED_BY_CONSUMERS if accepted else ACCEPTED_BY_AJV
        reasons = [reason for reason, applies in listed.items() if applies(schema, text)]
        seen |= set(reasons)
        if not reasons:
            unlisted.append((type_, path, text[:60], problem))
    assert unlisted == []
    assert {*ACCEPTED_BY_AJV, *ACCEPTED_BY_CONSUMERS} == seen, "a listed difference does not occur any more"


def test_a_campaign_with_a_time_without_offset_is_refused() -> None:
    event = with_value(example_events(CampaignRequested)[0], ("data", "start_at"), '"2026-03-20T09:00:00"')
    with pytest.raises(ContractError):
        decode(Message(event.encode(), STRUCTURED), REGISTRY)
