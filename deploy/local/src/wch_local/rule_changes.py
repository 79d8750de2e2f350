"""Bounds, patterns and formats of a value: which changes of them break programs."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from wch_local.schema_shape import Shape, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    # The problem and what to do instead.
    Change = tuple[str, str]

_LOWER = (("minLength", ""), ("minItems", ""), ("minProperties", ""), ("minimum", "exclusiveMinimum"))
_UPPER = (("maxLength", ""), ("maxItems", ""), ("maxProperties", ""), ("maximum", "exclusiveMaximum"))
_BOUNDS = {name for pair in (*_LOWER, *_UPPER) for name in pair}
_REMOVABLE = {"pattern", "uniqueItems", "multipleOf"}
# Those of objects and arrays that contain schemas are compared field by field.
_STRUCTURE = {"properties", "required", "additionalProperties", "items", "prefixItems"}
_KEEP = "keep the rule as it was"


def rule_changes(old: Shape, new: Shape, *, readers: bool) -> Iterator[Change]:
    """Return the changes of rules that break programs; readers of facts bear looser bounds and patterns."""
    for pairs, sign in ((_LOWER, 1), (_UPPER, -1)):
        for names in pairs:
            before, after = (_bound(shape, names, sign) for shape in (old, new))
            if after is not None and (before is None or after > before):
                was = f", was {_written(old, names)}" if before is not None else ""
                yield f"its bound was tightened: {_written(new, names)}{was}", "keep the bound, or loosen it"
    for rule in sorted({*old.rules, *new.rules} - _BOUNDS - _STRUCTURE):
        before, after = old.rules.get(rule), new.rules.get(rule)
        removed = after in (None, False) and (rule in _REMOVABLE or (rule == "format" and not readers))
        if text_of(before) != text_of(after) and not removed:
            yield f"its rule {rule} changed from {_text(before)} to {_text(after)}", _KEEP


def keeps_rules(text: str, shape: Shape) -> bool:
    """Return whether a value, given as JSON, keeps the bounds and the pattern of a shape; False if that is not clear."""
    value = json.loads(text)
    if isinstance(value, str) and re.search(shape.rules.get("pattern", ""), value) is None:
        return False
    if set(shape.rules) - _BOUNDS - _STRUCTURE - {"pattern"}:
        return False
    for pairs, sign in ((_LOWER, 1), (_UPPER, -1)):
        for names in pairs:
            size, bound = _size(value, names[0]), _bound(shape, names, sign)
            if size is not None and bound is not None and (sign * size, 0) < bound:
                return False
    return True


def _size(value: Any, bound: str) -> float | None:  # noqa: ANN401 - JSON
    """Return the number that a bound limits, or None if it does not concern the value."""
    if bound.endswith("Length"):
        return len(value) if isinstance(value, str) else None
    return value if bound in {"minimum", "maximum"} and isinstance(value, int | float) else None


def _bound(shape: Shape, names: tuple[str, str], sign: int) -> tuple[float, int] | None:
    """Return the tightest bound so that a larger one is tighter, with 1 beside an exclusive one; None without a bound."""
    inclusive, exclusive = (shape.rules.get(name) for name in names)
    bounds = [(sign * inclusive, 0)] if inclusive is not None else []
    if exclusive is not None:
        whole = shape.type == "integer" and exclusive == int(exclusive)
        bounds.append((sign * exclusive + 1, 0) if whole else (sign * exclusive, 1))
    bounds = [one for one in bounds if not (names[0].startswith("min") and names[1] == "" and one == (0, 0))]
    return max(bounds, default=None)


def _written(shape: Shape, names: tuple[str, str]) -> str:
    return ", ".join(f"{name} {shape.rules[name]}" for name in names if name in shape.rules)


def _text(value: Any) -> str:  # noqa: ANN401 - JSON
    return "nothing" if value is None else text_of(value)
