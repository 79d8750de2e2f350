"""A reason that is added to the table of failure reasons, and nowhere else, is known to every service."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.broadcast_stage import BroadcastStage, campaign, shortened
from support.stage import RunningService
from support.waiting import eventually
from support.whatsapp_stage import WhatsAppStage
from wch_common.events.failure_reasons import FAILURE_REASONS, FailureReason
from wch_whatsapp.topology import TOPOLOGY as WHATSAPP

NAME, CODE = "number_quarantined", 131_999


@pytest.fixture
def wa(bc: BroadcastStage) -> Iterator[WhatsAppStage]:
    made = WhatsAppStage(bc.stage, bc.database_url)
    bc.stage.declare(shortened(WHATSAPP))
    yield made
    made.close()


def metric(running: RunningService, name: str, **labels: str) -> float | None:
    return running.service._metrics.registry.get_sample_value(name, labels)


def test_a_new_parking_reason_pauses_the_number_alerts_and_names_the_cause_of_the_campaign(
    bc: BroadcastStage, wa: WhatsAppStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = FailureReason("number", False, "operator", "quarantined", "ask Meta", (CODE,))
    monkeypatch.setitem(FAILURE_REASONS, NAME, reason)
    wa.fail(status=400, body={"error": {"code": CODE, "message": "Quarantined."}}, times=1_000)
    whatsapp, broadcast = wa.start(), bc.start()
    assert metric(whatsapp, "wch_whatsapp_numbers_paused", cause=NAME) in (None, 0)
    assert metric(whatsapp, "wch_whatsapp_alerts_total", reason=NAME) == 0
    bc.publish(campaign("summer", range(20), batch_size=2))
    eventually(lambda: bc.state("summer") == ("running", NAME), "the campaign waits for the number")
    eventually(lambda: metric(whatsapp, "wch_whatsapp_numbers_paused", cause=NAME) == 1)
    assert (metric(whatsapp, "wch_whatsapp_alerts_total", reason=NAME) or 0) >= 1
    eventually(lambda: metric(broadcast, "wch_broadcast_campaigns", state="running", cause=NAME) == 1)
    assert len(bc.batches) == 4, "no batch is released after the first answer"
