"""The places in which a family must appear, and new families for tests."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
_LEFTOVERS = shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
_CODE = ("__init__.py", "__main__.py", "main.py", "topology.py", "settings.py", "py.typed")
_MANIFESTS = ("configmap.yaml", "deployment.yaml", "kustomization.yaml")
_DEMO = "deploy/local/src/wch_local/demo.py"


def services(root: Path = ROOT) -> list[str]:
    """Return the names of the services of a checkout, without folders that a change of branch left behind."""
    return sorted({path.relative_to(root).parts[1] for path in root.glob("services/*/**/*.py")})


def missing_places(root: Path, service: str) -> list[str]:
    """Return, as sentences, in which places of a checkout a service is missing, and what to add."""
    found = [
        f"services/{service} has no {path}: add it{_as(step)}"
        for step, path in _files(root, service)
        if not (root / path).exists()
    ]
    found += [
        f"services/{service} has no {folder}/test_….py: add tests{_as(4)}"
        for folder in (f"tests/unit/wch_{service}", f"tests/integration/wch_{service}")
        if not list((root / folder).glob("test_*.py"))
    ]
    return [*found, *_missing_entries(root, service)]


def _files(root: Path, service: str) -> Iterator[tuple[int, str]]:
    """Yield the step of CONTRIBUTING.md and the path of each file."""
    code = f"services/{service}/src/wch_{service}"
    yield 1, f"libs/common/src/wch_common/events/{service}.py"
    yield from ((2, f"services/{service}/{name}") for name in ("pyproject.toml", "README.md"))
    yield from ((2, f"{code}/{name}") for name in _CODE)
    if (root / code / "tables.py").exists():
        yield from ((2, f"{code}/{name}") for name in ("migrations/env.py", "migrations/versions"))
    yield 3, f"deploy/compose/{service}.yaml"
    yield from ((3, f"deploy/kubernetes/base/{service}/{name}") for name in _MANIFESTS)


def _missing_entries(root: Path, service: str) -> Iterator[str]:
    """Yield the missing entries in files that exist."""
    for file, entry, step, is_there in _entries(root, service):
        if not is_there:
            yield f"services/{service} has no entry in {file}: add {entry}{_as(step)}"


def _entries(root: Path, service: str) -> Iterator[tuple[str, str, int, bool]]:
    """Yield file, entry, step of CONTRIBUTING.md, and whether the file has the entry."""
    own = f"services/{service}/pyproject.toml"
    project = _toml(root / own)
    for group, module in _entry_points(root, service):
        points = project.get("project", {}).get("entry-points", {}).get(group, {}).values()
        is_there = any(point.partition(":")[0] == f"wch_{service}.{module}" for point in points)
        yield own, f'an entry point of {module}.py in the group "{group}"', 2, is_there
    data = project.get("tool", {}).get("setuptools", {}).get("package-data", {}).get(f"wch_{service}", [])
    yield own, '"py.typed" to `package-data`', 2, "py.typed" in data
    manifest = f"deploy/kubernetes/base/{service}/kustomization.yaml"
    resources = (yaml.safe_load(_text(root / manifest)) or {}).get("resources", [])
    yield manifest, "`resources: [configmap.yaml, deployment.yaml]`", 3, {*_MANIFESTS[:2]} <= {*resources}
    yield _DEMO, f'"{service}" to the dict `own` of `_start_services`', 3, service in _in_demo(root)
    local = "deploy/local/pyproject.toml"
    dependencies = _toml(root / local).get("project", {}).get("dependencies", [])
    yield local, f'"wch-{service}" to `dependencies` and `DEP002`', 3, f"wch-{service}" in dependencies
    row = f"| [{service}](services/{service}/README.md) |"
    yield "README.md", f"a row `{row} …` to the table of services", 5, f"\n{row}" in _text(root / "README.md")
    is_there = f"\n## {service}\n" in _text(root / "docs/settings.md")
    yield "docs/settings.md", "its section with `make contracts`,", 5, is_there


def _entry_points(root: Path, service: str) -> Iterator[tuple[str, str]]:
    """Yield the group and the module of each entry point that a service needs."""
    yield from (("wch.topology", "topology"), ("wch.settings", "settings"))
    code = root / f"services/{service}/src/wch_{service}"
    yield from (("wch.admin", path.stem) for path in code.glob("admin.py"))
    # A module of commands without a group of its own belongs to another module's group.
    groups = (path for path in sorted(code.glob("*cli.py")) if "\napp = typer.Typer" in path.read_text())
    yield from (("wch.cli", path.stem) for path in groups)


def _in_demo(root: Path) -> set[str]:
    """Return the services that the demo starts: the keys of `own` in `_start_services`."""
    for function in ast.walk(ast.parse(_text(root / _DEMO))):
        if isinstance(function, ast.FunctionDef) and function.name == "_start_services":
            for node in ast.walk(function):
                if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "own":
                    keys = node.value.keys if isinstance(node.value, ast.Dict) else []
                    return {str(key.value) for key in keys if isinstance(key, ast.Constant)}
    return set()


def _as(step: int) -> str:
    return f" as CONTRIBUTING.md, 'Add a job family', step {step} describes"


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _toml(path: Path) -> dict[str, Any]:
    return tomllib.loads(_text(path))


def copy_paths(target: Path, *paths: str) -> Path:
    """Copy files and folders of this checkout to the same places in another folder, and return it."""
    for path in paths:
        if (ROOT / path).is_dir():
            shutil.copytree(ROOT / path, target / path, ignore=_LEFTOVERS, dirs_exist_ok=True)
        else:
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, target / path)
    return target


def new_family(checkout: Path, name: str) -> list[Path]:
    """Create a family in another checkout with examples/new-family, and return its files."""
    deployed = ("deploy/compose/broadcast.yaml", "deploy/kubernetes/base/broadcast")
    copy_paths(checkout, "examples", "pyproject.toml", "libs/common", *deployed)
    if not (checkout / ".venv").exists():
        (checkout / ".venv").symlink_to(sys.prefix)
    command = [str(checkout / "examples/new-family"), name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [checkout / path for path in done.stdout.splitlines()]
