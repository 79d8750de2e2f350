"""What an answer of Meta's contact book means, and that nothing we say about it contains the id."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from wch_common.integrations.shops import GraphSection
from wch_whatsapp.contact_books import ContactBookApi, Reply

ID = "US.15550100001771"
USAGE = {"X-Business-Use-Case-Usage": '{"1": [{"type": "whatsapp", "estimated_time_to_regain_access": 3}]}'}


def error(code: int, status: int = 400, **more: Any) -> httpx.Response:
    body = {"error": {"message": f"Unknown bsuid {ID}", "code": code, "error_data": {"details": ID}}}
    return httpx.Response(status, json=body, **more)


def asked(answer: httpx.Response | Exception, requests: list[httpx.Request] | None = None) -> Reply:
    """Return what the answer to a deletion is taken for."""

    def handle(request: httpx.Request) -> httpx.Response:
        if requests is not None:
            requests.append(request)
        if isinstance(answer, Exception):
            raise answer
        return answer

    graph = GraphSection.model_validate({"token": SecretStr("a token"), "url": "http://graph.invalid"})
    api = ContactBookApi(httpx.MockTransport(handle), graph, "2002", seconds=5)
    return asyncio.run(api.delete(ID))


def test_the_request_names_the_product_and_the_id() -> None:
    requests: list[httpx.Request] = []
    asked(httpx.Response(200, json={"success": True, "deleted": True}), requests)
    (request,) = requests
    assert (request.method, request.url.path) == ("DELETE", "/v23.0/2002/contact_book")
    assert dict(request.url.params) == {"messaging_product": "whatsapp", "bsuid": ID}
    assert request.headers["Authorization"] == "Bearer a token"


@pytest.mark.parametrize("deleted", [True, False])
def test_an_entry_is_gone_whether_there_was_one_or_not(deleted: bool) -> None:
    body = {"messaging_product": "whatsapp", "success": True, "deleted": deleted}
    assert asked(httpx.Response(200, json=body)) == Reply("deleted")


@pytest.mark.parametrize("code", [100, 131009, 999])
def test_a_wrong_request_is_refused_for_good(code: int) -> None:
    reply = asked(error(code))
    assert (reply.answer, reply.retryable) == ("refused", False)
    assert ID not in reply.reason


@pytest.mark.parametrize(
    ("answer", "wait"),
    [
        (httpx.ConnectError(f"no connection for {ID}"), None),
        (TimeoutError(ID), None),
        (httpx.Response(502, text=f"<html>{ID}</html>"), None),
        (httpx.Response(200, text="not JSON"), None),
        (httpx.Response(200, json={"success": False}), None),
        (httpx.Response(200, json=[]), None),
        (error(999, 500), None),
        (error(190, 401), None),
        (error(10, 403), None),
        (error(4), 300),
        (error(130429, headers=USAGE), 180),
        (error(999, 429, headers={"Retry-After": "7"}), 7),
    ],
)
def test_what_may_pass_or_can_be_repaired_is_tried_again(
    answer: httpx.Response | Exception, wait: float | None
) -> None:
    reply = asked(answer)
    assert (reply.answer, reply.retryable, reply.wait_seconds) == ("failed", True, wait)
    assert reply.reason
    assert ID not in reply.reason
