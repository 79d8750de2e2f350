"""Which fields of events hold personal data: each field that can hold text is marked as personal or impersonal."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import AwareDatetime

from wch_common.contract.event import Part

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pydantic.fields import FieldInfo

    from wch_common.contract.registry import Registry


@dataclass(frozen=True)
class Mark:
    """What a field says about a person; part of its annotation."""

    personal: bool
    identifies: bool = False
    """Whether the field alone says who the person is."""
    event: bool = False
    """Whether the field holds the data of an event whose type is in the field `type` beside it."""


PERSONAL: Final = Mark(personal=True)
IDENTIFIES: Final = Mark(personal=True, identifies=True)
EVENT_DATA: Final = Mark(personal=True, event=True)
IMPERSONAL: Final = Mark(personal=False)
ERASED: Final = "erased"
"""What replaces a personal text that an event must have."""
_LAST_DIGITS: Final = 7
_TEXTLESS = (int, float, bool, NoneType, datetime, date, AwareDatetime)


@dataclass(frozen=True)
class Person:
    """A person: their phone number in E.164, what tables call them, and whether a text is their number in another form."""

    phone: str
    key: object
    is_same: Callable[[str], bool]

    @property
    def pattern(self) -> str:
        """A regular expression that finds the number in the text of an event; it may find other texts, too."""
        return "[^0-9]{0,3}".join(self.phone[-_LAST_DIGITS:])


def unmarked_fields(models: Iterable[type[Part]]) -> list[str]:
    """Return the fields, as `Model.field`, that can hold text and are marked neither as personal nor as impersonal."""
    return sorted(
        f"{part.__name__}.{name}"
        for part in _with_parts(models)
        for name, type_ in _annotations(part).items()
        if not all(_is_marked(one) for one in _alternatives(type_))
    )


def without_person(registry: Registry, type_: str, data: Any, is_person: Callable[[str], bool]) -> Any:  # noqa: ANN401 - JSON
    """Return the data of an event, as read from JSON, without what it says about a person; None if it does not name them.

    In each part that names them, personal fields get their default, or the text `erased` where a text is needed. The data of
    an unknown type names nobody.
    """
    kept = _Eraser(registry, is_person).event(type_, data)
    return None if kept == data else kept


def _annotations(part: type[Part]) -> dict[str, Any]:
    hints = get_type_hints(part, include_extras=True)
    return {name: hints[name] for name in part.model_fields}


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
            waiting += [one for type_ in _annotations(part).values() for one in _alternatives(type_) if _is_part(one)]
    return found


@dataclass(frozen=True)
class _Eraser:
    registry: Registry
    is_person: Callable[[str], bool]

    def event(self, type_: object, data: Any) -> Any:  # noqa: ANN401 - JSON
        """Return the data of an event without the person."""
        if not isinstance(type_, str) or type_ not in self.registry:
            return data
        return self._value([self.registry.model(type_)], data, named=False)

    def _value(self, parts: list[type[Part]], data: Any, *, named: bool) -> Any:  # noqa: ANN401 - JSON
        """Return a value without the person; `named` if a part around it names them."""
        if isinstance(data, list):
            return [self._value(parts, one, named=named) for one in data]
        if not isinstance(data, dict):
            return data
        part = next((one for one in parts if _has_tag(one, data)), parts[0])
        fields = {name: list(_alternatives(type_)) for name, type_ in _annotations(part).items() if name in data}
        named = named or any(self._names(data[name], types) for name, types in fields.items())
        changed = dict(data)
        for name, types in fields.items():
            marks = [mark for one in types if (mark := _mark(one)) is not None]
            if any(mark.event for mark in marks):
                changed[name] = self.event(data.get("type"), data[name])
            elif named and any(mark.personal for mark in marks):
                changed[name] = _erased(data[name], part.model_fields[name])
            elif inner := [one for one in types if _is_part(one)]:
                changed[name] = self._value(inner, data[name], named=named)
        return changed

    def _names(self, value: object, types: list[Any]) -> bool:
        identifies = any((mark := _mark(one)) is not None and mark.identifies for one in types)
        return identifies and isinstance(value, str) and self.is_person(value)


def _has_tag(part: type[Part], data: dict[str, Any]) -> bool:
    """Whether a value is of this part, by the tags that distinguish the members of a union."""
    return all(
        data.get(name, part.model_fields[name].default) in get_args(type_)
        for name, type_ in _annotations(part).items()
        if get_origin(type_) is Literal
    )


def _erased(value: Any, field: FieldInfo) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, list):
        return [ERASED for _ in value]
    if value is None:
        return None
    return field.default if isinstance(field.default, str) else ERASED
