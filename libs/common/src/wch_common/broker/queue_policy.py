"""How one queue is consumed: its retry delays, attempts, slots, time limit and prefetch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Batching:
    """How events are collected for a batch handler: up to `size`, for at most `window_seconds` after the first."""

    size: int
    window_seconds: float

    def __post_init__(self) -> None:
        if self.size < 1 or self.window_seconds < 0:
            raise ValueError("the batch size must be at least 1 and the batch window must not be negative")


@dataclass(frozen=True, slots=True)
class QueuePolicy:
    """How one queue is consumed: `retry_delays` in seconds, `tries` after the first, slots, time limit, prefetch."""

    retry_delays: tuple[float, ...] = (60, 300, 900)
    tries: int = 3
    concurrency: int = 5
    time_limit_seconds: float = 300
    batching: Batching | None = None
    prefetch_limit: int | None = None
    """Most unacknowledged deliveries; None for twice the slots and at least 16, or for one batch."""

    def __post_init__(self) -> None:
        delays = self.retry_delays
        if not delays or list(delays) != sorted(set(delays)) or delays[0] <= 0:
            raise ValueError("retry delays must be one or more times in seconds, above 0 and rising, like 60,300,900")
        if self.tries < 0 or self.concurrency < 1 or self.time_limit_seconds <= 0:
            raise ValueError("tries must be 0 or more, concurrency 1 or more, the time limit above 0 seconds")
        least = self.batching.size if self.batching else self.concurrency
        if self.prefetch_limit is not None and self.prefetch_limit < least:
            raise ValueError(f"the prefetch must be at least {least}, the number of slots or the batch size")

    @property
    def prefetch(self) -> int:
        """How many deliveries the broker may hand out unacknowledged."""
        return self.prefetch_limit or (self.batching.size if self.batching else max(2 * self.concurrency, 16))

    def careful_prefetch(self, delivery_count: int) -> int:
        """Return the prefetch after a redelivery: 1, so that a message that kills its process affects no other.

        A batch queue first takes its batch whole again, then a tenth of it, and so on: one crash must not turn a
        thousand events into a thousand calls to an outside system.
        """
        if self.batching is None:
            return 1
        return max(1, self.batching.size // int(10 ** max(0, delivery_count - 1)))

    def retry_delay_for(self, seconds: float) -> float:
        """Return the shortest retry delay of at least `seconds`, or the longest there is."""
        return next((delay for delay in self.retry_delays if delay >= seconds), self.retry_delays[-1])
