"""The events of the demo: products, messages, a campaign and a cart, some of which fail."""

from __future__ import annotations

import json
from typing import Any, Literal

import httpx

from wch_common.broker.blocking.publisher import ConfirmedPublisher
from wch_common.client import Client
from wch_common.contract.envelope import STRUCTURED
from wch_common.contract.message import Message, Publication
from wch_common.events.broadcast import CampaignRecipient, CampaignRequested
from wch_common.events.shop import CartCompleted, CartItem, CartUpdated
from wch_common.events.sync import ProductRequested
from wch_common.events.whatsapp import MessageRequested, SuppressionAddRequested
from wch_common.events.whatsapp_content import Parameter, Template

GOOD = range(1, 25)
FAILS_TWICE, REFUSED = 30, 31
CAMPAIGN, CATALOG, ACCOUNT = "spring", "demo-catalog", "1001"
CART = "ada"
# Fictitious numbers.
CUSTOMER, OPTED_OUT, SHOPPER = "+15550100001", "+15550100002", "+15550100003"
TEMPLATES = {
    "order_update": ("UTILITY", "Hello, {{1}}."),
    "spring_sale": ("MARKETING", "Spring is here: 20 % off everything until Sunday."),
    "cart_reminder": ("MARKETING", "Hi {{1}}, your cart is waiting: {{2}}, {{3}} in total."),
    "hello": ("MARKETING", "Hello {{1}}, nice to meet you."),
}


def fill(shop_url: str) -> None:
    """Add products to the shop: most are valid, one can only be read at the third attempt, one has no picture."""
    products: list[dict[str, Any]] = [{"id": id_, "name": f"Tee no. {id_}", "price": f"{9 + id_}.90"} for id_ in GOOD]
    products += [{"id": FAILS_TWICE, "name": "Hoodie"}, {"id": REFUSED, "name": "Mug without a picture", "images": []}]
    variations = {
        str(FAILS_TWICE): [{"id": 300 + n, "option": option} for n, option in enumerate(("Blue", "Red", "Green"))]
    }
    fault = {
        "path": f"/products/{FAILS_TWICE}/variations",
        "times": 2,
        "status": 503,
        "body": "<html>Briefly unavailable</html>",
    }
    with httpx.Client(base_url=shop_url, timeout=30) as shop:
        shop.post("/_simulator/products", json={"products": products, "variations": variations}).raise_for_status()
        shop.post("/_simulator/faults", json=fault).raise_for_status()


def add_templates(graph_url: str) -> None:
    """Give the business account at Meta the templates that the demo sends, and `hello` to try."""
    templates = [
        {
            "id": f"{number}",
            "name": name,
            "language": "en_US",
            "status": "APPROVED",
            "category": category,
            "parameter_format": "POSITIONAL",
            "components": [{"type": "BODY", "text": text}, {"type": "FOOTER", "text": "Reply STOP to opt out"}],
        }
        for number, (name, (category, text)) in enumerate(TEMPLATES.items(), start=1)
    ]
    httpx.put(f"{graph_url}/_simulator/templates/{ACCOUNT}", json=templates, timeout=30).raise_for_status()


def to_one(phone: str, send_key: str, category: Literal["utility", "marketing"]) -> MessageRequested:
    """Return a message to one recipient."""
    template = Template(name="order_update", language="en_US", body=(Parameter(text="your order is on its way"),))
    return MessageRequested(to=phone, send_key=send_key, category=category, message=template)


def campaign() -> CampaignRequested:
    """Return a campaign to 500 recipients, of whom one wrote STOP, one is listed twice, and one has no number."""
    numbers = [OPTED_OUT, "+15550101000", "no number", *(f"+1555010{number}" for number in range(1000, 1497))]
    return CampaignRequested(
        campaign_id=CAMPAIGN,
        message=Template(name="spring_sale", language="en_US"),
        category="marketing",
        recipients=tuple(CampaignRecipient(to=number) for number in numbers),
    )


def cart() -> CartUpdated:
    """Return a cart that its owner abandoned."""
    items = (CartItem(product_id=1, name="Tee no. 1", quantity=2, price="10.90"),)
    return CartUpdated(
        cart_id=CART, version=1, phone=SHOPPER, customer_name="Ada", items=items, total="21.80", currency="EUR"
    )


def schedules() -> str:
    """Return the scheduler's file."""
    return (
        "schedules:\n  cart-reminder-scan: {event: carts.reminder_scan.requested.v1, group: carts, every_seconds: 3}\n"
    )


def order() -> CartCompleted:
    """Return the order of that cart."""
    return CartCompleted(cart_id=CART, version=2, order_id=18, total="21.80", currency="EUR")


def publish(amqp_url: str) -> str:
    """Publish the demo's events and return a description of them."""
    with Client(amqp_url, "/demo") as client:
        client.publish_many(ProductRequested(product_id=id_) for id_ in (*GOOD, FAILS_TWICE, REFUSED))
        stop = SuppressionAddRequested(phone=OPTED_OUT, category="marketing", reason="wrote STOP", by="demo")
        client.publish(stop)
        client.publish_many([to_one(CUSTOMER, "order/17", "utility")] * 2)
        client.publish(cart())
    malformed = {"id": "demo-malformed", "type": "sync.product.requested.v1", "data": {"product_id": "seven"}}
    unknown = {"id": "demo-unknown", "type": "sync.stock_take.requested.v1", "data": {"shelf": 3}}
    publisher = ConfirmedPublisher(amqp_url, "demo")
    for attributes in (malformed, unknown):
        event = {"specversion": "1.0", "source": "/demo", **attributes}
        message = Message(json.dumps(event).encode(), STRUCTURED, None, str(event["id"]))
        (error,) = publisher.publish([Publication("wch.requests", str(event["type"]), message)])
        if error is not None:
            raise error
    publisher.close()
    return (
        f"{len(GOOD) + 2} product requests, two requests for the same message, a cart, a malformed event, and a request "
        "of a type that no service handles"
    )
