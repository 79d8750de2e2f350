"""The sync service between a simulated shop and a simulated Graph."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from pydantic import HttpUrl, SecretStr

from support.collected import Collected
from support.stage import RunningService, Stage
from wch_common.events.sync import ProductRequested
from wch_simulators.faults import Fault
from wch_simulators.graph import GraphSimulator
from wch_simulators.running import InThread
from wch_simulators.shop import ShopSimulator
from wch_sync.main import compose
from wch_sync.settings import SyncSettings
from wch_sync.topology import TOPOLOGY

if TYPE_CHECKING:
    from collections.abc import Iterable

CATALOG = "1001"
SHORT = {"SYNC_PRODUCT": {"retry_delays": (0.2, 0.4, 0.6), "batch_window": 0.3}}


class SyncStage:
    """Everything that the sync service needs, on loopback."""

    def __init__(self, stage: Stage, database_url: str) -> None:
        self.stage = stage
        self.database_url = database_url
        self._schema = stage.schema(database_url, "sync")
        self.shop = ShopSimulator()
        self.graph = GraphSimulator()
        self._open = ExitStack()
        self.shop_url = self._open.enter_context(InThread(self.shop)).url
        self.graph_url = self._open.enter_context(InThread(self.graph)).url
        stage.declare(TOPOLOGY)
        stage.follow("facts", "sync.product.#")
        self._collected = Collected(stage)

    def settings(self, **changes: Any) -> dict[str, Any]:
        """Return the settings of a service on this stage."""
        values: dict[str, Any] = {
            "database_url": SecretStr(self.database_url),
            "woocommerce_url": HttpUrl(self.shop_url),
            "woocommerce_consumer_key": SecretStr(self.shop.key),
            "woocommerce_consumer_secret": SecretStr(self.shop.secret),
            "graph_url": HttpUrl(self.graph_url),
            "graph_token": SecretStr(self.graph.token),
            "catalog_id": CATALOG,
            "catalog_poll_seconds": 0.05,
            "catalog_wait_seconds": 5.0,
            "queues": SHORT,
        }
        if "shops_file" in changes:
            values["one_shop"] = None  # the stage sets no variables, which would be the one shop
        return values | changes

    def start(self, **changes: Any) -> RunningService:
        """Start the service in this process."""
        values = self.settings(**changes)
        service = RunningService(self.stage.url, compose, values, name="sync", settings_type=SyncSettings)
        self.stage.services.append(service)
        return service.start()

    def request(self, *ids: int, **options: Any) -> list[str]:
        """Request the sync of products."""
        with self.stage.client(**options) as client:
            return client.publish_many(ProductRequested(product_id=id_) for id_ in ids)

    @property
    def catalog(self) -> dict[str, dict[str, Any]]:
        """The items of the catalog."""
        return self.graph.catalogs.get(CATALOG, {})

    @property
    def batches(self) -> list[dict[str, Any]]:
        """The items_batch calls that Graph received."""
        return self.graph.journal.calls("items_batch")

    def facts(self) -> list[dict[str, Any]]:
        """Return the facts published so far."""
        return self._collected.events("facts")

    def fail_shop(self, path: str, **fault: Any) -> None:
        """Inject a fault into the shop."""
        self.shop.journal.faults.append(Fault(path, **fault))

    def fail_graph(self, path: str, **fault: Any) -> None:
        """Inject a fault into Graph."""
        self.graph.journal.faults.append(Fault(path, **fault))

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Query the service's schema."""
        return self._schema.rows(statement)

    def close(self) -> None:
        """Stop everything."""
        self.stage.stop()
        self._open.close()

    def add(self, products: Iterable[dict[str, Any]]) -> None:
        """Add products to the shop."""
        self.shop.add(*products)
