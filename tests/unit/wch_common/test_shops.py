"""The shop of an event, and files of shops, whose errors are reported together."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from wch_common.errors import SettingsError
from wch_common.outcome import Reject
from wch_common.settings import load_settings
from wch_local.settings_page import page
from wch_sync.settings import SyncSettings

ONE = {
    "AMQP_URL": "amqp://h",
    "DATABASE_URL": "postgresql://h/d",
    "WOOCOMMERCE_URL": "https://shop.example",
    "WOOCOMMERCE_CONSUMER_KEY": "k",
    "WOOCOMMERCE_CONSUMER_SECRET": "s",
    "GRAPH_TOKEN": "t",
    "CATALOG_ID": "1",
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Any:
    import os

    for name in list(os.environ):
        if name.startswith("WCH_"):
            monkeypatch.delenv(name)

    def set_(**values: str) -> None:
        for name, value in values.items():
            monkeypatch.setenv(f"WCH_{name}", value)

    return set_


def test_the_one_shop_handles_no_events_of_another(environment: Any) -> None:
    """The same product ids identify other products in that shop."""
    environment(**ONE)
    shops = load_settings(SyncSettings).shops()
    assert shops.named(None).catalog.id == "1"
    with pytest.raises(Reject, match=r"'south' is not configured here: the only shop has no name \(WCH_SHOP_NAME\)"):
        shops.named("south")


def test_the_one_shop_may_have_a_name(environment: Any) -> None:
    environment(**ONE, SHOP_NAME="north")
    shops = load_settings(SyncSettings).shops()
    assert shops.named("north") == shops.named(None)
    with pytest.raises(Reject, match="'south' is not configured here: north"):
        shops.named("south")


def test_the_service_takes_the_file_in_the_settings_page(environment: Any, tmp_path: Path) -> None:
    (example,) = re.findall(r"```json\n(.*?)```", page(), re.DOTALL)
    file = tmp_path / "shops.json"
    file.write_text(example)
    environment(AMQP_URL="amqp://h", DATABASE_URL="postgresql://h/d", SHOPS_FILE=str(file))
    shops = load_settings(SyncSettings).shops()
    assert str(shops.named("north").woocommerce.url) == "https://north.example/"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"north": {"woocommerce": {"consumer_kye": "hunter2"}}}', "north.woocommerce.consumer_kye"),
        ('{"north": {"woocommerce": {"consumer_kye": "hunter2"}}}', "north.woocommerce.consumer_key: is missing"),
        ('{"north": {}}', "north.graph: is missing"),
        ("{}", "it contains no shop"),
        ("nonsense", "the file: Invalid JSON"),
        (None, "cannot be read"),
    ],
)
def test_errors_in_the_file_are_reported_with_all_other_wrong_settings(
    environment: Any, tmp_path: Path, text: str | None, told: str
) -> None:
    file = tmp_path / "shops.json"
    if text is not None:
        file.write_text(text)
    environment(AMQP_URL="amqp://h", SHOPS_FILE=str(file), HEALTH_PORT="http")
    with pytest.raises(SettingsError) as caught:
        load_settings(SyncSettings)
    said = str(caught.value)
    assert "WCH_SHOPS_FILE: " in said
    assert told in said
    assert "WCH_DATABASE_URL" in said
    assert "WCH_HEALTH_PORT" in said
    assert "WCH_WOOCOMMERCE_URL" not in said, "the errors of a file do not name the settings that it replaces"
    assert "hunter2" not in said


def test_settings_that_a_file_of_shops_replaces_are_reported(environment: Any, tmp_path: Path) -> None:
    (example,) = re.findall(r"```json\n(.*?)```", page(), re.DOTALL)
    file = tmp_path / "shops.json"
    file.write_text(example)
    environment(**ONE, CATALOG_BRAND="House", SHOPS_FILE=str(file))
    told = load_settings(SyncSettings).unused()
    assert "WCH_CATALOG_BRAND is ignored, as WCH_SHOPS_FILE is set" in told
    assert {line.partition(" ")[0] for line in told} == {f"WCH_{name}" for name in [*ONE, "CATALOG_BRAND"]} - {
        "WCH_AMQP_URL",
        "WCH_DATABASE_URL",
    }
    environment(SHOPS_FILE="")
    assert load_settings(SyncSettings).unused() == []
