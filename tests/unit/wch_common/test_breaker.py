"""The circuit breaker, by a clock of the test's own."""

from __future__ import annotations

import pytest

from wch_common.breaker import Breaker, SystemFailure
from wch_common.outcome import Reject, Throttled


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def call(breaker: Breaker, error: Exception | None = None) -> None:
    with breaker.watch():
        if error:
            raise error


def test_it_opens_after_five_failures_in_a_row_and_probes_after_a_minute() -> None:
    clock = Clock()
    breaker = Breaker("shop/x", clock)
    for _ in range(5):
        with pytest.raises(SystemFailure):
            call(breaker, SystemFailure())
    with pytest.raises(Throttled) as held:
        call(breaker)
    assert (held.value.scope, held.value.after) == ("shop/x", 60)
    clock.now = 61
    with pytest.raises(SystemFailure):
        call(breaker, SystemFailure())
    with pytest.raises(Throttled):
        call(breaker)
    clock.now = 122
    for _ in range(3):
        call(breaker)
    for _ in range(4):
        with pytest.raises(SystemFailure):
            call(breaker, SystemFailure())
    call(breaker)


def test_it_opens_when_half_of_a_hundred_calls_fail() -> None:
    breaker = Breaker("shop/x", Clock())
    for turn in range(100):
        if turn % 2:
            with pytest.raises(SystemFailure):
                call(breaker, SystemFailure())
        else:
            call(breaker)
    assert breaker.is_open


def test_an_answer_that_refuses_shows_that_the_system_is_there() -> None:
    breaker = Breaker("shop/x", Clock())
    for _ in range(50):
        with pytest.raises(Reject):
            call(breaker, Reject("no"))
    call(breaker)
