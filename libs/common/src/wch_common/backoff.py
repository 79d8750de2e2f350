"""Waiting between attempts at something that will work again: a connection, a settlement, a start."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_delay, stop_never

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

_FIRST_SECONDS = 0.2
_LONGEST_SECONDS = 5.0


def backoff_seconds(failures: int, draw: Callable[[], float] = random.random) -> float:
    """Return the wait after `failures` failures in a row: doubling up to 5 s, randomly shortened by up to a quarter."""
    longest = min(_FIRST_SECONDS * 2.0 ** min(failures, 10), _LONGEST_SECONDS)
    return longest * (0.75 + 0.25 * draw())


async def until_success(
    step: Callable[[], Awaitable[T]],
    errors: type[BaseException] | tuple[type[BaseException], ...],
    report: Callable[[int, BaseException], None],
    *,
    limit_seconds: float | None = None,
) -> T:
    """Repeat `step` with back-off until it returns, and return its result.

    Only `errors` are repeated; `report(failures, error)` is called before each wait. With `limit_seconds`, the last
    error is raised once that much time has passed.
    """

    def before_sleep(state: RetryCallState) -> None:
        if state.outcome is not None and (error := state.outcome.exception()) is not None:
            report(state.attempt_number, error)

    # tenacity would not await a plain function that returns an awaitable.
    async def attempt() -> T:
        return await step()

    retrying = AsyncRetrying(
        retry=retry_if_exception_type(errors),
        wait=lambda state: backoff_seconds(state.attempt_number),
        stop=stop_never if limit_seconds is None else stop_after_delay(limit_seconds),
        before_sleep=before_sleep,
        reraise=True,
    )
    return await retrying(attempt)
