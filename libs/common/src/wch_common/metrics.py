"""What a service tells Prometheus; labels are queues, types and outcomes only, never an id or a number."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.001, 0.005, 0.025, 0.1, 0.5, 1, 5, 15, 60, 300)
_AGES = (0.01, 0.1, 1, 5, 30, 60, 300, 900, 3600, 21600, 86400)


class Metrics:
    """The metrics of one process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.handled = Counter(
            "wch_events_handled_total",
            "Deliveries by what became of them",
            ("queue", "type", "outcome"),
            registry=self.registry,
        )
        self.duration = Histogram(
            "wch_event_duration_seconds",
            "Time a handler took",
            ("queue", "type"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.age = Histogram(
            "wch_event_age_seconds",
            "Time from the event's `time` to its handling",
            ("queue", "type"),
            buckets=_AGES,
            registry=self.registry,
        )
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
    """The metrics of one queue with their labels looked up once, as this is the hot path."""

    def __init__(self, metrics: Metrics, queue: str) -> None:
        self._metrics = metrics
        self._queue = queue
        self._handled: dict[tuple[str, str], Counter] = {}
        self._times: dict[str, tuple[Histogram, Histogram]] = {}

    def tell(self, type_: str, outcome: str, *, seconds: float, age_seconds: float | None) -> None:
        """Count one delivery."""
        counter = self._handled.get((type_, outcome))
        if counter is None:
            counter = self._metrics.handled.labels(self._queue, type_, outcome)
            self._handled[type_, outcome] = counter
        counter.inc()
        times = self._times.get(type_)
        if times is None:
            times = (self._metrics.duration.labels(self._queue, type_), self._metrics.age.labels(self._queue, type_))
            self._times[type_] = times
        times[0].observe(seconds)
        if age_seconds is not None:
            times[1].observe(max(0.0, age_seconds))
