"""Imports point one way, and the broker's libraries stay behind their own modules."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVICES = sorted(path.name for path in (ROOT / "services").iterdir() if path.is_dir())
PACKAGES = {name: ROOT / "services" / name / "src" / f"wch_{name}" for name in SERVICES}
COMMON = ROOT / "libs/common/src/wch_common"


def imports(folder: Path) -> dict[Path, set[str]]:
    """Return the top-level packages each module imports."""
    found = {}
    for path in folder.rglob("*.py"):
        names: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition(".")[0])
        found[path.relative_to(folder)] = names
    return found


def test_only_the_engine_room_imports_pika_and_only_the_edge_imports_kombu() -> None:
    for path, names in imports(COMMON).items():
        assert "pika" not in names or path.parts[0] == "engine", path
        assert not names & {"kombu", "amqp"} or path.parts[0] == "edge", path
    for service, folder in PACKAGES.items():
        for path, names in imports(folder).items():
            assert not names & {"pika", "kombu", "amqp"}, f"{service}: {path}"


def test_the_library_imports_no_service_and_services_import_no_other() -> None:
    others = {f"wch_{name}" for name in SERVICES} | {"wch_local", "wch_simulators"}
    for path, names in imports(COMMON).items():
        assert not names & others, path
    for service, folder in PACKAGES.items():
        for path, names in imports(folder).items():
            assert not names & (others - {f"wch_{service}"}), f"{service}: {path}"


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    return [ROOT / name for name in listed if name and (ROOT / name).is_file()]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="only a checkout knows which files are its own")
def test_no_tracked_file_holds_a_lock_or_a_path_of_one_machine() -> None:
    assert not [path for path in tracked() if path.name in {"uv.lock", "poetry.lock", "package-lock.json"}]
    constraints = (ROOT / "constraints.txt").read_text()
    assert not re.search(r"https?://|--index|@ file:", constraints)
