"""The overlays for Kubernetes: nobody is written to outside of production."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parents[2] / "deploy/kubernetes"
SERVICES = {path.name for path in (HERE / "base").iterdir() if path.is_dir()}


@pytest.mark.parametrize("name", ["local", "staging"])
def test_nobody_is_written_to_by_accident(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HERE))
    sys.modules.pop("check", None)
    resources = importlib.import_module("check").render(HERE / "overlays" / name)
    settings = {one["metadata"]["name"]: one["data"] for one in resources if one["kind"] == "ConfigMap"}
    assert settings["wch-whatsapp"]["WCH_WHATSAPP_ONLY_TO"] == "nobody"
    assert settings["wch-sync"]["WCH_SYNC_ONLY_CATALOGS"] == "none"
    assert {f"wch-{one}" for one in SERVICES} <= set(settings), "every service is in it"
