"""The circuit breaker, with a simulated clock."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest

from wch_common.integrations.breaker import Breaker, SystemFailure
from wch_common.outcome import Reject, Throttled


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Guarded:
    """A breaker and its clock."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.breaker = Breaker("shop/x", self.clock)

    def answers(self, times: int = 1) -> None:
        for _ in range(times):
            with self.breaker.watch():
                pass

    def fails(self, times: int = 1) -> None:
        for _ in range(times):
            with pytest.raises(SystemFailure), self.breaker.watch():
                raise SystemFailure

    def holds_back(self) -> Throttled:
        with pytest.raises(Throttled) as held, self.breaker.watch():
            pass
        return held.value


@pytest.fixture
def guarded() -> Guarded:
    return Guarded()


def test_it_opens_for_a_minute_after_five_failures_in_a_row(guarded: Guarded) -> None:
    guarded.fails(4)
    guarded.answers()
    guarded.fails(5)
    held = guarded.holds_back()
    assert (held.scope, held.after) == ("shop/x", 60)
    guarded.clock.now = 59
    assert guarded.holds_back().after == 1


def test_a_probe_that_fails_opens_it_again_for_a_minute(guarded: Guarded) -> None:
    guarded.fails(5)
    guarded.clock.now = 61
    guarded.answers(2)
    guarded.fails()
    assert guarded.holds_back().after == 60


def test_three_probes_that_succeed_close_it(guarded: Guarded) -> None:
    guarded.fails(5)
    guarded.clock.now = 61
    guarded.answers(3)
    guarded.fails(4)
    guarded.answers()
    guarded.fails(5)
    guarded.holds_back()


def test_at_most_three_calls_probe_at_once_and_a_cancelled_one_frees_its_place(
    guarded: Guarded,
) -> None:
    guarded.fails(5)
    guarded.clock.now = 61
    with ExitStack() as probes:
        for _ in range(3):
            probes.enter_context(guarded.breaker.watch())
        assert guarded.holds_back().after == 5
    guarded.fails(5)
    guarded.clock.now = 122
    for _ in range(5):
        with pytest.raises(asyncio.CancelledError), guarded.breaker.watch():
            raise asyncio.CancelledError
    guarded.answers(3)
    guarded.answers(10)


def test_a_call_begun_before_it_opened_says_nothing_about_the_probes(guarded: Guarded) -> None:
    with ExitStack() as slow:
        slow.enter_context(guarded.breaker.watch())
        guarded.fails(5)
        guarded.clock.now = 61
    guarded.answers(2)
    guarded.fails()
    guarded.holds_back()


@pytest.mark.parametrize(("failures", "opens"), [(50, True), (49, False)])
def test_it_opens_when_half_of_a_hundred_calls_fail(guarded: Guarded, failures: int, *, opens: bool) -> None:
    guarded.answers(100 - 2 * failures)
    for _ in range(failures):
        guarded.answers()
        guarded.fails()
    if opens:
        guarded.holds_back()
    else:
        guarded.answers()


def test_half_of_fewer_than_a_hundred_calls_does_not_open_it(guarded: Guarded) -> None:
    for _ in range(45):
        guarded.answers()
        guarded.fails()
    guarded.answers()


def test_a_refusal_shows_that_the_system_answers(guarded: Guarded) -> None:
    for _ in range(3):
        guarded.fails(4)
        with pytest.raises(Reject), guarded.breaker.watch():
            raise Reject("no")
    guarded.answers()
