"""What the service tells Prometheus; labels are states of closed lists."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Gauge

if TYPE_CHECKING:
    from collections.abc import Mapping

STATUSES = ("active", "expired", "abandoned", "completed")
STATES = ("claimed", "asked", "sent", "skipped", "failed")


class CartMetrics:
    """The service's own metrics, in the process's registry; all of them are read from the database."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._carts = Gauge(
            "wch_carts", "Carts by status; expired ones wait to be cleaned up", ("status",), registry=registry
        )
        self._reminders = Gauge(
            "wch_carts_reminders",
            "Reminders by what came of them, as long as they are kept",
            ("state",),
            registry=registry,
        )
        self._recovered = Gauge("wch_carts_recovered", "Carts ordered after a reminder", registry=registry)

    def counted(self, carts: Mapping[str, int], reminders: Mapping[str, int], *, recovered: int) -> None:
        """Set the gauges."""
        for status in STATUSES:
            self._carts.labels(status).set(carts.get(status, 0))
        for state in STATES:
            self._reminders.labels(state).set(reminders.get(state, 0))
        self._recovered.set(recovered)
