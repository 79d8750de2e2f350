"""The entries of contracts/breaking.toml: the breaking changes that a release before 1.0 may make."""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from wch_local.compatibility import WHOLE_EVENT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wch_local.compatibility import Break

BREAKING = "breaking.toml"
_PLACE = f"contracts/{BREAKING}"
_MEANING = {
    "event": "give the type of the event, like sync.product.requested.v1, or CloudEvent for the envelope",
    "field": f'give the field as the gate names it, or "{WHOLE_EVENT}" for a whole event',
    "change": "give the change in the words of the gate, which prints the entry",
    "reason": "say why the change is necessary",
    "what_to_do": "say what publishers and readers of the event must do",
}


@dataclass(frozen=True)
class Entry:
    """One breaking change that contracts/breaking.toml allows; `change` is the problem that the gate finds."""

    event: str
    field: str
    change: str
    reason: str
    what_to_do: str

    @property
    def allows(self) -> tuple[str, str, str]:
        """What the entry allows: one change of one field of an event."""
        return self.event, self.field, self.change

    @property
    def place(self) -> str:
        """Where the entry is, for messages."""
        return f"{_PLACE}, {self.event} {self.field} ({self.change})"


def entry_for(event: str, one: Break) -> str:
    """Return the entry that allows a change, in which the reason and what to do are left to write."""
    given = {"event": event, "field": one.field, "change": one.problem, "reason": "", "what_to_do": ""}
    # TOML reads JSON's texts, except that DEL must be escaped.
    texts = {key: json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f") for key, text in given.items()}
    return "\n".join(["[[breaking]]", *(f"{key} = {text}" for key, text in texts.items())])


def read_entries(text: str) -> tuple[list[Entry], list[str]]:
    """Return the entries of contracts/breaking.toml, and a problem for each that cannot be used."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return [], [f"{_PLACE} is not valid TOML: {error}"]
    problems = [
        f"{_PLACE}: {key!r} is unknown; write [[breaking]] above each entry" for key in document if key != "breaking"
    ]
    written = document.get("breaking", [])
    if not isinstance(written, list) or not all(isinstance(one, dict) for one in written):
        return [], [f"{_PLACE}: write [[breaking]] with two brackets above each entry"]
    entries = []
    for number, one in enumerate(written, 1):
        if found := list(_problems(one)):
            problems += [f"{_PLACE}, entry {number}{_named(one)}: {problem}" for problem in found]
        else:
            entries.append(Entry(**one))
    counts = Counter(one.allows for one in entries)
    twice = dict.fromkeys(one.place for one in entries if counts[one.allows] > 1)
    return entries, [*problems, *(f"{place}: this change has several entries; keep one" for place in twice)]


def _problems(entry: dict[str, Any]) -> Iterator[str]:
    names = [one.name for one in fields(Entry)]
    for name in names:
        value = entry.get(name)
        if not isinstance(value, str) or not value.strip():
            yield f"{name} is {'missing' if name not in entry else 'empty or not a text'}; {_MEANING[name]}"
    for name in sorted(set(entry) - set(names)):
        yield f"{name} is unknown; the keys are {', '.join(names)}"


def _named(entry: dict[str, Any]) -> str:
    names = [str(entry[name]) for name in ("event", "field") if entry.get(name)]
    return f" ({' '.join(names)})" if names else ""
