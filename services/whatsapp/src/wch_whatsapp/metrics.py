"""What the service tells Prometheus; labels are states, reasons and causes of closed lists, never an id or a number."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from wch_whatsapp.error_policy import ALERTING
from wch_whatsapp.ledger import TOLD

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from wch_common.store.database import Row
    from wch_whatsapp.outcomes import Outcome

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class WhatsAppMetrics:
    """The service's own metrics, in the process's registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._calls = Counter(
            "wch_whatsapp_calls_total", "Calls to the Cloud API by what was answered", ("reply",), registry=registry
        )
        self._seconds = Histogram("wch_whatsapp_call_seconds", "Time a call took", buckets=_SECONDS, registry=registry)
        self._ended = Counter(
            "wch_whatsapp_messages_total", "Messages by what became of them", ("state", "reason"), registry=registry
        )
        self._open = Gauge("wch_whatsapp_messages_open", "Messages not settled", ("state",), registry=registry)
        self._resting = Gauge(
            "wch_whatsapp_numbers_resting",
            "Numbers that send nothing, by cause: alert on it",
            ("cause",),
            registry=registry,
        )
        self._alerts = Counter(
            "wch_whatsapp_alerts_total", "Refusals a person should hear of", ("reason",), registry=registry
        )
        self._causes: set[str] = set()

    def called(self, outcome: Outcome, seconds: float) -> None:
        """Count one call."""
        self._calls.labels(type(outcome.reply).__name__.lower()).inc()
        self._seconds.observe(seconds)
        if outcome.policy is not None:
            self.refused(outcome.policy.reason)

    def refused(self, reason: str) -> None:
        """Count a refusal of which a person should hear."""
        if reason in ALERTING:
            self._alerts.labels(reason).inc()

    def ended(self, rows: Iterable[Row]) -> None:
        """Count messages that have an answer."""
        for row in rows:
            if row["state"] in TOLD:
                reason = row["reason"] if row["state"] == "failed" else ""
                self._ended.labels(row["state"], reason).inc()

    def counted(self, states: Mapping[str, int], causes: Mapping[str, int]) -> None:
        """Set the gauges."""
        for state in ("queued", "sending", "in_doubt"):
            self._open.labels(state).set(states.get(state, 0))
        self._causes |= set(causes)
        for cause in self._causes:
            self._resting.labels(cause).set(causes.get(cause, 0))
