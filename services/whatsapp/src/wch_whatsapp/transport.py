"""httpx on aiohttp's connections: the same requests and answers, for a quarter of the CPU (benchmarks/README.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx

if TYPE_CHECKING:
    from types import SimpleNamespace

WRITTEN = "written"
"""Stands in a request's extensions from when its body is being written: from then on it may have arrived."""


class Transport(httpx.AsyncBaseTransport):
    """Makes requests on connections that are kept open, without a limit of its own; answers are read whole.

    The environment's proxy is used, as httpx does. Raises httpx.ConnectError where there is no connection, else
    httpx.ReadError; WRITTEN tells whether the request may have arrived. A request is never repeated.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._proxy = None if proxy_bypass(parts.netloc) else getproxies().get(parts.scheme)
        trace = aiohttp.TraceConfig()
        trace.on_request_chunk_sent.append(_note_written)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=httpx.create_ssl_context()),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),  # the caller's
            trace_configs=[trace],
            auto_decompress=False,  # httpx does
            skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent"),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Make one request."""
        try:
            async with self._session.request(
                request.method,
                str(request.url),
                headers=request.headers.multi_items(),
                data=request.content,
                allow_redirects=False,
                proxy=self._proxy,
                trace_request_ctx=request.extensions,
            ) as answer:
                body = await answer.read()
        except aiohttp.ClientConnectorError as error:
            raise httpx.ConnectError(type(error).__name__, request=request) from error
        except (aiohttp.ClientError, OSError) as error:
            raise httpx.ReadError(type(error).__name__, request=request) from error
        return httpx.Response(answer.status, headers=answer.raw_headers, content=body, request=request)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def __aenter__(self) -> Self:
        return self


async def _note_written(_session: aiohttp.ClientSession, context: SimpleNamespace, _chunk: Any) -> None:  # noqa: ANN401 - aiohttp's own
    context.trace_request_ctx[WRITTEN] = True
