"""Serves /healthz (the event loop runs), /readyz (consuming, database reachable) and /metrics from a thread of its own."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import make_wsgi_app

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prometheus_client import CollectorRegistry

_LOOP_SILENT_SECONDS = 30.0


class _Server(WSGIServer):
    # A restart must not wait for the sockets of the old process.
    allow_reuse_address = True


class _Quiet(WSGIRequestHandler):
    timeout = 5

    def log_message(self, *_: Any) -> None:  # noqa: ANN401 - probes come every few seconds
        """Log nothing."""


class Health:
    """Answers probes and scrapes; `not_ready` returns what is missing, as sentences."""

    def __init__(self, registry: CollectorRegistry, not_ready: Callable[[], list[str]]) -> None:
        self._metrics = make_wsgi_app(registry)
        self._not_ready = not_ready
        self._beat = time.monotonic()
        self._server: _Server | None = None

    def beat(self) -> None:
        """Record that the event loop runs."""
        self._beat = time.monotonic()

    def start(self, host: str, port: int) -> int:
        """Start listening and return the port; 0 takes any free one."""
        self._server = make_server(host, port, self._answer, server_class=_Server, handler_class=_Quiet)
        threading.Thread(target=self._server.serve_forever, daemon=True, name="health").start()
        return self._server.server_port

    def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:  # noqa: ANN401 - WSGI
        path = environ.get("PATH_INFO")
        if path == "/metrics":
            answer: Iterable[bytes] = self._metrics(environ, start_response)
            return answer
        if path == "/healthz":
            silent = time.monotonic() - self._beat
            problems = [f"the event loop has been blocked for {silent:.0f} s"] if silent > _LOOP_SILENT_SECONDS else []
        elif path == "/readyz":
            problems = self._not_ready()
        else:
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"not found; available are /healthz, /readyz and /metrics\n"]
        start_response(
            "503 Service Unavailable" if problems else "200 OK", [("Content-Type", "text/plain; charset=utf-8")]
        )
        return [("\n".join(problems) or "ok").encode() + b"\n"]
