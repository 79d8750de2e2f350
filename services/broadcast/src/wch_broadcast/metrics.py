"""Metrics of the broadcast service; labels are states and causes from closed lists."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Gauge

if TYPE_CHECKING:
    from collections.abc import Mapping


class CampaignMetrics:
    """Gauges in the process's registry; every value is counted in the database."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._campaigns = Gauge(
            "wch_broadcast_campaigns",
            "Campaigns that have not ended, by state and by the cause for which they wait",
            ("state", "cause"),
            registry=registry,
        )
        self._stuck = Gauge(
            "wch_broadcast_campaigns_stuck",
            "Campaigns that could proceed but get no answers: alert if above 0",
            registry=registry,
        )
        self._stopped = Gauge(
            "wch_broadcast_campaigns_stopped",
            "Campaigns that paused themselves, or failed within the last day: alert if above 0",
            registry=registry,
        )
        self._batches = Gauge(
            "wch_broadcast_batches_open", "Requested batches that have no first answer", registry=registry
        )
        self._seen: set[tuple[str, str]] = set()

    def counted(self, campaigns: Mapping[tuple[str, str], int], *, stuck: int, stopped: int, batches: int) -> None:
        """Set the gauges; a state and cause that no campaign has any more is set to 0."""
        self._seen |= set(campaigns)
        for labels in self._seen:
            self._campaigns.labels(*labels).set(campaigns.get(labels, 0))
        self._stuck.set(stuck)
        self._stopped.set(stopped)
        self._batches.set(batches)
