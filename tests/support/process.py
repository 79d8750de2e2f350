"""A program of the tests in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

TESTS = Path(__file__).parent.parent


class Program:
    """`python -m support.<name> …`, killed at the end whatever happens."""

    def __init__(self, name: str, *arguments: str, log: Path, **environment: str) -> None:
        self._log = log.open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", name, *arguments],
            env={**os.environ, "PYTHONPATH": str(TESTS), **environment},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )

    def wait(self, seconds: float = 60) -> int:
        """Wait for its end and return its exit code (negative: the signal)."""
        return self.process.wait(seconds)

    def terminate(self) -> int:
        """Stop it as Kubernetes would."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """End it as the kernel would."""
        self.process.kill()
        self.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.kill()
        self._log.close()
