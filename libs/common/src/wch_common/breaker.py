"""A circuit breaker per outside system and shop: stops taking work that cannot succeed, instead of failing it."""

from __future__ import annotations

import time
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

import structlog

from wch_common.outcome import Throttled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

log = structlog.get_logger(__name__)

FAILURES_IN_A_ROW = 5
OPEN_SECONDS = 60.0
PROBES = 3
SAMPLE = 100
SHARE = 0.5


class SystemFailure(Exception):
    """The outside system itself failed (no answer, a server error); raise it inside `Breaker.watch` to be counted."""


class Breaker:
    """Opens after 5 failures in a row, or when half of the last 100 calls failed; tries 3 calls after 60 s.

    While it is open `watch` raises Throttled for its scope, so that the events park uncounted.
    """

    def __init__(self, scope: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.scope = scope
        self._clock = clock
        self._in_a_row = 0
        self._recent: deque[bool] = deque(maxlen=SAMPLE)
        self._open_until = 0.0
        self._probes_left = 0

    @property
    def is_open(self) -> bool:
        """Whether calls are held back."""
        return self._clock() < self._open_until

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Guard one call: SystemFailure counts against the system, anything else shows that it answers."""
        now = self._clock()
        if now < self._open_until:
            raise Throttled(f"{self.scope} fails; it is left alone", scope=self.scope, after=self._open_until - now)
        try:
            yield
        except SystemFailure:
            self._count(failed=True)
            raise
        except Exception:
            self._count(failed=False)
            raise
        else:
            self._count(failed=False)

    def _count(self, *, failed: bool) -> None:
        self._recent.append(failed)
        self._in_a_row = self._in_a_row + 1 if failed else 0
        probing, self._probes_left = self._probes_left > 0, max(0, self._probes_left - 1)
        by_share = len(self._recent) == SAMPLE and sum(self._recent) >= SAMPLE * SHARE
        if failed and (probing or self._in_a_row >= FAILURES_IN_A_ROW or by_share):
            self._open_until = self._clock() + OPEN_SECONDS
            self._probes_left = PROBES
            self._recent.clear()
            log.error("breaker_opened", scope=self.scope, seconds=OPEN_SECONDS)
