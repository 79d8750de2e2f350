"""Runs a simulator as a program, or in a thread of a test."""

from __future__ import annotations

import argparse
import asyncio
import threading
from typing import TYPE_CHECKING, Protocol, Self

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Callable


class Simulator(Protocol):
    """What can be run."""

    def application(self) -> web.Application:
        """Return the web application."""


class InThread:
    """A simulator that listens on loopback while the block runs; `url` is its address."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self._ready = threading.Event()
        # At the end, `run` cancels open answers and so closes their connections.
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self.url = ""

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(30):
            raise RuntimeError("the simulator did not start")
        return self

    def __exit__(self, *_: object) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)

    async def _serve(self) -> None:
        runner = web.AppRunner(self._simulator.application(), access_log=None, shutdown_timeout=1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{port}"
        self._loop = asyncio.get_running_loop()
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()


def run_program(
    name: str, make: Callable[[argparse.Namespace], Simulator], options: Callable[[argparse.ArgumentParser], None]
) -> None:
    """Parse the command line and serve until stopped."""
    parser = argparse.ArgumentParser(prog=f"python -m wch_simulators.{name}")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, required=True, help="port to listen on")
    options(parser)
    arguments = parser.parse_args()
    web.run_app(make(arguments).application(), host=arguments.host, port=arguments.port, access_log=None, print=None)
