"""Every decision about a delivery, without a broker."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from wch_common.broker.headers import DeliveryState
from wch_common.broker.queue_policy import Batching, QueuePolicy
from wch_common.errors import IdReused, InvalidData, Undecodable, UnknownType, UnknownVersion
from wch_common.outcome import Reject, Retry, Throttled
from wch_common.runtime.retry_decision import RetryDecision, ToDeadLetters, ToDelayQueue, ToParking, decide

NOW = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = QueuePolicy(retry_delays=(60, 300, 900), tries=3)


def decided(error: Exception, attempt: int = 1, *, can_park: bool = True, **state: datetime) -> RetryDecision:
    return decide(error, DeliveryState(attempt, **state), POLICY, now=NOW, can_park=can_park)


def test_each_failure_takes_the_next_delay_queue_and_the_fourth_try_is_the_last() -> None:
    assert [decided(ValueError(), attempt) for attempt in (1, 2, 3, 4)] == [
        ToDelayQueue(60, counted=True),
        ToDelayQueue(300, counted=True),
        ToDelayQueue(900, counted=True),
        ToDeadLetters("retries_exhausted"),
    ]


def test_more_tries_than_retry_delays_stay_on_the_last() -> None:
    policy = QueuePolicy(retry_delays=(60, 300), tries=5)
    decisions = [decide(ValueError(), DeliveryState(attempt), policy, now=NOW) for attempt in range(1, 7)]
    assert decisions[1:] == [ToDelayQueue(300, counted=True)] * 4 + [ToDeadLetters("retries_exhausted")]


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"tries": -1}, "tries"),
        ({"concurrency": 0}, "concurrency"),
        ({"time_limit_seconds": 0}, "time limit"),
    ],
)
def test_invalid_policies_are_refused(values: dict[str, int], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        QueuePolicy(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(("size", "window"), [(0, 1), (1, -1)])
def test_invalid_batches_are_refused(size: int, window: float) -> None:
    with pytest.raises(ValueError, match="batch"):
        Batching(size, window)


def test_a_requested_wait_takes_a_delay_queue_that_is_long_enough_or_is_parked() -> None:
    assert decided(Retry("", after=100)) == ToDelayQueue(300, counted=True)
    assert decided(Retry("", after=0.5)) == ToDelayQueue(60, counted=True)
    assert decided(Retry("", after=-1)) == ToDelayQueue(60, counted=True)
    assert decided(Retry("", after=901)) == ToParking(901, scope="", counted=True)
    assert decided(Retry("", after=901), can_park=False) == ToDelayQueue(900, counted=True)
    assert decided(Retry("", after=901), attempt=4) == ToDeadLetters("retries_exhausted")


def test_a_throttled_event_waits_uncounted_in_a_delay_queue_or_is_parked() -> None:
    assert decided(Throttled("", scope="s", after=120), attempt=4) == ToDelayQueue(300, counted=False)
    assert decided(Throttled("", scope="s", after=121)) == ToParking(121, scope="s", counted=False)
    assert decided(Throttled("", scope="s", after=9999), can_park=False) == ToDelayQueue(900, counted=False)


def test_waiting_ends_after_a_day_or_with_the_event() -> None:
    throttled = Throttled("", scope="s", after=7200)
    since = NOW - timedelta(hours=23, minutes=30)
    assert decided(throttled, waiting_since=since) == ToParking(1800, scope="s", counted=False)
    assert decided(throttled, waiting_since=NOW - timedelta(hours=24)) == ToDeadLetters("expired_waiting")
    assert decided(throttled, expires_at=NOW) == ToDeadLetters("expired_waiting")


def test_an_unknown_version_waits_an_hour() -> None:
    assert decided(UnknownVersion("")) == ToDelayQueue(60, counted=False)
    assert decided(UnknownVersion(""), waiting_since=NOW - timedelta(hours=1)) == ToDeadLetters("unknown_version")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Reject(""), "rejected"),
        (Undecodable(""), "undecodable"),
        (UnknownType(""), "unknown_type"),
        (InvalidData(""), "invalid_data"),
        (IdReused(""), "id_reused"),
    ],
)
def test_permanent_failures_are_dead_lettered_at_once(error: Exception, kind: str) -> None:
    assert decided(error) == ToDeadLetters(kind)


def test_prefetch_covers_the_slots_and_a_batch() -> None:
    assert QueuePolicy(concurrency=5).prefetch == 16
    assert QueuePolicy(concurrency=40).prefetch == 80
    assert QueuePolicy(batching=Batching(1000, 20)).prefetch == 1000


def test_after_a_crash_a_message_is_taken_alone_and_a_batch_in_shrinking_parts() -> None:
    assert QueuePolicy().careful_prefetch(1) == 1
    batches = QueuePolicy(batching=Batching(1000, 20))
    assert [batches.careful_prefetch(count) for count in range(6)] == [1000, 1000, 100, 10, 1, 1]


@pytest.mark.parametrize("retry_delays", [(), (0,), (5, 5), (5, 1)])
def test_invalid_retry_delays_are_refused(retry_delays: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="retry delays"):
        QueuePolicy(retry_delays=retry_delays)
