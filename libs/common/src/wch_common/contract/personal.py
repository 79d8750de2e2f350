"""Which fields of events hold personal data: each field that can hold text is marked as personal or impersonal."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from functools import cache
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import AwareDatetime

from wch_common.contract.event import Part

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from wch_common.contract.registry import Registry


@dataclass(frozen=True)
class Mark:
    """What a field says about a person; part of its annotation."""

    personal: bool
    identifies: bool = False
    """Whether the field alone says who the person is."""
    kept: bool = False
    """Whether erasing the person leaves it, because the event would lose what they have requested."""
    event: bool = False
    """Whether the field holds the data of an event whose type is in the field `type` beside it."""


PERSONAL: Final = Mark(personal=True)
IDENTIFIES: Final = Mark(personal=True, identifies=True)
IDENTIFIES_AND_STAYS: Final = Mark(personal=True, identifies=True, kept=True)
EVENT_DATA: Final = Mark(personal=True, event=True)
IMPERSONAL: Final = Mark(personal=False)
ERASED: Final = "erased"
"""What replaces a personal text that an event must have."""
_TEXTLESS = (int, float, bool, NoneType, datetime, date, AwareDatetime)


@dataclass(frozen=True)
class Person:
    """A person by their phone numbers and Meta's ids of them."""

    keys: tuple[object, ...]
    """What tables call the person."""
    digits: tuple[str, ...]
    """The last digits of each number, which every form of it contains."""
    ids: tuple[str, ...]
    """Ids, which have one form."""
    is_same: Callable[[str], bool]
    """Whether a text is one of the numbers, in any form, or one of the ids."""
    names: tuple[str, ...] = ()
    """The numbers (E.164) and ids."""


@dataclass(frozen=True)
class HashedPerson:
    """A person, and the keyed hashes of everything that names them."""

    person: Person
    hashes: frozenset[bytes]


def unmarked_fields(models: Iterable[type[Part]]) -> list[str]:
    """Return the fields, as `Model.field`, that can hold text and are marked neither as personal nor as impersonal."""
    return sorted(
        f"{part.__name__}.{one.name}" for part in _with_parts(models) for one in _fields(part) if not one.is_marked
    )


def hold_personal_data(models: Iterable[type[Part]]) -> bool:
    """Whether a field of one of the models, or of a part of it, is marked as personal."""
    return any(one.personal for part in _with_parts(models) for one in _fields(part))


def names_person(registry: Registry, type_: str, data: Any, person: Person) -> bool:  # noqa: ANN401 - JSON
    """Whether a field that identifies somebody names the person in the data of an event, as read from JSON."""
    return _Reader(registry, person, kept=True).event(type_, data) is not data


def identifying_texts(registry: Registry, type_: str, data: Any) -> list[str]:  # noqa: ANN401 - JSON
    """Return the texts that name people in the data of an event, as read from JSON, without those that erasing leaves."""
    found: list[str] = []

    def is_nobody(text: str) -> bool:
        found.append(text)
        return False

    _Reader(registry, Person((), (), (), is_nobody), kept=False).event(type_, data)
    return found


def without_person(registry: Registry, type_: str, data: Any, person: Person) -> Any:  # noqa: ANN401 - JSON
    """Return the data of an event, as read from JSON, without what it says about a person; None if nothing is erased.

    In each part that names them, a personal text becomes its default if that is a text, and `erased` otherwise; a number
    becomes 0. The data of an unknown type names nobody, and what a person has requested stays.
    """
    left = _Reader(registry, person, kept=False).event(type_, data)
    return None if left == data else left


@dataclass(frozen=True)
class _Field:
    """What a field of a part says about people, read from its annotation once."""

    name: str
    is_marked: bool
    personal: bool
    identifies: bool
    kept: bool
    event: bool
    parts: tuple[type[Part], ...]
    tags: tuple[object, ...]
    default: object


@cache
def _fields(part: type[Part]) -> tuple[_Field, ...]:
    hints = get_type_hints(part, include_extras=True)
    return tuple(_field(name, hints[name], info.default) for name, info in part.model_fields.items())


def _field(name: str, type_: Any, default: object) -> _Field:  # noqa: ANN401 - an annotation
    alternatives = list(_alternatives(type_))
    marks = [mark for one in alternatives if (mark := _mark(one)) is not None]
    return _Field(
        name,
        is_marked=all(map(_is_marked, alternatives)),
        personal=any(mark.personal for mark in marks),
        identifies=any(mark.identifies for mark in marks),
        kept=any(mark.kept for mark in marks),
        event=any(mark.event for mark in marks),
        parts=tuple(one for one in alternatives if _is_part(one)),
        tags=get_args(type_) if get_origin(type_) is Literal else (),
        default=default,
    )


