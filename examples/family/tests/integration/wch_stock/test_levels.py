"""Levels of products, on a real broker and database."""

from __future__ import annotations

from pydantic import SecretStr

from support.collected import Collected
from support.stage import RunningService, Stage
from wch_common.events.stock import LevelRequested
from wch_stock.main import compose
from wch_stock.settings import StockSettings
from wch_stock.topology import TOPOLOGY


def test_a_level_is_stored_and_reported(stage: Stage, database_url: str) -> None:
    stage.declare(TOPOLOGY)
    stage.follow("facts", "stock.#")
    settings = {"database_url": SecretStr(database_url)}
    service = RunningService(stage.url, compose, settings, name="stock", settings_type=StockSettings)
    stage.services.append(service)
    service.start()
    with stage.client() as client:
        client.publish(LevelRequested(product_id=17, quantity=3))
    level = {"product_id": 17, "quantity": 3}
    assert Collected(stage).await_data("facts", "stock.level.updated") == [level]
    assert stage.schema(database_url, "stock").dicts("SELECT product_id, quantity FROM levels") == [level]
