"""What the broadcast service reads from its environment."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field

from wch_common.settings import DatabaseUrl
from wch_common.shops import Section, ShopEntry, Shops, ShopSettings, of_one_shop

Region = Annotated[str, Field(pattern="^[A-Z]{2}$")]


class Numbers(Section):
    """How a shop's numbers are read; the rest of the section is the whatsapp service's."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    region: Region | None = None


class BroadcastShop(ShopEntry):
    """What campaigns need of a shop."""

    whatsapp: Numbers = Numbers()


class BroadcastSettings(ShopSettings):
    """Settings of the broadcast service."""

    ENTRY: ClassVar[type[ShopEntry]] = BroadcastShop

    database_url: DatabaseUrl = Field(description="PostgreSQL, like postgresql://user:password@host/wch")
    whatsapp_region: Region | None = of_one_shop(None, "Country of numbers written without one, like DE")
    broadcast_in_flight: Annotated[int, Field(ge=1, le=50)] = Field(
        4, description="Batches of one campaign under way at a time, where it has no pause; with a pause it is one"
    )
    broadcast_failure_share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.5,
        description="Share of failures in its last 20 batches (more where these are small) at which a campaign pauses itself",
    )
    broadcast_failure_least: Annotated[int, Field(ge=1)] = Field(
        50, description="Answers before that share is looked at"
    )
    broadcast_stuck_seconds: Annotated[float, Field(gt=0)] = Field(
        600.0, description="How long a campaign that could go on may stand still before it is taken up again"
    )
    broadcast_give_up_seconds: Annotated[float, Field(gt=0)] = Field(
        1800.0, description="How long before it fails; it can be resumed"
    )
    broadcast_keep_days: Annotated[float, Field(gt=0)] = Field(
        90.0, description="How long recipients and their outcomes are kept after a campaign's end; its summary stays"
    )

    def shops(self) -> Shops[BroadcastShop]:
        """Return the shops."""
        return self.read_shops(BroadcastShop, {"whatsapp": {"region": self.whatsapp_region}})
