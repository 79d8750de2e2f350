"""The Compose files: one for each service, which starts again after it has ended itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SERVICES = sorted(path.name for path in (ROOT / "services").iterdir() if path.is_dir())


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_starts_again_after_an_outage_of_its_broker_or_database(service: str) -> None:
    defined = yaml.safe_load((ROOT / f"deploy/compose/{service}.yaml").read_text())["services"]
    assert list(defined) == [service]
    assert defined[service]["restart"] == "unless-stopped"
    assert defined[service]["depends_on"].keys() == {"broker", "database"}
