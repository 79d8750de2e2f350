"""Documents stay correct: everything they name exists, and everything that must be documented is."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from wch_common.broker.headers import KINDS
from wch_common.cli.app import app
from wch_common.errors import ContractError
from wch_common.events import published_contract
from wch_local import reasons_table
from wch_local.settings_page import page

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += sorted((ROOT / "docs").glob("*.md")) + sorted((ROOT / "services").glob("*/README.md"))
PLANNED = {"stock"}  # the example in CONTRIBUTING.md


def test_the_settings_page_matches_the_models() -> None:
    assert (ROOT / "docs/settings.md").read_text() == page()


def test_the_table_of_reasons_matches_the_contract() -> None:
    text = reasons_table.README.read_text()
    assert text == reasons_table.with_table(text)


def test_every_service_is_in_the_readmes_table_and_has_a_page() -> None:
    readme = (ROOT / "README.md").read_text()
    for service in sorted(path for path in (ROOT / "services").iterdir() if path.is_dir()):
        assert f"[{service.name}](services/{service.name}/README.md)" in readme
        assert (service / "README.md").exists()


def test_every_event_is_named_in_the_page_of_its_service() -> None:
    """A family whose service does not exist yet is documented by the services that follow its events."""
    every = "".join(page.read_text() for page in (ROOT / "services").glob("*/README.md"))
    for model in published_contract():
        own = ROOT / "services" / model.TYPE.partition(".")[0] / "README.md"
        assert f"`{model.TYPE.rpartition('.v')[0]}`" in (own.read_text() if own.exists() else every)


def test_every_kind_of_dead_letter_is_explained() -> None:
    contract = {error.kind for error in ContractError.__subclasses__()}
    judged = {"rejected", "retries_exhausted", "expired_waiting", "killed_process", "unknown_version"}
    assert set(KINDS) == contract | judged
    text = (ROOT / "docs/operating.md").read_text()
    assert [kind for kind in KINDS if f"`{kind}`" not in text] == []


@pytest.mark.parametrize("document", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_that_a_document_names_exists(document: Path) -> None:
    text = document.read_text()
    linked = [target for target in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in target]
    missing = [target for target in linked if not (document.parent / target).exists()]
    folders = (ROOT, ROOT / "libs/common/src/wch_common", *(ROOT / "services").glob("*/src/wch_*"))
    named = re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.(?:py|md|yaml|json))`", text)
    named = [path for path in named if not any(name in path for name in PLANNED)]
    missing += [path for path in named if not any((folder / path).exists() for folder in folders)]
    assert missing == []


def commands() -> list[str]:
    found = []
    for document in PAGES:
        for block in re.findall(r"```sh\n(.*?)```", document.read_text(), re.DOTALL):
            found += [line.partition("  #")[0].strip() for line in block.splitlines() if line.startswith("wch ")]
    return found


@pytest.mark.parametrize("command", commands())
def test_every_wch_command_in_a_document_exists(command: str) -> None:
    words = shlex.split(command)[1:]
    result = CliRunner().invoke(app, [*words[:2], "--help"])
    assert result.exit_code == 0
    options = {word for word in words if word.startswith("--")}
    assert not [option for option in options if option not in result.output]


def test_make_lists_every_target_the_documents_name() -> None:
    listed = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    named = {
        name for document in PAGES for name in re.findall(r"(?:^|`)make ([a-z]+)", document.read_text(), re.MULTILINE)
    }
    known = {line.split()[0] for line in listed.splitlines() if line}
    assert named <= known
