"""Packages as users install them: as wheels, outside the checkout, with everything they need at run time."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SERVICES = sorted(path.name for path in (ROOT / "services").iterdir() if path.is_dir())


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the library and every service, installed from wheels as in the Dockerfile."""
    target, sources = tmp_path_factory.mktemp("image"), tmp_path_factory.mktemp("sources")
    packages = []
    for folder in ("libs/common", *(f"services/{name}" for name in SERVICES)):
        # A copy, because leftovers of an earlier build beside the sources could hide a missing file.
        leftovers = shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
        packages.append(str(shutil.copytree(ROOT / folder, sources / folder, ignore=leftovers)))
    # Built with the installed setuptools, because fetching it for each package would take most of the time.
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "--disable-pip-version-check",
    ]
    subprocess.run([*command, "--target", str(target), *packages], check=True, capture_output=True, timeout=110)
    return target


def test_a_publisher_installs_few_packages(tmp_path: Path) -> None:
    """A program that only publishes events must not install the dependencies of services."""
    leftovers = shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
    source = shutil.copytree(ROOT / "libs/common", tmp_path / "common", ignore=leftovers)
    target = tmp_path / "installed"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-build-isolation"]
    constraints = ["-c", str(ROOT / "constraints.txt")]
    subprocess.run([*pip, *constraints, "--target", str(target), str(source)], check=True, timeout=240)
    assert len(list(target.glob("*.dist-info"))) <= 11
    assert sum(path.stat().st_size for path in target.rglob("*") if path.is_file()) <= 20_000_000
    # -S: without the packages of this environment.
    program = (
        f"import sys; sys.path.insert(0, {str(target)!r});"
        "from wch_common.client import Client; from wch_common.events.sync import ProductRequested;"
        "print(Client('amqp://h/wch', '/shop').event(ProductRequested(product_id=7)).type)"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "sync.product.requested.v1\n", done.stderr


@pytest.mark.parametrize("service", SERVICES)
def test_an_installed_service_has_its_migrations_and_says_what_it_needs(
    installed: Path, service: str, database_url: str
) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WCH_")}
    environment["PYTHONPATH"] = str(installed)
    started = [sys.executable, "-m", f"wch_{service}"]
    done = subprocess.run(started, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done.stderr
    assert "WCH_AMQP_URL: is missing" in done.stderr
    program = (
        f"import wch_common, wch_{service}.main as main; from wch_common.store.migrate import migrate;"
        f"migrate({database_url!r}, {service!r}, getattr(main, 'MIGRATIONS', ()));"
        "print(wch_common.__file__, main.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(str(installed)) == 2, "the checkout was imported instead of the wheels"


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_can_be_run_in_every_way(service: str) -> None:
    """Compose and Kubernetes read one file per family; no file lists the families."""
    assert (ROOT / f"deploy/compose/{service}.yaml").exists()
    assert (ROOT / f"deploy/kubernetes/base/{service}/deployment.yaml").exists()
    for listed in ("deploy/compose.yaml", "Makefile", "pyproject.toml", "deploy/Dockerfile"):
        assert f"wch_{service}" not in (ROOT / listed).read_text()


def test_the_brokers_data_outlives_its_container() -> None:
    """RabbitMQ keeps its data under the node's name, which is the container's id unless a host name is given."""
    compose = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
    assert compose["services"]["broker"]["hostname"]
