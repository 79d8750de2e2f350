"""Background loops of the broadcast service: retention, metrics, and campaigns whose step fails."""

from __future__ import annotations

import json

import pytest

from support.broadcast_stage import BroadcastStage, campaign, part
from support.command import wch
from support.waiting import eventually
from wch_broadcast import maintenance
from wch_common.events.broadcast import (
    CampaignPauseRequested,
)
from wch_common.store import maintenance as common_maintenance


def run(bc: BroadcastStage, *words: str, code: int = 0, given: str | None = None) -> str:
    """Run `wch campaigns` and return what it prints."""
    return wch(bc.stage, "campaigns", *words, code=code, given=given, WCH_DATABASE_URL=bc.database_url)


def test_old_recipients_are_deleted_and_the_totals_are_kept(
    bc: BroadcastStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(common_maintenance, "RETENTION_SECONDS", 0.1)
    bc.start()
    for name in ("old", "new", "open"):
        bc.publish(campaign(name, range(2), exclusive=False))
    for batch in bc.await_batches(3):
        if batch["batch_id"] != "open/1":
            bc.answer(batch)
    bc.await_fact("campaign.completed", 2)
    bc.publish(part("unused", 1, (7,), parts=1))
    bc.await_fact("recipients.added")
    bc.query("UPDATE lists SET created_at = now() - interval '91 days' WHERE list_id <> 'unused'")
    bc.query("UPDATE campaigns SET ended_at = now() - interval '91 days' WHERE campaign_id = 'old'")
    left = "SELECT c.campaign_id FROM campaigns AS c JOIN recipients AS r ON r.list = c.list GROUP BY 1 ORDER BY 1"
    eventually(lambda: bc.query(left) == [("new",), ("open",)])
    unused = "SELECT count(*) FROM lists AS l JOIN recipients AS r ON r.list = l.id WHERE l.list_id = 'unused'"
    assert bc.query(unused) == [(1,)], "a new campaign may use it"
    eventually(lambda: bc.query("SELECT count(*) FROM outcomes") == [(4,)])
    assert json.loads(run(bc, "status", "old", "--json"))["totals"]["sent"] == 2
    assert "the outcomes of the recipients of old have been deleted" in run(bc, "report", "old", code=1)
    bc.query("UPDATE lists SET deleted_at = NULL")  # as if a later campaign used the same list
    assert "the outcomes of the recipients of old have been deleted" in run(bc, "report", "old", code=1)


def test_campaigns_are_counted_by_state_and_cause(bc: BroadcastStage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "_COUNT_SECONDS", 0.1)
    service = bc.start(broadcast_failure_min_answers=1)
    bc.publish(campaign("a", range(2)))
    bc.await_batches(1)
    bc.publish(campaign("b", range(2)))
    registry = service.service._metrics.registry
    waiting = {"state": "waiting", "cause": "another_campaign"}
    eventually(lambda: registry.get_sample_value("wch_broadcast_campaigns", waiting) == 1)
    bc.answer(bc.batches[0], "failed/template_paused")
    eventually(lambda: registry.get_sample_value("wch_broadcast_campaigns_stopped") == 1)
    # A reason given by an operator is not a label.
    eventually(lambda: registry.get_sample_value("wch_broadcast_campaigns", {"state": "paused", "cause": ""}) == 1)
    bc.publish(CampaignPauseRequested(campaign_id="b", reason="check the text", by="me"))
    eventually(lambda: registry.get_sample_value("wch_broadcast_campaigns", {"state": "paused", "cause": ""}) == 2)
    assert registry.get_sample_value("wch_broadcast_campaigns_stopped") == 1, (
        "a campaign paused by an operator does not count"
    )
    assert registry.get_sample_value("wch_broadcast_campaigns_stuck") == 0
    bc.query(
        "UPDATE campaigns SET state = 'cancelling', requested_again_at = now(), due_at = NULL WHERE campaign_id = 'b'"
    )
    eventually(lambda: registry.get_sample_value("wch_broadcast_campaigns_stuck") == 1)


def test_a_campaign_whose_step_fails_blocks_no_other(bc: BroadcastStage) -> None:
    service = bc.start()
    for name in ("broken", "whole"):
        bc.publish(campaign(name, range(2), batch_size=1, pause_seconds=0.2, exclusive=False))
    for batch in bc.await_batches(2):
        bc.query("UPDATE campaigns SET request = '{}' WHERE campaign_id = 'broken'")
        bc.answer(batch)
    eventually(lambda: [one for one in bc.batches if one["batch_id"] == "whole/2"])
    bc.query("UPDATE campaigns SET due_at = now() - interval '1 second' WHERE campaign_id = 'broken'")
    eventually(lambda: bc.query("SELECT 1 FROM campaigns WHERE campaign_id = 'broken' AND due_at > now()") == [(1,)])
    bc.publish(campaign("later", range(2), exclusive=False))
    eventually(lambda: [one for one in bc.batches if one["batch_id"] == "later/1"])
    assert service.is_ready
