"""The service's Prometheus metrics; labels are states, reasons and causes of closed lists, never an id or a number."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from wch_common.events.failure_reasons import FAILURE_REASONS, alerting_reasons, failure_reason, pausing_reasons
from wch_whatsapp.facts import REPORTED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from wch_common.store.database import Row
    from wch_whatsapp.call_outcomes import CallOutcome

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class WhatsAppMetrics:
    """The service's own metrics, in the registry of the process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._calls = Counter("wch_whatsapp_calls_total", "Calls to the Cloud API", ("reply",), registry=registry)
        self._seconds = Histogram(
            "wch_whatsapp_call_seconds", "Duration of a call", buckets=_SECONDS, registry=registry
        )
        self._ended = Counter(
            "wch_whatsapp_messages_total", "Messages with a result", ("state", "reason"), registry=registry
        )
        self._open = Gauge("wch_whatsapp_messages_open", "Messages without a result yet", ("state",), registry=registry)
        self._paused = Gauge(
            "wch_whatsapp_numbers_paused", "Paused numbers, by cause: alert on it", ("cause",), registry=registry
        )
        self._alerts = Counter(
            "wch_whatsapp_alerts_total", "Refusals that need an operator", ("reason",), registry=registry
        )
        self._charged = Gauge(
            "wch_whatsapp_chargeable_messages",
            "Messages of this month that may cost money",
            ("kind",),
            registry=registry,
        )
        self._budget = Gauge(
            "wch_whatsapp_budget_used_ratio",
            "Used part of the month's budget, of the number that has used most: alert on it",
            registry=registry,
        )
        self._without_status = Gauge(
            "wch_whatsapp_messages_without_status",
            "Messages accepted over an hour ago of which Meta has reported nothing: alert on it",
            registry=registry,
        )
        self._templates_age = Gauge(
            "wch_whatsapp_templates_age_seconds",
            "Time since the message templates were read from Meta, of the shop for which that is longest: alert on it",
            registry=registry,
        )
        # A newer replica may have written causes that are not in this version's table.
        self._causes: set[str] = set()
        # Every series exists from the start, so that the first increase is seen.
        for reason in alerting_reasons():
            self._alerts.labels(reason)

    def called(self, outcome: CallOutcome, seconds: float) -> None:
        """Count a call, and its refusal if it needs an operator."""
        self._calls.labels(outcome.reply.kind).inc()
        self._seconds.observe(seconds)
        if outcome.policy is not None:
            self.refused(outcome.policy.reason)

    def refused(self, reason: str) -> None:
        """Count a refusal if it needs an operator."""
        if failure_reason(reason).acts == "operator":
            self._alerts.labels(reason).inc()

    def ended(self, rows: Iterable[Row]) -> None:
        """Count the messages that have a result."""
        for row in rows:
            if row["state"] in REPORTED:
                reason = _label(row["reason"]) if row["state"] == "failed" else ""
                self._ended.labels(row["state"], reason).inc()

    def counted(self, states: Mapping[str, int], causes: Mapping[str, int]) -> None:
        """Set the gauges to the counts of the database."""
        for state in ("queued", "sending", "in_doubt"):
            self._open.labels(state).set(states.get(state, 0))
        self._causes |= {*pausing_reasons(), *causes}
        for cause in self._causes:
            self._paused.labels(cause).set(causes.get(cause, 0))

    def charged(self, by_kind: Mapping[str, int], budget_used: float) -> None:
        """Set the gauges of messages that may cost money, and of the budget."""
        for kind in ("marketing", "utility", "free_form"):
            self._charged.labels(kind).set(by_kind.get(kind, 0))
        self._budget.set(budget_used)

    def without_status(self, messages: int) -> None:
        """Set the gauge of accepted messages without any status."""
        self._without_status.set(messages)

    def templates_are(self, seconds: float) -> None:
        """Set the gauge of the age of the message templates; 0 if no shop's are read."""
        self._templates_age.set(seconds)


def _label(reason: str) -> str:
    return reason if reason in FAILURE_REASONS else "other"
