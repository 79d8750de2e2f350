"""Bounds, patterns and formats of a value: which changes of them break programs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from wch_local.schema_shape import Shape, text_of
from wch_local.value_rules import BOUND_PAIRS, BOUNDS, INTERPRETED, STRUCTURE, bound, keeps, parts

if TYPE_CHECKING:
    from collections.abc import Iterator

    # The problem and what to do instead.
    Change = tuple[str, str]

_REMOVABLE = {"pattern", "uniqueItems", "multipleOf"}


def rule_changes(old: Shape, new: Shape, *, readers: bool) -> Iterator[Change]:
    """Return the changes of rules that break programs; readers of facts tolerate looser bounds and patterns."""
    for pair in BOUND_PAIRS:
        before, after = (bound(shape.type, shape.rules, pair) for shape in (old, new))
        if after is not None and (before is None or after > before):
            was = f", was {_written(old, pair)}" if before is not None else ""
            yield f"its bound was tightened: {_written(new, pair)}{was}", "keep the bound, or loosen it"
    for rule in sorted({*old.rules, *new.rules} - BOUNDS - STRUCTURE):
        before_texts, after_texts = (_texts(rule, shape) for shape in (old, new))
        removable = rule in _REMOVABLE or (rule == "format" and not readers)
        if before_texts != after_texts and not (removable and after_texts < before_texts):
            change = f"from {_text(old.rules.get(rule))} to {_text(new.rules.get(rule))}"
            yield f"its rule {rule} changed {change}", "keep the rule as it was"


def keeps_rules(text: str, shape: Shape) -> bool:
    """Return whether a value, given as JSON, keeps the rules of a shape; False if that is not clear."""
    value = json.loads(text)
    not_interpreted = set(shape.rules) - INTERPRETED
    if not isinstance(value, list | dict):
        not_interpreted -= STRUCTURE
    return not not_interpreted and keeps(value, shape.type, shape.rules)


def _texts(rule: str, shape: Shape) -> set[str]:
    """Return the values of a rule that all hold, as JSON."""
    values = {text_of(one) for one in parts(shape.rules.get(rule))}
    return values - {"false"} if rule == "uniqueItems" else values


def _written(shape: Shape, pair: tuple[str, str, int]) -> str:
    return ", ".join(f"{name} {shape.rules[name]}" for name in pair[:2] if name in shape.rules)


def _text(value: Any) -> str:  # noqa: ANN401 - JSON
    return "nothing" if value is None else text_of(value)
