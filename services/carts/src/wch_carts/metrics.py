"""Metrics of the carts service; labels are states from closed lists."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge

if TYPE_CHECKING:
    from collections.abc import Mapping

STATUSES = ("active", "expired", "abandoned", "completed")
STATES = ("claimed", "requested", "sent", "skipped", "failed")


class CartMetrics:
    """Gauges in the process's registry; every value is counted in the database."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._carts = Gauge(
            "wch_carts", "Carts by status; expired carts wait for a cleanup", ("status",), registry=registry
        )
        self._reminders = Gauge(
            "wch_carts_reminders",
            "Reminders by state, until they are deleted",
            ("state",),
            registry=registry,
        )
        self._alerts = Counter("wch_carts_alerts", "Causes that need an operator", ("cause",), registry=registry)
        self._recovered = Gauge("wch_carts_recovered", "Carts ordered after a reminder", registry=registry)

    def alert(self, cause: str) -> None:
        """Count a cause, like `hourly_limit`."""
        self._alerts.labels(cause).inc()

    def counted(self, carts: Mapping[str, int], reminders: Mapping[str, int], *, recovered: int) -> None:
        """Set the gauges."""
        for status in STATUSES:
            self._carts.labels(status).set(carts.get(status, 0))
        for state in STATES:
            self._reminders.labels(state).set(reminders.get(state, 0))
        self._recovered.set(recovered)