def _mark(type_: Any) -> Mark | None:  # noqa: ANN401 - an annotation
    """Return the outermost mark of an annotation."""
    if get_origin(type_) is not Annotated:
        return None
    inner, *rest = get_args(type_)
    return next((one for one in reversed(rest) if isinstance(one, Mark)), None) or _mark(inner)


def _alternatives(type_: Any) -> Iterator[Any]:  # noqa: ANN401 - an annotation
    """Yield what a value, or the items of a value, may be."""
    origin = get_origin(type_)
    if origin is Annotated and _mark(type_) is None:
        yield from _alternatives(get_args(type_)[0])
    elif origin in (Union, UnionType, tuple, list):
        for one in get_args(type_):
            if one is not Ellipsis:
                yield from _alternatives(one)
    else:
        yield type_


def _is_part(type_: Any) -> bool:  # noqa: ANN401 - an annotation
    return isinstance(type_, type) and issubclass(type_, Part)


def _is_marked(type_: Any) -> bool:  # noqa: ANN401 - an annotation
    if _mark(type_) is not None or get_origin(type_) is Literal:
        return True
    return isinstance(type_, type) and issubclass(type_, (Part, *_TEXTLESS))


def _with_parts(models: Iterable[type[Part]]) -> set[type[Part]]:
    """Return the models and all parts of them."""
    found: set[type[Part]] = set()
    waiting = list(models)
    while waiting:
        part = waiting.pop()
        if part not in found:
            found.add(part)
            waiting += [inner for one in _fields(part) for inner in one.parts]
    return found


@dataclass(frozen=True)
class _Reader:
    """Finds a person in the data of events and returns it erased; values that name nobody are returned as they are."""

    registry: Registry
    person: Person
    kept: bool
    """Whether fields that stay count as well."""

    def event(self, type_: object, data: Any) -> Any:  # noqa: ANN401 - JSON
        """Return the data of an event without the person."""
        if not isinstance(type_, str) or type_ not in self.registry:
            return data
        return self._value((self.registry.model(type_),), data, named=False)

    def _value(self, parts: tuple[type[Part], ...], data: Any, *, named: bool) -> Any:  # noqa: ANN401 - JSON
        """Return a value without the person; `named` if a part around it names them."""
        if isinstance(data, list):
            changed = [self._value(parts, one, named=named) for one in data]
            return data if all(new is old for new, old in zip(changed, data, strict=True)) else changed
        if not isinstance(data, dict):
            return data
        part = _part_of(parts, data)
        fields = [one for one in _fields(part) if one.name in data]
        named = named or any(self._names(one, data[one.name]) for one in fields)
        values = {one.name: self._field(one, data, named=named) for one in fields}
        same = all(value is data[name] for name, value in values.items())
        return data if same else {**data, **values}

    def _field(self, field: _Field, data: dict[str, Any], *, named: bool) -> Any:  # noqa: ANN401 - JSON
        value = data[field.name]
        if field.event:
            return self.event(data.get("type"), value)
        if named and field.personal:
            return _erased(value, field)
        return self._value(field.parts, value, named=named) if field.parts else value

    def _names(self, field: _Field, value: object) -> bool:
        if not field.identifies or (field.kept and not self.kept):
            return False
        # A recipient is a text, or an object of texts each of which identifies them.
        texts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else (value,)
        return any(isinstance(one, str) and self.person.is_same(one) for one in texts)


def _part_of(parts: tuple[type[Part], ...], data: dict[str, Any]) -> type[Part]:
    """Return the part that a value is of, by the tags that distinguish the members of a union; one may have none."""
    tags = [{one.name: one for one in _fields(part) if one.tags} for part in parts]
    fitting = [
        (len(own), part)
        for part, own in zip(parts, tags, strict=True)
        if all(data.get(name, one.default) in one.tags for name, one in own.items())
    ]
    return max(fitting, key=lambda one: one[0], default=(0, parts[0]))[1]


def _erased(value: Any, field: _Field) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, list):
        return [ERASED for _ in value]
    if isinstance(value, dict) and not field.identifies:  # a recipient may be a text as well
        return {ERASED: ERASED}
    if isinstance(value, int | float):
        return type(value)(0)
    if value is None:
        return None
    return field.default if isinstance(field.default, str) else ERASED
