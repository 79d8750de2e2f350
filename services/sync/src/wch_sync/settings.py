"""What the sync service reads from its environment."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from wch_common.settings import DatabaseUrl
from wch_common.shops import (
    Catalog,
    CatalogSettings,
    Graph,
    GraphSettings,
    ShopEntry,
    Shops,
    WooCommerce,
    WooCommerceSettings,
)


class SyncShop(ShopEntry):
    """What syncing needs of a shop."""

    woocommerce: WooCommerce
    graph: Graph
    catalog: Catalog


class SyncSettings(CatalogSettings, GraphSettings, WooCommerceSettings):
    """Settings of the sync service."""

    ENTRY: ClassVar[type[ShopEntry]] = SyncShop

    database_url: DatabaseUrl = Field(description="PostgreSQL, like postgresql://user:password@host/wch")
    shop_concurrency: Annotated[int, Field(ge=1, le=20)] = Field(4, description="Calls to one shop at a time")
    catalog_poll_seconds: Annotated[float, Field(gt=0)] = Field(2.0, description="Pause between two looks at a batch")
    catalog_wait_seconds: Annotated[float, Field(gt=0)] = Field(
        120.0, description="How long a batch may take at Meta before its events are retried"
    )

    def shops(self) -> Shops[SyncShop]:
        """Return the shops."""
        sections = {"woocommerce": self.woocommerce, "graph": self.graph, "catalog": self.catalog}
        return self.read_shops(SyncShop, sections)
