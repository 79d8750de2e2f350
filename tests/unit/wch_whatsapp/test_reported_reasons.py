"""What metrics and facts say about a message's reason."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from wch_common.events.failure_reasons import alerting_reasons, pausing_reasons
from wch_whatsapp.facts import recipient_outcome
from wch_whatsapp.metrics import WhatsAppMetrics


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def row(state: str, reason: str, **changes: Any) -> dict[str, Any]:
    values = {"send_key": "k", "code": None, "due_at": None, "own_values": False}
    return values | {"state": state, "reason": reason} | changes


def test_every_cause_and_alert_is_a_series_from_the_start(registry: CollectorRegistry) -> None:
    metrics = WhatsAppMetrics(registry)
    metrics.counted({}, {})
    assert {registry.get_sample_value("wch_whatsapp_alerts_total", {"reason": one}) for one in alerting_reasons()} == {
        0
    }
    assert {registry.get_sample_value("wch_whatsapp_numbers_paused", {"cause": one}) for one in pausing_reasons()} == {
        0
    }


def test_a_cause_that_this_version_does_not_know_is_counted_and_ends(registry: CollectorRegistry) -> None:
    metrics = WhatsAppMetrics(registry)
    labels = {"cause": "a_cause_of_a_later_version"}
    metrics.counted({}, {labels["cause"]: 1})
    assert registry.get_sample_value("wch_whatsapp_numbers_paused", labels) == 1
    metrics.counted({}, {})
    assert registry.get_sample_value("wch_whatsapp_numbers_paused", labels) == 0


def test_a_reason_that_is_not_in_the_table_is_no_label(registry: CollectorRegistry) -> None:
    WhatsAppMetrics(registry).ended([row("failed", "free text"), row("failed", "expired"), row("read", "expired")])
    counted = {
        (sample.labels["state"], sample.labels["reason"])
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "wch_whatsapp_messages_total"
    }
    assert counted == {("failed", "other"), ("failed", "expired"), ("read", "")}


@pytest.mark.parametrize(
    ("given", "outcome", "concerns", "retryable"),
    [
        (row("failed", "template_paused"), "failed", "template", False),
        (row("failed", "request_refused", own_values=True), "failed", "recipient", False),
        (row("failed", "window_closed"), "skipped", "recipient", False),
        (row("queued", "messaging_limit"), "deferred", "number", True),
        (row("queued", ""), "deferred", None, False),
        (row("suppressed", "opted_out"), "suppressed", None, False),
        (row("failed", "a_reason_of_a_later_version"), "failed", "recipient", False),
    ],
)
def test_an_outcome_says_what_its_reason_concerns(
    given: dict[str, Any], outcome: str, concerns: str | None, retryable: bool
) -> None:
    reported = recipient_outcome(given)
    assert (reported.outcome, reported.concerns, reported.retryable) == (outcome, concerns, retryable)
