"""Batches of campaigns and the answers of whatsapp, on a real broker and database; the tests give the answers."""

from __future__ import annotations

from itertools import pairwise

import pytest

from support.broadcast_stage import BroadcastStage, campaign, totals_of
from support.waiting import eventually
from support.whatsapp_stage import TEXT
from wch_broadcast import steps
from wch_common.events.broadcast import (
    CampaignRecipient,
)
from wch_common.events.whatsapp_content import Parameter

# -- the main path


def test_a_campaign_is_requested_in_batches_and_completes_once(bc: BroadcastStage) -> None:
    bc.start(broadcast_in_flight=1)
    bc.publish(campaign("spring", range(5), batch_size=2), requester="crm")
    for number in (1, 2, 3):
        batch = bc.await_batches(number)[number - 1]
        assert batch["batch_id"] == f"spring/{number}"
        assert len(bc.batches) == number, "a batch waits for the answer to the previous one"
        bc.answer(batch)
    done = bc.await_fact("campaign.completed")
    assert totals_of(done) == {"recipients": 5, "sent": 5}
    assert done["totals"]["percentage"] == 100
    numbers = [one["to"] for batch in bc.batches for one in batch["recipients"]]
    assert len(numbers) == len(set(numbers)) == 5
    assert bc.await_fact("campaign.started") == {"campaign_id": "spring", "recipients": 5}
    assert "broadcast.campaign.completed.v1.crm" in bc.keys


def test_batches_start_at_least_the_pause_apart(bc: BroadcastStage) -> None:
    bc.start()
    bc.publish(campaign("slow", range(4), batch_size=1, pause_seconds=0.5))
    for number in range(1, 5):
        bc.answer(bc.await_batches(number)[number - 1])
    bc.await_fact("campaign.completed")
    timestamps = [row[0] for row in bc.query("SELECT released_at FROM batches ORDER BY number")]
    gaps = [(later - earlier).total_seconds() for earlier, later in pairwise(timestamps)]
    assert all(gap >= 0.5 for gap in gaps), gaps


def test_with_a_pause_the_next_batch_waits_for_an_answer(bc: BroadcastStage) -> None:
    bc.start()
    bc.publish(campaign("slow", range(2), batch_size=1, pause_seconds=0.1))
    eventually(
        lambda: bc.query("SELECT 1 FROM campaigns WHERE next_batch_at < now() AND due_at > now() + interval '1 minute'")
    )
    assert len(bc.batches) == 1
    bc.answer_batches()
    assert bc.await_batches(2)[1]["batch_id"] == "slow/2"


def test_without_a_pause_several_batches_are_in_flight(bc: BroadcastStage) -> None:
    bc.start(broadcast_in_flight=3)
    bc.publish(campaign("fast", range(8), batch_size=2))
    assert len(bc.await_batches(3)) == 3
    bc.answer(bc.batches[1])
    assert len(bc.await_batches(4)) == 4
    bc.answer_batches(batches=4)
    assert totals_of(bc.await_fact("campaign.completed"))["sent"] == 8


def test_a_recipients_own_values_are_sent(bc: BroadcastStage) -> None:
    bc.start()
    own = CampaignRecipient(to="+15550100001", body=(Parameter(text="Ada"),))
    bc.publish(campaign("own", None, recipients=(own,)))
    ((recipient,),) = [batch["recipients"] for batch in bc.await_batches(1)]
    assert [one["text"] for one in recipient["body"]] == ["Ada"]


def test_a_campaign_without_recipients_completes(bc: BroadcastStage) -> None:
    bc.start()
    bc.publish(campaign("empty", ()))
    done = bc.await_fact("campaign.completed")
    assert (totals_of(done), done["totals"]["percentage"]) == ({}, 100)
    assert bc.batches == []


def test_a_person_counts_once_however_the_number_is_written(bc: BroadcastStage) -> None:
    bc.start(whatsapp_region="US")
    written = ("+15550100001", "+1 555 010 0001", "(555) 010-0001", "+15550100002", "no number", "+5511987654321",
               "+551187654321")  # fmt: skip
    bc.publish(campaign("twice", None, recipients=tuple(CampaignRecipient(to=text) for text in written)))
    (batch,) = bc.await_batches(1)
    assert [one["to"] for one in batch["recipients"]] == ["+15550100001", "+15550100002", "+5511987654321"]
    bc.answer(batch, {0: "accepted", 1: "suppressed/opted_out", 2: "failed/window_closed"})
    assert totals_of(bc.await_fact("campaign.completed")) == {
        "recipients": 7, "sent": 1, "skipped": 6,
        "skipped_by": {"duplicate_number": 3, "malformed_number": 1, "suppressed": 1, "window_closed": 1},
    }  # fmt: skip


def test_progress_is_published_at_most_once_per_interval(bc: BroadcastStage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "_PROGRESS_SECONDS", 3600)
    bc.start(broadcast_in_flight=1)
    bc.publish(campaign("quiet", range(3), batch_size=1))
    for number in (1, 2, 3):
        bc.answer(bc.await_batches(number)[number - 1])
    bc.await_fact("campaign.completed")
    assert len(bc.facts("campaign.progressed")) == 1


