"""The gate between releases: refuses changes that break programs, unless contracts/breaking.toml allows them.

contracts/released/ has a folder for each release, with its AsyncAPI document and the schema of each of its events.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from wch_common.contract.asyncapi import asyncapi
from wch_common.contract.schemas import data_schema
from wch_common.events import published_contract
from wch_local.breaking_entries import BREAKING, Entry, entry_for, read_entries
from wch_local.compatibility import WHOLE_EVENT, Break, Kind, changes
from wch_local.message_changes import ENVELOPE, envelope_changes, event_types, message_changes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    Schemas = Mapping[str, dict[str, Any]]

DOCUMENT = "asyncapi.json"
_VERSION = re.compile(r"(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)")
_STABLE = (1, 0, 0)


class InvalidVersion(ValueError):
    """A version is not three numbers."""


@dataclass(frozen=True)
class Contract:
    """What other teams write programs for: the schema of each event's data by type, and the AsyncAPI document."""

    schemas: Schemas
    document: dict[str, Any]


@dataclass(frozen=True)
class Release:
    """One release with its contract; the AsyncAPI document is empty if its file is missing."""

    version: str
    contract: Contract

    @property
    def stable(self) -> bool:
        """Whether it is 1.0 or later, so that no entry allows a breaking change."""
        return version_order(self.version) >= _STABLE


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
    files = {path.name: json.loads(path.read_bytes()) for path in sorted(newest.glob("*.json"))}
    document = files.pop(DOCUMENT, {})
    return Release(newest.name, Contract({name.removesuffix(".json"): its for name, its in files.items()}, document))


def present_contract() -> Contract:
    """Return the contract that the models define."""
    registry = published_contract()
    # Examples are no rules, so the document does not need them here.
    document = asyncapi(registry, lambda _model: [])
    return Contract({model.TYPE: data_schema(model) for model in registry}, document)


def kind_of(type_: str) -> Kind:
    """Return the kind of an event; by the naming rule for types its name decides, also after its model is gone."""
    return "request" if re.search(r"[._]requested\.v[0-9]+$", type_) else "fact"


def findings(contracts: Path, present: Contract) -> list[str]:
    """Return the findings of the gate, and the problems of entries, which are checked before the first release, too."""
    path = contracts / BREAKING
    entries, problems = read_entries(path.read_text() if path.exists() else "")
    return problems + gate(newest_release(contracts), present, entries)


def gate(release: Release | None, present: Contract, allowed: list[Entry]) -> list[str]:
    """Return the findings: missing files of the release, breaking changes without an entry, entries without a change."""
    if release is None:
        return [f"{one.place}: nothing has been released, so nothing can break; remove the entry" for one in allowed]
    permitted = set() if release.stable else {one.allows for one in allowed}
    broken = {(event, one.field, one.problem): one for event, one in _breaks(release.contract, present)}
    known = {*release.contract.schemas, *present.schemas}
    found = [
        *_missing(release),
        *(_finding(release, key[0], one, known) for key, one in broken.items() if key not in permitted),
    ]
    if release.stable:
        return found + [f"{one.place}: since 1.0 an entry allows nothing; remove it" for one in allowed]
    return found + [
        f"{one.place}: there is no such change since {release.version}; remove the entry, or correct its field or change"
        for one in allowed
        if one.allows not in broken
    ]


def _missing(release: Release) -> Iterator[str]:
    """Return the files that the folder of a release must have and lacks."""
    folder = f"contracts/released/{release.version}"
    restore = f"restore it with `git checkout v{release.version} -- {folder}`"
    if not release.contract.document:
        yield f"{folder} has no {DOCUMENT}: {restore}"
        return
    named, files = event_types(release.contract.document), set(release.contract.schemas)
    for type_ in sorted(named - files):
        yield f"{folder} has no {type_}.json, but its {DOCUMENT} names the event: {restore}"
    for type_ in sorted(files - named):
        yield f"{folder}/{DOCUMENT} does not name {type_}, which has a schema there: {restore}"


def _breaks(old: Contract, new: Contract) -> Iterator[tuple[str, Break]]:
    """Return every breaking change, with the event that it concerns."""
    if old.document:
        yield from ((ENVELOPE, one) for one in envelope_changes(old.document, new.document))
    added = {type_: schema for type_, schema in new.schemas.items() if type_ not in old.schemas}
    for type_, schema in sorted(old.schemas.items()):
        if type_ not in new.schemas:
            yield type_, _removed(type_, schema, added)
            continue
        yield from ((type_, one) for one in changes(schema, new.schemas[type_], kind_of(type_)))
        if type_ in event_types(old.document):
            yield from ((type_, one) for one in message_changes(old.document, new.document, type_, kind_of(type_)))


def _removed(type_: str, old: dict[str, Any], added: Schemas) -> Break:
    """Return the break of an event that is gone, with the name that it may have now."""
    kind = kind_of(type_)
    others = [other for other in added if kind_of(other) == kind]
    alike = [other for other in others if not changes(old, added[other], kind)]
    likely = get_close_matches(type_, alike, n=1, cutoff=0.5) or get_close_matches(type_, others, n=1, cutoff=0.8)
    return Break(WHOLE_EVENT, "it was removed", "keep the event", f", or renamed to {likely[0]}" if likely else "")


def _finding(release: Release, event: str, one: Break, known: set[str]) -> str:
    field = f"field {one.field}" if one.field != WHOLE_EVENT else "the envelope" if event == ENVELOPE else "the event"
    beside = "" if event == ENVELOPE else f"; or add {_next_type(event, known)} beside it"
    text = f"{event}, {field}: {one.problem}{one.hint}. Instead, {one.remedy}{beside}"
    if release.stable:
        return f"{text}."
    return f"{text}; or, until 1.0, add this entry to contracts/{BREAKING}:\n{entry_for(event, one)}"


def _next_type(type_: str, known: set[str]) -> str:
    name, _, version = type_.rpartition(".v")
    taken = [int(other.rpartition(".v")[2]) for other in known if other.rpartition(".v")[0] == name]
    return f"{name}.v{max([int(version), *taken]) + 1}"
