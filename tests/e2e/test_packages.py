"""What users install and run: the client of publishers, and each service in every way."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from support.families import services

ROOT = Path(__file__).parents[2]
SERVICES = services()


def test_a_publisher_installs_few_packages(tmp_path: Path) -> None:
    """A program that only publishes events must not install the dependencies of services."""
    leftovers = shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
    source = shutil.copytree(ROOT / "libs/common", tmp_path / "common", ignore=leftovers)
    target = tmp_path / "installed"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-build-isolation"]
    constraints = ["-c", str(ROOT / "constraints.txt")]
    subprocess.run([*pip, *constraints, "--target", str(target), str(source)], check=True, timeout=300)
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
def test_no_shared_file_lists_the_services(service: str) -> None:
    """Compose and Kubernetes read one file for each."""
    for listed in ("deploy/compose.yaml", "Makefile", "pyproject.toml", "deploy/Dockerfile"):
        assert f"wch_{service}" not in (ROOT / listed).read_text()


def test_the_brokers_data_outlives_its_container() -> None:
    """RabbitMQ keeps its data under the node's name, which is the container's id unless a host name is given."""
    compose = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
    assert compose["services"]["broker"]["hostname"]
