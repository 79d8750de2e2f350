"""Which changes of a schema break programs: the table in CONTRIBUTING.md, in each of its rows."""

from __future__ import annotations

from typing import Any

import pytest

from wch_local.compatibility import changes

TEXT = {"type": "string"}
WHOLE = {"type": "integer"}


def text(**rules: Any) -> dict[str, Any]:
    return {"type": "string", **rules}


def whole(**rules: Any) -> dict[str, Any]:
    return {"type": "integer", **rules}


def listed(**rules: Any) -> dict[str, Any]:
    return {"type": "array", "items": TEXT, **rules}


def row(*items: Any, **rules: Any) -> dict[str, Any]:
    return {"type": "array", "prefixItems": list(items), **rules}


def both(*schemas: Any) -> dict[str, Any]:
    return {"allOf": list(schemas)}


def either(*schemas: Any) -> dict[str, Any]:
    return {"anyOf": list(schemas)}


def of(required: str = "", **fields: Any) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": required.split()}


def fields(old: Any, new: Any, kind: Any) -> list[str]:
    """Return the fields that break when the field `f` of an event changes."""
    return [one.field for one in changes(of(f=old), of(f=new), kind)]


NULL = {"type": "null"}
A, B = of("kind a", kind={"const": "a"}, a=TEXT), of("kind b", kind={"const": "b"}, b=TEXT)

