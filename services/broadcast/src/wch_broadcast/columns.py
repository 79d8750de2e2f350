"""The columns of a file of recipients: which there are, and which a template can take together."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from wch_broadcast.csv_rows import WrongHeadings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

COLUMNS: Final = (
    "to, and any of body1, body2 …, or body:<name>, header, header:image|video|document, "
    "button0:url|quick_reply|catalog|copy_code|flow"
)
_NUMBERED: Final = re.compile("body([1-9][0-9]{0,3})")
_KNOWN: Final = re.compile(
    f"to|{_NUMBERED.pattern}|body:.+|header(:(image|video|document))?|button[0-9]:(url|quick_reply|catalog|copy_code|flow)"
)
_ONCE: Final = ("copy_code", "catalog")


def check_columns(headings: Sequence[str]) -> None:
    """Raise WrongHeadings if a column is unknown, missing or double, or if no template takes two of them together."""
    unknown = [one for one in headings if not _KNOWN.fullmatch(one)]
    if unknown:
        problem = f"has unknown columns: {', '.join(map(repr, unknown))}"
    elif "to" not in headings:
        problem = "has no column 'to'"
    elif len(set(headings)) < len(headings):
        problem = "names a column twice"
    else:
        problem = next(_misfits(headings), "")
    if problem:
        raise WrongHeadings(f"the first line {problem}. Columns are {COLUMNS}")


def _misfits(headings: Sequence[str]) -> Iterator[str]:
    numbers = [int(found[1]) for one in headings if (found := _NUMBERED.fullmatch(one))]
    most = max(numbers, default=0)
    if len(numbers) < most:
        missing = min(set(range(1, len(numbers) + 2)) - set(numbers))
        yield f"has body{most} but not body{missing}, so that the values would shift"
    named = [one for one in headings if one.startswith("body:")]
    if numbers and named:
        yield f"has body1 and {named[0]}, but the placeholders of a template have either numbers or names"
    taken: dict[str, str] = {}
    for heading in headings:
        for place in _places(heading):
            if (other := taken.setdefault(place, heading)) != heading:
                yield f"has {other} and {heading}, of which a template takes only one"


def _places(heading: str) -> Iterator[str]:
    """Yield what only one column can fill: the header, a button, or the one button of its kind."""
    part, _, kind = heading.partition(":")
    if part == "header" or part.startswith("button"):
        yield part
    if kind in _ONCE and part.startswith("button"):
        yield kind
