"""Bounds and patterns of JSON values: which values keep them. Rules of other kinds are not interpreted."""

from __future__ import annotations

import re
from typing import Any

# The name of a bound, that of its exclusive form, and the sign with which a larger bound is a tighter one.
BOUND_PAIRS = (
    *((name, "", 1) for name in ("minLength", "minItems", "minProperties")),
    ("minimum", "exclusiveMinimum", 1),
    *((name, "", -1) for name in ("maxLength", "maxItems", "maxProperties")),
    ("maximum", "exclusiveMaximum", -1),
)
BOUNDS = frozenset(name for inclusive, exclusive, _ in BOUND_PAIRS for name in (inclusive, exclusive) if name)
INTERPRETED = BOUNDS | {"pattern"}
# These contain schemas, which are compared field by field.
STRUCTURE = frozenset({"properties", "required", "additionalProperties", "items", "prefixItems"})


def parts(value: Any) -> tuple[Any, ...]:  # noqa: ANN401 - JSON
    """Return the values of a rule that all hold: a tuple if `allOf` gave it several, which JSON itself cannot contain."""
    return value if isinstance(value, tuple) else () if value is None else (value,)


def keeps(value: Any, type_: str, rules: dict[str, Any]) -> bool:  # noqa: ANN401 - JSON
    """Return whether a value keeps the bounds and the patterns among the rules."""
    if isinstance(value, str) and any(re.search(pattern, value) is None for pattern in parts(rules.get("pattern"))):
        return False
    for inclusive, exclusive, sign in BOUND_PAIRS:
        size, limit = _size(value, inclusive), bound(type_, rules, (inclusive, exclusive, sign))
        if size is not None and limit is not None and (sign * size, 0) < limit:
            return False
    return True


def bound(type_: str, rules: dict[str, Any], pair: tuple[str, str, int]) -> tuple[float, int] | None:
    """Return the tightest bound so that a larger one is tighter, with 1 beside an exclusive one; None without a bound."""
    *names, sign = pair
    inclusive, exclusive = (rules.get(name) for name in names)
    bounds = [(sign * inclusive, 0)] if inclusive is not None else []
    if exclusive is not None:
        whole = type_ == "integer" and exclusive == int(exclusive)
        bounds.append((sign * exclusive + 1, 0) if whole else (sign * exclusive, 1))
    bounds = [one for one in bounds if not (names[0].startswith("min") and names[1] == "" and one == (0, 0))]
    return max(bounds, default=None)


def _size(value: Any, name: str) -> float | None:  # noqa: ANN401 - JSON
    """Return the number that a bound limits, or None if it does not concern the value."""
    sized = {"Length": str, "Items": list, "Properties": dict}.get(name[3:])
    if sized is not None:
        return len(value) if isinstance(value, sized) else None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
