"""What a release writes into files: its version, its changelog, and an empty contracts/breaking.toml."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from wch_local.compatibility import WHOLE_EVENT

if TYPE_CHECKING:
    from pathlib import Path

    from wch_local.breaking_entries import Entry

_UNRELEASED = re.compile(r"^## Unreleased\n(?P<section>.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_BREAKING = "### Breaking changes"
_MARKDOWN = re.compile(r"[\\`*_<\[]")
_PACKAGE_VERSION = re.compile(r'^version = ".*"$', re.MULTILINE)
_LIBRARY_VERSION = re.compile(r'^__version__ = ".*"$', re.MULTILINE)


def package_folders(root: Path) -> list[Path]:
    """Return the folders of all packages, the library first."""
    services = sorted(path.parent for path in root.glob("services/*/pyproject.toml"))
    return [root / "libs/common", *services, root / "simulators", root / "deploy/local"]


def set_version(root: Path, version: str) -> None:
    """Write the version into every package, and into the library's `__version__`, which the contract carries."""
    for folder in package_folders(root):
        _replace(folder / "pyproject.toml", _PACKAGE_VERSION, f'version = "{version}"')
    _replace(root / "libs/common/src/wch_common/__init__.py", _LIBRARY_VERSION, f'__version__ = "{version}"')


def _replace(path: Path, pattern: re.Pattern[str], line: str) -> None:
    text, count = pattern.subn(line, path.read_text(), count=1)
    if not count:
        raise ValueError(f"{path} has no line like {line}")
    path.write_text(text)


def changelog_problem(text: str) -> str | None:
    """Return why the section Unreleased of a changelog cannot become a release, or None."""
    if not (found := _UNRELEASED.search(text)):
        return "CHANGELOG.md has no section `## Unreleased`: add it, with the changes since the last release"
    if all(not line.strip() or line.startswith("#") for line in found["section"].splitlines()):
        return "the section `## Unreleased` of CHANGELOG.md is empty: describe the changes since the last release"
    return None


def released_changelog(text: str, version: str, date: str, entries: list[Entry]) -> str:
    """Return the changelog with its section Unreleased as that of a release, below a new, empty one."""
    found = _UNRELEASED.search(text)
    if found is None:
        raise ValueError("the changelog has no section `## Unreleased`")
    section = found["section"].strip("\n")
    breaking = "\n".join(_item(one) for one in entries)
    if breaking and f"{_BREAKING}\n" in section:
        section = section.replace(f"{_BREAKING}\n", f"{_BREAKING}\n\n{breaking}", 1)
    elif breaking:
        section = f"{_BREAKING}\n\n{breaking}\n\n{section}"
    head, tail = text[: found.start()], text[found.end() :]
    return f"{head}## Unreleased\n\n## {version} – {date}\n\n{section}\n" + (f"\n{tail}" if tail else "")


def _item(entry: Entry) -> str:
    field = "" if entry.field == WHOLE_EVENT else f", `{entry.field}`"
    # A change can contain patterns and values, which Markdown would interpret.
    change = _sentence(_MARKDOWN.sub(r"\\\g<0>", entry.change))
    return f"- `{entry.event}`{field}: {change} Reason: {_sentence(entry.reason)} What to do: {_sentence(entry.what_to_do)}"


def _sentence(text: str) -> str:
    plain = " ".join(text.split())
    return plain if plain.endswith((".", "!", "?")) else f"{plain}."


def emptied(breaking: str) -> str:
    """Return the comments at the head of contracts/breaking.toml, without its entries."""
    lines = breaking.splitlines(keepends=True)
    first = next((index for index, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return "".join(lines[:first])