# The old schema of a field and the new one. Each breaks requests and facts in this direction, and in the other one as
# the list says that contains it.
REVERSED_BREAKS_FACTS = [
    (either(TEXT, NULL), TEXT),
    ({"type": ["string", "null"]}, TEXT),
    ({"type": "number"}, WHOLE),
    (either(TEXT, WHOLE), TEXT),
    (either(TEXT, WHOLE), WHOLE),
    (either(TEXT, listed()), TEXT),
    ({}, TEXT),
    (True, of(a=TEXT)),
    (text(enum=["a", "b"]), text(enum=["a"])),
    (text(enum=["a", "b"]), text(const="b")),
    (TEXT, text(enum=["a"])),
    (TEXT, text(const="a")),
    (TEXT, text(format="date-time")),
    (either(A, B), A),
    ({"oneOf": [A, B, NULL]}, either(A, NULL)),
    (of(a=TEXT), of("a", a=TEXT)),
    ({"type": "array"}, listed()),
    ({"type": "array", "prefixItems": [TEXT, {}]}, {"type": "array", "prefixItems": [TEXT, TEXT]}),
    ({"type": "object", "additionalProperties": True}, {"type": "object", "additionalProperties": WHOLE}),
    (text(enum=["a", "bb"]), text(enum=["a", "bb"], minLength=2)),
    (text(enum=["a", "bb"]), text(enum=["a", "bb"], pattern="^a")),
    (text(enum=["a", "bb"], minLength=1), text(enum=["a", "bb"], minLength=2)),
    (whole(enum=[1, 5]), whole(enum=[1, 5], maximum=4)),
    ({"enum": [[1], [1, 2]]}, {"enum": [[1], [1, 2]], "maxItems": 1}),
    ({"enum": ["a", 1]}, text(enum=["a", 1])),
]
REVERSED_IS_COMPATIBLE = [
    (TEXT, text(minLength=1)),
    (text(minLength=1), text(minLength=2)),
    (TEXT, text(maxLength=9)),
    (text(maxLength=9), text(maxLength=8)),
    (TEXT, text(pattern="^a")),
    (WHOLE, whole(minimum=0)),
    (whole(minimum=0), whole(exclusiveMinimum=0)),
    (whole(minimum=0, maximum=9), whole(minimum=0, maximum=8)),
    ({"type": "number", "minimum": 0}, {"type": "number", "exclusiveMinimum": 0}),
    ({"type": "number", "maximum": 0.5}, {"type": "number", "exclusiveMaximum": 0.5}),
    (whole(maximum=2), whole(exclusiveMaximum=2)),
    (WHOLE, whole(multipleOf=2)),
    (listed(), listed(minItems=1)),
    (listed(), listed(maxItems=5)),
    (listed(), listed(uniqueItems=True)),
    (listed(items=text(maxLength=9)), listed(items=text(maxLength=8))),
    (of(a=TEXT, b=TEXT), of(a=TEXT)),
    ({"type": "object"}, {"type": "object", "additionalProperties": False}),
    ({"type": "object", "additionalProperties": True}, of(a={})),
    (row(TEXT, TEXT, maxItems=2), row(TEXT, maxItems=1)),
    (row(TEXT, WHOLE, maxItems=2), row(TEXT, maxItems=1)),
    (text(pattern="^a"), both(text(pattern="^a"), text(pattern="b$"))),
]
BREAKS_IN_BOTH_DIRECTIONS = [
    (TEXT, WHOLE),
    (TEXT, listed()),
    (listed(), of(a=TEXT)),
    (A, B),
    (text(pattern="^a"), text(pattern="^b")),
    (text(format="date"), text(format="date-time")),
    (text(const="a"), text(const="b")),
    ({"const": 1}, {"const": True}),
    ({"type": "array", "prefixItems": [TEXT, WHOLE]}, {"type": "array", "prefixItems": [WHOLE, TEXT]}),
    (text(**{"not": {"const": "x"}}), text(**{"not": {"const": "y"}})),
    (text(**{"not": {"const": "x"}}), TEXT),
    (of(a=TEXT), of("b", b=TEXT)),
    (row(TEXT, maxItems=1), row(WHOLE, TEXT, maxItems=2)),
    (text(enum=["a"], format="date"), text(enum=["a"], format="time")),
    ({"enum": [{"a": 1}]}, of(a=TEXT)),
    ({"type": "object", "additionalProperties": WHOLE}, {**of(a=TEXT), "additionalProperties": WHOLE}),
]
SAME = [
    (text(const="a"), text(enum=["a"])),
    (text(enum=["a", "b"]), either({"const": "b"}, {"const": "a"})),
    (text(enum=["a", "b"]), text(enum=["b", "a"])),
    (either(TEXT, NULL), {"type": ["null", "string"]}),
    (either(A, B), {"oneOf": [B, A], "discriminator": {"propertyName": "kind"}}),
    (whole(minimum=1), whole(exclusiveMinimum=0)),
    (TEXT, text(minLength=0)),
    (text(minLength=2), {"allOf": [TEXT, {"minLength": 2}, {"minLength": 1}]}),
    (of("a b", a=WHOLE, b=TEXT), {"allOf": [of("a", a={"type": "number"}), of("b", b=TEXT), of(a=WHOLE)]}),
    (TEXT, text(title="T", description="D", default="x", examples=["y"], deprecated=True, **{"x-personal": True})),
    (of(a=text(minLength=1, maxLength=3)), {"allOf": [of(a=text(minLength=1)), of(a=text(maxLength=3))]}),
    ({"const": {"a": 1, "b": 2}}, {"const": {"b": 2, "a": 1}}),
    ({}, True),
    (listed(), listed(items={"anyOf": [TEXT]})),
    (text(const="bb"), text(enum=["a", "bb"], minLength=2)),
    (text(const="a"), both(text(enum=["a", "b"]), text(enum=["a", "c"]))),
    (text(enum=["a", "b"]), either(text(const="a", minLength=1), text(const="b", minLength=1))),
    (both(text(pattern="^a"), text(pattern="b$")), both(text(pattern="b$"), text(pattern="^a"))),
    (both(row(TEXT, items=WHOLE), row({}, {"minimum": 1})), row(TEXT, whole(minimum=1), items=WHOLE)),
]


def breaking() -> list[Any]:
    rows = REVERSED_BREAKS_FACTS + REVERSED_IS_COMPATIBLE + BREAKS_IN_BOTH_DIRECTIONS
    return rows + [(new, old) for old, new in BREAKS_IN_BOTH_DIRECTIONS]


@pytest.mark.parametrize("kind", ["request", "fact"])
@pytest.mark.parametrize(("old", "new"), breaking())
def test_less_than_before_breaks_requests_and_facts(old: Any, new: Any, kind: str) -> None:
    found = fields(old, new, kind)
    assert found
    assert all(field.startswith("f") for field in found)


@pytest.mark.parametrize(("new", "old"), REVERSED_BREAKS_FACTS)
def test_more_than_before_breaks_facts_only(old: Any, new: Any) -> None:
    assert fields(old, new, "request") == []
    found = fields(old, new, "fact")
    assert found
    assert all(field.startswith("f") for field in found)


