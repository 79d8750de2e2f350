"""Finds the processes that a demo has started by a mark in their environment, and ends them."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from pathlib import Path

MARK = "WCH_LOCAL_FOLDER"
_STOP_SECONDS, _KILL_SECONDS = 15.0, 5.0
_ROUNDS = 3  # a program may start another one while it is being stopped


def mark_children(folder: Path) -> None:
    """Mark everything that this process starts from now on as belonging to a folder."""
    os.environ[MARK] = str(folder)


def marked() -> dict[str, str]:
    """Return the mark, for processes that are started with an environment of their own."""
    return {MARK: os.environ[MARK]} if MARK in os.environ else {}


def leftovers(folder: Path) -> list[psutil.Process]:
    """Return the running processes that belong to a folder, whichever process started them."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARK) == str(folder):
                found.append(process)
        except psutil.Error:  # it has ended, or belongs to another user
            continue
    return found


def end_leftovers(folder: Path) -> list[str]:
    """End what belongs to a folder, by force if it does not stop; returns the names of the programs."""
    ended: set[str] = set()
    for _ in range(_ROUNDS):
        if not (found := leftovers(folder)):
            break
        for process in found:
            with suppress(psutil.Error):
                ended.add(process.name())
                # On SIGTERM, a PostgreSQL server waits for its clients.
                process.send_signal(signal.SIGINT if process.name() == "postgres" else signal.SIGTERM)
        _, alive = psutil.wait_procs(found, _STOP_SECONDS)
        for process in alive:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(alive, _KILL_SECONDS)
    return sorted(ended)
