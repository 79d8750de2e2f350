"""The check of the contract with Node, which is optional: tests that need it are skipped where it is missing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/local/contract-check"
PACKAGES = Path(sys.prefix) / "contract-check"


def require_node() -> None:
    """Skip the test, with the reason, unless Node and the packages of the check are installed."""
    if shutil.which("node") is None:
        pytest.skip("needs Node.js")
    if not (PACKAGES / "node_modules/ajv").exists():
        pytest.skip("needs the npm packages that `make develop` installs into .venv/contract-check")


def run_check(contract: Path) -> subprocess.CompletedProcess[str]:
    """Check a generated contract with the parser of AsyncAPI, ajv and the schema of the bindings."""
    command = ["node", str(FOLDER / "check.mjs"), str(PACKAGES), str(contract)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def refused_by_ajv(contract: Path, events: Sequence[tuple[str, str]]) -> list[str | None]:
    """Return what ajv finds wrong with each event, given by its type and its JSON text; None if it accepts the event."""
    command = ["node", str(FOLDER / "validate.mjs"), str(PACKAGES), str(contract)]
    done = subprocess.run(command, input=json.dumps(events), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    problems: list[str | None] = json.loads(done.stdout)
    assert len(problems) == len(events)
    return problems
