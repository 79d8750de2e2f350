"""The metrics of a service for Prometheus; labels are queues, types and outcomes, never an id or a phone number."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import Metric

_SECONDS = (0.001, 0.005, 0.025, 0.1, 0.5, 1, 5, 15, 60, 300)
_AGES = (0.01, 0.1, 1, 5, 30, 60, 300, 900, 3600, 21600, 86400)


class Metrics:
    """The metrics of one process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.tallies: dict[tuple[str, str], _Tally] = {}
        self.registry.register(_Handled(self.tallies))
        self.running = Gauge("wch_handlers_running", "Deliveries in a handler", ("queue",), registry=self.registry)
        self.queued = Gauge(
            "wch_deliveries_queued", "Deliveries that wait for a slot", ("queue",), registry=self.registry
        )
        self.consuming = Gauge(
            "wch_queue_consuming", "1 while the queue is consumed", ("queue",), registry=self.registry
        )
        self.settlements_stuck = Gauge(
            "wch_settlements_stuck", "Settlements that fail and are being repeated", ("queue",), registry=self.registry
        )
        self.outbox = Gauge("wch_outbox_rows", "Committed events that are not published yet", registry=self.registry)
        self.parked = Gauge(
            "wch_events_parked", "Events parked until their due time", ("queue",), registry=self.registry
        )
        self.dead_letters_removed = Counter(
            "wch_dead_letters_removed",
            "Dead letters removed because of their age (WCH_DEAD_LETTER_DAYS)",
            ("queue",),
            registry=self.registry,
        )
        self.dead_letter_oldest = Gauge(
            "wch_dead_letter_oldest_seconds",
            "Age of the oldest dead letter that will be removed, 0 if there is none; checked once an hour",
            ("queue",),
            registry=self.registry,
        )


class QueueMetrics:
    """The metrics of one queue, kept as plain numbers until they are scraped, as every delivery changes them."""

    def __init__(self, metrics: Metrics, queue: str) -> None:
        self._metrics = metrics
        self._queue = queue
        self._tallies: dict[str, _Tally] = {}

    def observe(self, type_: str, outcome: str, *, seconds: float, age_seconds: float | None) -> None:
        """Count one delivery."""
        tally = self._tallies.get(type_)
        if tally is None:
            tally = self._metrics.tallies.setdefault((self._queue, type_), _Tally())
            self._tallies[type_] = tally
        tally.outcomes[outcome] += 1
        tally.durations.observe(seconds)
        if age_seconds is not None:
            tally.ages.observe(max(0.0, age_seconds))


class _Spread:
    """How many values lie up to each bound, at a tenth of the cost of prometheus_client's histogram with its locks."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def buckets(self) -> tuple[list[tuple[str, float]], float]:
        """Return the counts up to each bound, and the sum, in Prometheus' form."""
        names = [*map(floatToGoString, self._bounds), "+Inf"]
        return list(zip(names, accumulate(self._counts), strict=True)), self._sum


class _Tally:
    """The outcomes of the deliveries of one type from one queue."""

    __slots__ = ("ages", "durations", "outcomes")

    def __init__(self) -> None:
        self.outcomes: defaultdict[str, int] = defaultdict(int)
        self.durations = _Spread(_SECONDS)
        self.ages = _Spread(_AGES)


class _Handled(Collector):
    """Exports the outcomes of deliveries."""

    def __init__(self, tallies: dict[tuple[str, str], _Tally]) -> None:
        self._tallies = tallies

    def collect(self) -> Iterator[Metric]:
        handled = CounterMetricFamily(
            "wch_events_handled", "Deliveries by outcome", labels=("queue", "type", "outcome")
        )
        duration = HistogramMetricFamily(
            "wch_event_duration_seconds", "Time from taking a delivery to its outcome", labels=("queue", "type")
        )
        age = HistogramMetricFamily(
            "wch_event_age_seconds", "Time from the event's `time` to its handling", labels=("queue", "type")
        )
        # Copied first, as another thread scrapes while deliveries are counted.
        for labels, tally in list(self._tallies.items()):
            for outcome, count in list(tally.outcomes.items()):
                handled.add_metric((*labels, outcome), count)
            duration.add_metric(labels, *tally.durations.buckets())
            age.add_metric(labels, *tally.ages.buckets())
        yield from (handled, duration, age)
