"""The journal of every simulator, and its injected faults: slow, wrong or missing answers."""

from __future__ import annotations

import asyncio
import json
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web

if TYPE_CHECKING:
    import threading
    from collections.abc import Awaitable, Callable

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Fault:
    """A fault of the next `times` requests whose method and path match."""

    path: str
    method: str = ""
    times: int = 1
    status: int = 0
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    delay_seconds: float = 0.0
    until: threading.Event | None = None
    """The answer waits until it is set; for tests in the simulator's process."""
    reset: str = ""
    """`before` cuts the connection before the request is carried out, `after` between that and the answer."""

    def matches(self, request: web.Request) -> bool:
        """Whether the fault applies to a request."""
        right_method = not self.method or self.method == request.method
        return self.times > 0 and right_method and re.search(self.path, request.path_qs) is not None


class Journal:
    """The requests with the statuses of their answers, from which tests count effects."""

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []
        self.faults: list[Fault] = []

    def calls(self, path: str, method: str = "") -> list[dict[str, Any]]:
        """Return the requests whose path matches."""
        return [
            entry
            for entry in self.entries
            if re.search(path, entry["path"]) and (not method or entry["method"] == method)
        ]

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Write the journal and apply faults."""
        if request.path.startswith("/_simulator/"):
            return await handler(request)
        entry: dict[str, Any] = {"time": time.time(), "method": request.method, "path": request.path_qs, "status": 0}
        self.entries.append(entry)
        fault = next((fault for fault in self.faults if fault.matches(request)), None)
        if fault is not None:
            fault.times -= 1
            await asyncio.sleep(fault.delay_seconds)
            while fault.until is not None and not fault.until.is_set():
                await asyncio.sleep(0.01)
            if fault.reset == "before":
                return _cut(request)
            if fault.status:
                entry["status"] = fault.status
                return _answer(fault)
        response = await handler(request)
        if fault is not None and fault.reset == "after":
            return _cut(request)
        entry["status"] = response.status
        return response

    def routes(self) -> list[web.RouteDef]:
        """The simulator's control addresses, for programs in another process."""
        return [
            web.get("/_simulator/journal", self._show),
            web.post("/_simulator/faults", self._add_fault),
            web.delete("/_simulator/faults", self._clear_faults),
        ]

    async def _show(self, request: web.Request) -> web.Response:
        return web.json_response(self.calls(request.query.get("path", ""), request.query.get("method", "")))

    async def _add_fault(self, request: web.Request) -> web.Response:
        self.faults.append(Fault(**await request.json()))
        return web.json_response({"faults": len(self.faults)})

    async def _clear_faults(self, _request: web.Request) -> web.Response:
        self.faults.clear()
        return web.json_response({"faults": 0})


def _cut(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)


def _answer(fault: Fault) -> web.Response:
    if isinstance(fault.body, str):
        return web.Response(status=fault.status, text=fault.body, content_type="text/html", headers=fault.headers)
    return web.Response(
        status=fault.status, body=json.dumps(fault.body or {}), content_type="application/json", headers=fault.headers
    )
