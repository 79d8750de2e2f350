"""Waits for a condition. The deadline ends a test that hangs; it is far beyond what the busiest machine needs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
PATIENCE_SECONDS = 300.0


def eventually(condition: Callable[[], T], what: str = "", *, seconds: float = PATIENCE_SECONDS) -> T:
    """Return the condition's first true value; fails at the deadline with `what` and its last value."""
    deadline, pause = time.monotonic() + seconds, 0.01
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what or condition}; last value: {value!r}")
        time.sleep(pause)  # polls less often when the condition takes long
        pause = min(pause * 1.3, 0.1)
