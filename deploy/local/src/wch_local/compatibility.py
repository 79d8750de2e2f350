"""The changes of a schema that break programs written for the schema before; CONTRIBUTING.md has them in a table.

Publishers write requests, and some publish facts too, so that every value that was valid must remain valid. Readers of
facts know only the values of the schema before, so that new values break them as well.

Bounds and patterns may be loosened in facts too. Rules that are not interpreted (like `not`) break if they change at all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal

from wch_local.rule_changes import keeps_rules, rule_changes
from wch_local.schema_shape import Document, Shape, text_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Kind = Literal["request", "fact"]
WHOLE_EVENT = "*"
_KEEP = "keep the field as it is, and add a new optional field beside it"


@dataclass(frozen=True)
class Break:
    """One change that breaks programs: the path of the field (`recipients[].to`), the problem and what to do instead."""

    field: str
    problem: str
    remedy: str
    hint: str = ""
    """What the change may be instead, like a new name; it is a guess, and no part of the problem."""


def changes(old: dict[str, Any], new: dict[str, Any], kind: Kind) -> list[Break]:
    """Return the changes between two schemas of one event that break its publishers or, for a fact, its readers."""
    found = _Comparison(Document(old), Document(new), readers=kind == "fact").schemas(old, new)
    return [replace(one, field=one.field.lstrip(".") or WHOLE_EVENT) for one in dict.fromkeys(found)]


class _Comparison:
    """Compares two documents; `readers` says whether values that readers do not know break them."""

    def __init__(self, old: Document, new: Document, *, readers: bool) -> None:
        self._old, self._new, self._readers = old, new, readers
        self._found: dict[tuple[str, str], list[Break]] = {}

    def schemas(self, old: Any, new: Any) -> list[Break]:  # noqa: ANN401 - JSON
        """Return what breaks between two parts, with paths that begin at them."""
        key = (text_of(old), text_of(new))
        if key[0] == key[1] and '"$ref"' not in key[0]:
            return []
        if key not in self._found:
            self._found[key] = []  # what a circle of references leads back to is compared already
            self._found[key] = list(self._alternatives(self._old.alternatives(old), self._new.alternatives(new)))
        return self._found[key]

    def _alternatives(self, old: list[Shape], new: list[Shape]) -> Iterator[Break]:
        had_null, has_null = (any(one.type == "null" for one in shapes) for shapes in (old, new))
        old, new = ([one for one in shapes if one.type != "null"] for shapes in (old, new))
        if had_null and not has_null and not any(one.type == "any" for one in new):
            yield Break("", "null is no longer allowed", "keep allowing null")
        if self._readers and has_null and not had_null and not any(one.type == "any" for one in old):
            yield Break("", "it can be null, which readers do not expect", _KEEP)
        if len(old) == len(new) == 1:
            yield from self._shapes(old[0], new[0])
        else:
            yield from self._unions(old, new)

    def _unions(self, old: list[Shape], new: list[Shape]) -> Iterator[Break]:
        matched: list[Shape] = []
        became = [(one, self._candidates(one, new)) for one in old]
        if old and not any(candidates for _, candidates in became):
            yield Break("", f"its type changed from {_types(old)} to {_types(new)}", _KEEP)
            return
        for one, candidates in became:
            label = self._label(one, old)
            if not candidates:
                yield Break(label, f"{_described(one)} is no longer allowed", "keep this alternative")
                continue
            found = {id(shape): list(self._shapes(one, shape)) for shape in candidates}
            best = min(candidates, key=lambda shape: len(found[id(shape)]))
            matched.append(best)
            yield from _below(label, found[id(best)])
        for shape in new:
            if self._readers and not any(shape is one for one in matched):
                yield Break("", f"it can be {_described(shape)}, which readers do not know", _KEEP)

    def _candidates(self, old: Shape, new: list[Shape]) -> list[Shape]:
        """Return the alternatives that an alternative may have become: same type, tag, and at least one field."""
        same = [one for one in new if _may_be(old, one)]
        if old.type != "object":
            return same
        tags = self._old.tags(old)
        rated = []
        for one in [one for one in same if one.type == "object"]:
            its = self._new.tags(one)
            shared = [not tags[name].isdisjoint(its[name]) for name in tags if name in its]
            if all(shared) and (shared or not old.properties or set(old.properties) & set(one.properties)):
                rated.append((len(shared), one))
        most = max((count for count, _ in rated), default=0)
        return [one for count, one in rated if count == most] + [one for one in same if one.type == "any"]

    def _label(self, shape: Shape, union: list[Shape]) -> str:
        """Return the name of an alternative in a path, if a union has several that differ in name."""
        names = [self._name(one) for one in union]
        name = self._name(shape)
        return f"<{name}>" if len(union) > 1 and names.count(name) == 1 else ""

    def _name(self, shape: Shape) -> str:
        tags = [next(iter(values)) for values in self._old.tags(shape).values() if len(values) == 1]
        return tags[0].strip('"') if tags else shape.name or shape.type

    def _shapes(self, old: Shape, new: Shape) -> Iterator[Break]:
        """Compare an alternative with the one that it became; neither is null."""
        if old.type != new.type:
            if not _may_be(old, new):
                yield Break("", f"its type changed from {old.type} to {new.type}", _KEEP)
                return
            if self._readers:
                yield Break("", f"its type was widened from {old.type} to {new.type}", _KEEP)
        yield from self._values(old, new)
        if old.values is None or new.values is not None:
            yield from (Break("", *one) for one in rule_changes(old, new, readers=self._readers))
            yield from self._fields(old, new)
            yield from self._maps(old, new)
            yield from self._items(old, new)

    def _values(self, old: Shape, new: Shape) -> Iterator[Break]:
        if new.values is not None:
            gone = None if old.values is None else sorted(old.values - new.values)
            if gone is None:
                yield Break("", f"only {', '.join(sorted(new.values))} are still allowed", "keep allowing every value")
            elif gone:
                yield Break("", f"{_counted(gone)} no longer allowed", "keep the values that were allowed before")
        if old.values is None:
            return
        if new.values is None and (refused := sorted(one for one in old.values if not keeps_rules(one, new))):
            yield Break("", f"{_counted(refused)} no longer allowed", "keep the values that were allowed before")
        if self._readers:
            more = None if new.values is None else sorted(new.values - old.values)
            if more is None:
                yield Break("", "it can have values that readers do not know, because its list was removed", _KEEP)
            elif more:
                yield Break("", f"it can be {', '.join(more)}, which readers do not know", _KEEP)

    def _fields(self, old: Shape, new: Shape) -> Iterator[Break]:
        added = {name: schema for name, schema in new.properties.items() if name not in old.properties}
        # A field of a named list may become a key of an object that allows every key.
        anything = new.rules.get("additionalProperties", new.type == "any") if not new.properties else False
        for name, schema in old.properties.items():
            if name not in new.properties and anything is False:
                yield Break(f".{name}", "it was removed", _KEEP, self._renamed(name, schema, added))
                continue
            yield from _below(f".{name}", self.schemas(schema, new.properties.get(name, anything)))
            if self._readers and name in old.required - new.required:
                yield Break(f".{name}", "it is no longer required, but readers rely on it", "keep it required")
        for name in sorted(new.required - old.required):
            if name in new.properties or name not in old.properties:
                what = "it is new and required" if name in added else "it was made required"
                yield Break(f".{name}", what, "make it optional, with a default")

    def _renamed(self, name: str, schema: Any, added: dict[str, Any]) -> str:  # noqa: ANN401 - JSON
        same = [other for other, its in added.items() if not self.schemas(schema, its)]
        likely = get_close_matches(name, same, n=1, cutoff=0)
        return f", or renamed to {likely[0]}" if likely else ""

    def _maps(self, old: Shape, new: Shape) -> Iterator[Break]:
        """Compare what objects allow beside their named fields; without a rule, other fields are ignored."""
        before, after = (one.rules.get("additionalProperties") for one in (old, new))
        if after is False and before is not False:
            yield Break("", "fields that it does not name are refused now", "keep allowing further fields")
        elif before not in (None, False):
            if after is None and new.type != "any":
                yield Break("", "fields that it does not name are no longer read", "keep reading them")
            elif after not in (None, False):
                yield from _below(".*", self.schemas(before, after))
            for name in sorted(set(new.properties) - set(old.properties)):
                yield from _below(f".{name}", self.schemas(before, new.properties[name]))

    def _items(self, old: Shape, new: Shape) -> Iterator[Break]:
        before, after = (one.rules.get("prefixItems", []) for one in (old, new))
        length = max(len(before), len(after))
        # Beyond its greatest length, the old schema allowed nothing that could break.
        most = old.rules.get("maxItems", length + 1)
        rest_before, rest_after = (one.rules.get("items", True) for one in (old, new))
        for index in range(min(length, most)):
            pair = [
                positions[index] if index < len(positions) else rest
                for positions, rest in ((before, rest_before), (after, rest_after))
            ]
            yield from _below(f"[{index}]", self.schemas(*pair))
        if most > length:
            yield from _below("[]", self.schemas(rest_before, rest_after))


def _may_be(old: Shape, new: Shape) -> bool:
    return new.type in {old.type, "any"} or (old.type, new.type) == ("integer", "number")


def _below(path: str, found: Iterable[Break]) -> Iterator[Break]:
    return (replace(one, field=f"{path}{one.field}") for one in found)


def _types(shapes: list[Shape]) -> str:
    return " or ".join(sorted({one.name or one.type for one in shapes})) or "null"


def _counted(values: list[str]) -> str:
    return f"{', '.join(values)} {'is' if len(values) == 1 else 'are'}"


def _described(shape: Shape) -> str:
    if shape.values is not None:
        return ", ".join(sorted(shape.values))
    return shape.name or f"a value of type {shape.type}"
