"""Imports point in one direction: each room of the library imports only what its list allows, without circles."""

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
# Modules that import nothing of ours, and that every room may use.
LEAVES = {"errors", "outcome", "backoff", "tasks"}
# What each room may import besides itself and the leaves; a path with a slash allows one room inside another.
ROOMS: dict[str, set[str]] = {
    "contract": set(),
    "events": {"contract"},
    "observability": {"contract"},
    "broker": {"contract", "observability"},
    "broker/codec": {"contract"},
    "broker/aio": {"contract", "observability", "broker", "broker/codec"},
    "broker/blocking": {"contract", "observability", "broker", "broker/codec"},
    "settings": {"contract", "broker"},
    "client": {"contract", "events", "broker/blocking"},
    "store": {"contract", "observability", "broker"},
    "runtime": {"contract", "observability", "settings", "store", "broker", "broker/aio", "broker/blocking"},
    "integrations": {"contract", "events", "observability", "settings"},
    "cli": {
        "contract", "events", "observability", "settings", "broker", "broker/blocking", "store", "integrations", "client",
    },
}  # fmt: skip


def imported(path: Path) -> set[str]:
    """Return the modules that a module imports, those for type checking included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return names


def packages(folder: Path) -> dict[Path, set[str]]:
    """Return the top-level packages that each module below a folder imports."""
    return {
        path.relative_to(folder): {name.partition(".")[0] for name in imported(path)} for path in folder.rglob("*.py")
    }


def modules(folder: Path) -> dict[str, Path]:
    """Return the modules of a package by name, without its migrations."""
    return {
        ".".join((folder.name, *path.relative_to(folder).with_suffix("").parts)).removesuffix(".__init__"): path
        for path in folder.rglob("*.py")
        if "migrations" not in path.parts
    }


MODULES = modules(COMMON)
EVERY = MODULES | {name: path for folder in PACKAGES.values() for name, path in modules(folder).items()}


def edges(module: str) -> set[str]:
    """Return the modules of the library and of the services that a module imports."""
    return (imported(EVERY[module]) & set(EVERY)) - {module, "wch_common"}


def room(module: str) -> str:
    """Return the room of a module, or the module's own name if it is in no room."""
    parts = module.split(".")[1:]
    nested = "/".join(parts[:2])
    return nested if nested in ROOMS else parts[0]


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"wch_common"}))
def test_a_module_imports_only_what_its_room_may(module: str) -> None:
    own = room(module)
    assert own in ROOMS or own in LEAVES, f"{module} is in no room of the list"
    allowed = {own, *LEAVES, *ROOMS.get(own, ())} if own not in LEAVES else LEAVES
    packages_of_rooms = {name for name in edges(module) if EVERY[name].name == "__init__.py" and name != module}
    assert {room(name) for name in edges(module) - packages_of_rooms if room(name) not in allowed} == set()


def test_nothing_imports_in_a_circle() -> None:
    """Imports for type checking count too, because types that need each other belong in one module."""
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " → ".join((*path[path.index(module) :], module))
        if module not in done:
            for other in sorted(edges(module)):
                # A package that only contains modules is not a step of the path.
                if not (EVERY[other].name == "__init__.py" and module.startswith(f"{other}.")):
                    visit(other, (*path, module))
            done.add(module)

    for module in sorted(EVERY):
        visit(module, ())


def test_only_broker_aio_imports_pika_and_only_broker_blocking_imports_kombu() -> None:
    for path, names in packages(COMMON).items():
        assert "pika" not in names or path.parts[:2] == ("broker", "aio"), path
        assert not names & {"kombu", "amqp"} or path.parts[:2] == ("broker", "blocking"), path
    for service, folder in PACKAGES.items():
        for path, names in packages(folder).items():
            assert not names & {"pika", "kombu", "amqp"}, f"{service}: {path}"


def test_private_names_of_pika_are_used_in_one_module() -> None:
    """ruff refuses access to private names without a waiver."""
    waived = [path.name for path in (COMMON / "broker").rglob("*.py") if "SLF001" in path.read_text()]
    assert waived == ["pika_inside.py"]


def test_the_library_imports_no_service_and_services_import_no_other() -> None:
    others = {f"wch_{name}" for name in SERVICES} | {"wch_local", "wch_simulators"}
    for path, names in packages(COMMON).items():
        assert not names & others, path
    for service, folder in PACKAGES.items():
        for path, names in packages(folder).items():
            assert not names & (others - {f"wch_{service}"}), f"{service}: {path}"


def test_services_import_the_commands_only_from_their_own() -> None:
    for service, folder in PACKAGES.items():
        for path in folder.rglob("*.py"):
            uses = any(name.startswith("wch_common.cli") for name in imported(path))
            assert not uses or path.name.endswith("cli.py"), f"{service}: {path.name}"


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
