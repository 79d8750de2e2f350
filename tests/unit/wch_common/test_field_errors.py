"""Wrong fields in our words: pydantic's sentences speak of inputs and schemas, which a publisher does not know."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import pytest
from pydantic import Discriminator, Field, Tag, TypeAdapter, ValidationError

from wch_common.contract.event import Part, Time
from wch_common.contract.personal import IMPERSONAL
from wch_common.errors import field_errors


class One(Part):
    """A part that a tag names."""

    kind: Literal["one"]
    name: Annotated[str, IMPERSONAL] = ""


class Two(Part):
    """Another part that a tag names."""

    kind: Literal["two"]


class Everything(Part):
    """A part with a field for each way to be wrong."""

    text: Annotated[str, IMPERSONAL, Field(min_length=1, max_length=3)] = "a"
    longer: Annotated[str, IMPERSONAL, Field(min_length=2)] = "ab"
    form: Annotated[str, IMPERSONAL, Field(pattern="^[a-z]$")] = "a"
    whole: Annotated[int, Field(ge=-1, le=2**31 - 1)] = 0
    number: Annotated[float, Field(gt=0, lt=1.5)] = 1
    degrees: Annotated[float, Field(ge=-90, le=90)] = 1
    flag: bool = False
    some: Annotated[tuple[int, ...], Field(min_length=1, max_length=2)] = (1,)
    choice: Literal["a", "b"] = "a"
    tagged: Annotated[One | Two, Field(discriminator="kind")] | None = None
    told_apart: Annotated[
        Annotated[One, Tag("(one)")] | Annotated[int, Tag("(int)")], Discriminator(lambda _: "(one)")
    ] = 1
    at: Time | None = None
    needed: Annotated[str, IMPERSONAL]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"needed": None}, "needed: must be a text"),
    ({"text": ""}, "text: must not be empty"),
    ({"text": "abcd"}, "text: must have at most 3 characters"),
    ({"longer": "a"}, "longer: must have at least 2 characters"),
    ({"form": "A"}, "form: must have the form ^[a-z]$"),
    ({"whole": 1.5}, "whole: must be a whole number"),
    ({"whole": "1"}, "whole: must be a whole number"),
    ({"whole": -2}, "whole: must be at least -1"),
    ({"whole": 2**31}, "whole: must be at most 2147483647"),
    ({"number": "x"}, "number: must be a number"),
    ({"number": 0}, "number: must be more than 0"),
    ({"number": 1.5}, "number: must be less than 1.5"),
    ({"degrees": 91}, "degrees: must be at most 90"),
    ({"flag": 1}, "flag: must be true or false"),
    ({"some": 1}, "some: must be a list"),
    ({"some": []}, "some: must not be empty"),
    ({"some": [1, 2, 3]}, "some: must have at most 2 entries"),
    ({"choice": "c"}, "choice: must be 'a' or 'b'"),
    ({"tagged": "x"}, "tagged: must be an object"),
    ({"tagged": {}}, "tagged: must have the field 'kind'"),
    ({"tagged": {"kind": "secret"}}, "tagged: its field 'kind' must be one of 'one', 'two'"),
    ({"tagged": {"kind": "one", "name": 5}}, "tagged.one.name: must be a text"),
    ({"told_apart": {"kind": "one", "name": 5}}, "told_apart.name: must be a text"),
    ({"at": "now"}, "at: must be a time with its offset from UTC, like 2030-01-31T09:00:00+01:00"),
    ({"more": 1}, "more: is not a field here; correct its name, or leave it out"),
]


@pytest.mark.parametrize(("wrong", "problem"), WRONG, ids=[problem for _, problem in WRONG])
def test_a_wrong_field_is_named_with_what_it_must_be(wrong: dict[str, Any], problem: str) -> None:
    data = {"needed": "x"} | wrong
    with pytest.raises(ValidationError) as refused:
        Everything.model_validate_json(TypeAdapter(Any).dump_json(data), extra="forbid")
    assert list(map(str, field_errors(refused.value))) == [problem]
    assert not re.search("Input should|should have|Value error|secret", problem)


def test_a_list_whose_only_entry_is_wrong_is_not_called_empty() -> None:
    with pytest.raises(ValidationError) as caught:
        Everything.model_validate_json('{"some": ["x"]}')
    said = [str(one) for one in field_errors(caught.value) if one.field.startswith("some")]
    assert said == ["some.0: must be a whole number"]


def test_a_missing_field_is_named() -> None:
    with pytest.raises(ValidationError) as refused:
        Everything.model_validate_json("{}")
    assert list(map(str, field_errors(refused.value))) == ["needed: is missing"]
