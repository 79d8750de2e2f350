"""Metrics of deliveries: plain numbers until they are collected, then the values of Prometheus's own histograms."""

from __future__ import annotations

import subprocess
import sys

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from wch_common.observability.metrics import Metrics, QueueMetrics

SECONDS = (0.0, 0.001, 0.0011, 0.1, 4.9, 5, 300, 301, 4000)


def samples(registry: CollectorRegistry, name: str) -> dict[tuple[str, str], float]:
    return {
        (sample.name.removeprefix(name), sample.labels.get("le", "")): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
        if family.name == name and not sample.name.endswith("_created")
    }


def test_times_are_spread_as_a_histogram_of_the_library_would() -> None:
    ours, theirs = Metrics(), CollectorRegistry()
    library = Histogram("theirs", "", buckets=(0.001, 0.005, 0.025, 0.1, 0.5, 1, 5, 15, 60, 300), registry=theirs)
    queue = QueueMetrics(ours, "q")
    for value in SECONDS:
        queue.observe("a.b.requested.v1", "done", seconds=value, age_seconds=None)
        library.observe(value)
    assert samples(ours.registry, "wch_event_duration_seconds") == samples(theirs, "theirs")
    assert samples(ours.registry, "wch_event_age_seconds")["_count", ""] == 0


def test_outcomes_are_counted_by_queue_and_type() -> None:
    metrics = Metrics()
    one, other = QueueMetrics(metrics, "one"), QueueMetrics(metrics, "other")
    for queue, type_, outcome in [(one, "a", "done"), (one, "a", "done"), (one, "a", "retried"), (other, "b", "done")]:
        queue.observe(type_, outcome, seconds=0.1, age_seconds=-1.0)

    def value(queue: str, type_: str, outcome: str) -> float | None:
        labels = {"queue": queue, "type": type_, "outcome": outcome}
        return metrics.registry.get_sample_value("wch_events_handled_total", labels)

    assert (value("one", "a", "done"), value("one", "a", "retried"), value("other", "b", "done")) == (2, 1, 1)
    assert value("one", "b", "done") is None
    labels = {"queue": "one", "type": "a"}
    assert metrics.registry.get_sample_value("wch_event_age_seconds_sum", labels) == 0, (
        "clocks differ, and no age is negative"
    )


def test_a_service_without_tables_loads_no_database_libraries() -> None:
    assert not loads_database_libraries("wch_common.runtime.service")


def test_a_command_loads_no_database_libraries_before_it_needs_them() -> None:
    """Every command loads the commands of all installed services, so this would delay each of them."""
    assert not loads_database_libraries("wch_common.cli.app")


def loads_database_libraries(module: str) -> bool:
    text = f"import sys, {module}; sys.exit(bool({{'sqlalchemy', 'alembic'}} & set(sys.modules)))"
    return subprocess.run([sys.executable, "-c", text], check=False).returncode != 0
