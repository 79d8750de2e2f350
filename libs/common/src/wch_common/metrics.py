"""What a service tells Prometheus; labels are queues, types and outcomes only, never an id or a number."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Gauge
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
        self.held = Gauge("wch_deliveries_held", "Deliveries held unsettled", ("queue",), registry=self.registry)
        self.consuming = Gauge(
            "wch_queue_consuming", "1 while the queue is consumed", ("queue",), registry=self.registry
        )
        self.settlements_stuck = Gauge(
            "wch_settlements_stuck", "Settlements that fail and are repeated", ("queue",), registry=self.registry
        )
        self.outbox = Gauge("wch_outbox_rows", "Committed events that wait to be published", registry=self.registry)
        self.parked = Gauge(
            "wch_events_parked", "Events parked until their due time", ("queue",), registry=self.registry
        )


class QueueMetrics:
    """The metrics of one queue; told of every delivery, so kept as plain numbers until somebody asks for them."""

    def __init__(self, metrics: Metrics, queue: str) -> None:
        self._metrics = metrics
        self._queue = queue
        self._tallies: dict[str, _Tally] = {}

    def tell(self, type_: str, outcome: str, *, seconds: float, age_seconds: float | None) -> None:
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
    """How many values lie up to each bound; a tenth of what a histogram of prometheus_client costs, which has a lock for each."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def buckets(self) -> tuple[list[tuple[str, float]], float]:
        """Return the counts up to each bound, and the sum, as Prometheus wants them."""
        names = [*map(floatToGoString, self._bounds), "+Inf"]
        return list(zip(names, accumulate(self._counts), strict=True)), self._sum


class _Tally:
    """What became of the deliveries of one type from one queue."""

    __slots__ = ("ages", "durations", "outcomes")

    def __init__(self) -> None:
        self.outcomes: defaultdict[str, int] = defaultdict(int)
        self.durations = _Spread(_SECONDS)
        self.ages = _Spread(_AGES)


class _Handled(Collector):
    """Tells Prometheus of deliveries."""

    def __init__(self, tallies: dict[tuple[str, str], _Tally]) -> None:
        self._tallies = tallies

    def collect(self) -> Iterator[Metric]:
        handled = CounterMetricFamily(
            "wch_events_handled", "Deliveries by what became of them", labels=("queue", "type", "outcome")
        )
        duration = HistogramMetricFamily("wch_event_duration_seconds", "Time a handler took", labels=("queue", "type"))
        age = HistogramMetricFamily(
            "wch_event_age_seconds", "Time from the event's `time` to its handling", labels=("queue", "type")
        )
        # Copied at once, as another thread asks while deliveries are counted.
        for labels, tally in list(self._tallies.items()):
            for outcome, count in list(tally.outcomes.items()):
                handled.add_metric((*labels, outcome), count)
            duration.add_metric(labels, *tally.durations.buckets())
            age.add_metric(labels, *tally.ages.buckets())
        yield from (handled, duration, age)
