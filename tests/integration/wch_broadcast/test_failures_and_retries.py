"""Campaigns that pause themselves, get stuck or fail, and what resuming retries, on a real broker and database."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from support.broadcast_stage import BroadcastStage, campaign, recipients, totals_of
from support.waiting import eventually
from support.whatsapp_stage import phone
from wch_common.events.broadcast import (
    CampaignCancelRequested,
    CampaignPauseRequested,
    CampaignRecipient,
    CampaignResumeRequested,
)
from wch_common.events.whatsapp_content import Parameter, Template


@pytest.mark.parametrize("other", ["undeliverable", "country_not_allowed", "meta_failed", "spam_restriction"])
def test_a_failure_of_the_whole_campaign_pauses_it_and_resuming_retries(bc: BroadcastStage, other: str) -> None:
    bc.start(broadcast_in_flight=1)
    bc.publish(campaign("t", range(4), batch_size=2))
    bc.answer(bc.await_batches(1)[0], {0: "failed/template_paused", 1: f"failed/{other}"})
    paused = bc.await_fact("campaign.paused")
    assert (paused["reason"], paused["by"]) == ("template_paused", "broadcast")
    assert totals_of(paused)["failed_by"] == {"template_paused": 1, other: 1}
    bc.publish(CampaignResumeRequested(campaign_id="t", by="me"))
    (retry,) = bc.stage.await_dead_letters("control")
    retried, left = (one["send_key"].encode() for one in bc.batches[0]["recipients"])
    assert retried in retry.message.body
    assert left not in retry.message.body, "no cause of the whole campaign that an operator has removed"
    bc.answer(bc.await_batches(2)[1])
    eventually(lambda: bc.query("SELECT 1 FROM campaigns WHERE released"))
    assert bc.facts("campaign.completed") == [], "a retried recipient has no outcome yet"
    bc.answer(bc.batches[0], {0: "accepted"}, version=1)
    assert totals_of(bc.await_fact("campaign.completed")) == {
        "recipients": 4, "sent": 3, "failed": 1, "failed_by": {other: 1}
    }  # fmt: skip


def test_retries_wait_for_the_campaigns_turn_and_expire_at_stop_at(bc: BroadcastStage) -> None:
    bc.start()
    stop_at = datetime.now(UTC) + timedelta(hours=1)
    bc.publish(campaign("t", range(1), stop_at=stop_at))
    bc.answer(bc.await_batches(1)[0], "failed/template_paused")
    bc.await_fact("campaign.paused")
    bc.publish(campaign("other", range(1, 2)))
    other = bc.await_batches(2)[1]
    bc.publish(CampaignResumeRequested(campaign_id="t", by="me"))
    eventually(lambda: bc.state("t") == ("waiting", "another_campaign"))
    assert bc.stage.depth("control") == 0
    bc.answer(other)
    (retry,) = bc.stage.await_dead_letters("control")
    data = json.loads(retry.message.body)["data"]
    assert data["send_keys"] == [bc.batches[0]["recipients"][0]["send_key"]]
    assert datetime.fromisoformat(data["expires_at"]) == stop_at


@pytest.mark.parametrize("reason", ["template_values_wrong", "request_refused"])
def test_a_wrong_message_pauses_unless_the_recipient_has_own_values(bc: BroadcastStage, reason: str) -> None:
    bc.start(broadcast_in_flight=1)
    own = CampaignRecipient(to=phone(1), body=(Parameter(text="Ada"),))
    bc.publish(campaign("own", None, recipients=(own, *recipients(range(2, 4))), batch_size=1))
    bc.answer(bc.await_batches(1)[0], f"failed/{reason}")
    bc.answer(bc.await_batches(2)[1], f"failed/{reason}")
    assert bc.await_fact("campaign.paused")["reason"] == reason
    assert len(bc.batches) == 2
    bc.publish(CampaignResumeRequested(campaign_id="own", by="me"))
    (retry,) = bc.stage.await_dead_letters("control")
    wrong = [bc.batches[1]["recipients"][0]["send_key"]]
    assert json.loads(retry.message.body)["data"]["send_keys"] == wrong, (
        "resuming does not correct a recipient's own values"
    )


def test_a_recipient_without_values_fails_alone_if_most_of_the_list_have_some(bc: BroadcastStage) -> None:
    bc.start(broadcast_in_flight=1)
    own = [CampaignRecipient(to=phone(n), body=(Parameter(text="Ada"),)) for n in (1, 2)]
    empty = Template(name="hello", language="en_US")
    bc.publish(campaign("gap", None, recipients=(*own, *recipients((3,))), batch_size=1, message=empty))
    for number, outcome in enumerate(("accepted", "accepted", "failed/value_missing"), start=1):
        batch = bc.await_batches(number)[-1]
        assert batch["values_required"] is True
        bc.answer(batch, outcome)
    assert totals_of(bc.await_fact("campaign.completed"))["failed_by"] == {"value_missing": 1}
    assert bc.facts("campaign.paused") == []


def test_values_are_not_required_if_the_message_has_some_or_few_recipients_do(bc: BroadcastStage) -> None:
    bc.start()
    own = CampaignRecipient(to=phone(1), body=(Parameter(text="Ada"),))
    twice = CampaignRecipient(to=phone(1), body=(Parameter(text="Ada"),))
    empty = Template(name="hello", language="en_US")
    bc.publish(campaign("default", None, recipients=(own,), exclusive=False))
    bc.publish(campaign("none", range(3), message=empty, exclusive=False))
    few = (own, twice, CampaignRecipient(to="?", body=own.body), *recipients((2,)))
    bc.publish(campaign("few", None, recipients=few, message=empty, exclusive=False))
    assert {one.get("values_required", False) for one in bc.await_batches(3)} == {False}


def test_a_campaign_of_an_earlier_version_with_a_message_that_is_refused_today_fails(bc: BroadcastStage) -> None:
    bc.start()
    bc.publish(campaign("old", range(2), start_at=datetime.now(UTC) + timedelta(hours=1)))
    eventually(lambda: bc.state("old") == ("waiting", "start_at"))
    mixed = json.dumps([{"text": "Ada", "name": "name"}, {"text": "7"}])
    bc.query(
        "UPDATE campaigns SET request = jsonb_set(request, '{message,body}', %s::jsonb), start_at = NULL, due_at = now()"
        " RETURNING campaign_id",
        mixed,
    )
    assert bc.await_fact("campaign.failed")["reason"] == "request_refused"
    assert bc.batches == []


def test_a_refused_message_does_not_pause_if_others_were_sent_it(bc: BroadcastStage) -> None:
    bc.start(broadcast_in_flight=1)
    bc.publish(campaign("m", range(3), batch_size=1))
    bc.answer(bc.await_batches(1)[0])
    bc.answer(bc.await_batches(2)[1], "failed/request_refused")
    bc.answer(bc.await_batches(3)[2])
    assert totals_of(bc.await_fact("campaign.completed"))["failed_by"] == {"request_refused": 1}
    assert bc.facts("campaign.paused") == []


def test_a_template_that_fails_pauses_although_others_were_sent_it(bc: BroadcastStage) -> None:
    bc.start(broadcast_in_flight=1)
    bc.publish(campaign("m", range(4), batch_size=1))
    bc.answer(bc.await_batches(1)[0])
    bc.answer(bc.await_batches(2)[1], "failed/template_values_wrong")  # somebody has changed the template
    assert bc.await_fact("campaign.paused")["reason"] == "template_values_wrong"
    assert len(bc.batches) == 2


def test_a_refused_message_pauses_though_recipients_with_own_values_were_sent_it(
    bc: BroadcastStage,
) -> None:
    bc.start(broadcast_in_flight=1)
    own = CampaignRecipient(to=phone(1), body=(Parameter(text="Ada"),))
    bc.publish(campaign("m", None, recipients=(own, *recipients(range(2, 5))), batch_size=1))
    bc.answer(bc.await_batches(1)[0])
    bc.answer(bc.await_batches(2)[1], "failed/request_refused")
    assert bc.await_fact("campaign.paused")["reason"] == "request_refused"


def test_late_failures_count_in_the_share_of_their_own_batch(bc: BroadcastStage) -> None:
    bc.start(broadcast_in_flight=25, broadcast_failure_min_answers=4, broadcast_failure_share=0.6)
    bc.publish(campaign("late", range(120), batch_size=2))
    for batch in bc.await_batches(25)[:25]:
        bc.answer(batch)
    batches = {one["batch_id"]: one for one in bc.await_batches(50)}
    bc.answer(batches["late/1"], "failed/undeliverable", version=1)
    eventually(lambda: bc.query("SELECT sum(failed) FROM batches") == [(2,)])
    assert bc.facts("campaign.paused") == []
    bc.answer(batches["late/2"], "failed/undeliverable", version=1)
    assert bc.await_fact("campaign.paused")["reason"] == "4 of the last 4 failed"


def test_batches_of_one_can_reach_the_minimum_number_of_answers(bc: BroadcastStage) -> None:
    bc.start(broadcast_in_flight=25, broadcast_failure_min_answers=24)
    bc.publish(campaign("small", range(60), batch_size=1))
    for batch in bc.await_batches(25)[:24]:
        bc.answer(batch, "failed/undeliverable")
    assert bc.await_fact("campaign.paused")["reason"] == "24 of the last 24 failed"


def test_a_repeated_answer_does_not_undo_a_retry(bc: BroadcastStage) -> None:
    bc.start()
    bc.publish(campaign("t", range(1)))
    bc.answer(bc.await_batches(1)[0], "failed/template_paused")
    bc.await_fact("campaign.paused")
    bc.publish(CampaignResumeRequested(campaign_id="t", by="me"))
    bc.stage.await_dead_letters("control")
    bc.answer(bc.batches[0], "failed/template_paused")
    bc.answer(bc.batches[0], "accepted", version=1)
    assert totals_of(bc.await_fact("campaign.completed")) == {"recipients": 1, "sent": 1}
    assert len(bc.facts("campaign.paused")) == 1


def test_the_refusal_of_a_duplicate_request_does_not_overwrite_an_outcome(bc: BroadcastStage) -> None:
    bc.start(broadcast_in_flight=1)
    bc.publish(campaign("t", range(4), batch_size=2))
    bc.answer(bc.await_batches(1)[0])
    bc.await_batches(2)
    bc.answer(bc.batches[0], "failed/refused: the shop does not send from 1")
    bc.answer(bc.batches[1])
    assert totals_of(bc.await_fact("campaign.completed")) == {"recipients": 4, "sent": 4}


def test_only_the_last_batches_count_for_the_share_of_failures(bc: BroadcastStage) -> None:
    bc.start(broadcast_in_flight=22, broadcast_failure_min_answers=20, broadcast_failure_share=0.5)
    bc.publish(campaign("f", range(100), batch_size=1))
    for number, batch in enumerate(bc.await_batches(22)[:22]):
        bc.answer(batch, "accepted" if number < 12 else "failed/undeliverable")
    assert bc.await_fact("campaign.paused")["reason"] == "10 of the last 20 failed"


def test_a_campaign_pauses_itself_if_too_many_fail(bc: BroadcastStage) -> None:
    bc.start(broadcast_in_flight=1, broadcast_failure_min_answers=4, broadcast_failure_share=0.5)
    bc.publish(campaign("f", range(20), batch_size=2))
    bc.answer(bc.await_batches(1)[0], {0: "accepted", 1: "failed/undeliverable"})
    bc.answer(bc.await_batches(2)[1], {0: "accepted", 1: "failed/window_closed"})
    bc.answer(bc.await_batches(3)[2], "failed/undeliverable")
    assert bc.await_fact("campaign.paused")["reason"] == "3 of the last 6 failed"
    bc.publish(CampaignResumeRequested(campaign_id="f", by="me"))
    bc.answer(bc.await_batches(4)[3], {0: "accepted", 1: "failed/undeliverable"})
    assert len(bc.await_batches(5)) == 5, "failures before the resume do not count"


def test_a_stuck_campaign_is_requested_again_then_fails_and_can_be_resumed(bc: BroadcastStage) -> None:
    bc.start(broadcast_stuck_seconds=0.5, broadcast_give_up_seconds=300)
    bc.publish(campaign("s", range(2)))
    first, again = bc.await_batches(2)
    assert first == again
    bc.query("UPDATE campaigns SET progressed_at = now() - interval '301 seconds', due_at = now()")
    failed = bc.await_fact("campaign.failed")
    assert (failed["reason"], failed["totals"]["waiting"]) == ("stuck", 2)
    bc.publish(CampaignResumeRequested(campaign_id="s", by="me"))
    assert bc.await_batches(3)[2] == first
    bc.answer(first)
    assert totals_of(bc.await_fact("campaign.completed")) == {"recipients": 2, "sent": 2}


def test_a_refused_batch_is_requested_again_after_a_resume(bc: BroadcastStage) -> None:
    bc.start(broadcast_in_flight=1)
    bc.publish(campaign("r", range(2), sender="1"))
    bc.answer(bc.await_batches(1)[0], "failed/refused: the shop does not send from 1")
    assert bc.await_fact("campaign.paused")["reason"].startswith("refused")
    bc.publish(CampaignResumeRequested(campaign_id="r", by="me"))
    assert bc.await_batches(2)[1] == bc.batches[0]
    bc.answer(bc.batches[0])
    assert totals_of(bc.await_fact("campaign.completed")) == {"recipients": 2, "sent": 2}


def test_retries_without_an_answer_are_requested_again_then_the_campaign_fails(bc: BroadcastStage) -> None:
    bc.start(broadcast_stuck_seconds=0.3, broadcast_give_up_seconds=300)
    bc.publish(campaign("h", range(2)))
    bc.answer(bc.await_batches(1)[0], "failed/template_paused")
    bc.await_fact("campaign.paused")
    bc.publish(CampaignResumeRequested(campaign_id="h", by="me"))
    first, again = bc.stage.await_dead_letters("control", 2)
    bc.query("UPDATE campaigns SET progressed_at = now() - interval '301 seconds', due_at = now()")
    failed = bc.await_fact("campaign.failed")
    assert (failed["reason"], failed["totals"]["deferred"]) == ("stuck", 2)
    keys = [json.loads(dead_letter.message.body)["data"]["send_keys"] for dead_letter in (first, again)]
    assert keys[0] == keys[1], "it was requested again before the campaign failed"
    bc.publish(CampaignResumeRequested(campaign_id="h", by="me"))
    bc.stage.await_dead_letters("control", 3)


def test_a_campaign_is_not_stuck_after_a_limit_ends(bc: BroadcastStage) -> None:
    bc.start(broadcast_in_flight=2)
    bc.publish(campaign("p", range(4), batch_size=2))
    first, second = bc.await_batches(2)
    bc.answer(first, "failed/template_paused")
    bc.await_fact("campaign.paused")
    bc.publish(CampaignResumeRequested(campaign_id="p", by="me"))
    bc.answer(second, "deferred/messaging_limit")
    eventually(lambda: bc.state("p") == ("running", "messaging_limit"))
    bc.query("UPDATE campaigns SET progressed_at = now() - interval '4 hours'")
    bc.answer(second, "accepted", version=1)
    eventually(lambda: bc.state("p") == ("running", ""))
    bc.answer(first, "accepted", version=1)
    assert totals_of(bc.await_fact("campaign.completed"))["sent"] == 4


def test_a_cancellation_without_answers_blocks_no_other_campaign(bc: BroadcastStage) -> None:
    bc.start(broadcast_stuck_seconds=0.5)
    bc.publish(campaign("c", range(1)))
    bc.await_batches(1)
    bc.publish(campaign("next", range(1, 2)))
    eventually(lambda: bc.state("next") == ("waiting", "another_campaign"))
    bc.publish(CampaignCancelRequested(campaign_id="c", by="me"))
    eventually(lambda: any(one["batch_id"] == "next/1" for one in bc.batches))
    assert bc.state("c")[0] == "cancelling"


def test_recipients_erased_before_whatsapp_had_them_are_skipped(bc: BroadcastStage) -> None:
    bc.start(broadcast_in_flight=1)
    bc.publish(campaign("r", range(3), batch_size=2, sender="1"))
    bc.answer(bc.await_batches(1)[0], "failed/refused: the shop does not send from 1")
    bc.await_fact("campaign.paused")
    bc.query("UPDATE recipients SET phone = NULL, person = NULL, skip_reason = 'erased' WHERE position < 1002")
    bc.publish(CampaignResumeRequested(campaign_id="r", by="me"))
    last = bc.await_batches(2)[1]
    assert [one["to"] for one in last["recipients"]] == [phone(2)]
    bc.answer(last)
    assert totals_of(bc.await_fact("campaign.completed")) == {
        "recipients": 3, "sent": 1, "skipped": 2, "skipped_by": {"erased": 2}
    }  # fmt: skip


def test_a_fully_released_campaign_completes_however_many_failed(bc: BroadcastStage) -> None:
    bc.start(broadcast_failure_min_answers=1)
    bc.publish(campaign("f", range(3)))
    bc.answer(bc.await_batches(1)[0], "failed/undeliverable")
    assert totals_of(bc.await_fact("campaign.completed"))["failed"] == 3
    assert bc.facts("campaign.paused") == []


def test_nothing_is_retried_after_stop_at(bc: BroadcastStage) -> None:
    bc.start()
    bc.publish(campaign("t", range(2), stop_at=datetime.now(UTC) + timedelta(hours=1)))
    bc.answer(bc.await_batches(1)[0], "failed/template_paused")
    bc.await_fact("campaign.paused")
    bc.query("UPDATE campaigns SET stop_at = now()")
    bc.publish(CampaignResumeRequested(campaign_id="t", by="me"))
    assert totals_of(bc.await_fact("campaign.completed"))["failed"] == 2
    assert bc.stage.depth("control") == 0


def test_a_cancellation_without_answers_keeps_requesting_and_never_fails(bc: BroadcastStage) -> None:
    bc.start(broadcast_stuck_seconds=0.2, broadcast_give_up_seconds=300, broadcast_in_flight=1)
    bc.publish(campaign("c", range(4), batch_size=2))
    (first, *_) = bc.await_batches(1)
    bc.publish(CampaignCancelRequested(campaign_id="c", by="me"))
    eventually(lambda: bc.state("c")[0] == "cancelling")
    bc.query("UPDATE campaigns SET progressed_at = now() - interval '301 seconds', due_at = now()")
    bc.await_batches(len(bc.batches) + 3)
    assert bc.state("c")[0] == "cancelling"
    bc.answer(first, "cancelled/x")
    assert totals_of(bc.await_fact("campaign.cancelled")) == {"recipients": 4, "cancelled": 4}
    assert bc.facts("campaign.failed") == []


def test_a_failed_campaign_can_be_cancelled_and_pausing_it_is_answered_with_progress(bc: BroadcastStage) -> None:
    bc.start(broadcast_stuck_seconds=0.2, broadcast_give_up_seconds=0.4)
    bc.publish(campaign("c", range(2)))
    bc.await_fact("campaign.failed")
    before = len(bc.facts("campaign.progressed"))
    bc.publish(CampaignPauseRequested(campaign_id="c", by="me"))
    assert bc.await_fact("campaign.progressed", before + 1)["state"] == "failed"
    bc.publish(CampaignCancelRequested(campaign_id="c", by="me"))
    assert len(bc.stage.await_dead_letters("control")) == 1
    bc.answer(bc.batches[0], "cancelled/x")
    assert totals_of(bc.await_fact("campaign.cancelled")) == {"recipients": 2, "cancelled": 2}


def test_an_update_of_one_batch_does_not_hide_that_another_is_stuck(bc: BroadcastStage) -> None:
    bc.start()
    bc.publish(campaign("s", range(2), batch_size=1))
    first, _ = bc.await_batches(2)
    bc.answer(first)
    eventually(lambda: bc.query("SELECT 1 FROM batches WHERE answered_at IS NOT NULL"))
    bc.query("UPDATE campaigns SET progressed_at = now() - interval '11 minutes'")
    bc.answer(first, {0: "read"}, version=1)
    assert len(bc.await_batches(3)) == 3
    assert bc.state("s") == ("running", "stuck")
