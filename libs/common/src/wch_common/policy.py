"""What becomes of a delivery whose handler did not return: a pure decision, with time passed in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from wch_common.errors import ContractError, UnknownVersion
from wch_common.outcome import Reject, Retry, Throttled

UNKNOWN_VERSION_WAIT = timedelta(hours=1)
LONGEST_WAIT = timedelta(hours=24)
_UNKNOWN_VERSION_PAUSE_SECONDS = 60.0
# A redelivery with this count has ended its process so often that it is dead-lettered unrun (design: killed_process).
KILLED_PROCESS_DELIVERIES = 5


@dataclass(frozen=True, slots=True)
class Batching:
    """How a batch handler's events are collected: up to `size`, no longer than `window_seconds` after the first."""

    size: int
    window_seconds: float

    def __post_init__(self) -> None:
        if self.size < 1 or self.window_seconds < 0:
            raise ValueError("a batch holds at least 1 event and its window is not negative")


@dataclass(frozen=True, slots=True)
class QueuePolicy:
    """How one queue is worked: `tries` after the first, waits between them (`rungs`, seconds), slots, time limit."""

    rungs: tuple[float, ...] = (60, 300, 900)
    tries: int = 3
    concurrency: int = 5
    time_limit_seconds: float = 300
    batching: Batching | None = None
    held: int | None = None
    """Deliveries handed out unacknowledged; None for twice the slots, at least 16, or one batch."""

    def __post_init__(self) -> None:
        if not self.rungs or list(self.rungs) != sorted(set(self.rungs)) or self.rungs[0] <= 0:
            raise ValueError("rungs are at least one wait in seconds, above 0, in rising order, like 60,300,900")
        if self.tries < 0 or self.concurrency < 1 or self.time_limit_seconds <= 0:
            raise ValueError("tries are 0 or more, concurrency is 1 or more, the time limit is above 0 seconds")
        if self.held is not None and self.held < (self.batching.size if self.batching else self.concurrency):
            raise ValueError("the prefetch is at least the slots, or one batch")

    @property
    def prefetch(self) -> int:
        """How many deliveries the broker may hand out unacknowledged."""
        return self.held or (self.batching.size if self.batching else max(2 * self.concurrency, 16))

    def careful_prefetch(self, delivery_count: int) -> int:
        """How many to take after a redelivery: alone, so that a message that kills its process takes no neighbour along.

        A batch is first taken whole again, then in tenths: one crash must not turn it into a thousand calls outside.
        """
        if self.batching is None:
            return 1
        return max(1, self.batching.size // int(10 ** max(0, delivery_count - 1)))

    def rung_for(self, seconds: float) -> float:
        """Return the shortest rung that waits at least so long, else the longest."""
        return next((rung for rung in self.rungs if rung >= seconds), self.rungs[-1])


@dataclass(frozen=True, slots=True)
class ToRung:
    """Wait in a rung of the queue's ladder; `counted` spends a try."""

    seconds: float
    counted: bool


@dataclass(frozen=True, slots=True)
class ToParking:
    """Wait as a row with a due time in the database; `counted` spends a try."""

    seconds: float
    scope: str
    counted: bool


@dataclass(frozen=True, slots=True)
class ToDeadLetters:
    """Give up; `kind` is one of the closed list in `wch-error-kind`."""

    kind: str


Verdict: TypeAlias = ToRung | ToParking | ToDeadLetters


@dataclass(frozen=True, slots=True)
class Standing:
    """What a decision needs to know about a delivery: its attempt (from 1), since when it waits, when it expires."""

    attempt: int
    waiting_since: datetime | None = None
    expires_at: datetime | None = None


def judge(
    error: BaseException,
    standing: Standing,
    policy: QueuePolicy,
    *,
    now: datetime | None = None,
    can_park: bool = False,
) -> Verdict:
    """Decide what becomes of a delivery; anything outside the closed set of outcomes is a Retry."""
    now = now or datetime.now(UTC)
    if isinstance(error, UnknownVersion):
        unknown = (UNKNOWN_VERSION_WAIT, "unknown_version")
        return _wait(_UNKNOWN_VERSION_PAUSE_SECONDS, "", standing, policy, now, can_park=can_park, gives_up=unknown)
    if isinstance(error, ContractError):
        return ToDeadLetters(error.kind)
    if isinstance(error, Reject):
        return ToDeadLetters("rejected")
    if isinstance(error, Throttled):
        return _wait(error.after, error.scope, standing, policy, now, can_park=can_park)
    if standing.attempt > policy.tries:
        return ToDeadLetters("retries_exhausted")
    after = error.after if isinstance(error, Retry) else None
    if after is None:
        return ToRung(policy.rungs[min(standing.attempt, len(policy.rungs)) - 1], counted=True)
    if after > policy.rungs[-1] and can_park:
        return ToParking(after, scope="", counted=True)
    return ToRung(policy.rung_for(after), counted=True)


def _wait(
    seconds: float,
    scope: str,
    standing: Standing,
    policy: QueuePolicy,
    now: datetime,
    *,
    can_park: bool,
    gives_up: tuple[timedelta, str] = (LONGEST_WAIT, "expired_waiting"),
) -> Verdict:
    """Park uncounted: in a rung where that is soon enough, else as a row; give up where the wait grew too long."""
    longest, kind = gives_up
    # A header of somebody else's may hold any moment.
    end = min(standing.waiting_since or now, now) + longest
    if standing.expires_at is not None:
        end = min(end, standing.expires_at)
    if now >= end:
        return ToDeadLetters(kind)
    if seconds > 2 * policy.rungs[0] and can_park:
        left = (end - now).total_seconds()
        return ToParking(min(seconds, left), scope=scope, counted=False)
    return ToRung(policy.rung_for(min(seconds, policy.rungs[-1])), counted=False)
