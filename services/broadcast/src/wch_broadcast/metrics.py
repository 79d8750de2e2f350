"""What the service tells Prometheus; labels are states and causes of closed lists."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Gauge

if TYPE_CHECKING:
    from collections.abc import Mapping


class CampaignMetrics:
    """The service's own metrics, in the process's registry; all of them are read from the database."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._campaigns = Gauge(
            "wch_broadcast_campaigns",
            "Campaigns that have not ended, by state and by what they wait for",
            ("state", "cause"),
            registry=registry,
        )
        self._stuck = Gauge(
            "wch_broadcast_campaigns_stuck", "Campaigns that could go on and do not: alert on it", registry=registry
        )
        self._stopped = Gauge(
            "wch_broadcast_campaigns_stopped",
            "Campaigns of the last day that paused themselves or failed: alert on it",
            registry=registry,
        )
        self._batches = Gauge(
            "wch_broadcast_batches_open", "Batches asked for that have no first answer", registry=registry
        )
        self._seen: set[tuple[str, str]] = set()

    def counted(self, campaigns: Mapping[tuple[str, str], int], *, stuck: int, stopped: int, batches: int) -> None:
        """Set the gauges."""
        self._seen |= set(campaigns)
        for labels in self._seen:
            self._campaigns.labels(*labels).set(campaigns.get(labels, 0))
        self._stuck.set(stuck)
        self._stopped.set(stopped)
        self._batches.set(batches)