@pytest.mark.parametrize("kind", ["request", "fact"])
@pytest.mark.parametrize(("new", "old"), REVERSED_IS_COMPATIBLE)
def test_looser_rules_and_more_optional_fields_are_compatible(old: Any, new: Any, kind: str) -> None:
    assert fields(old, new, kind) == []


@pytest.mark.parametrize("kind", ["request", "fact"])
@pytest.mark.parametrize(("old", "new"), SAME + [(new, old) for old, new in SAME])
def test_the_same_rules_in_other_words_are_compatible(old: Any, new: Any, kind: str) -> None:
    assert fields(old, new, kind) == []


@pytest.mark.parametrize(
    ("rules", "compatible"),
    [
        ({}, True),
        ({"minLength": 1, "pattern": "^[ab]$"}, True),
        ({"minLength": 2}, False),
        ({"maxLength": 0}, False),
        ({"pattern": "b"}, False),
        ({"format": "date"}, False),
        ({"allOf": [{"pattern": "^[ab]$"}, {"pattern": "^.$"}]}, True),
        ({"allOf": [{"pattern": "^[ab]$"}, {"pattern": "^a"}]}, False),
    ],
)
def test_a_list_of_values_may_become_any_text_that_allows_them(rules: dict[str, Any], compatible: bool) -> None:
    assert (fields(text(enum=["a", "b"]), text(**rules), "request") == []) is compatible


NODE = of("name", name=TEXT, next={"$ref": "#/$defs/Node"}, others=listed(items={"$ref": "#/$defs/Node"}))


def test_schemas_that_refer_to_themselves_are_compared() -> None:
    old = {"$defs": {"Node": NODE, "Self": {"$ref": "#/$defs/Self"}}, "$ref": "#/$defs/Node"}
    assert changes(old, {**NODE, "$defs": {"Node": NODE}}, "fact") == []
    shorter = of("name", name=text(maxLength=5), next={"$ref": "#/$defs/Node"}, others=NODE["properties"]["others"])
    found = changes(old, {"$defs": {"Node": shorter}, "$ref": "#/$defs/Node"}, "request")
    assert {"name", "next.name"} <= {one.field for one in found}
    assert changes({**old, "$ref": "#/$defs/Self"}, {**old, "$ref": "#/$defs/Self"}, "fact") == []


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        (listed(items=A), listed(items=of("kind", kind={"const": "a"})), "f[].a"),
        (either(A, B, NULL), either(A, of("kind", kind={"const": "b"}), NULL), "f<b>.b"),
        (either(A, NULL), either(of("kind", kind={"const": "a"}), NULL), "f.a"),
        (either(A, B), either(A, NULL), "f<b>"),
        (either(TEXT, listed()), either(TEXT, listed(items=WHOLE)), "f<array>[]"),
        ({"prefixItems": [TEXT, WHOLE]}, {"prefixItems": [TEXT, TEXT]}, "f[1]"),
        ({"additionalProperties": A}, {"additionalProperties": of("kind", kind={"const": "a"})}, "f.*.a"),
        (of(g=of(h=listed(items=of(i=TEXT)))), of(g=of(h=listed(items=of()))), "f.g.h[].i"),
    ],
)
def test_a_break_names_the_path_of_its_field(old: Any, new: Any, field: str) -> None:
    assert field in fields(old, new, "request")


def test_a_break_of_the_whole_event_has_a_star_for_its_field() -> None:
    assert [one.field for one in changes(of(a=TEXT), {**of(a=TEXT), "additionalProperties": False}, "fact")] == ["*"]


def test_a_renamed_field_names_the_likely_new_one_of_the_same_type() -> None:
    [found] = changes(of(recipient=TEXT), of(recipient_count=WHOLE, to=TEXT, recipient_id=TEXT), "request")
    assert (found.field, found.problem, found.hint) == ("recipient", "it was removed", ", or renamed to recipient_id")
    [found] = changes(of(recipient=TEXT), of(recipient_count=WHOLE), "request")
    assert (found.problem, found.hint) == ("it was removed", "")


def test_a_new_required_field_breaks() -> None:
    [found] = changes(of(a=TEXT), of("b", a=TEXT, b=TEXT), "fact")
    assert (found.field, found.problem) == ("b", "it is new and required")


def test_a_reference_out_of_the_schema_is_refused() -> None:
    with pytest.raises(ValueError, match=r"reference other\.json"):
        changes(of(a={"$ref": "other.json"}), of(a=TEXT), "fact")
