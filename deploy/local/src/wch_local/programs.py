"""Programs that keep running after the demo: detached, logged to files, identified by pid and a mark."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

from wch_local.leftovers import marked
from wch_local.rabbitmq import NO_TLS, LocalBrokerError, adopt, has_ended, is_ours

if TYPE_CHECKING:
    from pathlib import Path

_KEPT_VARIABLES = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "USER", "LOGNAME", "XDG_RUNTIME_DIR")
_STOP_SECONDS = 30.0


@dataclass
class Program:
    """One detached program."""

    name: str
    pid: int = 0
    mark: str = field(default_factory=lambda: secrets.token_hex(8))

    @classmethod
    def start(cls, name: str, command: list[str], log: Path, **environment: str) -> Program:
        """Start it with only these settings, so that the caller's settings cannot lead it to a real system."""
        program = cls(name)
        kept = {key: os.environ[key] for key in _KEPT_VARIABLES if key in os.environ}
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, *command],
                env={**kept, **environment, **marked(), "WCH_LOCAL_MARK": program.mark},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        program.pid = adopt(process)
        return program

    def as_dict(self) -> dict[str, Any]:
        """Return the description for a state file."""
        return asdict(self)

    def await_answer(self, url: str, log: Path, seconds: float = 180) -> None:
        """Wait until an address answers with success; raises LocalBrokerError with the end of the program's log."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not has_ended(self.pid):
            try:
                if httpx.get(url, timeout=5, verify=NO_TLS).is_success:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.1)
        raise LocalBrokerError(
            f"{self.name} did not start; its log {log} ends with:\n{log.read_text(errors='replace')[-1500:]}"
        )

    def stop(self) -> bool:
        """Stop it; False if it was not running, or if its pid now belongs to another process."""
        if not is_ours(self.pid, self.mark):
            return False
        os.kill(self.pid, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_SECONDS
        while not has_ended(self.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        if not has_ended(self.pid):
            os.kill(self.pid, signal.SIGKILL)
        return True
