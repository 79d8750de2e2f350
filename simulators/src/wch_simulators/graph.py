"""The parts of Meta's Graph API that the jobs use: catalog batches and their status, message templates, sending messages, and the contact book.

Errors are Graph errors (`{error: {message, type, code, …}}`); a 200 says nothing about single items.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import re
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from aiohttp import web

from wch_simulators import templates
from wch_simulators.faults import Journal
from wch_simulators.graph_error import GraphError
from wch_simulators.graph_messages import RefusedMessage, check_message
from wch_simulators.running import run_program

if TYPE_CHECKING:
    import argparse

    from wch_simulators.faults import Handler

MOST_REQUESTS = 5000
_USER_ID = re.compile(r"[A-Z]{2}\.(ENT\.)?[A-Za-z0-9]{1,128}")
_PRICE = re.compile(r"^\d+(\.\d+)? [A-Z]{3}$")
_AVAILABILITY = frozenset({"in stock", "out of stock", "available for order", "discontinued"})
_REQUIRED = ("id", "title", "description", "availability", "condition", "price", "link", "brand")
_LENGTHS = {"id": 100, "title": 100, "description": 5000}
_KNOWN = frozenset(
    (
        *_REQUIRED, "sale_price", "sale_price_effective_date", "image", "image_link", "additional_image_link",
        "quantity_to_sell_on_facebook", "inventory", "item_group_id", "color", "size", "pattern", "material", "gender",
        "additional_variant_attribute", "google_product_category", "product_type", "gtin", "mpn", "rich_text_description",
    )
)  # fmt: skip


class GraphSimulator:
    """Graph as one app sees it: catalogs with items and batches, phone numbers with the messages they sent."""

    def __init__(self, *, token: str = "simulated-token", calls_per_hour: int = 200, finish_after: int = 1) -> None:
        self.token = token
        self.calls_per_hour = calls_per_hour
        self.finish_after = finish_after
        """How often the status of a batch must be requested before it is finished."""
        self.catalogs: dict[str, dict[str, dict[str, Any]]] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.refused: dict[str, str] = {}
        """Items that the catalog refuses after it accepted the batch: id and reason."""
        self.sent: list[dict[str, Any]] = []
        """Accepted messages: number, body and time."""
        self.latency_seconds = 0.0
        """How long the call for a message takes, in seconds."""
        self.message_errors: dict[str, tuple[int, str]] = {}
        """Errors by recipient or by template name: code and details; they last until removed."""
        self.templates: dict[str, list[dict[str, Any]]] = {}
        """Message templates by business account, as Meta has them; without any, a message of every template is accepted."""
        self.messages_per_second = 0
        """Most messages a number may send in a second; 0 for no limit."""
        self.usage_percent = 0
        """The usage in percent that the header of an answer reports."""
        self.contact_book: set[str] = set()
        """The user ids in the contact book."""
        self.contact_book_deletions: list[tuple[str, str]] = []
        """What the contact book was asked to delete: the number by which, and the id of the user."""
        self.journal = Journal()
        self._calls: dict[str, deque[float]] = {}
        self._times: dict[str, deque[float]] = {}
        self._numbers = itertools.count(1)

    def application(self) -> web.Application:
        """Return the web application."""
        app = web.Application(middlewares=[self.journal.middleware, self._errors], client_max_size=64 << 20)
        app.add_routes(
            [
                web.post("/{version:v[0-9.]+}/{catalog}/items_batch", self._items_batch),
                web.get("/{version:v[0-9.]+}/{catalog}/check_batch_request_status", self._batch_status),
                web.get("/{version:v[0-9.]+}/{catalog}/products", self._products),
                web.post("/{version:v[0-9.]+}/{number}/messages", self._messages),
                web.delete("/{version:v[0-9.]+}/{number}/contact_book", self._delete_contact),
                web.get("/{version:v[0-9.]+}/{account}/message_templates", self._templates),
                web.put("/_simulator/templates/{account}", self._set_templates),
                web.get("/_simulator/catalog/{catalog}", self._show_catalog),
                web.get("/_simulator/messages", self._show_messages),
                *self.journal.routes(),
            ]
        )
        return app

    @web.middleware
    async def _errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            if not request.path.startswith("/_simulator/"):
                await self._authenticate(request)
            return await handler(request)
        except GraphError as error:
            return web.json_response(error.body, status=error.status)
        except web.HTTPNotFound:
            return web.json_response(GraphError(400, 2500, "Unknown path components").body, status=400)

    async def _authenticate(self, request: web.Request) -> None:
        given = request.headers.get("Authorization", "").removeprefix("Bearer ") or request.query.get(
            "access_token", ""
        )
        if not given and request.method == "POST" and "form" in request.content_type:
            given = str((await request.post()).get("access_token", ""))
        if given != self.token:
            raise GraphError(401, 190, "Invalid OAuth access token.", subcode=463)

    # -- catalog

    async def _items_batch(self, request: web.Request) -> web.Response:
        catalog = request.match_info["catalog"]
        usage = self._count_call(catalog)
        body = await _fields(request)
        if body.get("item_type") != "PRODUCT_ITEM":
            raise GraphError(400, 100, "The parameter item_type is required")
        requests = body.get("requests")
        if not isinstance(requests, list) or not requests:
            raise GraphError(400, 100, "The parameter requests is required")
        if len(requests) > MOST_REQUESTS:
            raise GraphError(400, 100, f"Too many requests in one batch: the most is {MOST_REQUESTS}")
        upsert = str(body.get("allow_upsert", True)).lower() == "true"
        items = self.catalogs.setdefault(catalog, {})
        validation, errors, ingested = [], [], 0
        for line, one in enumerate(requests):
            problems, warnings = _check_item(one, exists=str(one.get("data", {}).get("id")) in items)
            if problems or warnings:
                validation.append(_validation(one, problems, warnings))
            if problems:
                continue
            ingested += 1
            if reason := self.refused.get(one["data"]["id"]):
                errors.append({"line": line, "id": one["data"]["id"], "message": reason})
            else:
                _apply(items, one, upsert=upsert)
        handle = f"handle-{next(self._numbers)}"
        if ingested:
            self.batches[handle] = {"errors": errors, "asked": 0, "requests": requests}
        answer = {"handles": [handle] if ingested else [], "validation_status": validation}
        return web.json_response(answer, headers={"X-Business-Use-Case-Usage": usage})

    def _count_call(self, catalog: str) -> str:
        """Count a call against the hourly limit; returns the usage header."""
        calls, now = self._calls.setdefault(catalog, deque()), time.time()
        while calls and calls[0] < now - 3600:
            calls.popleft()
        if len(calls) >= self.calls_per_hour:
            raise GraphError(
                400, 80014, "There have been too many calls for the batch uploads to this catalog account."
            )
        calls.append(now)
        entry = {"type": "ads_management", "call_count": math.ceil(100 * len(calls) / self.calls_per_hour)}
        return json.dumps(
            {catalog: [entry | {"total_cputime": 1, "total_time": 1, "estimated_time_to_regain_access": 0}]}
        )

    async def _batch_status(self, request: web.Request) -> web.Response:
        handle = request.query.get("handle", "")
        batch = self.batches.get(handle)
        if batch is None:
            raise GraphError(400, 100, "Invalid parameter: handle")
        batch["asked"] += 1
        finished = batch["asked"] >= self.finish_after
        errors = batch["errors"] if finished else []
        wanted = request.query.get("load_ids_of_invalid_requests", "").lower() == "true"
        row = {
            "handle": handle,
            "status": "finished" if finished else "started",
            "errors": errors,
            "errors_total_count": len(errors),
            "warnings": [],
            "warnings_total_count": 0,
            "ids_of_invalid_requests": [error["id"] for error in errors] if wanted else [],
        }
        return web.json_response({"data": [row]})

    async def _products(self, request: web.Request) -> web.Response:
        items = self.catalogs.get(request.match_info["catalog"], {})
        rows = [
            {"id": str(abs(hash(key))), "retailer_id": key, "name": item.get("title")} for key, item in items.items()
        ]
        return web.json_response({"data": rows[: int(request.query.get("limit", 25))], "paging": {}})

    async def _show_catalog(self, request: web.Request) -> web.Response:
        return web.json_response(self.catalogs.get(request.match_info["catalog"], {}))

    async def _show_messages(self, _request: web.Request) -> web.Response:
        return web.json_response([one["body"] for one in self.sent])

    # -- templates

    async def _templates(self, request: web.Request) -> web.Response:
        account = request.match_info["account"]
        if account not in self.templates:
            raise GraphError(
                400, 100, f"Unsupported get request. Object with ID '{account}' does not exist", subcode=33
            )
        return web.json_response(
            templates.page(self.templates[account], request.query, str(request.url.with_query({})))
        )

    async def _set_templates(self, request: web.Request) -> web.Response:
        self.templates[request.match_info["account"]] = await request.json()
        return web.json_response({"success": True})

    # -- messages

    async def _messages(self, request: web.Request) -> web.Response:
        body = await request.json()
        if body.get("messaging_product") != "whatsapp":
            raise GraphError(400, 100, "The parameter messaging_product is required.")
        if body.get("status") == "read":
            return web.json_response({"success": True})
        # A number wins over an id beside it. Of an id in `to` Meta reads the digits, as a number.
        to = str(body.get("to") or "")
        user_id = "" if to else str(body.get("recipient") or "")
        if not re.sub(r"\D", "", to) and not _USER_ID.fullmatch(user_id):
            raise GraphError(400, 131009, "Parameter value is not valid", details="Recipient phone number is not valid")
        kind = body.get("type", "text")
        try:
            check_message(body)
        except RefusedMessage as error:
            raise GraphError(400, error.code, "Invalid message", details=error.details) from None
        number = request.match_info["number"]
        if self.latency_seconds:
            await asyncio.sleep(self.latency_seconds)
        self._refuse(number, to or user_id, body)
        if kind == "template" and self.templates:
            templates.check([one for known in self.templates.values() for one in known], body["template"])
        wamid = f"wamid.simulated{next(self._numbers)}"
        self.sent.append({"wamid": wamid, "number": number, "body": body, "time": time.monotonic()})
        contact = {"input": to, "wa_id": re.sub(r"\D", "", to)} if to else {"input": user_id, "user_id": user_id}
        answer = {
            "messaging_product": "whatsapp",
            "contacts": [contact],
            "messages": [{"id": wamid, **({"message_status": "accepted"} if kind == "template" else {})}],
        }
        usage = {"type": "whatsapp", "call_count": self.usage_percent, "total_cputime": 1, "total_time": 1}
        header = json.dumps({"1": [usage | {"estimated_time_to_regain_access": 0}]})
        return web.json_response(answer, headers={"X-Business-Use-Case-Usage": header})

    def _refuse(self, number: str, to: str, body: dict[str, Any]) -> None:
        """Raise the error configured for a recipient or template, or for the number's limit."""
        for name in (to, str(body.get("template", {}).get("name"))):
            if name in self.message_errors:
                code, details = self.message_errors[name]
                raise GraphError(400, code, "Refused on demand", details=details)
        if self.messages_per_second:
            times, now = self._times.setdefault(number, deque()), time.monotonic()
            while times and times[0] <= now - 1:
                times.popleft()
            if len(times) >= self.messages_per_second:
                raise GraphError(400, 130429, "Rate limit hit", details="Message failed to send")
            times.append(now)

    # -- contact book

    async def _delete_contact(self, request: web.Request) -> web.Response:
        if request.query.get("messaging_product") != "whatsapp":
            raise GraphError(400, 100, "The parameter messaging_product is required.")
        id_ = request.query.get("bsuid", "")
        found = _USER_ID.fullmatch(id_)
        if found is None or found[1]:
            raise GraphError(
                400, 100, "Invalid parameter", details="bsuid must be a business-scoped user ID, no parent ID"
            )
        self.contact_book_deletions.append((request.match_info["number"], id_))
        deleted = id_ in self.contact_book
        self.contact_book.discard(id_)
        return web.json_response({"messaging_product": "whatsapp", "success": True, "deleted": deleted})


