"""Values at the boundaries of a JSON Schema, placed into examples, to compare two readers of the same schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]
ABSENT = ""
"""Stands for a value that is left out."""
_PLACE = "\x00here"
# One character, two UTF-16 units, four bytes.
_WIDE = "😀"
_ANY = ["null", "true", "1", "1.0", "1.5", '"1"', '""', "[]", "{}"]
_TEXTS = [
    *(
        "a",
        "A",
        "é",
        "-",
        "_",
        "0",
        " a",
        "a ",
        "a\n",
        "\n",
        "a\tb",
        "٣",
        "²",
        "ä",
        "ſ",
        "K",
        "İ",
        "\u2028",
        "\x7f",
        "\x1f",
    ),
    *(
        "de",
        "DE",
        "de_DE",
        "de_de",
        "deu_DE",
        "EUR",
        "EURO",
        "eur",
        "a-b",
        "a_b",
        "a.b",
        "a" * 63,
        "a" * 64,
        "1" * 20,
        "1" * 21,
    ),
]
_TIMES = [
    *("2026-01-31T12:00:00Z", "2026-01-31T12:00:00.123456Z", "2026-01-31T12:00:00+01:00", "2026-01-31t12:00:00z"),
    *("2026-01-31 12:00:00Z", "2026-01-31T12:00:00", "2026-01-31T12:00Z", "2026-01-31", "12:00:00Z", "1769860800"),
    *(
        "2026-02-30T12:00:00Z",
        "2026-01-31T24:00:00Z",
        "2026-01-31T23:59:60Z",
        "2026-12-31T23:59:60Z",
        "0000-01-01T00:00:00Z",
    ),
    *("9999-12-31T23:59:59Z", "10000-01-01T00:00:00Z", "2026-01-31T12:00:00+0100", "2026-01-31T12:00:00+25:00"),
    *("2026-01-31T12:00:00.1234567890Z", "2026-01-31T12:00:00,5Z", " 2026-01-31T12:00:00Z", "2026-01-31_12:00:00Z"),
    *("2026-01-31T12:00:00+24:00", "2026-01-31T12:00:00-00:00", "2026-01-31T12:00:00\n"),
]
_NUMBERS = ["-1", "0", "-0", "0.0", "1e0", "1e2", "1E400", "9007199254740992", "9007199254740993", str(2**63 - 1)]
_NUMBERS += [str(2**63), str(2**64), "1e19", "0.1", "100.00000000000001"]


def _texts(schema: Schema) -> Iterator[str]:
    for bound in {schema.get("minLength", 0), schema.get("maxLength", 0)}:
        for length in {max(bound - 1, 0), bound, bound + 1}:
            yield from ("x" * length, _WIDE * length, "1" * length)
    for text in schema.get("enum", [schema["const"]] if "const" in schema else []):
        yield from (text, text.upper(), f" {text}", f"{text}\n")
    yield from _TEXTS
    if schema.get("format") == "date-time":
        yield from _TIMES


def candidates(schema: Schema) -> set[str]:
    """Return JSON texts around the bounds of a schema, and of every type."""
    found = {ABSENT, *_ANY, '"\\ud800"', '"\\u0000"'}
    kind = schema.get("type")
    if kind == "string":
        found |= {json.dumps(text) for text in _texts(schema)}
    elif kind in {"integer", "number"}:
        for bound in {schema.get("minimum", 0), schema.get("maximum", 0)}:
            whole = int(bound)
            found |= {str(whole + step) for step in (-1, 0, 1)} | {f"{whole}.0", f"{whole}.5"}
        found |= set(_NUMBERS)
    return found


def leaves(schemas: dict[str, Schema], schema: Schema, value: Any, path: tuple[Any, ...] = ()) -> Iterator[Any]:
    """Yield the path and the schema of every text, number and boolean that an example has or could have."""
    if "$ref" in schema:
        schema = schemas[schema["$ref"].rpartition("/")[2]]
    branches = schema.get("anyOf", schema.get("oneOf"))
    if branches:
        for branch in branches:
            yield from leaves(schemas, branch, value, path)
    elif schema.get("type") == "object" and "properties" in schema and isinstance(value, dict):
        if value.keys() <= schema["properties"].keys() and _tagged(schema, value):
            for name, inner in schema["properties"].items():
                yield from leaves(schemas, inner, value.get(name), (*path, name))
    elif schema.get("type") == "array" and value:
        yield from leaves(schemas, schema["items"], value[0], (*path, 0))
    elif schema.get("type") in {"string", "integer", "number", "boolean"} or "const" in schema:
        yield path, schema


def _tagged(schema: Schema, value: dict[str, Any]) -> bool:
    tag = schema["properties"].get("kind", {}).get("const")
    return tag is None or value.get("kind") == tag


def with_value(event: dict[str, Any], path: tuple[Any, ...], text: str) -> str:
    """Return the event as JSON text in which the value at a path is the given JSON text, or absent."""
    copy = json.loads(json.dumps(event))
    place = copy
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = _PLACE
    if text == ABSENT:
        del place[path[-1]]
    return json.dumps(copy).replace(json.dumps(_PLACE), text)
