"""An httpx transport on aiohttp's connections, which takes a quarter of the CPU time (benchmarks/README.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx

if TYPE_CHECKING:
    from types import SimpleNamespace

WRITTEN = "written"
"""Key in a request's extensions, set when writing its body begins: from then on the request may have arrived."""


class Transport(httpx.AsyncBaseTransport):
    """Sends requests on keep-alive connections, without a time limit of its own, and reads responses completely.

    Like httpx, it uses the proxy of the environment. It raises httpx.ConnectError if there is no connection, and otherwise
    httpx.ReadError; WRITTEN says whether the request may have arrived. It never repeats a POST.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._proxy = None if proxy_bypass(parts.netloc) else getproxies().get(parts.scheme)
        trace = aiohttp.TraceConfig()
        trace.on_request_chunk_sent.append(_note_written)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=httpx.create_ssl_context()),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),  # the caller has one
            trace_configs=[trace],
            auto_decompress=False,  # httpx decompresses
            skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent"),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request and return its response."""
        try:
            async with self._session.request(
                request.method,
                str(request.url),
                headers=request.headers.multi_items(),
                data=request.content,
                allow_redirects=False,
                proxy=self._proxy,
                trace_request_ctx=request.extensions,
            ) as response:
                body = await response.read()
        except aiohttp.ClientConnectorError as error:
            raise httpx.ConnectError(type(error).__name__, request=request) from error
        except (aiohttp.ClientError, OSError) as error:
            raise httpx.ReadError(type(error).__name__, request=request) from error
        return httpx.Response(response.status, headers=response.raw_headers, content=body, request=request)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def __aenter__(self) -> Self:
        return self


async def _note_written(_session: aiohttp.ClientSession, context: SimpleNamespace, _chunk: Any) -> None:  # noqa: ANN401 - aiohttp's own
    context.trace_request_ctx[WRITTEN] = True
