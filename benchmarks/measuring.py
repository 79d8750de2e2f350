"""Starts programs for the benchmarks of single services, and measures the load of a service and its database."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

_BACKENDS = "SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
_COMMITS = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"


@contextmanager
def running(command: list[str], url: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a Python program until the block ends, and enter the block when `url` answers.

    Raises RuntimeError if another program already answers there, because the benchmark would measure that one.
    """
    if _answers(url):
        raise RuntimeError(
            f"another program answers at {url}; end it, or the benchmark would measure it instead of {command}"
        )
    process = _start(command, url, environment)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def _start(command: list[str], url: str, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    log = tempfile.TemporaryFile()  # noqa: SIM115 - the program writes to it until it ends
    process = subprocess.Popen([sys.executable, *command], env={**os.environ, **environment}, stderr=log)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if _answers(url):
            return process
        time.sleep(0.1)
    process.kill()
    log.seek(0)
    raise RuntimeError(
        f"{command} ended, or did not answer at {url} within 60 s; its log ends with: {log.read()[-2000:].decode()}"
    )


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False


def _memory(pid: int) -> int:
    """Return the resident memory of a process in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) // 1024


def _cpu(pid: int) -> float:
    """Return the CPU seconds of a process, or 0 if it has ended."""
    try:
        times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")


class Load:
    """The CPU and memory that a service and the database on this machine use from now on."""

    def __init__(self, process: subprocess.Popen[bytes], connection: psycopg.Connection[Any]) -> None:
        self._pid = process.pid
        self._connection = connection
        self.initial = self.peak = _memory(self._pid)
        self._cpu = _cpu(self._pid)
        self._backends: dict[int, tuple[float, float]] = {}
        self.sample()
        # A process that starts later counts from 0.
        self._backends = {pid: (last, last) for pid, (_, last) in self._backends.items()}
        self._commits = self._column(_COMMITS)[0]

    def _column(self, statement: str) -> list[int]:
        return [row[0] for row in self._connection.execute(statement).fetchall()]

    def sample(self) -> None:
        """Read the memory of the service and the CPU of the database's processes, which come and go."""
        self.peak = max(self.peak, _memory(self._pid))
        for pid in self._column(_BACKENDS):
            first, last = self._backends.get(pid, (0.0, 0.0))
            self._backends[pid] = first, max(last, _cpu(pid))

    def summary(self, count: int) -> str:
        """Return the CPU and commits per item for `count` items, and the memory, as text."""
        self.sample()
        service = _cpu(self._pid) - self._cpu
        database = sum(last - first for first, last in self._backends.values())
        commits = self._column(_COMMITS)[0] - self._commits
        return (
            f"{1e6 * service / count:.0f} µs CPU each, {self.initial} MB before, {self.peak} MB at most; "
            f"database {1e6 * database / count:.0f} µs CPU each, {commits / count:.2f} commits each"
        )
