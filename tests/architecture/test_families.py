"""Every service is in each place in which a family must appear, and examples/new-family creates one that is."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support.families import ROOT, copy_paths, missing_places, new_family, services

SERVICE = "carts"
PLACES = (
    "README.md",
    "docs/settings.md",
    "deploy/local/pyproject.toml",
    "deploy/local/src/wch_local/demo.py",
    f"deploy/compose/{SERVICE}.yaml",
    f"deploy/kubernetes/base/{SERVICE}",
    f"libs/common/src/wch_common/events/{SERVICE}.py",
    f"services/{SERVICE}",
    f"tests/unit/wch_{SERVICE}",
    f"tests/integration/wch_{SERVICE}",
)
CODE = f"services/{SERVICE}/src/wch_{SERVICE}"
Break = Callable[[Path], object]


@pytest.mark.parametrize("service", services())
def test_a_service_is_in_every_place_of_a_family(service: str) -> None:
    missing = missing_places(ROOT, service)
    assert not missing, "\n".join(missing)


def removed(path: str) -> Break:
    """Return what removes a file or folder of a checkout."""
    return lambda root: shutil.rmtree(root / path) if (root / path).is_dir() else (root / path).unlink()


def replaced(path: str, old: str, new: str = "") -> Break:
    """Return what replaces a text in a file of a checkout."""

    def replace(root: Path) -> None:
        text = (root / path).read_text()
        assert old in text
        (root / path).write_text(text.replace(old, new))

    return replace


def without_tests(folder: str) -> Break:
    """Return what removes the tests of a folder, but not its conftest.py."""

    def remove(root: Path) -> None:
        for path in (root / folder).glob("test_*.py"):
            path.unlink()

    return remove


FILES = {
    f"libs/common/src/wch_common/events/{SERVICE}.py": 1,
    f"services/{SERVICE}/README.md": 2,
    **{f"{CODE}/{name}.py": 2 for name in ("__init__", "__main__", "main", "topology", "settings", "migrations/env")},
    f"{CODE}/py.typed": 2,
    f"{CODE}/migrations/versions": 2,
    f"deploy/compose/{SERVICE}.yaml": 3,
    f"deploy/kubernetes/base/{SERVICE}/configmap.yaml": 3,
    f"deploy/kubernetes/base/{SERVICE}/deployment.yaml": 3,
}
PROJECT = f"services/{SERVICE}/pyproject.toml"
KUSTOMIZATION = f"deploy/kubernetes/base/{SERVICE}/kustomization.yaml"
DEMO = "deploy/local/src/wch_local/demo.py"
ENTRIES = {
    "topology": (
        replaced(PROJECT, f"{SERVICE}.topology:TOPOLOGY", "other:TOPOLOGY"),
        f'{PROJECT}: add an entry point of topology.py in the group "wch.topology"',
        2,
    ),
    "settings": (
        replaced(PROJECT, '"wch.settings"', '"wch.setting"'),
        f'{PROJECT}: add an entry point of settings.py in the group "wch.settings"',
        2,
    ),
    "commands": (
        replaced(PROJECT, '"wch.cli"', '"wch.command"'),
        f'{PROJECT}: add an entry point of cli.py in the group "wch.cli"',
        2,
    ),
    "reads": (
        replaced(PROJECT, '"wch.admin"', '"wch.read"'),
        f'{PROJECT}: add an entry point of admin.py in the group "wch.admin"',
        2,
    ),
    "package-data": (replaced(PROJECT, '"py.typed", '), f'{PROJECT}: add "py.typed" to `package-data`', 2),
    "kustomization": (
        replaced(KUSTOMIZATION, "[configmap.yaml, deployment.yaml]", "[configmap.yaml]"),
        f"{KUSTOMIZATION}: add `resources: [configmap.yaml, deployment.yaml]`",
        3,
    ),
    "demo": (
        replaced(DEMO, '"carts": {', '"cart": {'),
        f'{DEMO}: add "carts" to the dict `own` of `_start_services`',
        3,
    ),
    "demo without the dict": (
        replaced(DEMO, "own = {", "others = {"),
        f'{DEMO}: add "carts" to the dict `own` of `_start_services`',
        3,
    ),
    "local": (
        replaced("deploy/local/pyproject.toml", '    "wch-carts",\n'),
        'deploy/local/pyproject.toml: add "wch-carts" to `dependencies` and `DEP002`',
        3,
    ),
    "README": (
        replaced("README.md", "| [carts](services/carts/README.md) |", "| carts |"),
        "README.md: add a row `| [carts](services/carts/README.md) | …` to the table of services",
        5,
    ),
    "settings page": (
        replaced("docs/settings.md", "\n## carts\n", "\n## cart\n"),
        "docs/settings.md: add its section with `make contracts`,",
        5,
    ),
}
TESTS = (f"tests/unit/wch_{SERVICE}", f"tests/integration/wch_{SERVICE}")
STEP = "as CONTRIBUTING.md, 'Add a job family', step {} describes"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return copy_paths(tmp_path, *PLACES)


def test_nothing_is_missing_in_a_copy(checkout: Path) -> None:
    assert missing_places(checkout, SERVICE) == []


@pytest.mark.parametrize(("path", "step"), FILES.items(), ids=FILES)
def test_a_missing_file_is_named(checkout: Path, path: str, step: int) -> None:
    removed(path)(checkout)
    assert missing_places(checkout, SERVICE) == [f"services/carts has no {path}: add it {STEP.format(step)}"]


@pytest.mark.parametrize("path", [PROJECT, KUSTOMIZATION])
def test_a_missing_file_is_named_before_its_entries(checkout: Path, path: str) -> None:
    removed(path)(checkout)
    file, *entries = missing_places(checkout, SERVICE)
    assert file.startswith(f"services/carts has no {path}: add it ")
    assert entries
    assert all(f" in {path}: add " in entry for entry in entries)


@pytest.mark.parametrize(("break_", "sentence", "step"), ENTRIES.values(), ids=ENTRIES)
def test_a_missing_entry_is_named(checkout: Path, break_: Break, sentence: str, step: int) -> None:
    break_(checkout)
    assert missing_places(checkout, SERVICE) == [f"services/carts has no entry in {sentence} {STEP.format(step)}"]


@pytest.mark.parametrize("folder", TESTS)
@pytest.mark.parametrize("break_", [removed, without_tests])
def test_missing_tests_are_named(checkout: Path, folder: str, break_: Callable[[str], Break]) -> None:
    break_(folder)(checkout)
    assert missing_places(checkout, SERVICE) == [
        f"services/carts has no {folder}/test_….py: add tests {STEP.format(4)}"
    ]


@pytest.mark.parametrize("name", ["anexample", "yourexample"])
def test_a_new_family_needs_only_the_edits_that_contributing_lists(checkout: Path, name: str) -> None:
    files = new_family(checkout, name)
    assert [place.partition(":")[0] for place in missing_places(checkout, name)] == [
        f"services/{name} has no entry in {path}"
        for path in (DEMO, "deploy/local/pyproject.toml", "README.md", "docs/settings.md")
    ]
    contributing = (ROOT / "CONTRIBUTING.md").read_text()
    section = contributing.partition("## Add a job family\n")[2].partition("\n## ")[0]
    for named in (DEMO, "deploy/local/pyproject.toml", "\nmake contracts\n", "README's table of services"):
        assert named in section
    ruff = str(Path(sys.executable).parent / "ruff")
    python = [str(path) for path in files if path.suffix == ".py"]
    for command in ([ruff, "check"], [ruff, "format", "--check"]):
        done = subprocess.run([*command, *python], cwd=checkout, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_a_family_with_an_impossible_or_taken_name_is_refused(checkout: Path) -> None:
    new_family(checkout, "anexample")
    copy_paths(checkout, "libs/common/src/wch_common/events/meta.py")
    before = sorted(checkout.rglob("*"))
    for name in ("", "Stock", "9to5", "out_of_stock", "a/b", "meta", SERVICE, "anexample"):
        command = [str(checkout / "examples/new-family"), name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode != 0, name
        assert " name" in done.stderr, name
    assert sorted(checkout.rglob("*")) == before
