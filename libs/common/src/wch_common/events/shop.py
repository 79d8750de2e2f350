"""Events of the shop: what its customers have in their carts. The receiver of its webhooks will publish them."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from wch_common.contract.event import Fact, Part
from wch_common.events.sync import ProductId
from wch_common.events.whatsapp import Phone, refuse_number_in

CartId = Annotated[
    str, Field(min_length=1, max_length=100, description="The shop's name for the cart; never the telephone number.")
]
CartVersion = Annotated[
    int, Field(ge=0, le=2**63 - 1, description="Grows with each change of the cart: of two facts the higher one holds.")
]
Amount = Annotated[
    str,
    Field(
        pattern=r"^[0-9]{1,14}(\.[0-9]{1,4})?$",
        description="A decimal number as text, like 19.90, so that no program rounds it.",
    ),
]
Currency = Annotated[str, Field(pattern="^[A-Z]{3}$", description="ISO 4217 code, like EUR.")]
Line = Annotated[str, Field(max_length=1000)]


class CartItem(Part):
    """One line of a cart."""

    product_id: ProductId
    variation_id: ProductId | None = None
    name: Line
    quantity: Annotated[int, Field(ge=1, le=1_000_000)]
    price: Annotated[Amount, Field(description="Of one piece.")]


class Address(Part):
    """Where the cart would be sent to."""

    name: Line = ""
    company: Line = ""
    address_1: Line = ""
    address_2: Line = ""
    postcode: Line = ""
    city: Line = ""
    state: Line = ""
    country: Annotated[str, Field(pattern="^([A-Z]{2})?$", description="ISO 3166 code, like DE.")] = ""


class _CartFact(Fact):
    cart_id: CartId
    version: CartVersion

    def subject(self) -> str:
        """Name the cart."""
        return f"cart/{self.cart_id}"


class CartUpdated(_CartFact):
    """A cart was filled, changed or emptied; this is the whole cart as it is now."""

    TYPE = "shop.cart.updated.v1"

    phone: Annotated[Phone | None, Field(description="The owner's; without one nobody can be reminded.")] = None
    customer_name: Line = ""
    items: Annotated[tuple[CartItem, ...], Field(max_length=1000)]
    total: Amount
    currency: Currency
    coupon: Annotated[str, Field(max_length=200, description="A coupon's code.")] = ""
    shipping_address: Address | None = None
    link: Annotated[str, Field(max_length=2000, description="Address at which the customer finds the cart again.")] = ""

    @model_validator(mode="after")
    def _keeps_the_number_private(self) -> Self:
        if self.phone is not None:
            refuse_number_in("cart_id", self.cart_id, self.phone)
        return self


class CartCompleted(_CartFact):
    """A cart was ordered."""

    TYPE = "shop.cart.completed.v1"

    order_id: Annotated[int, Field(ge=1, le=2**63 - 1)]
    total: Annotated[Amount, Field(description="Of the order.")]
    currency: Currency


class CartDeleted(_CartFact):
    """The shop has the cart no more."""

    TYPE = "shop.cart.deleted.v1"


EVENTS = (CartUpdated, CartCompleted, CartDeleted)
