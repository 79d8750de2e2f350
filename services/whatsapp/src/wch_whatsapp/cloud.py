"""The WhatsApp Cloud API: makes one call and says whether Meta accepted it, refused it, or may have accepted it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import httpx
import orjson

from wch_common import __version__
from wch_common.events.failure_reasons import reason_of_code
from wch_common.integrations.graph import GraphError, graph_error
from wch_whatsapp.transport import WRITTEN

if TYPE_CHECKING:
    from wch_common.integrations.shops import GraphSection

# These refuse the request. Any other status without a Graph error may come from a proxy that has passed the request on
# (408, 499, 502, 504, 520 to 530).
_NOT_ACCEPTED = frozenset({400, 401, 403, 404, 405, 411, 413, 414, 415, 429, 431, 500, 503})
_GATEWAY = frozenset({502, 504})
_USAGE = ("X-Business-Use-Case-Usage", "X-App-Usage")
_PERCENT = ("call_count", "total_cputime", "total_time")


@dataclass(frozen=True)
class Usage:
    """How much of Meta's limits is used, in percent, and how long Meta asks to wait."""

    percent: float = 0.0
    regain_seconds: float = 0.0


@dataclass(frozen=True)
class Accepted:
    """Meta accepted the message under this id."""

    kind: ClassVar[str] = "accepted"
    wamid: str
    usage: Usage


@dataclass(frozen=True)
class RefusedByMeta:
    """Meta answered with an error, which proves that it accepted nothing."""

    kind: ClassVar[str] = "refused"
    error: GraphError
    usage: Usage


@dataclass(frozen=True)
class Unsent:
    """The request did not reach Meta completely, or Meta's gateway refused it, so nothing was accepted."""

    kind: ClassVar[str] = "unsent"
    detail: str


@dataclass(frozen=True)
class InDoubt:
    """Meta may have accepted the message: there is no answer, or an answer that does not say."""

    kind: ClassVar[str] = "in_doubt"
    detail: str


Reply: TypeAlias = Accepted | RefusedByMeta | Unsent | InDoubt


class CloudApi:
    """Sends messages from one number."""

    def __init__(
        self, transport: httpx.AsyncBaseTransport, graph: GraphSection, sender: str, *, seconds: float
    ) -> None:
        # Below httpx's client, whose cookies, redirects and authentication take a third of a call and are not needed.
        self._transport = transport
        self._url = httpx.URL(f"{str(graph.url).rstrip('/')}/{graph.version}/{sender}/messages")
        self._headers = {
            "Authorization": f"Bearer {graph.token.get_secret_value()}",
            "Content-Type": "application/json",
            "User-Agent": f"wch-whatsapp/{__version__}",
        }
        self._seconds = seconds

    async def send(self, body: dict[str, Any]) -> Reply:
        """Make one call within the time limit; failures are returned as a reply, not raised."""
        request = httpx.Request("POST", self._url, headers=self._headers, content=orjson.dumps(body))
        try:
            async with asyncio.timeout(self._seconds):
                response = await self._transport.handle_async_request(request)
        except (httpx.HTTPError, TimeoutError) as error:
            detail = type(error).__name__
            if WRITTEN in request.extensions:
                return InDoubt(f"{detail} after the request was written")
            return Unsent(f"{detail} before the request was written")
        return _reply(response)


def _reply(response: httpx.Response) -> Reply:
    usage = _usage(response)
    error = graph_error(response)
    if error is not None and (reason_of_code(error.code) is not None or response.status_code not in _GATEWAY):
        return RefusedByMeta(error, usage)
    if response.is_success:
        try:
            return Accepted(str(response.json()["messages"][0]["id"]), usage)
        except (ValueError, LookupError, TypeError):
            return InDoubt(f"HTTP {response.status_code} without a message id")
    detail = f"HTTP {response.status_code} without a Graph error"
    return Unsent(detail) if response.status_code in _NOT_ACCEPTED else InDoubt(detail)


def _usage(response: httpx.Response) -> Usage:
    """Parse the usage headers; a header that cannot be parsed is ignored."""
    percent = minutes = 0.0
    for name in _USAGE:
        if (text := response.headers.get(name)) is None:
            continue
        try:
            usage = orjson.loads(text)
            rows = (
                [usage] if any(key in usage for key in _PERCENT) else [row for rows in usage.values() for row in rows]
            )
            for row in rows:
                percent = max(percent, *(float(row.get(key, 0)) for key in _PERCENT))
                minutes = max(minutes, float(row.get("estimated_time_to_regain_access", 0)))
        except (ValueError, TypeError, AttributeError):
            continue
    return Usage(percent, minutes * 60)
