"""A program in its own process."""

from __future__ import annotations

import os
import runpy
import signal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

from support.forks import fork
from support.waiting import PATIENCE_SECONDS

if TYPE_CHECKING:
    from types import TracebackType


class Program:
    """`python -m <name> …`, killed at the end in any case."""

    def __init__(self, name: str, *arguments: str, log: Path, **environment: str) -> None:
        log.touch()
        run = partial(runpy.run_module, name, run_name="__main__", alter_sys=True)
        self._process = fork(run, [name, *arguments], {**os.environ, **environment}, [Path(os.devnull), log, log])

    @property
    def pid(self) -> int:
        """Its number."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it is running."""
        return self._process.is_alive()

    def wait(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Wait for its end and return its exit code; a negative one is the signal."""
        self._process.join(seconds)
        assert self._process.exitcode is not None, f"it did not end within {seconds:g} s"
        return self._process.exitcode

    def terminate(self) -> int:
        """Stop it with SIGTERM, as Kubernetes does."""
        os.kill(self.pid, signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        self._process.kill()
        self.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self.is_running:
            self.kill()
