"""What the benchmarks of single services share: programs of their own, and what one and its database use."""

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

_SERVERS = "SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
_COMMITS = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"


@contextmanager
def running(command: list[str], url: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Have a program run that answers at an address; raises RuntimeError where another one does already."""
    if _answers(url):
        raise RuntimeError(
            f"something answers at {url} already: end it, as it would be measured in the place of {command}"
        )
    process = _started(command, url, environment)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def _started(command: list[str], url: str, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    log = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the program
    process = subprocess.Popen([sys.executable, *command], env={**os.environ, **environment}, stderr=log)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if _answers(url):
            return process
        time.sleep(0.1)
    process.kill()
    log.seek(0)
    raise RuntimeError(f"{command} did not start: {log.read()[-2000:].decode()}")


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False


def _memory(pid: int) -> int:
    """Resident memory in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) // 1024


def _cpu(pid: int) -> float:
    """CPU seconds of a process of this machine; 0 where it is gone."""
    try:
        times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")


class Load:
    """What a service and the database, on this machine, use from now on."""

    def __init__(self, process: subprocess.Popen[bytes], connection: psycopg.Connection[Any]) -> None:
        self._pid = process.pid
        self._connection = connection
        self.idle = self.most = _memory(self._pid)
        self._cpu = _cpu(self._pid)
        self._servers: dict[int, tuple[float, float]] = {}
        self.look()
        # One that comes later has used nothing yet.
        self._servers = {pid: (last, last) for pid, (_, last) in self._servers.items()}
        self._commits = self._asked(_COMMITS)[0]

    def _asked(self, statement: str) -> list[int]:
        return [row[0] for row in self._connection.execute(statement).fetchall()]

    def look(self) -> None:
        """Look at memory and at the database's processes, some of which come and go."""
        self.most = max(self.most, _memory(self._pid))
        for pid in self._asked(_SERVERS):
            first, last = self._servers.get(pid, (0.0, 0.0))
            self._servers[pid] = first, max(last, _cpu(pid))

    def told(self, count: int) -> str:
        """Say what each of so many took until now."""
        self.look()
        service = _cpu(self._pid) - self._cpu
        database = sum(last - first for first, last in self._servers.values())
        commits = self._asked(_COMMITS)[0] - self._commits
        return (
            f"{1e6 * service / count:.0f} µs CPU each, {self.idle} MB before, {self.most} MB at most; "
            f"database {1e6 * database / count:.0f} µs CPU each, {commits / count:.2f} commits each"
        )
