"""JSON Schemas reduced to their meaning: references resolved, unions as lists of alternatives, annotations left out."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

from wch_local.value_rules import INTERPRETED, keeps, parts

_ANNOTATIONS = frozenset(
    {"$schema", "$id", "$anchor", "$comment", "$defs", "definitions", "title", "description", "default", "examples"}
    # `discriminator` is OpenAPI's; the tags of a union's alternatives say the same.
    | {"deprecated", "readOnly", "writeOnly", "discriminator"}
)
_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}
_LARGER_WINS = frozenset({"minLength", "minItems", "minProperties", "minimum", "exclusiveMinimum"})
_SMALLER_WINS = frozenset({"maxLength", "maxItems", "maxProperties", "maximum", "exclusiveMaximum"})


@dataclass(frozen=True)
class Shape:
    """One alternative of a schema: values of one JSON type that keep the rules; the type `any` allows every type."""

    type: str
    rules: dict[str, Any] = field(default_factory=dict)
    values: frozenset[str] | None = None
    """The only values, each as JSON; None if there is no such list."""
    name: str = ""

    @property
    def properties(self) -> dict[str, Any]:
        """The schemas of an object's fields."""
        found: dict[str, Any] = self.rules.get("properties", {})
        return found

    @property
    def required(self) -> frozenset[str]:
        """The fields that an object must have."""
        return frozenset(self.rules.get("required", ()))


class Document:
    """One JSON Schema 2020-12 document, whose references may form circles."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        # By identity, with the schema, so that no other object takes its id.
        self._known: dict[int, tuple[Any, list[Shape]]] = {}

    def alternatives(self, schema: Any) -> list[Shape]:  # noqa: ANN401 - JSON
        """Return what a schema allows, one shape for each alternative."""
        if id(schema) not in self._known:
            self._known[id(schema)] = (schema, self._read(schema, ()))
        return self._known[id(schema)][1]

    def _read(self, schema: Any, seen: tuple[str, ...]) -> list[Shape]:  # noqa: ANN401 - JSON
        if isinstance(schema, bool):
            return [Shape("any")] if schema else []
        own = {key: value for key, value in schema.items() if not _is_annotation(key)}
        conditions: list[list[Shape]] = []
        if reference := own.pop("$ref", None):
            # A reference that leads to itself without a field between allows nothing more.
            target = [] if reference in seen else self._read(self._target(reference), (*seen, reference))
            name = reference.rpartition("/")[2]
            conditions.append([replace(one, name=one.name or name) for one in target])
        conditions += [self._read(one, seen) for one in own.pop("allOf", ())]
        for key in ("anyOf", "oneOf"):
            if key in own:
                conditions.append([shape for one in own.pop(key) for shape in self._read(one, seen)])
        if own or not conditions:
            conditions.append(_shapes(own))
        combined: list[Shape] = reduce(_both, conditions)
        checked = [_with_checked_values(one) for one in combined]
        return _with_merged_values([one for one in checked if one.values is None or one.values])

    def tags(self, shape: Shape) -> dict[str, frozenset[str]]:
        """Return the fields of an object that have a list of values; they distinguish the alternatives of a union."""
        found = {}
        for name, schema in shape.properties.items():
            alternatives = self.alternatives(schema)
            if len(alternatives) == 1 and alternatives[0].values is not None:
                found[name] = alternatives[0].values
        return found

    def _target(self, reference: str) -> Any:  # noqa: ANN401 - JSON
        if not reference.startswith("#"):
            raise ValueError(f"the reference {reference} leads out of the schema")
        target: Any = self._root
        for part in reference.lstrip("#").split("/")[1:]:
            target = target[part.replace("~1", "/").replace("~0", "~")]
        return target


def text_of(value: Any) -> str:  # noqa: ANN401 - JSON
    """Return a value as JSON that is equal for equal values only: true is not 1."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _is_annotation(key: str) -> bool:
    return key in _ANNOTATIONS or key.startswith("x-")


