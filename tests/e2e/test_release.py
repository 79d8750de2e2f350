"""`make release` on a copy of the repository: what it refuses, what it writes, and wheels that install and run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import wch_common
from support.release_checkout import NOTES, ROOT, SERVICES, Checkout, git
from wch_common.events import published_contract
from wch_local.release import refusals
from wch_local.release_files import package_folders
from wch_local.release_wheels import WheelError, build_wheels


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    return Checkout.create(tmp_path_factory.mktemp("template"))


@pytest.fixture
def checkout(template: Checkout, tmp_path: Path) -> Checkout:
    return Checkout(shutil.copytree(template.folder, tmp_path / "checkout", symlinks=True))


def released(checkout: Checkout, version: str) -> None:
    contracts = checkout.folder / "contracts"
    folder = shutil.copytree(contracts / "schemas", contracts / "released" / version)
    shutil.copy2(contracts / "asyncapi.json", folder)


def lose_schema(checkout: Checkout) -> None:
    released(checkout, "0.1.0")
    (checkout.folder / "contracts/released/0.1.0/sync.product.synced.v1.json").unlink()


def write_entry(checkout: Checkout, entry: str) -> None:
    checkout.write("contracts/breaking.toml", f"{checkout.read('contracts/breaking.toml')}\n{entry}\n")


def stale_entry(checkout: Checkout) -> None:
    texts = {"event": "sync.product.synced.v1", "field": "action", "change": "c", "reason": "r", "what_to_do": "w"}
    write_entry(checkout, "\n".join(["[[breaking]]", *(f'{key} = "{text}"' for key, text in texts.items())]))


def edited(name: str, old: str, new: str) -> Any:
    """Return a function that edits a file of a checkout."""

    def edit(checkout: Checkout) -> None:
        text = checkout.read(name)
        assert old in text
        checkout.write(name, text.replace(old, new))

    return edit


REFUSALS: list[Any] = [
    ("1.0", None, "'1.0' is not a version: write three numbers, like 0.2.0"),
    ("0.3.0", lambda one: released(one, "0.3.0"), "0.3.0 is not above the last release 0.3.0: choose a higher version"),
    ("0.9.0", lambda one: released(one, "0.10.0"), "0.9.0 is not above the last release 0.10.0"),
    ("0.1.0", lambda one: git(one.folder, "tag", "v0.1.0"), "the tag v0.1.0 exists"),
    ("0.2.0", lose_schema, "contracts/released/0.1.0 has no sync.product.synced.v1.json"),
    ("0.2.0", stale_entry, "contracts/breaking.toml, sync.product.synced.v1 action (c): nothing has been released"),
    (
        "0.2.0",
        edited("contracts/schemas/sync.product.synced.v1.json", "updated", "renewed"),
        "not up to date (contracts/schemas/sync.product.synced.v1.json): run `make contracts` and commit the result",
    ),
    (
        "0.2.0",
        lambda one: one.write("contracts/schemas/a.b.c.v1.json", "{}"),
        "not up to date (contracts/schemas/a.b.c.v1.json)",
    ),
    (
        "0.2.0",
        edited("docs/settings.md", "WCH_AMQP_URL", "WCH_BROKER_URL"),
        "not up to date (docs/settings.md): run `make contracts` and commit the result",
    ),
    (
        "0.2.0",
        edited("services/whatsapp/README.md", "| reason | meaning |", "| reason | sense |"),
        "not up to date (services/whatsapp/README.md): run `make contracts` and commit the result",
    ),
    (
        "0.2.0",
        edited("services/whatsapp/README.md", "<!-- end of reasons -->", ""),
        "a file could not be generated: ",
    ),
    ("0.2.0", lambda one: released(one, "latest"), "contracts/released/ has a folder that is no release: 'latest'"),
    (
        "0.2.0",
        lambda one: one.write("CHANGELOG.md", "# Changelog\n\n## Unreleased\n"),
        "`## Unreleased` of CHANGELOG.md is empty",
    ),
    ("0.2.0", lambda one: one.write("CHANGELOG.md", "# Changelog\n"), "CHANGELOG.md has no section `## Unreleased`"),
]


@pytest.mark.parametrize(("version", "prepare", "reason"), REFUSALS, ids=[reason for _, _, reason in REFUSALS])
def test_a_checkout_cannot_be_released_for_one_reason(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch, version: str, prepare: Any, reason: str
) -> None:
    # The models of this process are those of the checkout.
    monkeypatch.setattr(wch_common, "__file__", str(checkout.folder / "libs/common/src/wch_common/__init__.py"))
    if prepare is not None:
        prepare(checkout)
    checkout.commit()
    (found,) = refusals(checkout.folder, version)
    assert reason in found


def test_a_release_is_refused_with_the_reason_and_changes_nothing(checkout: Checkout) -> None:
    released(checkout, "0.1.0")
    checkout.break_event()
    checkout.commit()
    done = checkout.release("0.2.0")
    assert done.returncode == 1
    change = "its bound was tightened: maxLength 999, was maxLength 1000"
    assert done.stderr.startswith(f"0.2.0 cannot be released:\n- sync.product.failed.v1, field reason: {change}"), (
        done.stderr
    )
    assert len([line for line in done.stderr.splitlines() if line.startswith("- ")]) == 1, done.stderr
    assert git(checkout.folder, "status", "--porcelain") == ""
    assert not (checkout.folder / "dist").exists()


def test_all_reasons_are_listed_together_uncommitted_changes_among_them(checkout: Checkout) -> None:
    checkout.write("CHANGELOG.md", "# Changelog\n")
    checkout.write("notes.txt", "")
    before = git(checkout.folder, "status", "--porcelain")
    done = checkout.release("0.1")
    reasons = [line for line in done.stderr.splitlines() if line.startswith("- ")]
    assert len(reasons) == 3
    assert "- there are uncommitted changes (CHANGELOG.md, notes.txt): commit or remove them" in reasons
    assert git(checkout.folder, "status", "--porcelain") == before


def test_a_wheel_that_lacks_a_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = shutil.copytree(
        ROOT / "services/scheduler",
        tmp_path / "services/scheduler",
        ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"),
    )
    project = scheduler / "pyproject.toml"
    assert '"schedules.yaml", ' in project.read_text()
    project.write_text(project.read_text().replace('"schedules.yaml", ', ""))
    monkeypatch.setattr("wch_local.release_wheels.package_folders", lambda root: [root / "services/scheduler"])
    with pytest.raises(
        WheelError, match=r"lacks wch_scheduler/schedules.yaml: name them in package-data of scheduler/"
    ):
        build_wheels(tmp_path, wch_common.__version__, tmp_path / "dist")


def test_a_dry_run_checks_and_builds_and_changes_nothing(checkout: Checkout) -> None:
    checkout.shrink()
    checkout.commit()
    done = checkout.release("0.7.0", "--dry-run")
    assert done.returncode == 0, done.stderr
    files = len(list(published_contract())) + 1  # and the AsyncAPI document
    assert f"\nwould change:\n  contracts/released/0.7.0/ ({files} files)\n  CHANGELOG.md\n" in done.stdout
    changed = {line.strip() for line in done.stdout.splitlines() if line.startswith("  ")}
    assert {"services/whatsapp/pyproject.toml", "dist/wch_whatsapp-0.7.0-py3-none-any.whl"} <= changed
    assert git(checkout.folder, "status", "--porcelain") == ""
    assert not (checkout.folder / "dist").exists()


def test_make_passes_the_version_on() -> None:
    command = ["make", "-n", "release", "VERSION=0.2.0", "ARGS=--dry-run"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert ".venv/bin/python -m wch_local.release 0.2.0 --dry-run" in done.stdout


def test_releases_are_written_and_their_wheels_install(
    checkout: Checkout, tmp_path: Path, empty_database_url: str
) -> None:
    """One test, because a release takes time, and each step needs the one before."""
    done = checkout.release("0.1.0")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("contracts/released/ was empty: the gate had no schemas to compare with\n")
    assert 'git commit -m "Release 0.1.0"\n  git tag v0.1.0\n' in done.stdout
    check_files(checkout, "0.1.0", f"## 0.1.0 – {today()}\n\n{NOTES}")
    assert len(list((checkout.folder / "dist").iterdir())) == len(SERVICES) + 3
    check_installed(checkout, "0.1.0", tmp_path, empty_database_url)

    checkout.shrink()
    checkout.break_event()
    changelog = checkout.read("CHANGELOG.md").replace("## Unreleased\n", f"## Unreleased\n\n{NOTES}")
    checkout.write("CHANGELOG.md", changelog)
    checkout.commit()
    refused = checkout.release("0.2.0").stderr
    change = "its bound was tightened: maxLength 999, was maxLength 1000"
    assert f"sync.product.failed.v1, field reason: {change}. Instead, " in refused
    _, mark, entry = refused.partition("[[breaking]]")
    write_entry(checkout, f"{mark}{entry}".replace('reason = ""', 'reason = "r"').replace('do = ""', 'do = "w"'))
    checkout.commit()
    done = checkout.release("0.2.0")
    assert done.returncode == 0, done.stderr
    printed = f"- `sync.product.failed.v1`, `reason`: {change}. Reason: r. What to do: w.\n"
    check_files(
        checkout, "0.2.0", f"## 0.2.0 – {today()}\n\n### Breaking changes\n\n{printed}\n{NOTES}\n## 0.1.0 – {today()}\n"
    )


def today() -> str:
    return datetime.now(UTC).date().isoformat()


def check_files(checkout: Checkout, version: str, changelog: str) -> None:
    """Check what a release has written."""
    folder = checkout.folder
    assert checkout.read("CHANGELOG.md").startswith(f"# Changelog\n\n## Unreleased\n\n{changelog}")
    assert all(line.startswith("#") for line in checkout.read("contracts/breaking.toml").splitlines())
    present = [*(folder / "contracts/schemas").iterdir(), folder / "contracts/asyncapi.json"]
    assert {one.name: one.read_bytes() for one in present} == {
        one.name: one.read_bytes() for one in (folder / "contracts/released" / version).iterdir()
    }
    assert json.loads(checkout.read("contracts/asyncapi.json"))["info"]["version"] == version
    packages = [package / "pyproject.toml" for package in package_folders(folder)]
    assert all(f'\nversion = "{version}"\n' in package.read_text() for package in packages)
    wheels = sorted(path.name for path in (folder / "dist").iterdir())
    assert wheels == sorted(f"wch_{package.parent.name}-{version}-py3-none-any.whl" for package in packages)
    checkout.commit()
    checkout.generate_contract()
    assert git(folder, "status", "--porcelain") == "", "the released contract is not the one of the released models"


CHECK = """
import importlib, json, runpy, sys
from importlib.metadata import version
from wch_common.store.migrate import differences, migrate
names, wanted, database_url = sys.argv[1:]
for name in json.loads(names):
    module = importlib.import_module(name)
    assert module.__file__.startswith(sys.prefix), module.__file__
    package = name.partition(".")[0]
    assert version(package.replace("_", "-")) == wanted
    try:
        runpy.run_module(package, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        assert ended.code == 2, ended.code
    except ImportError:
        assert not name.endswith(".main"), name
    if migrations := getattr(module, "MIGRATIONS", None):
        migrate(database_url, package, migrations)
        assert differences(database_url, package, migrations) == []
        print("migrated", package)
"""


def check_installed(checkout: Checkout, version: str, tmp_path: Path, database_url: str) -> None:
    """Install the wheels in a new environment and run them there, outside the checkout.

    The packages of others come from this environment, of which the new one sees everything but our own packages.
    """
    environment, others = tmp_path / "environment", tmp_path / "others"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    others.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if not path.name.startswith(("wch", "__editable__", "pip", "setuptools", "_")) and path.suffix != ".pth":
            (others / path.name).symlink_to(path)
    [packages] = environment.glob("lib/python*/site-packages")
    (packages / "others.pth").write_text(f"{others}\n")
    python = str(environment / "bin/python")

    def run(*command: str, code: int = 0) -> str:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("WCH_", "PYTHON"))}
        done = subprocess.run(command, cwd=tmp_path, env=kept, capture_output=True, text=True, check=False)
        assert done.returncode == code, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    wheels = [str(path) for path in (checkout.folder / "dist").iterdir()]
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    run(*pip, "install", "-q", "--no-index", "-c", str(ROOT / "constraints.txt"), *wheels)
    assert "No broken requirements found" in run(*pip, "check")
    modules = ["wch_common", "wch_local", "wch_simulators", *(f"wch_{name}.main" for name in SERVICES)]
    checked = run(python, "-c", CHECK, json.dumps(modules), version, database_url)
    assert checked.count("WCH_AMQP_URL: is missing") == len(SERVICES)
    assert [f"migrated wch_{name}" in checked for name in SERVICES] == [True] * len(SERVICES)
    for source in (path for package in package_folders(checkout.folder) for path in package.glob("src/wch_*/**/*")):
        if not source.is_file() or source.suffix == ".pyc":
            continue
        installed = packages / str(source).rpartition("/src/")[2]
        assert installed.read_bytes() == source.read_bytes()
    wch = str(environment / "bin/wch")
    assert "events" in run(wch, "--help")
    types = {one["type"] for one in json.loads(run(wch, "events", "schemas", "--json"))}
    assert types == {path.stem for path in (checkout.folder / "contracts/schemas").iterdir()}
