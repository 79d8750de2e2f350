"""Repeated requests, pausing, resuming and cancelling a campaign, on a real broker and database."""

from __future__ import annotations

from typing import Any

import pytest

from support.broadcast_stage import BroadcastStage, campaign, totals_of
from support.waiting import eventually
from wch_common.events.broadcast import (
    CampaignCancelRequested,
    CampaignPauseRequested,
    CampaignResumeRequested,
)

# -- repeated requests


def test_a_repeated_request_is_one_campaign_and_other_content_is_refused(bc: BroadcastStage) -> None:
    bc.start()
    bc.publish(campaign("one", range(2)))
    bc.await_batches(1)
    bc.publish(campaign("one", range(2)))
    bc.await_fact("campaign.progressed", 2)
    bc.publish(campaign("one", range(3)))
    refused = bc.await_fact("campaign.refused")
    assert refused["campaign_id"] == "one"
    assert "another campaign one" in refused["reason"]
    assert len(bc.stage.await_dead_letters("broadcast.campaign.dlq")) == 1
    bc.answer_batches()
    assert totals_of(bc.await_fact("campaign.completed"))["recipients"] == 2
    assert len(bc.batches) == 1


# -- pause, resume, cancel


def test_a_paused_campaign_releases_nothing_and_continues_after_its_last_batch(bc: BroadcastStage) -> None:
    bc.start(broadcast_in_flight=1)
    bc.publish(campaign("p", range(4), batch_size=2))
    (first,) = bc.await_batches(1)
    bc.publish(CampaignPauseRequested(campaign_id="p", reason="check the text", by="me"))
    paused = bc.await_fact("campaign.paused")
    assert (paused["reason"], paused["by"]) == ("check the text", "me")
    bc.answer(first)
    eventually(lambda: bc.query("SELECT 1 FROM batches WHERE answered_at IS NOT NULL"))
    assert len(bc.batches) == 1
    bc.publish(campaign("next", range(50, 51)))
    assert bc.await_batches(2)[1]["batch_id"] == "next/1", "a paused campaign does not block the others"
    bc.publish(CampaignResumeRequested(campaign_id="p", by="me"))
    assert bc.await_fact("campaign.resumed")["by"] == "me"
    assert bc.state("p") == ("waiting", "another_campaign")
    bc.answer(bc.batches[1])
    bc.answer(bc.await_batches(3)[2])
    assert totals_of(bc.await_fact("campaign.completed", 2)) == {"recipients": 4, "sent": 4}


def test_cancelling_cancels_open_batches_and_the_totals_add_up(bc: BroadcastStage) -> None:
    bc.start(broadcast_in_flight=1)
    bc.publish(campaign("c", range(6), batch_size=2))
    bc.answer(bc.await_batches(1)[0])
    second = bc.await_batches(2)[1]
    bc.publish(CampaignCancelRequested(campaign_id="c", reason="sold out", by="me"))
    (cancel,) = bc.stage.await_dead_letters("control")
    assert b'"batch_id":"c/2"' in cancel.message.body
    assert bc.facts("campaign.cancelled") == []
    bc.publish(campaign("next", range(50, 51)))
    eventually(lambda: bc.state("next")[0] != "")
    assert bc.state("next") == ("waiting", "another_campaign")
    bc.answer(second, {0: "cancelled/sold out", 1: "accepted"})
    cancelled = bc.await_fact("campaign.cancelled")
    assert cancelled["reason"] == "sold out"
    assert totals_of(cancelled) == {"recipients": 6, "sent": 3, "cancelled": 3}
    assert [one["batch_id"] for one in bc.await_batches(3)] == ["c/1", "c/2", "next/1"]


def test_cancelling_cancels_deferred_recipients(bc: BroadcastStage) -> None:
    bc.start()
    bc.publish(campaign("d", range(1)))
    (batch,) = bc.await_batches(1)
    bc.answer(batch, "deferred/pair_too_fast")
    eventually(lambda: bc.query("SELECT 1 FROM batches WHERE answered_at IS NOT NULL AND deferred = 1"))
    bc.publish(CampaignCancelRequested(campaign_id="d", by="me"))
    (cancel,) = bc.stage.await_dead_letters("control")
    assert b'"batch_id":"d/1"' in cancel.message.body
    bc.answer(batch, "cancelled/cancelled", version=1)
    assert totals_of(bc.await_fact("campaign.cancelled")) == {"recipients": 1, "cancelled": 1}


@pytest.mark.parametrize("request_type", [CampaignPauseRequested, CampaignCancelRequested, CampaignResumeRequested])
def test_requests_about_an_ended_campaign_change_nothing(bc: BroadcastStage, request_type: type[Any]) -> None:
    bc.start()
    bc.publish(campaign("e", range(1)))
    bc.answer_batches()
    bc.await_fact("campaign.completed")
    published = bc.query("SELECT facts FROM campaigns")
    bc.publish(request_type(campaign_id="e", by="me"))
    # The dead letter shows that the requests before it have been handled.
    bc.publish(request_type(campaign_id="unknown", by="me"))
    bc.stage.await_dead_letters("broadcast.control.dlq")
    assert (bc.state("e")[0], bc.query("SELECT facts FROM campaigns")) == ("completed", published)


def test_a_request_about_an_unknown_campaign_is_dead_lettered_and_refused(bc: BroadcastStage) -> None:
    bc.start()
    bc.publish(CampaignCancelRequested(campaign_id="unknown", by="me"))
    (dead_letter,) = bc.stage.await_dead_letters("broadcast.control.dlq")
    assert "has no campaign unknown" in str(dead_letter.message.headers["wch-error-message"])
    assert "has no campaign unknown" in bc.await_fact("campaign.refused")["reason"]
