"""A circuit breaker for each outside system and shop: parks work that cannot succeed instead of failing it."""

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
PROBING_SECONDS = 5.0
SAMPLE = 100
SHARE = 0.5


class SystemFailure(Exception):
    """The outside system failed (no answer, a server error); raise it inside `Breaker.watch` to count it."""


class Breaker:
    """Opens after 5 failures in a row, or when half of the last 100 calls failed; admits 3 probes after 60 s.

    While it is open, and for other calls until the probes have succeeded, `watch` raises Throttled for its scope, so that
    events park without using an attempt. A probe that fails opens it again.
    """

    def __init__(self, scope: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.scope = scope
        self._clock = clock
        self._in_a_row = 0
        self._recent: deque[bool] = deque(maxlen=SAMPLE)
        self._open_until = 0.0
        self._probes_wanted = 0
        self._probes_out = 0

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Guard one call: SystemFailure counts as a failure, anything else shows that the system answers."""
        probe, failed = self._admit(), None
        try:
            yield
            failed = False
        except SystemFailure:
            failed = True
            raise
        except Exception:
            failed = False
            raise
        finally:
            # A cancelled call says nothing about the system and frees its place as a probe.
            self._settle(probe=probe, failed=failed)

    def _admit(self) -> bool:
        """Admit a call and return whether it is a probe; raises Throttled."""
        now = self._clock()
        if now < self._open_until:
            raise Throttled(
                f"circuit breaker open for {self.scope}; retrying in {self._open_until - now:.0f} s",
                scope=self.scope,
                after=self._open_until - now,
            )
        if not self._probes_wanted:
            return False
        if self._probes_out >= self._probes_wanted:
            raise Throttled(
                f"circuit breaker half-open for {self.scope}; probing with {PROBES} calls",
                scope=self.scope,
                after=PROBING_SECONDS,
            )
        self._probes_out += 1
        return True

    def _settle(self, *, probe: bool, failed: bool | None) -> None:
        self._probes_out -= probe
        if failed is None or (self._probes_wanted and not probe):
            return  # the call began before the breaker opened
        self._recent.append(failed)
        self._in_a_row = self._in_a_row + 1 if failed else 0
        if probe and not failed:
            self._probes_wanted -= 1
        by_share = len(self._recent) == SAMPLE and sum(self._recent) >= SAMPLE * SHARE
        if failed and (probe or self._in_a_row >= FAILURES_IN_A_ROW or by_share):
            self._open_until = self._clock() + OPEN_SECONDS
            self._probes_wanted, self._in_a_row = PROBES, 0
            self._recent.clear()
            log.error("circuit_breaker_opened", scope=self.scope, seconds=OPEN_SECONDS)
