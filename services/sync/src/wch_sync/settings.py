"""The settings of the sync service."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import AfterValidator, Field
from pydantic_settings import NoDecode

from wch_common.integrations.shops import (
    CatalogSection,
    GraphSection,
    ShopEntry,
    Shops,
    ShopSettings,
    WooCommerceSection,
)
from wch_common.settings import CommaSeparated, DatabaseUrl

NONE: Final = "none"


def _catalogs(values: tuple[str, ...] | None) -> tuple[str, ...] | None:
    return () if values == (NONE,) else values


class SyncShop(ShopEntry):
    """The settings of a shop that syncing needs."""

    woocommerce: WooCommerceSection
    graph: GraphSection
    catalog: CatalogSection


class SyncSettings(ShopSettings):
    """Settings of the sync service."""

    one_shop: SyncShop | None = None
    database_url: DatabaseUrl = Field(description="PostgreSQL, like postgresql://user:password@host/wch")
    shop_concurrency: Annotated[int, Field(ge=1, le=20)] = Field(4, description="Concurrent calls to one shop")
    catalog_poll_seconds: Annotated[float, Field(gt=0)] = Field(
        2.0, description="Pause between two checks of a batch that Meta is processing"
    )
    catalog_wait_seconds: Annotated[float, Field(gt=0)] = Field(
        120.0, description="How long Meta may process a batch before its events are retried"
    )

    sync_only_catalogs: Annotated[tuple[str, ...] | None, NoDecode, CommaSeparated, AfterValidator(_catalogs)] = Field(
        None,
        description="Ids of the only Meta catalogs that are written to, separated by commas, or `none`: for staging; every catalog if "
        "it is not set or empty",
    )

    def shops(self) -> Shops[SyncShop]:
        """Return the shops."""
        return self.read_shops(SyncShop)
