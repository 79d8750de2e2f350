"""Events of the sync family: products of the shop in the Meta catalog."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from wch_common.contract.event import Fact, Request
from wch_common.contract.personal import IMPERSONAL

ProductId = Annotated[
    int, Field(ge=1, le=2**63 - 1, description="The shop's id of the product, or of one of its variations.")
]


class ProductRequested(Request):
    """Bring the catalog in line with the shop for one product and its variations."""

    TYPE = "sync.product.requested.v1"

    product_id: ProductId

    def subject(self) -> str:
        """Name the product."""
        return f"product/{self.product_id}"


class ProductSynced(Fact):
    """The catalog holds the newest state of the product: its items were sent, or deleted if the shop no longer has it."""

    TYPE = "sync.product.synced.v1"

    product_id: ProductId
    action: Literal["updated", "deleted"]
    items_sent: Annotated[int, Field(ge=0, description="Catalog items created or updated.")]
    items_deleted: Annotated[int, Field(ge=0, description="Catalog items deleted.")]

    def subject(self) -> str:
        """Name the product."""
        return f"product/{self.product_id}"


class ProductFailed(Fact):
    """The product could not be synced; its request is in the dead-letter queue with this reason."""

    TYPE = "sync.product.failed.v1"

    product_id: ProductId
    reason: Annotated[str, IMPERSONAL, Field(max_length=1000)]

    def subject(self) -> str:
        """Name the product."""
        return f"product/{self.product_id}"


EVENTS = (ProductRequested, ProductSynced, ProductFailed)
