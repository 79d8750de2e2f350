"""`python -m wch_local.release 0.2.0` prepares a release for review: versions, contract, changelog and wheels.

It prepares everything in a copy of the checkout and writes to the checkout last, so that a release that is refused, or
whose wheels cannot be built, changes nothing.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import wch_common
from wch_common.contract.schemas import contract_files
from wch_common.events import published_contract
from wch_local.breaking_entries import BREAKING, read_entries
from wch_local.compatibility_gate import (
    DOCUMENT,
    InvalidVersion,
    Release,
    findings,
    newest_release,
    present_contract,
    version_order,
)
from wch_local.reasons_table import with_table
from wch_local.release_files import changelog_problem, emptied, released_changelog, set_version
from wch_local.release_wheels import WheelError, build_wheels, replace_wheels
from wch_local.settings_page import page

_SHOWN_FILES = 5
_GENERATE = "run `make contracts` and commit the result"
_SETTINGS, _REASONS = "docs/settings.md", "services/whatsapp/README.md"
_WRITE_CONTRACT = """
from pathlib import Path
from wch_common.contract.schemas import write_contract
from wch_common.events import published_contract
write_contract(published_contract(), Path("contracts"))
"""


class ReleaseRefused(Exception):
    """The release is not possible yet; the message lists all reasons."""


def release(root: Path, version: str, *, dry_run: bool = False) -> list[str]:
    """Prepare a release and return the files that changed; raises ReleaseRefused, having written nothing."""
    if problems := refusals(root, version):
        raise ReleaseRefused("\n".join(f"- {problem}" for problem in problems))
    with tempfile.TemporaryDirectory(prefix="wch-release-") as folder:
        copy, built = Path(folder) / "checkout", Path(folder) / "dist"
        for name in _git(root, "ls-files", "-z").split("\0")[:-1]:
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, copy / name)
        try:
            _prepare(copy, version)
        except (ValueError, subprocess.CalledProcessError) as error:
            raise ReleaseRefused(f"- the release could not be prepared: {error}") from error
        changed = [str(path.relative_to(copy)) for path in sorted(copy.rglob("*")) if _differs(path, copy, root)]
        try:
            wheels = build_wheels(copy, version, built)
        except WheelError as error:
            raise ReleaseRefused(f"- {error}") from None
        if not dry_run:
            _publish(root, copy, changed, wheels)
    return [*changed, *(f"dist/{wheel.name}" for wheel in wheels)]


def refusals(root: Path, version: str) -> list[str]:
    """Return every reason why the checkout cannot be released, with what to do about it."""
    contracts = root / "contracts"
    problems = _checkout_problems(root)
    try:
        outdated = _outdated(root)
    except ValueError as error:
        problems.append(f"a file could not be generated: {error}")
    else:
        if outdated:
            problems.append(f"generated files are not up to date ({_some(outdated)}): {_GENERATE}")
    try:
        last = newest_release(contracts)
        problems += [*_version_problems(root, version, last), *findings(contracts, present_contract())]
    except InvalidVersion as error:
        problems.append(f"contracts/released/ has a folder that is no release: {error}")
    if problem := changelog_problem((root / "CHANGELOG.md").read_text()):
        problems.append(problem)
    return problems


def _version_problems(root: Path, version: str, last: Release | None) -> list[str]:
    try:
        order = version_order(version)
    except InvalidVersion as error:
        return [str(error)]
    if last is not None and order <= version_order(last.version):
        return [f"{version} is not above the last release {last.version}: choose a higher version"]
    if _git(root, "tag", "--list", f"v{version}"):
        return [f"the tag v{version} exists: choose a higher version, or delete the tag if it was never published"]
    return []


def _checkout_problems(root: Path) -> list[str]:
    if not Path(wch_common.__file__).resolve().is_relative_to(root.resolve()):
        return [f"wch_common is imported from {Path(wch_common.__file__).parent}: run `make install` in {root}"]
    lines = _git(root, "status", "--porcelain").splitlines()
    return (
        [f"there are uncommitted changes ({_some([line[3:] for line in lines])}): commit or remove them"]
        if lines
        else []
    )


def _outdated(root: Path) -> list[str]:
    """Return the generated files that are not as the models generate them."""
    generated = {f"contracts/{name}": content for name, content in contract_files(published_contract()).items()}
    generated[_SETTINGS] = page().encode()
    generated[_REASONS] = with_table((root / _REASONS).read_text()).encode()
    present = {str(path.relative_to(root)) for path in root.glob("contracts/schemas/*.json")}
    outdated = {
        name
        for name, content in generated.items()
        if not (root / name).is_file() or (root / name).read_bytes() != content
    }
    return sorted(outdated | (present - set(generated)))


def _prepare(copy: Path, version: str) -> None:
    """Make the release in a copy of the checkout."""
    contracts = copy / "contracts"
    set_version(copy, version)
    # In a process of its own, which imports the copy with its new version.
    environment = {**os.environ, "PYTHONPATH": str(copy / "libs/common/src"), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([sys.executable, "-c", _WRITE_CONTRACT], cwd=copy, env=environment, check=True)
    released = shutil.copytree(contracts / "schemas", contracts / "released" / version)
    shutil.copy2(contracts / DOCUMENT, released)
    breaking = contracts / BREAKING
    entries, _ = read_entries(breaking.read_text())
    changelog = copy / "CHANGELOG.md"
    date = datetime.now(UTC).date().isoformat()
    changelog.write_text(released_changelog(changelog.read_text(), version, date, entries))
    breaking.write_text(emptied(breaking.read_text()))


def _differs(path: Path, copy: Path, root: Path) -> bool:
    original = root / path.relative_to(copy)
    return path.is_file() and not (original.is_file() and original.read_bytes() == path.read_bytes())


def _publish(root: Path, copy: Path, changed: list[str], wheels: list[Path]) -> None:
    """Write the prepared release to the checkout."""
    replace_wheels(root / "dist", wheels)
    for name in changed:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(copy / name, root / name)


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ReleaseRefused(
            f"- git {arguments[0]} failed: {done.stderr.strip()}; run it in a checkout of the repository"
        )
    return done.stdout


def _some(names: list[str]) -> str:
    more = f", and {len(names) - _SHOWN_FILES} more" if len(names) > _SHOWN_FILES else ""
    return ", ".join(names[:_SHOWN_FILES]) + more


def _summary(changed: list[str], version: str) -> list[str]:
    """Return the changed files, with the released schemas as one line."""
    folder = f"contracts/released/{version}/"
    released = sum(name.startswith(folder) for name in changed)
    others = [name for name in changed if not name.startswith(folder)]
    return [f"  {folder} ({released} files)", *(f"  {name}" for name in others)]


def main() -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="make release VERSION=0.2.0", description="Prepare a release in this checkout, for review."
    )
    parser.add_argument("version", help="three numbers, above the last release")
    parser.add_argument("--dry-run", action="store_true", help="check and build, but change nothing")
    options = parser.parse_args()
    root, version = Path(__file__).parents[4], options.version
    try:
        first = not any((root / "contracts/released").glob("*"))
        changed = release(root, version, dry_run=options.dry_run)
    except ReleaseRefused as error:
        print(f"{version} cannot be released:\n{error}", file=sys.stderr)
        return 1
    if first:
        print("contracts/released/ was empty: the gate had no schemas to compare with")
    print(f"{'would change' if options.dry_run else 'changed'}:\n" + "\n".join(_summary(changed, version)))
    if not options.dry_run:
        print(
            f"\nNext: review the changes (git diff) and the README's project status, run make check and make test, then\n"
            f"  git add -A\n"
            f'  git commit -m "Release {version}"\n  git tag v{version}'
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
