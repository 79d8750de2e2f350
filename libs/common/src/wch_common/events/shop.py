"""Events of the shop: the contents of its customers' carts. The receiver of its webhooks will publish them."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from wch_common.contract.event import Fact, Part, Time
from wch_common.contract.personal import IDENTIFIES, IMPERSONAL, PERSONAL
from wch_common.events.sync import ProductId
from wch_common.events.whatsapp import refuse_name_in

CartId = Annotated[
    str,
    IMPERSONAL,
    Field(
        min_length=1,
        max_length=100,
        description="The shop's name for the cart; must not contain the owner's number or id.",
    ),
]
CartVersion = Annotated[
    int,
    Field(
        ge=0,
        le=2**63 - 1,
        description="Grows with each change of the cart; the fact with the highest version is current.",
    ),
]
Amount = Annotated[
    str,
    IMPERSONAL,
    Field(
        pattern=r"^[0-9]{1,14}(\.[0-9]{1,4})?$",
        description="A decimal number as text, like 19.90, so that no program rounds it.",
    ),
]
Currency = Annotated[str, IMPERSONAL, Field(pattern="^[A-Z]{3}$", description="ISO 4217 code, like EUR.")]
Line = Annotated[str, PERSONAL, Field(max_length=1000)]


OrderId = Annotated[int, Field(ge=1, le=2**63 - 1, description="The shop's id of the order.")]


class CartItem(Part):
    """One line of a cart."""

    product_id: ProductId
    variation_id: ProductId | None = None
    name: Line
    quantity: Annotated[int, Field(ge=1, le=1_000_000)]
    price: Annotated[Amount, Field(description="Price of one piece.")]


class Address(Part):
    """The shipping address of a cart."""

    name: Line = ""
    company: Line = ""
    address_1: Line = ""
    address_2: Line = ""
    postcode: Line = ""
    city: Line = ""
    state: Line = ""
    country: Annotated[str, PERSONAL, Field(pattern="^([A-Z]{2})?$", description="ISO 3166 code, like DE.")] = ""


class Consent(Part):
    """A customer agreed to be sent messages."""

    source: Annotated[
        str, IMPERSONAL, Field(min_length=1, max_length=100, description="Where they agreed, like checkout.")
    ]
    time: Annotated[Time, Field(description="When they agreed.")]
    text: Annotated[str, PERSONAL, Field(max_length=1000, description="The words they agreed to.")] = ""


class _CartFact(Fact):
    cart_id: CartId
    version: CartVersion

    def subject(self) -> str:
        """Name the cart."""
        return f"cart/{self.cart_id}"


class CartUpdated(_CartFact):
    """A cart was filled, changed or emptied; the data is the whole cart in its new state."""

    TYPE = "shop.cart.updated.v1"

    phone: Annotated[
        str | None,
        IDENTIFIES,
        Field(
            max_length=100,
            description="The owner's number as they wrote it; without number and id the owner is not reminded.",
        ),
    ] = None
    user_id: Annotated[
        str,
        IDENTIFIES,
        Field(
            max_length=200,
            description="Meta's id of the owner, like DE.1234567890; empty unless they came from WhatsApp.",
        ),
    ] = ""
    customer_name: Line = ""
    items: Annotated[tuple[CartItem, ...], Field(max_length=1000)]
    total: Amount
    currency: Currency
    coupon: Annotated[str, PERSONAL, Field(max_length=200, description="The code of a coupon.")] = ""
    shipping_address: Address | None = None
    link: Annotated[
        str, PERSONAL, Field(max_length=2000, description="Address that opens the cart for the customer.")
    ] = ""

    consent: Annotated[
        Consent | None,
        Field(
            description="The owner's consent to messages; a shop can require it for reminders (WCH_CARTS_CONSENT_REQUIRED)."
        ),
    ] = None

    @model_validator(mode="after")
    def _keeps_the_owner_private(self) -> Self:
        for name in filter(None, (self.phone, self.user_id)):
            refuse_name_in("cart_id", self.cart_id, name)
        return self


class CartCompleted(_CartFact):
    """A cart was ordered."""

    TYPE = "shop.cart.completed.v1"

    order_id: OrderId
    total: Annotated[Amount, Field(description="Total of the order.")]
    currency: Currency


class CartDeleted(_CartFact):
    """The shop deleted the cart."""

    TYPE = "shop.cart.deleted.v1"


EVENTS = (CartUpdated, CartCompleted, CartDeleted)
