"""The settings of the broadcast service."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from wch_common.integrations.shops import PhoneRegionSection, ShopEntry, Shops, ShopSettings
from wch_common.settings import DatabaseUrl


class BroadcastShop(ShopEntry):
    """What campaigns need to know about a shop."""

    whatsapp: PhoneRegionSection = PhoneRegionSection()


class BroadcastSettings(ShopSettings):
    """Settings of the broadcast service."""

    one_shop: BroadcastShop | None = Field(None, exclude=True)
    database_url: DatabaseUrl = Field(description="PostgreSQL, like postgresql://user:password@host/wch")
    broadcast_in_flight: Annotated[int, Field(ge=1, le=50)] = Field(
        4, description="Batches of one campaign in progress at a time; one where the campaign has a pause"
    )
    broadcast_failure_share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.5,
        description="Share of failures in a campaign's last 20 batches (more if they are small) at which it pauses itself",
    )
    broadcast_failure_least: Annotated[int, Field(ge=1)] = Field(
        50, description="Least number of answers before that share counts"
    )
    broadcast_stuck_seconds: Annotated[float, Field(gt=0)] = Field(
        600.0,
        description="How long a campaign that could continue may stand still before its batches are requested again",
    )
    broadcast_give_up_seconds: Annotated[float, Field(gt=0)] = Field(
        1800.0, description="How long such a campaign may stand still before it fails; it can be resumed"
    )
    broadcast_keep_days: Annotated[float, Field(gt=0)] = Field(
        90.0, description="How long recipients and their outcomes are kept after a campaign's end; its summary is kept"
    )

    def shops(self) -> Shops[BroadcastShop]:
        """Return the shops."""
        return self.read_shops(BroadcastShop)
