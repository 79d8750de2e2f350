"""The mapping of products, as a WooCommerce shop returns them, to catalog items."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import HttpUrl, SecretStr

from wch_common.integrations.shops import CatalogSection, GraphSection, WooCommerceSection
from wch_common.outcome import Reject
from wch_simulators.shop import product, variation
from wch_sync.mapping import ShopProduct, items, plain_text
from wch_sync.settings import SyncShop

SHOP = SyncShop(
    woocommerce=WooCommerceSection(
        url=HttpUrl("https://shop.example"), consumer_key=SecretStr("k"), consumer_secret=SecretStr("s")
    ),
    graph=GraphSection(token=SecretStr("t")),
    catalog=CatalogSection(id="1"),
)


def mapped(**fields: Any) -> list[dict[str, Any]]:
    return items(ShopProduct.model_validate(product(7, **fields)), [], SHOP, "EUR")


def test_a_simple_product_is_one_item_with_every_required_field() -> None:
    (item,) = mapped(name="Tee &amp; Co", price="19.5", brands=[{"name": "Ours"}])
    assert item == {
        "id": "wc_7",
        "title": "Tee & Co",
        "description": "All about product 7.",
        "availability": "in stock",
        "condition": "new",
        "price": "19.50 EUR",
        "link": "https://shop.example/product/7/",
        "brand": "Ours",
        "sale_price": "",
        "image_link": "https://shop.example/images/7.jpg",
    }


@pytest.mark.parametrize(
    ("stock", "availability", "quantity"),
    [
        ({"manage_stock": True, "stock_quantity": 5}, "in stock", 5),
        ({"manage_stock": True, "stock_quantity": -3, "stock_status": "outofstock"}, "out of stock", 0),
        ({"manage_stock": True, "stock_quantity": None}, "in stock", None),
        ({"manage_stock": False, "stock_quantity": 5}, "in stock", None),
        (
            {"manage_stock": True, "stock_quantity": 0, "backorders": "notify", "stock_status": "onbackorder"},
            "available for order",
            None,
        ),
        ({"manage_stock": True, "stock_quantity": "4"}, "in stock", 4),
        ({"stock_status": "of a plugin"}, "out of stock", None),
    ],
)
def test_the_stock_of_a_product_is_mapped(stock: dict[str, Any], availability: str, quantity: int | None) -> None:
    (item,) = mapped(**stock)
    assert (item["availability"], item.get("quantity_to_sell_on_facebook")) == (availability, quantity)


def test_a_sale_has_its_price_and_both_its_dates_or_neither() -> None:
    dates = {"date_on_sale_from_gmt": "2026-01-01T00:00:00", "date_on_sale_to_gmt": "2026-02-01T00:00:00"}
    (item,) = mapped(on_sale=True, sale_price="9", regular_price="12", **dates)
    assert (item["price"], item["sale_price"]) == ("12.00 EUR", "9.00 EUR")
    assert item["sale_price_effective_date"] == "2026-01-01T00:00+0000/2026-02-01T00:00+0000"
    (half,) = mapped(on_sale=True, sale_price="9", date_on_sale_from_gmt="2026-01-01T00:00:00")
    assert "sale_price_effective_date" not in half


@pytest.mark.parametrize("price", ["", "free", "-1", "NaN"])
def test_a_product_without_a_valid_price_is_refused(price: str) -> None:
    with pytest.raises(Reject, match="price"):
        mapped(price=price)


@pytest.mark.parametrize("status", ["draft", "trash", "private", "pending", "future"])
def test_an_unpublished_product_has_no_items(status: str) -> None:
    assert mapped(status=status) == []


def test_variations_have_their_own_price_image_and_stock_and_the_group_of_their_parent() -> None:
    parent = product(7, name="Tee", manage_stock=True, stock_quantity=9, variations=[71, 72])
    parent["type"] = "variable"
    rows = [
        variation(
            71,
            parent,
            option="Red",
            price="5",
            manage_stock="parent",
            image={"id": 1, "src": "https://shop.example/red.jpg"},
        ),
        variation(72, parent, option="Blue", description="", attributes=[{"name": "Fit", "option": "Slim, long"}]),
        variation(73, parent, status="private"),
    ]
    red, blue = items(
        ShopProduct.model_validate(parent), [ShopProduct.model_validate(row) for row in rows], SHOP, "EUR"
    )
    assert (red["id"], red["item_group_id"], red["title"], red["color"]) == ("wc_71", "wc_7", "Tee Red", "Red")
    assert (red["price"], red["quantity_to_sell_on_facebook"]) == ("5.00 EUR", 9)
    assert red["image_link"] == "https://shop.example/red.jpg"
    assert red["link"] == rows[0]["permalink"] != parent["permalink"]
    assert red["description"] == "All about product 71."
    assert red["additional_image_link"] == ["https://shop.example/images/7.jpg"]
    assert blue["description"] == "All about product 7.", "the description of the parent, if it has none"
    assert blue["additional_variant_attribute"] == "Fit:Slim  long"
    assert blue["image_link"] == "https://shop.example/images/7.jpg"


def test_long_texts_are_shortened_between_words() -> None:
    (item,) = mapped(name="sevenly " * 50, description="<p>" + "xyz " * 5000 + "</p>")
    assert len(item["title"]) <= 100
    assert item["title"].endswith(" sevenly…")
    assert 4990 < len(item["description"]) <= 5000
    assert item["description"].endswith(" xyz…")
    (unbroken,) = mapped(name="x" * 150)
    assert unbroken["title"] == "x" * 100


def test_missing_texts_and_brands_have_fallbacks() -> None:
    (bare,) = mapped(name="", description="", short_description="")
    assert (bare["title"], bare["description"], bare["brand"]) == ("Product 7", "Product 7", "shop.example")
    (short,) = mapped(name="Tee", description="", short_description="<p>Short</p>")
    assert short["description"] == "Short"
    (named,) = mapped(name="Tee", description="")
    assert named["description"] == "Tee"
    branded = SHOP.model_copy(update={"catalog": CatalogSection(id="1", brand="House")})
    (item,) = items(ShopProduct.model_validate(product(7, brands=[{"name": ""}])), [], branded, "EUR")
    assert item["brand"] == "House"


def test_the_price_in_a_currency_without_decimals_has_none() -> None:
    (item,) = items(ShopProduct.model_validate(product(7, price="1980")), [], SHOP, "JPY")
    assert item["price"] == "1980 JPY"


def test_the_price_of_a_sale_that_has_ended_is_not_sent() -> None:
    dates = {"date_on_sale_from_gmt": "2026-01-01T00:00:00", "date_on_sale_to_gmt": "2026-02-01T00:00:00"}
    (item,) = mapped(on_sale=False, sale_price="9", regular_price="12", **dates)
    assert item["sale_price"] == ""
    assert "sale_price_effective_date" not in item


def test_a_grouped_product_has_no_items() -> None:
    assert mapped(type="grouped") == []


def test_each_image_is_sent_once_up_to_the_limit_of_the_catalog() -> None:
    images = [{"id": n, "src": f"https://shop.example/{n // 2}.jpg"} for n in range(60)]
    (item,) = mapped(images=images)
    assert item["image_link"] == "https://shop.example/0.jpg"
    assert item["additional_image_link"] == [f"https://shop.example/{n}.jpg" for n in range(1, 21)]


def test_an_item_id_that_is_too_long_is_refused() -> None:
    by_sku = SHOP.model_copy(update={"catalog": CatalogSection(id="1", item_id="{id}_{sku}")})
    with pytest.raises(Reject, match="shorten its SKU"):
        items(ShopProduct.model_validate(product(7, sku="x" * 101)), [], by_sku, "EUR")


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>Soft <b>tee</b></p>\n<ul><li>one<li>two</ul>", "Soft tee\none\ntwo"),
        ("a &lt; b &amp;c<script>alert(1)</script><style>p{}</style> and more &", "a < b &c and more &"),
        ("two  spaces\tand a tab", "two spaces and a tab"),
        ("[vc_row]text[/vc_row]", "text"),
        ("<p>unclosed <b>bold", "unclosed bold"),
        ("", ""),
    ],
)
def test_html_is_reduced_to_its_visible_text(html: str, text: str) -> None:
    assert plain_text(html) == text
