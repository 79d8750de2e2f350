"""Builds the wheels of a release, and checks that they contain every file of their packages."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from pathlib import Path

from wch_local.release_files import package_folders

_BUILD_SECONDS = 600


class WheelError(Exception):
    """A wheel could not be built, or lacks a file."""


def build_wheels(root: Path, version: str, target: Path) -> list[Path]:
    """Return the wheels of all packages below a folder without build leftovers; raises WheelError if one is incomplete."""
    expected = {folder: _sources(folder) for folder in package_folders(root)}
    # --no-index: a missing package must fail, and not be found somewhere else under the same name.
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", str(target)]
    done = subprocess.run(
        [*command, *map(str, expected)], capture_output=True, text=True, check=False, timeout=_BUILD_SECONDS
    )
    if done.returncode:
        raise WheelError(f"the wheels could not be built:\n{(done.stderr or done.stdout).strip()[-2000:]}")
    return [_complete(folder, files, version, target) for folder, files in expected.items()]


def _sources(folder: Path) -> set[str]:
    source = folder / "src"
    return {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()}


def _complete(folder: Path, files: set[str], version: str, target: Path) -> Path:
    """Return the wheel of a package; raises WheelError if it lacks files."""
    name = tomllib.loads((folder / "pyproject.toml").read_text())["project"]["name"].replace("-", "_")
    found = list(target.glob(f"{name}-{version}-*.whl"))
    if len(found) != 1:
        raise WheelError(f"{folder.name}: expected one wheel {name}-{version}, found {len(found)}")
    with zipfile.ZipFile(found[0]) as wheel:
        missing = sorted(files - set(wheel.namelist()))
    if missing:
        raise WheelError(
            f"{found[0].name} lacks {', '.join(missing)}: name them in package-data of {folder.name}/pyproject.toml"
        )
    return found[0]


def replace_wheels(folder: Path, wheels: list[Path]) -> None:
    """Put wheels into a folder in place of all others of ours; if they do not fit on the disk, the others stay."""
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".wheels-", dir=folder) as incoming:
        copies = [Path(shutil.copy2(wheel, incoming)) for wheel in wheels]
        for copy in copies:
            copy.replace(folder / copy.name)
    # Wheels of an earlier version beside them would be installed with `dist/*.whl`.
    for other in set(folder.glob("wch_*.whl")) - {folder / wheel.name for wheel in wheels}:
        other.unlink()
