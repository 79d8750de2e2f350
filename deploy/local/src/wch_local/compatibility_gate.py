"""The gate between releases: refuses changes of events that break programs, unless contracts/breaking.toml allows them.

contracts/released/ has a folder for each release, with the schema of each of its events.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections import Counter
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from wch_common.contract.schemas import data_schema
from wch_common.events import published_contract
from wch_local.compatibility import WHOLE_EVENT, Break, Kind, changes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    Schemas = Mapping[str, dict[str, Any]]

BREAKING = "breaking.toml"
_VERSION = re.compile(r"(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)")
_STABLE = (1, 0, 0)


class InvalidVersion(ValueError):
    """A version is not three numbers."""


@dataclass(frozen=True)
class Entry:
    """One breaking change that contracts/breaking.toml allows."""

    event: str
    field: str
    reason: str
    what_to_do: str


@dataclass(frozen=True)
class Release:
    """The schemas of one release, by the type of the event."""

    version: str
    schemas: Schemas


def version_order(version: str) -> tuple[int, ...]:
    """Return a key that sorts versions; raises InvalidVersion if it is not of the form 1.2.3."""
    if not (match := _VERSION.fullmatch(version)):
        raise InvalidVersion(f"{version!r} is not a version: write three numbers, like 0.2.0")
    return tuple(int(number) for number in match.groups())


def newest_release(contracts: Path) -> Release | None:
    """Return the release with the highest version, or None before the first; raises InvalidVersion for other folders."""
    folders = {version_order(path.name): path for path in (contracts / "released").glob("*") if path.is_dir()}
    if not folders:
        return None
    newest = folders[max(folders)]
    schemas = {path.stem: json.loads(path.read_bytes()) for path in sorted(newest.glob("*.json"))}
    return Release(newest.name, schemas)


def kind_of(type_: str) -> Kind:
    """Return the kind of an event; by the naming rule for types its name decides, also after its model is gone."""
    return "request" if re.search(r"[._]requested\.v[0-9]+$", type_) else "fact"


def read_entries(text: str) -> tuple[list[Entry], list[str]]:
    """Return the entries of contracts/breaking.toml, and a problem for each that cannot be used."""
    place = f"contracts/{BREAKING}"
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return [], [f"{place} is not valid TOML: {error}"]
    problems = [
        f"{place}: {key!r} is unknown; write [[breaking]] above each entry" for key in document if key != "breaking"
    ]
    written = document.get("breaking", [])
    if not isinstance(written, list) or not all(isinstance(one, dict) for one in written):
        return [], [f"{place}: write [[breaking]] with two brackets above each entry"]
    entries = []
    for number, one in enumerate(written, 1):
        if found := list(_problems(one)):
            problems += [f"{place}, entry {number}{_named(one)}: {problem}" for problem in found]
        else:
            entries.append(Entry(**one))
    twice = [key for key, count in Counter((one.event, one.field) for one in entries).items() if count > 1]
    problems += [f"{place}: {event} `{field}` has several entries; keep one" for event, field in twice]
    return entries, problems


def _problems(entry: dict[str, Any]) -> Iterator[str]:
    names = [one.name for one in fields(Entry)]
    for name in names:
        value = entry.get(name)
        if not isinstance(value, str) or not value.strip():
            yield f"{name} is {'missing' if name not in entry else 'empty or not a text'}; {_MEANING[name]}"
    for name in sorted(set(entry) - set(names)):
        yield f"{name} is unknown; the keys are {', '.join(names)}"


_MEANING = {
    "event": "give the type of the event, like sync.product.requested.v1",
    "field": f'give the field as the gate names it, or "{WHOLE_EVENT}" for a whole event',
    "reason": "say why the change is necessary",
    "what_to_do": "say what publishers and readers of the event must do",
}


def _named(entry: dict[str, Any]) -> str:
    names = [str(entry[name]) for name in ("event", "field") if entry.get(name)]
    return f" ({' '.join(names)})" if names else ""


def present_schemas() -> dict[str, dict[str, Any]]:
    """Return the schemas of the events that the models define."""
    return {model.TYPE: data_schema(model) for model in published_contract()}


def gate(release: Release | None, present: Schemas, allowed: list[Entry]) -> list[str]:
    """Return what stands against the present schemas: changes that break and are not allowed, and entries without use."""
    if release is None:
        return [f"{_place(one)}: nothing has been released, so nothing can break; remove the entry" for one in allowed]
    stable = version_order(release.version) >= _STABLE
    permitted = set() if stable else {(one.event, one.field) for one in allowed}
    added = {type_: schema for type_, schema in present.items() if type_ not in release.schemas}
    found, broken = [], set()
    for type_, old in sorted(release.schemas.items()):
        new = present.get(type_)
        breaks = [_removed(type_, old, added)] if new is None else changes(old, new, kind_of(type_))
        broken |= {(type_, one.field) for one in breaks}
        next_type = _next_type(type_, {*release.schemas, *present})
        found += [
            _finding(type_, one, next_type, stable=stable) for one in breaks if (type_, one.field) not in permitted
        ]
    if stable:
        return found + [f"{_place(one)}: since 1.0 an entry allows nothing; remove it" for one in allowed]
    return found + [
        f"{_place(one)}: nothing was broken there since {release.version}; remove the entry, or correct its field"
        for one in allowed
        if (one.event, one.field) not in broken
    ]


def _place(entry: Entry) -> str:
    return f"contracts/{BREAKING}, {entry.event} {entry.field}"


def _removed(type_: str, old: dict[str, Any], added: Schemas) -> Break:
    """Return the break of an event that is gone, with the name that it may have now."""
    kind = kind_of(type_)
    others = [other for other in added if kind_of(other) == kind]
    alike = [other for other in others if not changes(old, added[other], kind)]
    likely = get_close_matches(type_, alike, n=1, cutoff=0.5) or get_close_matches(type_, others, n=1, cutoff=0.8)
    renamed = f", or renamed to {likely[0]}" if likely else ""
    return Break(WHOLE_EVENT, f"it was removed{renamed}", "keep the event")


def _finding(type_: str, one: Break, next_type: str, *, stable: bool) -> str:
    field = "the event" if one.field == WHOLE_EVENT else f"field {one.field}"
    entry = "" if stable else f"; or, until 1.0, add an entry with field {one.field!r} to contracts/{BREAKING}"
    return f"{type_}, {field}: {one.problem}. Instead, {one.remedy}; or add {next_type} beside it{entry}."


def _next_type(type_: str, known: set[str]) -> str:
    name, _, version = type_.rpartition(".v")
    taken = [int(other.rpartition(".v")[2]) for other in known if other.rpartition(".v")[0] == name]
    return f"{name}.v{max([int(version), *taken]) + 1}"


def findings(contracts: Path, present: Schemas) -> list[str]:
    """Return everything that stands against the present schemas; entries are checked before the first release, too."""
    path = contracts / BREAKING
    entries, problems = read_entries(path.read_text() if path.exists() else "")
    return problems + gate(newest_release(contracts), present, entries)
