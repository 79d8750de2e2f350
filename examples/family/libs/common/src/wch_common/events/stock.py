"""Events of the stock family: how many units the shop has of each product."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from wch_common.contract.event import Fact, Request
from wch_common.events.sync import ProductId

Quantity = Annotated[int, Field(ge=0, le=1_000_000_000, description="Units that the shop has.")]


class LevelRequested(Request):
    """Set the level of a product."""

    TYPE = "stock.level.requested.v1"

    product_id: ProductId
    quantity: Quantity

    def subject(self) -> str:
        """Name the product."""
        return f"product/{self.product_id}"


class LevelUpdated(Fact):
    """The level of a product is set."""

    TYPE = "stock.level.updated.v1"

    product_id: ProductId
    quantity: Quantity

    def subject(self) -> str:
        """Name the product."""
        return f"product/{self.product_id}"


EVENTS = (LevelRequested, LevelUpdated)
