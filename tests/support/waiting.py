"""Waiting for a condition, with a deadline at least ten times what is expected."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def eventually(condition: Callable[[], T], what: str = "", *, seconds: float = 30) -> T:
    """Return the condition's first true value; fails with `what` and its last value when the deadline is over."""
    deadline, pause = time.monotonic() + seconds, 0.01
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what or condition}; last value: {value!r}")
        time.sleep(pause)  # the poll of a wait with a deadline: what takes long is not asked for all the time
        pause = min(pause * 1.3, 0.1)
