"""Third-party clients work with the simulators, which therefore do not only meet our own clients' expectations."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from woocommerce import API

from support.whatsapp_stage import template
from wch_simulators.graph import GraphSimulator
from wch_simulators.running import InThread
from wch_simulators.shop import ShopSimulator, product, variation

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from facebook_business.adobjects.productcatalog import ProductCatalog
    from facebook_business.api import FacebookAdsApi
    from facebook_business.exceptions import FacebookRequestError
    from facebook_business.session import FacebookSession
    from pywa import WhatsApp
    from pywa.errors import WhatsAppError
    from pywa.types import Pagination

TOKEN = "simulated-token"
# The SDK's type table declares the batch as a map, but Meta expects a list.
pytestmark = pytest.mark.filterwarnings("ignore:value of requests might not be compatible")


@pytest.fixture
def shop() -> Iterator[tuple[ShopSimulator, API]]:
    simulator = ShopSimulator(behind_tls=False)
    simulator.add(*(product(id_) for id_ in range(1, 251)))
    simulator.add_variations(7, variation(701, simulator.products[7], option="Red", stock_quantity=-2))
    with InThread(simulator) as running:
        yield simulator, API(running.url, simulator.key, simulator.secret, version="wc/v3", timeout=10)


def test_the_woocommerce_client_reads_pages_until_the_empty_one(shop: tuple[ShopSimulator, API]) -> None:
    seen: list[int] = []
    for page in range(1, 10):
        answer = shop[1].get("products", params={"per_page": 100, "page": page, "orderby": "id", "order": "asc"})
        assert (answer.headers["X-WP-Total"], answer.headers["X-WP-TotalPages"]) == ("250", "3")
        if not answer.json():
            break
        seen += [row["id"] for row in answer.json()]
    assert seen == list(range(1, 251))
    assert 'rel="https://api.w.org/"' in answer.headers["Link"]


def test_the_woocommerce_client_gets_the_shops_own_errors(shop: tuple[ShopSimulator, API]) -> None:
    simulator, api = shop
    assert api.get("products", params={"per_page": 101}).json()["code"] == "rest_invalid_param"
    missing = api.get("products/9999")
    assert (missing.status_code, missing.json()["code"]) == (404, "woocommerce_rest_product_invalid_id")
    assert api.put("products/9999", {"name": "x"}).status_code == 400
    assert api.get("products/701").json()["type"] == "variation"
    assert api.get("products", params={"include": "701"}).json() == []
    assert api.put("products/1", {"stock_quantity": "many"}).json()["code"] == "rest_invalid_param"
    partial = api.post("products/batch", {"update": [{"id": 1, "name": "A"}, {"id": 9999, "name": "B"}]})
    assert partial.status_code == 200
    assert partial.json()["update"][1]["error"]["code"] == "woocommerce_rest_product_invalid_id"
    too_many = api.post("products/batch", {"update": [{"id": n} for n in range(101)]})
    assert too_many.status_code == 413
    wrong = API(api.url, simulator.key, "cs_wrong", version="wc/v3")
    assert wrong.get("products").json()["code"] == "woocommerce_rest_authentication_error"


_opened: list[Any] = []


@pytest.fixture
def graph() -> Iterator[tuple[GraphSimulator, str]]:
    simulator = GraphSimulator()
    with InThread(simulator) as running:
        yield simulator, running.url
    # The clients never close their connections.
    while _opened:
        _opened.pop().close()


def catalog(url: str, token: str = TOKEN) -> ProductCatalog:
    session = FacebookSession(access_token=token)
    session.GRAPH = url
    _opened.append(session.requests)
    return ProductCatalog("1001", api=FacebookAdsApi(session))


def item(id_: str, **fields: Any) -> dict[str, Any]:
    return {
        "id": id_,
        "title": "Tee",
        "description": "A tee",
        "availability": "in stock",
        "condition": "new",
        "price": "9.99 USD",
        "link": "https://shop.example/tee",
        "image_link": "https://shop.example/tee.jpg",
        "brand": "Us",
    } | fields


def test_the_official_sdk_sends_a_batch_and_requests_its_status(graph: tuple[GraphSimulator, str]) -> None:
    simulator, url = graph
    simulator.refused["refused"] = "Policy violation"
    requests = [
        {"method": "UPDATE", "data": item("good")},
        {"method": "UPDATE", "data": item("refused")},
        {"method": "UPDATE", "data": item("bad", price="9.99")},
        {"method": "DELETE", "data": {"id": "gone"}},
    ]
    answer = catalog(url).create_items_batch(params={"item_type": "PRODUCT_ITEM", "requests": requests})
    (refused,) = answer["validation_status"]
    assert refused["retailer_id"] == "bad"
    params = {"handle": answer["handles"][0], "load_ids_of_invalid_requests": True}
    (status,) = catalog(url).get_check_batch_request_status(params=params)
    assert (status["status"], status["ids_of_invalid_requests"]) == ("finished", ["refused"])
    assert sorted(simulator.catalogs["1001"]) == ["good"]


def test_the_official_sdk_understands_the_errors(graph: tuple[GraphSimulator, str]) -> None:
    simulator, url = graph
    batch = {"item_type": "PRODUCT_ITEM", "requests": [{"method": "DELETE", "data": {"id": "x"}}]}
    with pytest.raises(FacebookRequestError) as wrong_token:
        catalog(url, "another").create_items_batch(params=batch)
    assert wrong_token.value.api_error_code() == 190
    simulator.calls_per_hour = 0
    with pytest.raises(FacebookRequestError) as throttled:
        catalog(url).create_items_batch(params=batch)
    assert throttled.value.api_error_code() == 80014


def test_pywa_sends_a_message_and_understands_an_error(graph: tuple[GraphSimulator, str]) -> None:
    simulator, url = graph
    whatsapp = WhatsApp(phone_id="2002", token=TOKEN)
    whatsapp.api._session.base_url = f"{url}/v23.0"
    _opened.append(whatsapp.api._session)
    sent = whatsapp.send_message(to="+10000000000", text="Hello")
    assert str(getattr(sent, "id", sent)).startswith("wamid.")
    assert simulator.sent[0]["body"]["text"]["body"] == "Hello"
    with pytest.raises(WhatsAppError):
        whatsapp.send_message(to="x", text="Hello")


def test_pywa_reads_the_templates_page_by_page(graph: tuple[GraphSimulator, str]) -> None:
    simulator, url = graph
    buttons = [
        {"type": "URL", "text": "Track", "url": "https://shop.example/{{1}}", "example": ["https://shop.example/7"]},
        {"type": "QUICK_REPLY", "text": "Stop"},
    ]
    components: list[dict[str, Any]] = [
        {"type": "HEADER", "format": "TEXT", "text": "News"},
        {"type": "BODY", "text": "Hi {{1}}", "example": {"body_text": [["Ada"]]}},
        {"type": "FOOTER", "text": "Bye"},
        {"type": "BUTTONS", "buttons": buttons},
    ]
    simulator.templates["1001"] = [template(f"t{number}", *components) for number in range(5)]
    whatsapp = WhatsApp(phone_id="2002", token=TOKEN, waba_id="1001")
    whatsapp.api._session.base_url = f"{url}/v23.0"
    _opened.append(whatsapp.api._session)

    def page(**cursors: str) -> Any:  # TemplatesResult.next() of pywa 4.5 raises TypeError
        return whatsapp.get_templates(pagination=Pagination(limit=2, **cursors))

    first = page()
    assert [one.name for one in first] == ["t0", "t1"]
    assert (first.has_previous, first.has_next, first.total_count) == (False, True, 5)
    second = page(after=first.after)
    assert [one.name for one in second] == ["t2", "t3"]
    assert [one.name for one in page(before=second.before)] == ["t0", "t1"]
    last = page(after=second.after)
    assert [one.name for one in last] == ["t4"]
    assert not last.has_next
    (found,) = last
    assert (found.status, found.category, found.language) == ("APPROVED", "MARKETING", "en_US")
    assert [type(one).__name__ for one in found.components] == ["HeaderText", "BodyText", "FooterText", "Buttons"]
