"""A WooCommerce shop's REST API v3 with the answers of WooCommerce 11: products, variations, orders and the currency.

Prices are strings, stock may be null, the page after the last is an empty list, errors are `{code, message, data: {status}}`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from aiohttp import web

from wch_simulators.faults import Journal
from wch_simulators.running import run_program

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from wch_simulators.faults import Handler

API = "/wp-json/wc/v3"
MOST_PER_PAGE = 100
MOST_PER_BATCH = 100
_HIDDEN_FROM_ANY = frozenset({"trash", "auto-draft"})


class ShopError(Exception):
    """An error in WooCommerce's form."""

    def __init__(self, status: int, code: str, message: str, **data: Any) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"code": code, "message": message, "data": {"status": status, **data}}


def product(id_: int, **fields: Any) -> dict[str, Any]:
    """Return a product with the fields of WooCommerce that matter to a reader."""
    price = str(fields.pop("price", "9.90"))
    known: dict[str, Any] = {
        "id": id_,
        "name": f"Product {id_}",
        "slug": f"product-{id_}",
        "permalink": f"https://shop.example/product/{id_}/",
        "type": "simple",
        "status": "publish",
        "description": f"<p>All about <b>product {id_}</b>.</p>\n",
        "short_description": "",
        "sku": f"SKU-{id_}",
        "price": price,
        "regular_price": price,
        "sale_price": "",
        "date_on_sale_from_gmt": None,
        "date_on_sale_to_gmt": None,
        "on_sale": False,
        "manage_stock": False,
        "stock_quantity": None,
        "stock_status": "instock",
        "backorders": "no",
        "parent_id": 0,
        "images": [{"id": id_ + 100_000, "src": f"https://shop.example/images/{id_}.jpg", "name": "", "alt": ""}],
        "categories": [],
        "brands": [],
        "attributes": [],
        "variations": [],
        "meta_data": [],
    }
    return known | fields


