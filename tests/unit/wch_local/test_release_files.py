"""What a release writes: the changelog with its breaking changes, versions, and an empty contracts/breaking.toml."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

import wch_common
from wch_common.contract.schemas import contract_files
from wch_common.events import published_contract
from wch_local.breaking_entries import Entry
from wch_local.release_files import changelog_problem, emptied, package_folders, released_changelog, set_version

CHANGELOG = "# Changelog\n\n## Unreleased\n\n### Added\n\n- Stock.\n\n## 0.1.0 – 2026-01-02\n\n- All.\n"
ENTRIES = [
    Entry("a.b.requested.v1", "x[].y", 'only "a_b" is still allowed', "It was\n  ambiguous", "Send `z`."),
    Entry("a.b.counted.v1", "*", "it was removed", "Nobody reads it.", "Read a.b.measured.v1"),
]
BREAKING = (
    "### Breaking changes\n\n"
    '- `a.b.requested.v1`, `x[].y`: only "a\\_b" is still allowed. Reason: It was ambiguous. What to do: Send `z`.\n'
    "- `a.b.counted.v1`: it was removed. Reason: Nobody reads it. What to do: Read a.b.measured.v1.\n"
)


def test_the_section_unreleased_becomes_the_release_below_a_new_empty_one() -> None:
    assert released_changelog(CHANGELOG, "0.2.0", "2026-02-03", []) == CHANGELOG.replace(
        "## Unreleased\n", "## Unreleased\n\n## 0.2.0 – 2026-02-03\n"
    )
    first = CHANGELOG.partition("## 0.1.0")[0]
    expected = "# Changelog\n\n## Unreleased\n\n## 0.1.0 – 2026-01-02\n\n### Added\n\n- Stock.\n"
    assert released_changelog(first, "0.1.0", "2026-01-02", []) == expected


def test_breaking_changes_come_first() -> None:
    written = released_changelog(CHANGELOG, "0.2.0", "2026-02-03", ENTRIES)
    assert f"## 0.2.0 – 2026-02-03\n\n{BREAKING}\n### Added\n\n- Stock.\n\n## 0.1.0" in written


def test_breaking_changes_join_a_section_written_by_hand() -> None:
    by_hand = CHANGELOG.replace("- Stock.", "- Stock.\n\n### Breaking changes\n\n- A setting has a new name.")
    written = released_changelog(by_hand, "0.2.0", "2026-02-03", ENTRIES)
    assert f"- Stock.\n\n{BREAKING}- A setting" in written
    assert written.count("### Breaking changes") == 1


@pytest.mark.parametrize("section", ["", "\n", "\n### Added\n\n### Fixed\n"])
def test_an_empty_section_is_no_release(section: str) -> None:
    text = f"# Changelog\n\n## Unreleased\n{section}\n## 0.1.0 – 2026-01-02\n\n- All.\n"
    assert "is empty" in (changelog_problem(text) or "")
    assert changelog_problem(CHANGELOG) is None
    assert "has no section" in (changelog_problem("# Changelog\n\n## 0.1.0 – 2026-01-02\n\n- All.\n") or "")


def test_the_entries_are_removed_and_the_comments_at_the_head_kept() -> None:
    head = "# Breaking changes.\n#\n# [[breaking]]\n"
    assert emptied(head) == head
    assert emptied(head + '\n# why\n[[breaking]]\nevent = "x"\n') == head


def test_the_version_is_written_into_every_package_and_nothing_else(tmp_path: Path) -> None:
    folders = ["libs/common", "services/a", "services/b", "simulators", "deploy/local"]
    package = '[project]\nname = "x"\nversion = "0.1.0"\ndependencies = ["y>=0.1.0"]\n[tool.z]\nversion = "7"\n'
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "pyproject.toml").write_text(package)
    library = tmp_path / "libs/common/src/wch_common/__init__.py"
    library.parent.mkdir(parents=True)
    library.write_text('"""Doc."""\n\n__version__ = "0.1.0"\n')
    set_version(tmp_path, "0.2.0")
    for folder in folders:
        written = (tmp_path / folder / "pyproject.toml").read_text()
        assert written == package.replace('version = "0.1.0"', 'version = "0.2.0"')
    assert library.read_text() == '"""Doc."""\n\n__version__ = "0.2.0"\n'
    (tmp_path / "simulators/pyproject.toml").write_text("[project]\n")
    with pytest.raises(ValueError, match="simulators"):
        set_version(tmp_path, "0.3.0")


def test_every_package_and_the_contract_have_the_version_of_the_library() -> None:
    packages = package_folders(Path(__file__).parents[3])
    versions = {tomllib.loads((one / "pyproject.toml").read_text())["project"]["version"] for one in packages}
    assert versions == {vars(wch_common)["__version__"]}
    document = json.loads(contract_files(published_contract())["asyncapi.json"])
    assert versions == {document["info"]["version"]}
