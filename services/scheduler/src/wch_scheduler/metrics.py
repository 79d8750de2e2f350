"""The service's own metrics; the label `schedule` has the names of the file."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wch_common.store.database import Row

_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600)
# By the column of the count.
_COUNTED = {
    "late": ("wch_scheduler_schedules_late", "Schedules that have been due for too long; alert on it"),
    "oldest": ("wch_scheduler_oldest_due_seconds", "How long the longest due schedule has been due"),
    "soon": ("wch_scheduler_due_within_an_hour", "Schedules due within an hour"),
    "paused": ("wch_scheduler_schedules_paused", "Schedules that an operator paused"),
    "timers": ("wch_scheduler_timers_waiting", "Timers that wait for their due time"),
    "timers_oldest": (
        "wch_scheduler_timers_oldest_due_seconds",
        "How long the longest due timer has been due; alert on it",
    ),
    "timers_soon": ("wch_scheduler_timers_due_within_an_hour", "Timers due within an hour"),
}


class SchedulerMetrics:
    """The service's own metrics, in the process's registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._fired = Counter(
            "wch_scheduler_ticks_total", "Times at which events were published", ("schedule",), registry=registry
        )
        self._missed = Counter(
            "wch_scheduler_ticks_missed_total",
            "Times that were missed and not caught up, by catch-up policy",
            ("schedule", "policy"),
            registry=registry,
        )
        self._lateness = Histogram(
            "wch_scheduler_lateness_seconds",
            "Time from the planned time and its jitter to publishing",
            buckets=_SECONDS,
            registry=registry,
        )
        self._timers = Counter("wch_scheduler_timers_total", "Timers that were published", registry=registry)
        self._timer_lateness = Histogram(
            "wch_scheduler_timer_lateness_seconds",
            "Time from a timer's due time to publishing",
            buckets=_SECONDS,
            registry=registry,
        )
        self._timers_checked = Gauge(
            "wch_scheduler_last_release_timestamp_seconds", "When timers were last checked", registry=registry
        )
        self._counted = {column: Gauge(*names, registry=registry) for column, names in _COUNTED.items()}
        self._checked = Gauge(
            "wch_scheduler_last_loop_timestamp_seconds", "When schedules were last checked", registry=registry
        )
        self._stands_by = Gauge(
            "wch_scheduler_stands_by", "1 while another file of schedules is in use, as in a rollout", registry=registry
        )
        self._broken = Gauge(
            "wch_scheduler_file_broken", "1 while the file is invalid and the old schedules stay in use; alert on it",
            registry=registry,
        )  # fmt: skip

    def fired(self, name: str, seconds_late: Sequence[float]) -> None:
        """Count ticks and how late they were."""
        self._fired.labels(name).inc(len(seconds_late))
        for seconds in seconds_late:
            self._lateness.observe(max(0.0, seconds))

    def missed(self, name: str, policy: str, ticks: int) -> None:
        """Count times that were missed and not caught up."""
        self._missed.labels(name, policy).inc(ticks)

    def checked(self, *, stands_by: bool) -> None:
        """Record a successful check of what is due."""
        self._checked.set(time.time())
        self._stands_by.set(stands_by)

    def released(self, seconds_late: Sequence[float]) -> None:
        """Count published timers and how late they were."""
        self._timers.inc(len(seconds_late))
        for seconds in seconds_late:
            self._timer_lateness.observe(max(0.0, seconds))

    def timers_checked(self) -> None:
        """Record a successful check of the timers that are due."""
        self._timers_checked.set(time.time())

    def file(self, *, broken: bool) -> None:
        """Record whether the file is valid."""
        self._broken.set(broken)

    def counted(self, row: Row) -> None:
        """Set the gauges that are counted in the database; without due schedules their age is 0."""
        for column, gauge in self._counted.items():
            gauge.set(row[column] or 0)