async def _fields(request: web.Request) -> dict[str, Any]:
    """Read a JSON body, or form fields whose values are JSON, as the official Python SDK sends them."""
    if request.content_type == "application/json":
        return dict(await request.json())
    fields: dict[str, Any] = {}
    for key, value in (await request.post()).items():
        try:
            fields[key] = json.loads(str(value))
        except ValueError:
            fields[key] = str(value)
    return fields


def _check_item(one: dict[str, Any], *, exists: bool) -> tuple[list[str], list[str]]:
    """Return errors and warnings of one request; unknown fields are a warning, the key is `data.id`."""
    data, method = one.get("data") or {}, one.get("method")
    if method not in {"CREATE", "UPDATE", "DELETE"}:
        return [f"method {method} is not valid"], []
    if not data.get("id"):
        return ["id: this field is required"], []
    if method == "DELETE":
        return [], []
    errors = [
        f"{name}: longer than {most} characters"
        for name, most in _LENGTHS.items()
        if len(str(data.get(name, ""))) > most
    ]
    if method == "CREATE" or not exists:
        errors += [f"{name}: this field is required" for name in _REQUIRED if not data.get(name)]
        if not data.get("image") and not data.get("image_link"):
            errors.append("image_link: this field is required")
    for name in ("price", "sale_price"):
        if data.get(name) and not _PRICE.match(str(data[name])):
            errors.append(f"{name}: must be an amount, a space and a currency, like 9.99 USD")
    if data.get("availability") and data["availability"] not in _AVAILABILITY:
        errors.append("availability: not a known value")
    return errors, [f"{name}: unknown field" for name in sorted(set(data) - _KNOWN)]


def _validation(one: dict[str, Any], errors: list[str], warnings: list[str]) -> dict[str, Any]:
    return {
        "retailer_id": (one.get("data") or {}).get("id", ""),
        "errors": [{"message": text} for text in errors],
        "warnings": [{"message": text} for text in warnings],
    }


def _apply(items: dict[str, dict[str, Any]], one: dict[str, Any], *, upsert: bool) -> None:
    data = one["data"]
    if one["method"] == "DELETE":
        items.pop(data["id"], None)
    elif one["method"] == "CREATE" or data["id"] in items or upsert:
        items[data["id"]] = items.get(data["id"], {}) | data


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--token", default="simulated-token")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds that the call for a message takes")


def _made(given: argparse.Namespace) -> GraphSimulator:
    simulator = GraphSimulator(token=given.token)
    simulator.latency_seconds = given.latency
    return simulator


if __name__ == "__main__":
    run_program("graph", _made, _options)
