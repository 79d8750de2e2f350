"""The WhatsApp Cloud API: one call, and what is known after it. What may have been accepted is never called a failure."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import httpx
import orjson

from wch_common.integrations.graph import GraphError, graph_error
from wch_whatsapp.error_policy import TABLE
from wch_whatsapp.transport import WRITTEN

if TYPE_CHECKING:
    from wch_common.integrations.shops import GraphSection

# With these the request was turned away; any other answer without Graph's own error may come from something on the way that
# has passed it on (408, 499, 502, 504, 520 to 530).
_TURNED_AWAY = frozenset({400, 401, 403, 404, 405, 411, 413, 414, 415, 429, 431, 500, 503})
_GATEWAY = frozenset({502, 504})
_USAGE = ("X-Business-Use-Case-Usage", "X-App-Usage")
_PERCENT = ("call_count", "total_cputime", "total_time")


@dataclass(frozen=True)
class Usage:
    """How much of Meta's limits is used, in percent, and how long it says to wait."""

    percent: float = 0.0
    regain_seconds: float = 0.0


@dataclass(frozen=True)
class Accepted:
    """Meta took the message under this id."""

    wamid: str
    usage: Usage


@dataclass(frozen=True)
class Refused:
    """Meta answered with an error: proof that nothing was accepted."""

    error: GraphError
    usage: Usage


@dataclass(frozen=True)
class Unsent:
    """The call did not reach Meta whole, or its gateway turned it away: nothing was accepted."""

    detail: str


@dataclass(frozen=True)
class InDoubt:
    """The call may have been accepted: no answer, or one that does not say."""

    detail: str


Reply: TypeAlias = Accepted | Refused | Unsent | InDoubt


class CloudApi:
    """Sends from one number."""

    def __init__(
        self, transport: httpx.AsyncBaseTransport, graph: GraphSection, sender: str, *, seconds: float
    ) -> None:
        # Below httpx's client, whose cookies, redirects and authentication cost a third of a call and have no use here.
        self._transport = transport
        self._url = httpx.URL(f"{str(graph.url).rstrip('/')}/{graph.version}/{sender}/messages")
        self._headers = {
            "Authorization": f"Bearer {graph.token.get_secret_value()}",
            "Content-Type": "application/json",
            "User-Agent": "wch-whatsapp/0.1.0",
        }
        self._seconds = seconds

    async def send(self, body: dict[str, Any]) -> Reply:
        """Make one call, no longer than the time set; whatever happens is a reply."""
        request = httpx.Request("POST", self._url, headers=self._headers, content=orjson.dumps(body))
        try:
            async with asyncio.timeout(self._seconds):
                response = await self._transport.handle_async_request(request)
        except (httpx.HTTPError, TimeoutError) as error:
            detail = type(error).__name__
            if WRITTEN in request.extensions:
                return InDoubt(f"{detail} after the call was written")
            return Unsent(f"{detail} before it")
        return _reply(response)


def _reply(response: httpx.Response) -> Reply:
    usage = _usage(response)
    error = graph_error(response)
    if error is not None and (error.code in TABLE or response.status_code not in _GATEWAY):
        return Refused(error, usage)
    if response.is_success:
        try:
            return Accepted(str(response.json()["messages"][0]["id"]), usage)
        except (ValueError, LookupError, TypeError):
            return InDoubt(f"answered {response.status_code} without a message id")
    said = f"answered {response.status_code} without a Graph error"
    return Unsent(said) if response.status_code in _TURNED_AWAY else InDoubt(said)


def _usage(response: httpx.Response) -> Usage:
    """Read the usage headers; what cannot be read says nothing."""
    percent = minutes = 0.0
    for name in _USAGE:
        if (text := response.headers.get(name)) is None:
            continue
        try:
            told = orjson.loads(text)
            rows = [told] if any(key in told for key in _PERCENT) else [row for rows in told.values() for row in rows]
            for row in rows:
                percent = max(percent, *(float(row.get(key, 0)) for key in _PERCENT))
                minutes = max(minutes, float(row.get("estimated_time_to_regain_access", 0)))
        except (ValueError, TypeError, AttributeError):
            continue
    return Usage(percent, minutes * 60)