def _shapes(rules: dict[str, Any]) -> list[Shape]:
    """Return the shapes of a schema without references and unions, one for each type."""
    types = rules.pop("type", "any")
    types = [types] if isinstance(types, str) else types
    values = rules.pop("enum", None)
    if "const" in rules:
        values = [rules.pop("const")]
    if values is None:
        return [Shape(one, rules) for one in types]
    by_type: dict[str, set[str]] = {}
    for value in values:
        by_type.setdefault("null" if value is None else _TYPES[type(value)], set()).add(text_of(value))
    return [
        Shape(type_, rules, frozenset(texts))
        for type_, texts in by_type.items()
        if {type_, "any"} & set(types) or (type_ == "integer" and "number" in types)
    ]


def _both(left: list[Shape], right: list[Shape]) -> list[Shape]:
    """Return what two schemas both allow."""
    return [both for one in left for other in right if (both := _intersection(one, other))]


def _intersection(one: Shape, other: Shape) -> Shape | None:
    types = {one.type, other.type} - {"any"}
    if types == {"integer", "number"}:
        types = {"integer"}
    if len(types) > 1:
        return None
    listed = [values for values in (one.values, other.values) if values is not None]
    values = reduce(frozenset.intersection, listed) if listed else None
    length = max(len(shape.rules.get("prefixItems", ())) for shape in (one, other))
    rules, others = (_with_positions(shape.rules, length) for shape in (one, other))
    for key, value in others.items():
        rules[key] = _combined(key, rules[key], value) if key in rules else value
    return Shape(types.pop() if types else "any", rules, values, one.name or other.name)


def _with_positions(rules: dict[str, Any], length: int) -> dict[str, Any]:
    """Return rules that give the schema of each of the first items of an array."""
    if not length:
        return dict(rules)
    named = rules.get("prefixItems", [])
    return {**rules, "prefixItems": [*named, *[rules.get("items", True)] * (length - len(named))]}


def _combined(key: str, one: Any, other: Any) -> Any:  # noqa: ANN401 - JSON
    """Return the rule that holds if two schemas have different ones."""
    if one == other:
        return one
    if key == "required":
        return sorted({*one, *other})
    if key == "properties":
        shared = {name: {"allOf": [one[name], other[name]]} for name in one if name in other}
        return {**one, **other, **shared}
    if key in _LARGER_WINS:
        return max(one, other)
    if key in _SMALLER_WINS:
        return min(one, other)
    if key in {"items", "additionalProperties"}:
        return {"allOf": [one, other]}
    if key == "prefixItems":
        return [{"allOf": list(pair)} for pair in zip(one, other, strict=True)]
    texts = {text_of(part): part for part in (*parts(one), *parts(other))}
    return tuple(texts[text] for text in sorted(texts))


def _with_checked_values(shape: Shape) -> Shape:
    """Return a shape that lists only those values that keep its bounds and patterns, without these rules."""
    if shape.values is None:
        return shape
    kept = (text for text in shape.values if keeps(json.loads(text), shape.type, shape.rules))
    rules = {key: value for key, value in shape.rules.items() if key not in INTERPRETED}
    return replace(shape, rules=rules, values=frozenset(kept))


def _with_merged_values(shapes: list[Shape]) -> list[Shape]:
    """Return the shapes with lists of values of one type as one list, as an enum or as alternatives with const."""
    merged: list[Shape] = []
    for shape in shapes:
        same = [one for one in merged if _is_list(one) and _is_list(shape) and one.type == shape.type]
        if same:
            index = merged.index(same[0])
            merged[index] = replace(same[0], values=(same[0].values or frozenset()) | (shape.values or frozenset()))
        else:
            merged.append(shape)
    return merged


def _is_list(shape: Shape) -> bool:
    return shape.values is not None and not shape.rules
