"""What the service tells Prometheus; the names of schedules are those of the file."""

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
    "late": ("wch_scheduler_schedules_late", "Schedules that are due for too long: alert on it"),
    "oldest": ("wch_scheduler_oldest_due_seconds", "How long the oldest is due"),
    "soon": ("wch_scheduler_due_within_an_hour", "Schedules due within an hour"),
    "paused": ("wch_scheduler_schedules_paused", "Schedules that somebody paused"),
    "timers": ("wch_scheduler_timers_waiting", "Timers that wait for their time"),
    "timers_oldest": ("wch_scheduler_timers_oldest_due_seconds", "How long the oldest timer is due: alert on it"),
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
            "Times that were passed over, by the catch-up policy that says so",
            ("schedule", "policy"),
            registry=registry,
        )
        self._lateness = Histogram(
            "wch_scheduler_lateness_seconds",
            "From the planned time, its jitter included, to publishing",
            buckets=_SECONDS,
            registry=registry,
        )
        self._timers = Counter("wch_scheduler_timers_total", "Timers that were published", registry=registry)
        self._timer_lateness = Histogram(
            "wch_scheduler_timer_lateness_seconds",
            "From a timer's time to publishing",
            buckets=_SECONDS,
            registry=registry,
        )
        self._timers_looked = Gauge(
            "wch_scheduler_last_release_timestamp_seconds", "When timers were looked at last", registry=registry
        )
        self._counted = {column: Gauge(*names, registry=registry) for column, names in _COUNTED.items()}
        self._looked = Gauge("wch_scheduler_last_loop_timestamp_seconds", "When it was looked last", registry=registry)
        self._stands_by = Gauge(
            "wch_scheduler_stands_by", "1 while another file of schedules decides, as in a rollout", registry=registry
        )
        self._broken = Gauge(
            "wch_scheduler_file_broken", "1 while the file cannot be used and the old schedules go on: alert on it",
            registry=registry,
        )  # fmt: skip

    def fired(self, name: str, seconds_late: Sequence[float]) -> None:
        """Count ticks and how late they were."""
        self._fired.labels(name).inc(len(seconds_late))
        for seconds in seconds_late:
            self._lateness.observe(max(0.0, seconds))

    def missed(self, name: str, policy: str, ticks: int) -> None:
        """Count times that were passed over."""
        self._missed.labels(name, policy).inc(ticks)

    def looked(self, *, stands_by: bool) -> None:
        """Note a successful look at what is due."""
        self._looked.set(time.time())
        self._stands_by.set(stands_by)

    def released(self, seconds_late: Sequence[float]) -> None:
        """Count timers that were published, and how late they were."""
        self._timers.inc(len(seconds_late))
        for seconds in seconds_late:
            self._timer_lateness.observe(max(0.0, seconds))

    def released_now(self) -> None:
        """Note a successful look at what timers are due."""
        self._timers_looked.set(time.time())

    def file(self, *, broken: bool) -> None:
        """Note whether the file can be used."""
        self._broken.set(broken)

    def counted(self, row: Row) -> None:
        """Set what was counted in the database; nothing that is due is 0 s old."""
        for column, gauge in self._counted.items():
            gauge.set(row[column] or 0)