def variation(id_: int, parent: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Return a variation with at most one image, a price and stock of its own, and its options."""
    option = fields.pop("option", "Blue")
    known = product(id_, price=fields.pop("price", parent["price"]))
    for name in ("images", "variations", "categories", "brands", "short_description", "slug"):
        known.pop(name)
    known |= {
        "type": "variation",
        "parent_id": parent["id"],
        "name": option,
        "permalink": f"{parent['permalink']}?attribute_color={option.lower()}",
        "image": None,
        "attributes": [{"id": 0, "name": "Color", "slug": "Color", "option": option}],
    }
    return known | fields


class ShopSimulator:
    """One shop: its products and orders, its keys, its journal and its faults."""

    def __init__(self, *, key: str = "ck_simulated", secret: str = "cs_simulated", behind_tls: bool = True) -> None:
        self.key, self.secret = key, secret
        # A shop that believes the request came by HTTPS accepts Basic and refuses OAuth; by HTTP it is the other way round.
        self.behind_tls = behind_tls
        self.currency = "EUR"
        self.products: dict[int, dict[str, Any]] = {}
        self.variations: dict[int, dict[str, Any]] = {}
        self.orders: dict[int, dict[str, Any]] = {}
        self.journal = Journal()
        self._clock = itertools.count()

    def application(self) -> web.Application:
        """Return the web application."""
        app = web.Application(middlewares=[self.journal.middleware, self._errors], client_max_size=64 << 20)
        app.add_routes(
            [
                web.get(f"{API}/products", self._list_products),
                web.post(f"{API}/products/batch", self._batch),
                web.get(f"{API}/products/{{id:\\d+}}", self._get_product),
                web.put(f"{API}/products/{{id:\\d+}}", self._put_product),
                web.delete(f"{API}/products/{{id:\\d+}}", self._delete_product),
                web.get(f"{API}/products/{{id:\\d+}}/variations", self._list_variations),
                web.get(f"{API}/products/{{id:\\d+}}/variations/{{vid:\\d+}}", self._get_variation),
                web.put(f"{API}/products/{{id:\\d+}}/variations/{{vid:\\d+}}", self._put_variation),
                web.get(f"{API}/orders", self._list_orders),
                web.get(f"{API}/orders/{{id:\\d+}}", self._get_order),
                web.get(f"{API}/data/currencies/current", self._currency),
                web.post("/_simulator/products", self._load),
                *self.journal.routes(),
            ]
        )
        return app

    # -- what tests and the demo add to the shop

    def add(self, *products: dict[str, Any]) -> None:
        """Add products to the shop."""
        for one in products:
            self.products[one["id"]] = one
            self._touch(one)

    def add_variations(self, parent_id: int, *variations: dict[str, Any]) -> None:
        """Add variations to a product."""
        parent = self.products[parent_id]
        parent["type"] = "variable"
        for one in variations:
            self.variations[one["id"]] = one
            parent["variations"].append(one["id"])
            self._touch(one)
        self._touch(parent)

    def remove_variation(self, id_: int) -> None:
        """Take one away."""
        parent = self.products[self.variations.pop(id_)["parent_id"]]
        parent["variations"].remove(id_)
        self._touch(parent)

    def _touch(self, one: dict[str, Any]) -> None:
        timestamp = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=next(self._clock))
        one["date_modified"] = one["date_modified_gmt"] = timestamp.strftime("%Y-%m-%dT%H:%M:%S")

    # -- requests

    @web.middleware
    async def _errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            if not request.path.startswith("/_simulator/"):
                self._authenticate(request)
            return await handler(request)
        except ShopError as error:
            return web.json_response(error.body, status=error.status)
        except web.HTTPNotFound:
            body: dict[str, Any] = {
                "code": "rest_no_route",
                "message": "No route was found matching the URL and request method.",
            }
            return web.json_response(body | {"data": {"status": 404}}, status=404)
        except ValueError:
            body = {"code": "rest_invalid_json", "message": "Invalid JSON body passed.", "data": {"status": 400}}
            return web.json_response(body, status=400)

    def _authenticate(self, request: web.Request) -> None:
        cannot_view = ShopError(401, "woocommerce_rest_cannot_view", "Sorry, you cannot list resources.")
        wrong_secret = ShopError(401, "woocommerce_rest_authentication_error", "Consumer secret is invalid.")
        if not self.behind_tls:
            if request.query.get("oauth_consumer_key") != self.key:
                raise cannot_view
            if not hmac.compare_digest(self._oauth_signature(request), request.query.get("oauth_signature", "")):
                raise ShopError(
                    401,
                    "woocommerce_rest_authentication_error",
                    "Invalid signature - provided signature does not match.",
                )
            return
        key, secret = request.query.get("consumer_key"), request.query.get("consumer_secret")
        header = request.headers.get("Authorization", "")
        if header.startswith("Basic "):
            key, _, secret = base64.b64decode(header[6:]).decode().partition(":")
        if key != self.key:
            raise cannot_view
        if secret != self.secret:
            raise wrong_secret

    def _oauth_signature(self, request: web.Request) -> str:
        """Return the OAuth 1.0a signature of the request, with HMAC-SHA256 or -SHA1."""
        # PHP keeps the last of a repeated parameter, and the official client repeats some.
        given = dict(request.query.items())
        parameters = sorted((k, v) for k, v in given.items() if k != "oauth_signature")
        text = "&".join(f"{quote(k, safe='~')}={quote(v, safe='~')}" for k, v in parameters)
        url = f"http://{request.host}{request.path}"
        base = "&".join(quote(part, safe="~") for part in (request.method, url, text))
        digest = hashlib.sha1 if request.query.get("oauth_signature_method") == "HMAC-SHA1" else hashlib.sha256
        return base64.b64encode(hmac.new(f"{self.secret}&".encode(), base.encode(), digest).digest()).decode()

    async def _list_products(self, request: web.Request) -> web.Response:
        return _page(request, _filtered(self.products, request.query))

    async def _list_variations(self, request: web.Request) -> web.Response:
        parent = self._product(request)
        return _page(request, _filtered({id_: self.variations[id_] for id_ in parent["variations"]}, request.query))

    async def _list_orders(self, request: web.Request) -> web.Response:
        return _page(request, _filtered(self.orders, request.query))

    async def _get_product(self, request: web.Request) -> web.Response:
        id_ = int(request.match_info["id"])
        # A variation can be read by its id like a product, unlike with `include` in a list.
        return web.json_response(self.variations.get(id_) or self._product(request))

    async def _put_product(self, request: web.Request) -> web.Response:
        return web.json_response(self._update(int(request.match_info["id"]), await request.json()))

    def _update(self, id_: int, fields: dict[str, Any]) -> dict[str, Any]:
        if id_ not in self.products:
            raise ShopError(400, "woocommerce_rest_product_invalid_id", "Invalid ID.")
        self.products[id_].update(_written(fields))
        self._touch(self.products[id_])
        return self.products[id_]

    async def _delete_product(self, request: web.Request) -> web.Response:
        found = self._product(request)
        if request.query.get("force") == "true":
            del self.products[found["id"]]
        else:
            found["status"] = "trash"
        return web.json_response(found)

    async def _get_variation(self, request: web.Request) -> web.Response:
        return web.json_response(self._variation(request))

    async def _put_variation(self, request: web.Request) -> web.Response:
        found = self._variation(request)
        found.update(_written(await request.json()))
        self._touch(found)
        self._touch(self.products[found["parent_id"]])
        return web.json_response(found)

    async def _batch(self, request: web.Request) -> web.Response:
        body = await request.json()
        updates, creates, deletes = (body.get(name, []) for name in ("update", "create", "delete"))
        if len(updates) + len(creates) + len(deletes) > MOST_PER_BATCH:
            raise ShopError(
                413,
                "woocommerce_rest_request_entity_too_large",
                f"Unable to accept more than {MOST_PER_BATCH} items for this request.",
            )
        answers = []
        for fields in updates:
            try:
                answers.append(self._update(int(fields["id"]), fields))
            except ShopError as error:
                answers.append({"id": fields["id"], "error": error.body})
        return web.json_response({"update": answers})

    async def _get_order(self, request: web.Request) -> web.Response:
        found = self.orders.get(int(request.match_info["id"]))
        if found is None:
            raise ShopError(404, "woocommerce_rest_shop_order_invalid_id", "Invalid ID.")
        return web.json_response(found)

    async def _currency(self, _request: web.Request) -> web.Response:
        return web.json_response({"code": self.currency, "name": self.currency, "symbol": "¤"})

    async def _load(self, request: web.Request) -> web.Response:
        """Add `{products: [...], variations: {parent: [...]}}` with partial fields; for programs in another process."""
        body = await request.json()
        self.add(*(product(**{"id_": fields.pop("id"), **fields}) for fields in body.get("products", [])))
        for parent_id, rows in body.get("variations", {}).items():
            parent = self.products[int(parent_id)]
            self.add_variations(int(parent_id), *(variation(fields.pop("id"), parent, **fields) for fields in rows))
        return web.json_response({"products": len(self.products)})

    def _product(self, request: web.Request) -> dict[str, Any]:
        found = self.products.get(int(request.match_info["id"]))
        if found is None:
            raise ShopError(404, "woocommerce_rest_product_invalid_id", "Invalid ID.")
        return found

    def _variation(self, request: web.Request) -> dict[str, Any]:
        found = self.variations.get(int(request.match_info["vid"]))
        if found is None or found["parent_id"] != int(request.match_info["id"]):
            raise ShopError(404, "woocommerce_rest_product_variation_invalid_id", "Invalid ID.")
        return found


def _written(fields: dict[str, Any]) -> dict[str, Any]:
    quantity = fields.get("stock_quantity")
    if quantity is not None and not isinstance(quantity, int):
        problem = "stock_quantity is not of type integer."
        raise ShopError(
            400, "rest_invalid_param", "Invalid parameter(s): stock_quantity", params={"stock_quantity": problem}
        )
    if quantity is not None:
        fields = fields | {"manage_stock": True, "stock_status": "instock" if quantity > 0 else "outofstock"}
    if "regular_price" in fields:
        fields = fields | {"price": fields.get("sale_price") or fields["regular_price"]}
    return fields


def _filtered(rows: Mapping[int, dict[str, Any]], query: Mapping[str, str]) -> list[dict[str, Any]]:
    include = {int(part) for part in query.get("include", "").split(",") if part}
    found = [rows[id_] for id_ in include if id_ in rows] if include else list(rows.values())
    status = query.get("status", "any")
    if status == "any":
        found = [row for row in found if row.get("status") not in _HIDDEN_FROM_ANY]
    else:
        found = [row for row in found if row.get("status") == status]
    if after := query.get("modified_after"):
        try:
            since = datetime.fromisoformat(after).replace(tzinfo=None).isoformat()
        except ValueError:
            raise ShopError(400, "rest_invalid_param", "Invalid parameter(s): modified_after") from None
        found = [row for row in found if row["date_modified_gmt"] > since]
    key = {"modified": "date_modified_gmt", "id": "id"}.get(query.get("orderby", "date"), "id")
    return sorted(found, key=lambda row: row[key], reverse=query.get("order", "desc") == "desc")


def _page(request: web.Request, rows: list[dict[str, Any]]) -> web.Response:
    """Return one page; past the end it is an empty list, and the Link header also has a rel that is not about paging."""
    page, per_page = int(request.query.get("page", 1)), int(request.query.get("per_page", 10))
    if not 1 <= per_page <= MOST_PER_PAGE:
        problem = f"per_page must be between 1 (inclusive) and {MOST_PER_PAGE} (inclusive)"
        raise ShopError(400, "rest_invalid_param", "Invalid parameter(s): per_page", params={"per_page": problem})
    pages = -(-len(rows) // per_page)
    links = ['<https://shop.example/wp-json/>; rel="https://api.w.org/"']
    for rel, number in (("prev", page - 1), ("next", page + 1)):
        if 1 <= number <= pages:
            links.append(f'<{request.url.update_query(page=number)}>; rel="{rel}"')
    headers = {"X-WP-Total": str(len(rows)), "X-WP-TotalPages": str(pages), "Link": ", ".join(links)}
    return web.json_response(rows[(page - 1) * per_page : page * per_page], headers=headers)


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--key", default="ck_simulated")
    parser.add_argument("--secret", default="cs_simulated")


if __name__ == "__main__":
    run_program("shop", lambda given: ShopSimulator(key=given.key, secret=given.secret), _options)
