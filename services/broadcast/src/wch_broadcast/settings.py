"""The settings of the broadcast service."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from wch_common.integrations.shops import PhoneRegionSection, ShopEntry, Shops, ShopSettings
from wch_common.settings import DatabaseUrl, PersonHashKey


class BroadcastShop(ShopEntry):
    """The settings of a shop that campaigns use."""

    whatsapp: PhoneRegionSection = PhoneRegionSection()


class BroadcastSettings(ShopSettings):
    """Settings of the broadcast service."""

    one_shop: BroadcastShop | None = None
    database_url: DatabaseUrl = Field(description="PostgreSQL, like postgresql://user:password@host/wch")
    person_hash_key: PersonHashKey
    broadcast_in_flight: Annotated[int, Field(ge=1, le=50)] = Field(
        4, description="Batches of a campaign in progress at a time; 1 for a campaign with a pause between batches"
    )
    broadcast_failure_share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.5,
        description="Share of failures in the last 20 batches (more batches if they are small) at which a campaign pauses itself",
    )
    broadcast_failure_min_answers: Annotated[int, Field(ge=1)] = Field(
        50, description="Minimum number of answers before WCH_BROADCAST_FAILURE_SHARE applies"
    )
    broadcast_stuck_seconds: Annotated[float, Field(gt=0)] = Field(
        600.0,
        description="Seconds without progress after which unanswered batches of a campaign are requested again",
    )
    broadcast_give_up_seconds: Annotated[float, Field(gt=0)] = Field(
        1800.0, description="Seconds without progress after which a campaign fails; it can be resumed"
    )
    broadcast_keep_days: Annotated[float, Field(gt=0)] = Field(
        90.0,
        description="Days for which recipients and outcomes are kept after a campaign ends; its totals are kept",
    )

    def shops(self) -> Shops[BroadcastShop]:
        """Return the shops."""
        return self.read_shops(BroadcastShop)