def test_text_without_a_fallback_is_requested_as_text(bc: BroadcastStage) -> None:
    bc.start()
    bc.publish(campaign("talk", range(1), message=TEXT))
    (batch,) = bc.await_batches(1)
    assert (batch["message"]["kind"], batch.get("fallback")) == ("text", None)


# -- answers in every order


def test_repeated_and_late_answers_change_nothing(bc: BroadcastStage) -> None:
    bc.start()
    bc.publish(campaign("mixed", range(4), batch_size=4))
    (batch,) = bc.await_batches(1)
    bc.answer(batch, {0: "delivered", 1: "read"}, version=2)
    bc.answer(batch, {0: "accepted", 1: "failed/undeliverable"}, version=1)
    bc.answer(batch, {0: "accepted", 1: "accepted", 2: "failed/undeliverable", 3: "unknown"})
    bc.answer(batch, {0: "accepted", 1: "accepted", 2: "failed/undeliverable", 3: "unknown"})
    done = bc.await_fact("campaign.completed")
    assert totals_of(done) == {
        "recipients": 4, "sent": 2, "delivered": 2, "read": 1, "failed": 1, "failed_by": {"undeliverable": 1}, "unknown": 1
    }  # fmt: skip
    eventually(lambda: bc.stage.depth("broadcast.answer") == 0)
    assert len(bc.facts("campaign.completed")) == 1


def test_outcomes_after_the_end_are_published_in_one_bundle(bc: BroadcastStage) -> None:
    bc.start()
    bc.publish(campaign("late", range(3)))
    (batch,) = bc.await_batches(1)
    bc.answer(batch)
    bc.await_fact("campaign.completed")
    bc.answer(batch, {0: "delivered"}, version=1)
    bc.answer(batch, {1: "failed/undeliverable"}, version=2)
    updated = bc.await_fact("campaign.updated")
    assert totals_of(updated) == {
        "recipients": 3, "sent": 2, "delivered": 1, "failed": 1, "failed_by": {"undeliverable": 1}
    }  # fmt: skip
    assert len(bc.facts("campaign.updated")) == 1
    bc.answer(batch, {1: "accepted"}, version=1)
    eventually(lambda: bc.query("SELECT count(*) FROM inbox WHERE queue = 'broadcast.answer'") == [(4,)])
    assert bc.query("SELECT due_at FROM campaigns") == [(None,)], "an answer that changes nothing is not published"


def test_deferred_recipients_delay_neither_the_rest_nor_other_campaigns(bc: BroadcastStage) -> None:
    bc.start(broadcast_in_flight=1)
    bc.publish(campaign("first", range(4), batch_size=2))
    (first,) = bc.await_batches(1)
    bc.publish(campaign("second", range(10, 12)))
    bc.answer(first, {0: "accepted", 1: "deferred/pair_too_fast"})
    bc.answer(bc.await_batches(2)[1])
    assert bc.await_batches(3)[2]["batch_id"] == "second/1"
    assert bc.facts("campaign.completed") == []
    bc.answer(bc.batches[0], {1: "accepted"}, version=1)
    assert totals_of(bc.await_fact("campaign.completed")) == {"recipients": 4, "sent": 4}


@pytest.mark.parametrize("limit", ["messaging_limit", "template_syncing", "token_refused", "account_restricted"])
def test_a_limit_parks_the_campaign_without_making_it_stuck(bc: BroadcastStage, limit: str) -> None:
    bc.start(broadcast_in_flight=1)
    bc.publish(campaign("parked", range(4), batch_size=2))
    bc.answer(bc.await_batches(1)[0], f"deferred/{limit}")
    eventually(lambda: bc.state("parked") == ("running", limit))
    bc.publish(campaign("beside", range(1), exclusive=False))
    assert bc.await_batches(2)[1]["batch_id"] == "beside/1"
    bc.query(
        "UPDATE campaigns SET progressed_at = now() - interval '1 day', due_at = now() WHERE campaign_id = 'parked'"
    )
    eventually(lambda: bc.query("SELECT due_at FROM campaigns WHERE campaign_id = 'parked'") == [(None,)])
    bc.answer(bc.batches[0], {0: "accepted"}, version=1)
    eventually(lambda: bc.stage.depth("broadcast.answer") == 0)
    assert bc.state("parked") == ("running", limit)
    bc.answer(bc.batches[0], {1: "accepted"}, version=2)
    eventually(lambda: any(one["batch_id"] == "parked/2" for one in bc.batches))


def test_a_campaign_that_gets_an_answer_is_not_stuck(bc: BroadcastStage) -> None:
    bc.start(broadcast_in_flight=2)
    bc.publish(campaign("slow", range(2), batch_size=1))
    first, second = bc.await_batches(2)
    bc.query("UPDATE campaigns SET progressed_at = now() - interval '1 day'")
    bc.answer(first)
    eventually(lambda: bc.query("SELECT 1 FROM batches WHERE answered_at IS NOT NULL"))
    assert bc.state("slow") == ("running", "")
    assert len(bc.batches) == 2
    bc.answer(second)
    bc.await_fact("campaign.completed")
