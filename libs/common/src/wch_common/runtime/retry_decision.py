"""Decides what happens to a delivery whose handler raised; without I/O."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeAlias

from wch_common.errors import ContractError, UnknownVersion
from wch_common.outcome import Reject, Retry, Throttled

if TYPE_CHECKING:
    from wch_common.broker.headers import DeliveryState
    from wch_common.broker.queue_policy import QueuePolicy

LONGEST_WAIT = timedelta(hours=24)
UNKNOWN_VERSION_WAIT = timedelta(hours=1)
_UNKNOWN_VERSION_PAUSE_SECONDS = 60.0
# A redelivery with this count is dead-lettered as `killed_process` without running its handler.
KILLED_PROCESS_DELIVERIES = 5


@dataclass(frozen=True, slots=True)
class ToDelayQueue:
    """Wait in one of the queue's delay queues; `counted` uses an attempt."""

    seconds: float
    counted: bool


@dataclass(frozen=True, slots=True)
class ToParking:
    """Wait as a row with a due time in the database; `counted` uses an attempt."""

    seconds: float
    scope: str
    counted: bool


@dataclass(frozen=True, slots=True)
class ToDeadLetters:
    """Move to the dead-letter queue; `kind` is one of the closed list of `wch-error-kind`."""

    kind: str


RetryDecision: TypeAlias = ToDelayQueue | ToParking | ToDeadLetters


def decide(
    error: BaseException,
    state: DeliveryState,
    policy: QueuePolicy,
    *,
    now: datetime | None = None,
    can_park: bool = False,
) -> RetryDecision:
    """Return what happens to a delivery; any exception outside the closed set of outcomes counts as a Retry."""
    now = now or datetime.now(UTC)
    if isinstance(error, UnknownVersion):
        limit = (UNKNOWN_VERSION_WAIT, "unknown_version")
        return _wait(_UNKNOWN_VERSION_PAUSE_SECONDS, "", state, policy, now, can_park=can_park, limit=limit)
    if isinstance(error, ContractError):
        return ToDeadLetters(error.kind)
    if isinstance(error, Reject):
        return ToDeadLetters("rejected")
    if isinstance(error, Throttled):
        return _wait(error.after, error.scope, state, policy, now, can_park=can_park)
    if state.attempt > policy.tries:
        return ToDeadLetters("retries_exhausted")
    after = error.after if isinstance(error, Retry) else None
    if after is None:
        delays = policy.retry_delays
        return ToDelayQueue(delays[min(state.attempt, len(delays)) - 1], counted=True)
    if after > policy.retry_delays[-1] and can_park:
        return ToParking(after, scope="", counted=True)
    return ToDelayQueue(policy.retry_delay_for(after), counted=True)


def _wait(
    seconds: float,
    scope: str,
    state: DeliveryState,
    policy: QueuePolicy,
    now: datetime,
    *,
    can_park: bool,
    limit: tuple[timedelta, str] = (LONGEST_WAIT, "expired_waiting"),
) -> RetryDecision:
    """Wait uncounted, in a delay queue for short waits and in a row for long ones; dead-letter at the limit."""
    longest, kind = limit
    # The header may come from another program and hold any time, one in the future included.
    end = min(state.waiting_since or now, now) + longest
    if state.expires_at is not None:
        end = min(end, state.expires_at)
    if now >= end:
        return ToDeadLetters(kind)
    if seconds > 2 * policy.retry_delays[0] and can_park:
        left = (end - now).total_seconds()
        return ToParking(min(seconds, left), scope=scope, counted=False)
    return ToDelayQueue(policy.retry_delay_for(min(seconds, policy.retry_delays[-1])), counted=False)
