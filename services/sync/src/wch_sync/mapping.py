"""Maps a shop's product to items of the catalog. No I/O."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

from wch_common.outcome import Reject

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wch_sync.settings import SyncShop

_TITLE, _DESCRIPTION, _ITEM_ID, _MOST_IMAGES = 100, 5000, 100, 20
_NO_DECIMALS = frozenset({"JPY", "KRW", "CLP", "VND", "ISK", "HUF", "TWD", "UGX", "XAF", "XOF", "PYG"})
_AVAILABILITY = {"instock": "in stock", "onbackorder": "available for order", "outofstock": "out of stock"}
_OWN_FIELDS = {"color": "color", "colour": "color", "size": "size", "pattern": "pattern", "material": "material"}
_BLOCKS = frozenset({"p", "div", "br", "li", "ul", "ol", "h1", "h2", "h3", "h4", "h5", "h6", "tr", "table"})
_UNSEEN = frozenset({"script", "style"})

# Shops send numbers as text and text as numbers, and null for empty text; plugins add any fields.
Text = Annotated[str, BeforeValidator(lambda value: "" if value is None else str(value))]


class _Loose(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", coerce_numbers_to_str=True)


class Named(_Loose):
    """Something with a name."""

    name: Text = ""


class Image(_Loose):
    """An image."""

    src: Text = ""


class Attribute(_Loose):
    """An attribute in which variations differ."""

    name: Text = ""
    option: Text = ""


class ShopProduct(_Loose):
    """A product or a variation as the shop sends it, with the fields that the catalog needs; others are ignored."""

    id: int
    parent_id: int = 0
    name: Text = ""
    type: Text = "simple"
    status: Text = "publish"
    sku: Text = ""
    permalink: Text = ""
    description: Text = ""
    short_description: Text = ""
    price: Text = ""
    regular_price: Text = ""
    sale_price: Text = ""
    on_sale: bool = False
    date_on_sale_from_gmt: Text = ""
    date_on_sale_to_gmt: Text = ""
    manage_stock: bool | str = False
    stock_quantity: float | None = None
    stock_status: Text = "instock"
    backorders: Text = "no"
    images: list[Image] = []
    image: Image | None = None
    brands: list[Named] = []
    attributes: list[Attribute] = []
    variations: list[Any] = []

    @property
    def is_listed(self) -> bool:
        """Whether the product belongs in a catalog: it is published, and customers can buy it by itself."""
        return self.status == "publish" and self.type != "grouped"


def items(
    product: ShopProduct, variations: Sequence[ShopProduct], shop: SyncShop, currency: str
) -> list[dict[str, Any]]:
    """Return the catalog items of a product: the product itself, or its published variations as a group.

    Raises Reject, which names what to correct in the shop.
    """
    if not product.is_listed:
        return []
    if product.type != "variable":
        return [_item(product, product, shop, currency)]
    group = item_id(product, shop)
    listed = [variation for variation in variations if variation.status == "publish"]
    return [_item(one, product, shop, currency) | {"item_group_id": group} | _options(one) for one in listed]


def item_id(product: ShopProduct, shop: SyncShop) -> str:
    """Return the item's id in the catalog; raises Reject if it is too long."""
    key = shop.catalog.item_id.format(id=product.id, sku=product.sku)
    if len(key) > _ITEM_ID:
        raise Reject(f"the item id of product {product.id} is longer than {_ITEM_ID} characters: shorten its SKU")
    return key


def _item(one: ShopProduct, parent: ShopProduct, shop: SyncShop, currency: str) -> dict[str, Any]:
    title = parent.name if one is parent else " ".join([parent.name, *(a.option for a in one.attributes if a.option)])
    text = plain_text(one.description) or plain_text(parent.description) or plain_text(parent.short_description)
    images = [one.image.src] if one.image and one.image.src else []
    images += [image.src for image in parent.images if image.src]
    item: dict[str, Any] = {
        "id": item_id(one, shop),
        "title": _shortened(plain_text(title) or f"Product {one.id}", _TITLE),
        "description": _shortened(text or plain_text(title) or f"Product {one.id}", _DESCRIPTION),
        "availability": _AVAILABILITY.get(one.stock_status, "out of stock"),
        "condition": "new",
        "price": money(one.regular_price or one.price, currency, one.id),
        "link": one.permalink or parent.permalink,
        "brand": next((brand.name for brand in parent.brands if brand.name), "")
        or shop.catalog.brand
        or shop.woocommerce.url.host
        or "",
        "sale_price": money(one.sale_price, currency, one.id) if one.on_sale and one.sale_price else "",
    }
    if images:
        item["image_link"], *more = dict.fromkeys(images)
        if more:
            item["additional_image_link"] = more[:_MOST_IMAGES]
    if one.on_sale and one.date_on_sale_from_gmt and one.date_on_sale_to_gmt:
        item["sale_price_effective_date"] = f"{_minute(one.date_on_sale_from_gmt)}/{_minute(one.date_on_sale_to_gmt)}"
    quantity = _quantity(one, parent)
    if quantity is not None:
        item["quantity_to_sell_on_facebook"] = quantity
    return item


def _quantity(one: ShopProduct, parent: ShopProduct) -> int | None:
    """Return the stock, at least 0; None if the shop does not manage it, or accepts backorders."""
    counted = parent if one.manage_stock == "parent" else one
    if not counted.manage_stock or counted.stock_quantity is None or counted.backorders != "no":
        return None
    return max(0, int(counted.stock_quantity))


def _options(variation: ShopProduct) -> dict[str, str]:
    fields: dict[str, str] = {}
    others = []
    for attribute in variation.attributes:
        own = _OWN_FIELDS.get(attribute.name.lower())
        if own and attribute.option:
            fields[own] = attribute.option
        elif attribute.option:
            others.append(f"{attribute.name}:{attribute.option}".replace(",", " "))
    return fields | ({"additional_variant_attribute": ",".join(others)} if others else {})


def money(amount: str, currency: str, product_id: int) -> str:
    """Return an amount in the catalog's format, like `9.99 USD`; raises Reject if it is missing or invalid."""
    try:
        value = Decimal(amount)
    except InvalidOperation:
        raise Reject(f"product {product_id} has no price: set one in the shop") from None
    if not value.is_finite() or value < 0:
        raise Reject(f"product {product_id} has the invalid price {amount}: correct it in the shop")
    return f"{value:.{0 if currency in _NO_DECIMALS else 2}f} {currency}"


def _minute(timestamp: str) -> str:
    return f"{timestamp[:16]}+0000"


def _shortened(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    return text[: limit - 1].rpartition(" ")[0].rstrip() + "…" if " " in text[: limit - 1] else text[:limit]


class _Words(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002 - its signature
        self._hidden += tag in _UNSEEN
        if tag in _BLOCKS:
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in _UNSEEN and self._hidden > 0
        if tag in _BLOCKS:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.parts.append(data)


def plain_text(html: str) -> str:
    """Return the visible text of HTML, with one line for each block."""
    words = _Words()
    words.feed(re.sub(r"\[/?[a-z_][^\]\n]*\]", "", html))
    words.close()
    lines = (" ".join(line.split()) for line in "".join(words.parts).split("\n"))
    return "\n".join(line for line in lines if line)
