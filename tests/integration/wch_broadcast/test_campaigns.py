"""Campaigns between a real broker and a real database; whatsapp's answers are given by the tests, in every order."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from support.broadcast_stage import BroadcastStage, campaign, part, people
from support.stage import Stage
from support.waiting import eventually
from support.whatsapp_stage import TEXT, phone
from wch_broadcast import steps
from wch_common.events.broadcast import (
    CampaignCancelRequested,
    CampaignPauseRequested,
    CampaignRecipient,
    CampaignResumeRequested,
)
from wch_common.events.whatsapp_content import Parameter


@pytest.fixture
def bc(stage: Stage, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[BroadcastStage]:
    # Whose turn comes is woken; asking again would only hide that nobody was.
    monkeypatch.setattr(steps, "_ASK_AGAIN", timedelta(hours=1))
    yield BroadcastStage(stage, database_url)
    stage.stop()


def totals_of(fact: dict[str, Any]) -> dict[str, Any]:
    """The totals that are not nothing."""
    told = {name: value for name, value in fact["totals"].items() if value and name != "percentage"}
    for name in ("failed_by", "skipped_by"):
        if name in told:
            told[name] = {one["reason"]: one["recipients"] for one in told[name]}
    return told


def answer_all(bc: BroadcastStage, outcome: str = "accepted", batches: int = 1) -> None:
    for batch in bc.await_asked(batches):
        bc.answer(batch, outcome)


# -- the main path


def test_a_campaign_is_asked_for_in_batches_and_completed_once(bc: BroadcastStage) -> None:
    bc.start(broadcast_in_flight=1)
    bc.publish(campaign("spring", range(5), batch_size=2), requester="crm")
    for number in (1, 2, 3):
        batch = bc.await_asked(number)[number - 1]
        assert batch["batch_id"] == f"spring/{number}"
        assert len(bc.asked) == number, "no batch before the one before it was answered"
        bc.answer(batch)
    done = bc.await_told("campaign.completed")
    assert totals_of(done) == {"recipients": 5, "sent": 5}
    assert done["totals"]["percentage"] == 100
    everybody = [one["to"] for batch in bc.asked for one in batch["recipients"]]
    assert len(everybody) == len(set(everybody)) == 5
    assert bc.await_told("campaign.started") == {"campaign_id": "spring", "recipients": 5}
    assert "broadcast.campaign.completed.v1.crm" in bc.keys


def test_no_batch_is_released_before_the_pause_after_the_one_before_it(bc: BroadcastStage) -> None:
    bc.start()
    bc.publish(campaign("slow", range(4), batch_size=1, pause_seconds=0.5))
    for number in range(1, 5):
        bc.answer(bc.await_asked(number)[number - 1])
    bc.await_told("campaign.completed")
    timestamps = [row[0] for row in bc.query("SELECT released_at FROM batches ORDER BY number")]
    gaps = [(later - earlier).total_seconds() for earlier, later in pairwise(timestamps)]
    assert all(gap >= 0.5 for gap in gaps), gaps


def test_with_a_pause_no_batch_follows_one_that_is_not_answered(bc: BroadcastStage) -> None:
    bc.start()
    bc.publish(campaign("slow", range(2), batch_size=1, pause_seconds=0.1))
    eventually(
        lambda: bc.query("SELECT 1 FROM campaigns WHERE next_batch_at < now() AND due_at > now() + interval '1 minute'")
    )
    assert len(bc.asked) == 1
    answer_all(bc)
    assert bc.await_asked(2)[1]["batch_id"] == "slow/2"


def test_without_a_pause_several_batches_are_under_way(bc: BroadcastStage) -> None:
    bc.start(broadcast_in_flight=3)
    bc.publish(campaign("fast", range(8), batch_size=2))
    assert len(bc.await_asked(3)) == 3
    bc.answer(bc.asked[1])
    assert len(bc.await_asked(4)) == 4
    answer_all(bc, batches=4)
    assert totals_of(bc.await_told("campaign.completed"))["sent"] == 8


def test_each_recipient_has_their_own_values(bc: BroadcastStage) -> None:
    bc.start()
    own = CampaignRecipient(to="+15550100001", body=(Parameter(text="Ada"),))
    bc.publish(campaign("own", None, recipients=(own,)))
    ((recipient,),) = [batch["recipients"] for batch in bc.await_asked(1)]
    assert [one["text"] for one in recipient["body"]] == ["Ada"]


def test_an_empty_campaign_completes(bc: BroadcastStage) -> None:
    bc.start()
    bc.publish(campaign("nobody", ()))
    done = bc.await_told("campaign.completed")
    assert (totals_of(done), done["totals"]["percentage"]) == ({}, 100)
    assert bc.asked == []


def test_a_person_counts_once_however_the_number_is_written(bc: BroadcastStage) -> None:
    bc.start(whatsapp_region="US")
    written = ("+15550100001", "+1 555 010 0001", "(555) 010-0001", "+15550100002", "no number", "+5511987654321",
               "+551187654321")  # fmt: skip
    bc.publish(campaign("twice", None, recipients=tuple(CampaignRecipient(to=text) for text in written)))
    (batch,) = bc.await_asked(1)
    assert [one["to"] for one in batch["recipients"]] == ["+15550100001", "+15550100002", "+5511987654321"]
    bc.answer(batch, {0: "accepted", 1: "suppressed/opted_out", 2: "failed/window_closed"})
    assert totals_of(bc.await_told("campaign.completed")) == {
        "recipients": 7, "sent": 1, "skipped": 6,
        "skipped_by": {"duplicate_number": 3, "malformed_number": 1, "suppressed": 1, "window_closed": 1},
    }  # fmt: skip


def test_progress_is_told_now_and_then_and_not_with_every_answer(
    bc: BroadcastStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "_PROGRESS_SECONDS", 3600)
    bc.start(broadcast_in_flight=1)
    bc.publish(campaign("quiet", range(3), batch_size=1))
    for number in (1, 2, 3):
        bc.answer(bc.await_asked(number)[number - 1])
    bc.await_told("campaign.completed")
    assert len(bc.told("campaign.progressed")) == 1


def test_text_without_a_fallback_is_asked_for_as_it_is(bc: BroadcastStage) -> None:
    bc.start()
    bc.publish(campaign("talk", range(1), message=TEXT))
    (batch,) = bc.await_asked(1)
    assert (batch["message"]["kind"], batch.get("fallback")) == ("text", None)


# -- answers in every order


def test_repeated_and_overtaken_answers_change_nothing(bc: BroadcastStage) -> None:
    bc.start()
    bc.publish(campaign("mixed", range(4), batch_size=4))
    (batch,) = bc.await_asked(1)
    bc.answer(batch, {0: "delivered", 1: "read"}, version=2)
    bc.answer(batch, {0: "accepted", 1: "failed/undeliverable"}, version=1)
    bc.answer(batch, {0: "accepted", 1: "accepted", 2: "failed/undeliverable", 3: "unknown"})
    bc.answer(batch, {0: "accepted", 1: "accepted", 2: "failed/undeliverable", 3: "unknown"})
    done = bc.await_told("campaign.completed")
    assert totals_of(done) == {
        "recipients": 4, "sent": 2, "delivered": 2, "read": 1, "failed": 1, "failed_by": {"undeliverable": 1}, "unknown": 1
    }  # fmt: skip
    eventually(lambda: bc.stage.depth("broadcast.answer") == 0)
    assert len(bc.told("campaign.completed")) == 1


def test_what_becomes_known_after_the_end_is_told_in_a_bundle(bc: BroadcastStage) -> None:
    bc.start()
    bc.publish(campaign("late", range(3)))
    (batch,) = bc.await_asked(1)
    bc.answer(batch)
    bc.await_told("campaign.completed")
    bc.answer(batch, {0: "delivered"}, version=1)
    bc.answer(batch, {1: "failed/undeliverable"}, version=2)
    told = bc.await_told("campaign.updated")
    assert totals_of(told) == {
        "recipients": 3, "sent": 2, "delivered": 1, "failed": 1, "failed_by": {"undeliverable": 1}
    }  # fmt: skip
    assert len(bc.told("campaign.updated")) == 1
    bc.answer(batch, {1: "accepted"}, version=1)
    eventually(lambda: bc.query("SELECT count(*) FROM inbox WHERE queue = 'broadcast.answer'") == [(4,)])
    assert bc.query("SELECT due_at FROM campaigns") == [(None,)], "what changed nothing is not told"


def test_recipients_that_are_put_off_hold_up_neither_the_rest_nor_other_campaigns(bc: BroadcastStage) -> None:
    bc.start(broadcast_in_flight=1)
    bc.publish(campaign("first", range(4), batch_size=2))
    (first,) = bc.await_asked(1)
    bc.publish(campaign("second", range(10, 12)))
    bc.answer(first, {0: "accepted", 1: "deferred/pair_too_fast"})
    bc.answer(bc.await_asked(2)[1])
    assert bc.await_asked(3)[2]["batch_id"] == "second/1"
    assert bc.told("campaign.completed") == []
    bc.answer(bc.asked[0], {1: "accepted"}, version=1)
    assert totals_of(bc.await_told("campaign.completed")) == {"recipients": 4, "sent": 4}


def test_a_number_that_rests_parks_the_campaign_which_does_not_age(bc: BroadcastStage) -> None:
    bc.start(broadcast_in_flight=1)
    bc.publish(campaign("parked", range(4), batch_size=2))
    bc.answer(bc.await_asked(1)[0], "deferred/messaging_limit")
    eventually(lambda: bc.state("parked") == ("running", "messaging_limit"))
    bc.publish(campaign("beside", range(1), exclusive=False))
    assert bc.await_asked(2)[1]["batch_id"] == "beside/1"
    bc.query("UPDATE campaigns SET moved_at = now() - interval '1 day', due_at = now() WHERE campaign_id = 'parked'")
    eventually(lambda: bc.query("SELECT due_at FROM campaigns WHERE campaign_id = 'parked'") == [(None,)])
    bc.answer(bc.asked[0], {0: "accepted"}, version=1)
    eventually(lambda: bc.stage.depth("broadcast.answer") == 0)
    assert bc.state("parked") == ("running", "messaging_limit")
    bc.answer(bc.asked[0], {1: "accepted"}, version=2)
    eventually(lambda: any(one["batch_id"] == "parked/2" for one in bc.asked))


def test_a_campaign_that_gets_an_answer_does_not_stand_still(bc: BroadcastStage) -> None:
    bc.start(broadcast_in_flight=2)
    bc.publish(campaign("slow", range(2), batch_size=1))
    first, second = bc.await_asked(2)
    bc.query("UPDATE campaigns SET moved_at = now() - interval '1 day'")
    bc.answer(first)
    eventually(lambda: bc.query("SELECT 1 FROM batches WHERE answered_at IS NOT NULL"))
    assert bc.state("slow") == ("running", "")
    assert len(bc.asked) == 2
    bc.answer(second)
    bc.await_told("campaign.completed")


# -- turns


def test_exclusive_campaigns_of_a_shop_go_one_after_the_other_in_order(bc: BroadcastStage) -> None:
    bc.start()
    names = ("a", "b", "c")
    for number, name in enumerate(names):
        bc.publish(campaign(name, range(number * 10, number * 10 + 1)))
        eventually(lambda name=name: bc.state(name)[0] != "")  # type: ignore[misc]
    bc.publish(campaign("beside", range(90, 91), exclusive=False))
    assert {one["batch_id"] for one in bc.await_asked(2)} == {"a/1", "beside/1"}
    assert bc.state("b") == ("waiting", "another_campaign")
    for number, name in enumerate(names):
        found = eventually(lambda name=name: [one for one in bc.asked if one["batch_id"] == f"{name}/1"])  # type: ignore[misc]
        assert len(bc.asked) == number + 2
        bc.answer(found[0])
    bc.await_told("campaign.completed", 3)


def test_campaigns_that_cannot_begin_yet_hold_nobody_up(bc: BroadcastStage) -> None:
    bc.start()
    bc.publish(campaign("tomorrow", range(1), start_at=datetime.now(UTC) + timedelta(days=1)))
    eventually(lambda: bc.state("tomorrow") == ("waiting", "start_at"))
    bc.publish(campaign("listless", None, list_id="nothing"))
    eventually(lambda: bc.state("listless") == ("waiting", "list_incomplete"))
    bc.publish(campaign("now", range(1)))
    assert bc.await_asked(1)[0]["batch_id"] == "now/1"


def test_the_next_begins_when_one_is_paused_or_fails_and_waits_for_one_that_is_resumed(bc: BroadcastStage) -> None:
    bc.start()
    for number, name in enumerate(("a", "b", "c")):
        bc.publish(campaign(name, range(number, number + 1)))
        eventually(lambda name=name: bc.state(name)[0] != "")  # type: ignore[misc]
    bc.await_asked(1)
    bc.publish(CampaignPauseRequested(campaign_id="a", by="me"))
    assert bc.await_asked(2)[1]["batch_id"] == "b/1"
    bc.query("UPDATE campaigns SET moved_at = now() - interval '1 day', due_at = now() WHERE campaign_id = 'b'")
    assert bc.await_told("campaign.failed")["reason"] == "stuck"
    bc.answer(bc.await_asked(3)[2])
    assert bc.await_told("campaign.completed")["campaign_id"] == "c"
    bc.publish(CampaignResumeRequested(campaign_id="b", by="me"))
    bc.await_told("campaign.resumed")
    assert bc.state("b") == ("running", "")
    bc.publish(campaign("d", range(9, 10)))
    eventually(lambda: bc.state("d")[0] != "")
    assert bc.state("d") == ("waiting", "another_campaign")


def test_shops_do_not_wait_for_each_other(bc: BroadcastStage, tmp_path: Path) -> None:
    file = tmp_path / "shops.json"
    file.write_text(json.dumps({"north": {}, "south": {}}))
    bc.start(shops_file=file)
    bc.publish(campaign("spring", range(1)), shop="north")
    bc.await_asked(1)
    bc.publish(campaign("spring", range(1)), shop="south")
    assert [one["batch_id"] for one in bc.await_asked(2)] == ["spring/1", "spring/1"]


def test_a_campaign_waits_for_its_start_and_stops_at_its_end(bc: BroadcastStage) -> None:
    bc.start()
    now = datetime.now(UTC)
    soon = now + timedelta(seconds=2)
    bc.publish(campaign("later", range(2), batch_size=1, start_at=soon, stop_at=soon + timedelta(seconds=2)))
    eventually(lambda: bc.state("later") == ("waiting", "start_at"))
    (batch,) = bc.await_asked(1)[:1]
    assert datetime.fromisoformat(batch["expires_at"]) == soon + timedelta(seconds=2)
    ((started,),) = bc.query("SELECT started_at FROM campaigns")
    assert started >= soon


def test_what_is_not_begun_at_its_end_is_passed_over(bc: BroadcastStage) -> None:
    bc.start(broadcast_in_flight=1)
    stop = datetime.now(UTC) + timedelta(seconds=3)
    bc.publish(campaign("short", range(5), batch_size=2, stop_at=stop))
    (batch,) = bc.await_asked(1)
    eventually(lambda: bc.query("SELECT 1 FROM campaigns WHERE stopped") == [(1,)])
    bc.answer(batch)
    assert totals_of(bc.await_told("campaign.completed")) == {
        "recipients": 5, "sent": 2, "skipped": 3, "skipped_by": {"stopped": 3}
    }  # fmt: skip


# -- asked for twice


def test_a_repeated_request_is_one_campaign_and_other_content_is_refused(bc: BroadcastStage) -> None:
    bc.start()
    bc.publish(campaign("one", range(2)))
    bc.await_asked(1)
    bc.publish(campaign("one", range(2)))
    bc.await_told("campaign.progressed", 2)
    bc.publish(campaign("one", range(3)))
    refused = bc.await_told("campaign.refused")
    assert refused["campaign_id"] == "one"
    assert "another campaign one" in refused["reason"]
    assert len(bc.stage.await_dead_letters("broadcast.campaign.dlq")) == 1
    answer_all(bc)
    assert totals_of(bc.await_told("campaign.completed"))["recipients"] == 2
    assert len(bc.asked) == 1


# -- pause, resume, cancel


def test_a_paused_campaign_begins_nothing_and_goes_on_where_it_stopped(bc: BroadcastStage) -> None:
    bc.start(broadcast_in_flight=1)
    bc.publish(campaign("p", range(4), batch_size=2))
    (first,) = bc.await_asked(1)
    bc.publish(CampaignPauseRequested(campaign_id="p", reason="look again", by="me"))
    paused = bc.await_told("campaign.paused")
    assert (paused["reason"], paused["by"]) == ("look again", "me")
    bc.answer(first)
    eventually(lambda: bc.query("SELECT 1 FROM batches WHERE answered_at IS NOT NULL"))
    assert len(bc.asked) == 1
    bc.publish(campaign("next", range(50, 51)))
    assert bc.await_asked(2)[1]["batch_id"] == "next/1", "one that is paused does not hold the others up"
    bc.publish(CampaignResumeRequested(campaign_id="p", by="me"))
    assert bc.await_told("campaign.resumed")["by"] == "me"
    assert bc.state("p") == ("waiting", "another_campaign")
    bc.answer(bc.asked[1])
    bc.answer(bc.await_asked(3)[2])
    assert totals_of(bc.await_told("campaign.completed", 2)) == {"recipients": 4, "sent": 4}


def test_a_cancelled_campaign_takes_back_what_is_open_and_its_totals_add_up(bc: BroadcastStage) -> None:
    bc.start(broadcast_in_flight=1)
    bc.publish(campaign("c", range(6), batch_size=2))
    bc.answer(bc.await_asked(1)[0])
    second = bc.await_asked(2)[1]
    bc.publish(CampaignCancelRequested(campaign_id="c", reason="sold out", by="me"))
    (asked,) = bc.stage.await_dead_letters("control")
    assert b'"batch_id":"c/2"' in asked.message.body
    assert bc.told("campaign.cancelled") == []
    bc.publish(campaign("next", range(50, 51)))
    eventually(lambda: bc.state("next")[0] != "")
    assert bc.state("next") == ("waiting", "another_campaign")
    bc.answer(second, {0: "cancelled/sold out", 1: "accepted"})
    told = bc.await_told("campaign.cancelled")
    assert told["reason"] == "sold out"
    assert totals_of(told) == {"recipients": 6, "sent": 3, "cancelled": 3}
    assert [one["batch_id"] for one in bc.await_asked(3)] == ["c/1", "c/2", "next/1"]


def test_a_cancelled_campaign_takes_back_who_was_put_off(bc: BroadcastStage) -> None:
    bc.start()
    bc.publish(campaign("d", range(1)))
    (batch,) = bc.await_asked(1)
    bc.answer(batch, "deferred/pair_too_fast")
    eventually(lambda: bc.query("SELECT 1 FROM batches WHERE answered_at IS NOT NULL AND deferred = 1"))
    bc.publish(CampaignCancelRequested(campaign_id="d", by="me"))
    (asked,) = bc.stage.await_dead_letters("control")
    assert b'"batch_id":"d/1"' in asked.message.body
    bc.answer(batch, "cancelled/cancelled", version=1)
    assert totals_of(bc.await_told("campaign.cancelled")) == {"recipients": 1, "cancelled": 1}


@pytest.mark.parametrize("request_type", [CampaignPauseRequested, CampaignCancelRequested, CampaignResumeRequested])
def test_a_campaign_that_has_ended_is_not_steered(bc: BroadcastStage, request_type: type[Any]) -> None:
    bc.start()
    bc.publish(campaign("e", range(1)))
    answer_all(bc)
    bc.await_told("campaign.completed")
    told = bc.query("SELECT told FROM campaigns")
    bc.publish(request_type(campaign_id="e", by="me"))
    # Requests are handled by then: one after the other lies in the dead letters.
    bc.publish(request_type(campaign_id="nobody", by="me"))
    bc.stage.await_dead_letters("broadcast.control.dlq")
    assert (bc.state("e")[0], bc.query("SELECT told FROM campaigns")) == ("completed", told)


def test_control_of_a_campaign_that_nobody_knows_ends_as_a_dead_letter(bc: BroadcastStage) -> None:
    bc.start()
    bc.publish(CampaignCancelRequested(campaign_id="nobody", by="me"))
    (dead_letter,) = bc.stage.await_dead_letters("broadcast.control.dlq")
    assert "has no campaign nobody" in str(dead_letter.message.headers["wch-error-message"])
    assert "has no campaign nobody" in bc.await_told("campaign.refused")["reason"]


# -- stopping by itself


def test_an_answer_that_concerns_everybody_pauses_and_resuming_tries_them_again(bc: BroadcastStage) -> None:
    bc.start(broadcast_in_flight=1)
    bc.publish(campaign("t", range(4), batch_size=2))
    bc.answer(bc.await_asked(1)[0], {0: "failed/template_paused", 1: "failed/undeliverable"})
    paused = bc.await_told("campaign.paused")
    assert (paused["reason"], paused["by"]) == ("template_paused", "broadcast")
    assert totals_of(paused)["failed_by"] == {"template_paused": 1, "undeliverable": 1}
    bc.publish(CampaignResumeRequested(campaign_id="t", by="me"))
    (retry,) = bc.stage.await_dead_letters("control")
    tried, left = (one["send_key"].encode() for one in bc.asked[0]["recipients"])
    assert tried in retry.message.body
    assert left not in retry.message.body, "whose failure was their own is not tried again"
    bc.answer(bc.await_asked(2)[1])
    eventually(lambda: bc.query("SELECT 1 FROM campaigns WHERE released"))
    assert bc.told("campaign.completed") == [], "who is tried again has no outcome yet"
    bc.answer(bc.asked[0], {0: "accepted"}, version=1)
    assert totals_of(bc.await_told("campaign.completed")) == {
        "recipients": 4, "sent": 3, "failed": 1, "failed_by": {"undeliverable": 1}
    }  # fmt: skip


def test_nobody_is_tried_again_before_the_campaigns_turn_and_only_until_its_end(bc: BroadcastStage) -> None:
    bc.start()
    stop_at = datetime.now(UTC) + timedelta(hours=1)
    bc.publish(campaign("t", range(1), stop_at=stop_at))
    bc.answer(bc.await_asked(1)[0], "failed/template_paused")
    bc.await_told("campaign.paused")
    bc.publish(campaign("other", range(1, 2)))
    other = bc.await_asked(2)[1]
    bc.publish(CampaignResumeRequested(campaign_id="t", by="me"))
    eventually(lambda: bc.state("t") == ("waiting", "another_campaign"))
    assert bc.stage.depth("control") == 0
    bc.answer(other)
    (retry,) = bc.stage.await_dead_letters("control")
    data = json.loads(retry.message.body)["data"]
    assert data["send_keys"] == [bc.asked[0]["recipients"][0]["send_key"]]
    assert datetime.fromisoformat(data["expires_at"]) == stop_at


@pytest.mark.parametrize("reason", ["template_values_wrong", "request_refused"])
def test_a_wrong_message_is_everybodys_where_nobody_has_values_of_their_own(bc: BroadcastStage, reason: str) -> None:
    bc.start(broadcast_in_flight=1)
    own = CampaignRecipient(to=phone(1), body=(Parameter(text="Ada"),))
    bc.publish(campaign("own", None, recipients=(own, *people(range(2, 4))), batch_size=1))
    bc.answer(bc.await_asked(1)[0], f"failed/{reason}")
    bc.answer(bc.await_asked(2)[1], f"failed/{reason}")
    assert bc.await_told("campaign.paused")["reason"] == reason
    assert len(bc.asked) == 2
    bc.publish(CampaignResumeRequested(campaign_id="own", by="me"))
    (retry,) = bc.stage.await_dead_letters("control")
    wrong = [bc.asked[1]["recipients"][0]["send_key"]]
    assert json.loads(retry.message.body)["data"]["send_keys"] == wrong, "no resume mends somebody's own values"


def test_a_message_that_others_were_sent_is_not_wrong(bc: BroadcastStage) -> None:
    bc.start(broadcast_in_flight=1)
    bc.publish(campaign("m", range(3), batch_size=1))
    bc.answer(bc.await_asked(1)[0])
    bc.answer(bc.await_asked(2)[1], "failed/request_refused")
    bc.answer(bc.await_asked(3)[2])
    assert totals_of(bc.await_told("campaign.completed"))["failed_by"] == {"request_refused": 1}
    assert bc.told("campaign.paused") == []


def test_a_message_is_wrong_for_all_without_values_of_their_own_though_others_were_sent_theirs(
    bc: BroadcastStage,
) -> None:
    bc.start(broadcast_in_flight=1)
    own = CampaignRecipient(to=phone(1), body=(Parameter(text="Ada"),))
    bc.publish(campaign("m", None, recipients=(own, *people(range(2, 5))), batch_size=1))
    bc.answer(bc.await_asked(1)[0])
    bc.answer(bc.await_asked(2)[1], "failed/request_refused")
    assert bc.await_told("campaign.paused")["reason"] == "request_refused"


def test_failures_that_are_known_late_count_in_the_batches_they_are_of(bc: BroadcastStage) -> None:
    bc.start(broadcast_in_flight=25, broadcast_failure_least=4, broadcast_failure_share=0.6)
    bc.publish(campaign("late", range(120), batch_size=2))
    for batch in bc.await_asked(25)[:25]:
        bc.answer(batch)
    batches = {one["batch_id"]: one for one in bc.await_asked(50)}
    bc.answer(batches["late/1"], "failed/undeliverable", version=1)
    eventually(lambda: bc.query("SELECT sum(failed) FROM batches") == [(2,)])
    assert bc.told("campaign.paused") == []
    bc.answer(batches["late/2"], "failed/undeliverable", version=1)
    assert bc.await_told("campaign.paused")["reason"] == "4 of the last 4 failed"


def test_the_smallest_batches_are_enough_for_the_least_number(bc: BroadcastStage) -> None:
    bc.start(broadcast_in_flight=25, broadcast_failure_least=24)
    bc.publish(campaign("small", range(60), batch_size=1))
    for batch in bc.await_asked(25)[:24]:
        bc.answer(batch, "failed/undeliverable")
    assert bc.await_told("campaign.paused")["reason"] == "24 of the last 24 failed"


def test_an_answer_that_comes_again_does_not_undo_a_retry(bc: BroadcastStage) -> None:
    bc.start()
    bc.publish(campaign("t", range(1)))
    bc.answer(bc.await_asked(1)[0], "failed/template_paused")
    bc.await_told("campaign.paused")
    bc.publish(CampaignResumeRequested(campaign_id="t", by="me"))
    bc.stage.await_dead_letters("control")
    bc.answer(bc.asked[0], "failed/template_paused")
    bc.answer(bc.asked[0], "accepted", version=1)
    assert totals_of(bc.await_told("campaign.completed")) == {"recipients": 1, "sent": 1}
    assert len(bc.told("campaign.paused")) == 1


def test_the_refusal_of_a_request_that_came_twice_takes_no_answer_back(bc: BroadcastStage) -> None:
    bc.start(broadcast_in_flight=1)
    bc.publish(campaign("t", range(4), batch_size=2))
    bc.answer(bc.await_asked(1)[0])
    bc.await_asked(2)
    bc.answer(bc.asked[0], "failed/refused: the shop does not send from 1")
    bc.answer(bc.asked[1])
    assert totals_of(bc.await_told("campaign.completed")) == {"recipients": 4, "sent": 4}


def test_only_the_last_batches_count_for_the_share_of_failures(bc: BroadcastStage) -> None:
    bc.start(broadcast_in_flight=22, broadcast_failure_least=20, broadcast_failure_share=0.5)
    bc.publish(campaign("f", range(100), batch_size=1))
    for number, batch in enumerate(bc.await_asked(22)[:22]):
        bc.answer(batch, "accepted" if number < 12 else "failed/undeliverable")
    assert bc.await_told("campaign.paused")["reason"] == "10 of the last 20 failed"


def test_a_campaign_pauses_where_too_many_fail(bc: BroadcastStage) -> None:
    bc.start(broadcast_in_flight=1, broadcast_failure_least=4, broadcast_failure_share=0.5)
    bc.publish(campaign("f", range(20), batch_size=2))
    bc.answer(bc.await_asked(1)[0], {0: "accepted", 1: "failed/undeliverable"})
    bc.answer(bc.await_asked(2)[1], {0: "accepted", 1: "failed/window_closed"})
    bc.answer(bc.await_asked(3)[2], "failed/undeliverable")
    assert bc.await_told("campaign.paused")["reason"] == "3 of the last 6 failed"
    bc.publish(CampaignResumeRequested(campaign_id="f", by="me"))
    bc.answer(bc.await_asked(4)[3], {0: "accepted", 1: "failed/undeliverable"})
    assert len(bc.await_asked(5)) == 5, "failures from before it was resumed do not count again"


def test_a_campaign_that_stands_still_is_asked_for_again_then_fails_and_can_be_resumed(bc: BroadcastStage) -> None:
    bc.start(broadcast_stuck_seconds=0.5, broadcast_give_up_seconds=1.5)
    bc.publish(campaign("s", range(2)))
    first, again = bc.await_asked(2)
    assert first == again
    failed = bc.await_told("campaign.failed")
    assert (failed["reason"], failed["totals"]["waiting"]) == ("stuck", 2)
    bc.publish(CampaignResumeRequested(campaign_id="s", by="me"))
    assert bc.await_asked(3)[2] == first
    bc.answer(first)
    assert totals_of(bc.await_told("campaign.completed")) == {"recipients": 2, "sent": 2}


def test_a_batch_that_was_refused_before_it_was_known_is_asked_for_anew(bc: BroadcastStage) -> None:
    bc.start(broadcast_in_flight=1)
    bc.publish(campaign("r", range(2), sender="1"))
    bc.answer(bc.await_asked(1)[0], "failed/refused: the shop does not send from 1")
    assert bc.await_told("campaign.paused")["reason"].startswith("refused")
    bc.publish(CampaignResumeRequested(campaign_id="r", by="me"))
    assert bc.await_asked(2)[1] == bc.asked[0]
    bc.answer(bc.asked[0])
    assert totals_of(bc.await_told("campaign.completed")) == {"recipients": 2, "sent": 2}


def test_those_tried_again_that_are_never_answered_do_not_hang(bc: BroadcastStage) -> None:
    bc.start(broadcast_stuck_seconds=0.3, broadcast_give_up_seconds=0.9)
    bc.publish(campaign("h", range(2)))
    bc.answer(bc.await_asked(1)[0], "failed/template_paused")
    bc.await_told("campaign.paused")
    bc.publish(CampaignResumeRequested(campaign_id="h", by="me"))
    failed = bc.await_told("campaign.failed")
    assert (failed["reason"], failed["totals"]["deferred"]) == ("stuck", 2)
    first, again = bc.stage.await_dead_letters("control", 2)
    keys = [json.loads(dead_letter.message.body)["data"]["send_keys"] for dead_letter in (first, again)]
    assert keys[0] == keys[1], "it was asked for again before"
    bc.publish(CampaignResumeRequested(campaign_id="h", by="me"))
    bc.stage.await_dead_letters("control", 3)


def test_a_limit_that_is_over_does_not_leave_its_campaign_stuck(bc: BroadcastStage) -> None:
    bc.start(broadcast_in_flight=2)
    bc.publish(campaign("p", range(4), batch_size=2))
    first, second = bc.await_asked(2)
    bc.answer(first, "failed/template_paused")
    bc.await_told("campaign.paused")
    bc.publish(CampaignResumeRequested(campaign_id="p", by="me"))
    bc.answer(second, "deferred/messaging_limit")
    eventually(lambda: bc.state("p") == ("running", "messaging_limit"))
    bc.query("UPDATE campaigns SET moved_at = now() - interval '4 hours'")
    bc.answer(second, "accepted", version=1)
    eventually(lambda: bc.state("p") == ("running", ""))
    bc.answer(first, "accepted", version=1)
    assert totals_of(bc.await_told("campaign.completed"))["sent"] == 4


def test_a_cancellation_without_answers_holds_up_no_other_campaign(bc: BroadcastStage) -> None:
    bc.start(broadcast_stuck_seconds=0.5)
    bc.publish(campaign("c", range(1)))
    bc.await_asked(1)
    bc.publish(campaign("next", range(1, 2)))
    eventually(lambda: bc.state("next") == ("waiting", "another_campaign"))
    bc.publish(CampaignCancelRequested(campaign_id="c", by="me"))
    eventually(lambda: any(one["batch_id"] == "next/1" for one in bc.asked))
    assert bc.state("c")[0] == "cancelling"


def test_who_was_erased_before_whatsapp_had_them_is_waited_for_no_more(bc: BroadcastStage) -> None:
    bc.start(broadcast_in_flight=1)
    bc.publish(campaign("r", range(3), batch_size=2, sender="1"))
    bc.answer(bc.await_asked(1)[0], "failed/refused: the shop does not send from 1")
    bc.await_told("campaign.paused")
    bc.query("UPDATE recipients SET phone = NULL, person = NULL, flaw = 'forgotten' WHERE position < 1002")
    bc.publish(CampaignResumeRequested(campaign_id="r", by="me"))
    last = bc.await_asked(2)[1]
    assert [one["to"] for one in last["recipients"]] == [phone(2)]
    bc.answer(last)
    assert totals_of(bc.await_told("campaign.completed")) == {
        "recipients": 3, "sent": 1, "skipped": 2, "skipped_by": {"forgotten": 2}
    }  # fmt: skip


def test_a_campaign_with_nobody_left_completes_however_many_failed(bc: BroadcastStage) -> None:
    bc.start(broadcast_failure_least=1)
    bc.publish(campaign("f", range(3)))
    bc.answer(bc.await_asked(1)[0], "failed/undeliverable")
    assert totals_of(bc.await_told("campaign.completed"))["failed"] == 3
    assert bc.told("campaign.paused") == []


def test_nobody_is_tried_again_after_the_end(bc: BroadcastStage) -> None:
    bc.start()
    bc.publish(campaign("t", range(2), stop_at=datetime.now(UTC) + timedelta(hours=1)))
    bc.answer(bc.await_asked(1)[0], "failed/template_paused")
    bc.await_told("campaign.paused")
    bc.query("UPDATE campaigns SET stop_at = now()")
    bc.publish(CampaignResumeRequested(campaign_id="t", by="me"))
    assert totals_of(bc.await_told("campaign.completed"))["failed"] == 2
    assert bc.stage.depth("control") == 0


def test_a_cancellation_that_whatsapp_does_not_answer_goes_on_asking_and_never_fails(bc: BroadcastStage) -> None:
    bc.start(broadcast_stuck_seconds=0.2, broadcast_give_up_seconds=0.4, broadcast_in_flight=1)
    bc.publish(campaign("c", range(4), batch_size=2))
    (first, *_) = bc.await_asked(1)
    bc.publish(CampaignCancelRequested(campaign_id="c", by="me"))
    bc.await_asked(4)
    assert bc.state("c")[0] == "cancelling"
    bc.answer(first, "cancelled/x")
    assert totals_of(bc.await_told("campaign.cancelled")) == {"recipients": 4, "cancelled": 4}
    assert bc.told("campaign.failed") == []


def test_a_failed_campaign_can_be_cancelled_and_what_cannot_be_done_is_answered(bc: BroadcastStage) -> None:
    bc.start(broadcast_stuck_seconds=0.2, broadcast_give_up_seconds=0.4)
    bc.publish(campaign("c", range(2)))
    bc.await_told("campaign.failed")
    before = len(bc.told("campaign.progressed"))
    bc.publish(CampaignPauseRequested(campaign_id="c", by="me"))
    assert bc.await_told("campaign.progressed", before + 1)["state"] == "failed"
    bc.publish(CampaignCancelRequested(campaign_id="c", by="me"))
    assert len(bc.stage.await_dead_letters("control")) == 1
    bc.answer(bc.asked[0], "cancelled/x")
    assert totals_of(bc.await_told("campaign.cancelled")) == {"recipients": 2, "cancelled": 2}


def test_what_becomes_known_of_one_batch_does_not_hide_that_another_stands_still(bc: BroadcastStage) -> None:
    bc.start()
    bc.publish(campaign("s", range(2), batch_size=1))
    first, _ = bc.await_asked(2)
    bc.answer(first)
    eventually(lambda: bc.query("SELECT 1 FROM batches WHERE answered_at IS NOT NULL"))
    bc.query("UPDATE campaigns SET moved_at = now() - interval '11 minutes'")
    bc.answer(first, {0: "read"}, version=1)
    assert len(bc.await_asked(3)) == 3
    assert bc.state("s") == ("running", "stuck")


# -- lists


def test_a_list_whose_people_were_deleted_is_not_written_to(bc: BroadcastStage) -> None:
    bc.start()
    bc.publish(part("old", 1, range(2), parts=1))
    bc.await_told("recipients.added")
    bc.query("UPDATE lists SET deleted_at = now()")
    bc.publish(campaign("c", None, list_id="old"))
    assert bc.await_told("campaign.failed")["reason"] == "list_deleted"
    assert bc.query("SELECT due_at FROM campaigns") == [(None,)]
    assert bc.told("campaign.updated") == []


def test_a_part_that_is_refused_is_told(bc: BroadcastStage) -> None:
    bc.start()
    bc.publish(part("l", 3, range(2)))
    eventually(lambda: bc.query("SELECT given FROM lists") == [(2,)])
    bc.publish(part("l", 1, range(2), parts=2))
    refused = bc.await_told("recipients.refused")
    assert (refused["list_id"], refused["part"]) == ("l", 1)
    assert refused["reason"] == "data.parts: the list l has a part 3 already, so that it has more than 2"


def test_a_list_comes_in_parts_in_any_order_and_its_campaign_waits_for_it(bc: BroadcastStage) -> None:
    bc.start()
    bc.publish(campaign("big", None, list_id="people"))
    eventually(lambda: bc.state("big") == ("waiting", "list_incomplete"))
    bc.publish(part("people", 2, (3, 4), parts=2))
    eventually(lambda: bc.query("SELECT given FROM lists") == [(2,)])
    assert bc.asked == []
    bc.publish(part("people", 1, (1, 2, 3)))
    added = bc.await_told("recipients.added")
    assert added == {"list_id": "people", "recipients": 5, "malformed": 0, "duplicates": 1}
    (batch,) = bc.await_asked(1)
    assert len(batch["recipients"]) == 4
    bc.publish(part("people", 1, (1, 2, 3)))
    bc.publish(part("people", 1, (1, 2)), part("people", 3, (9,)))
    said = [
        str(dead_letter.message.headers["wch-error-message"])
        for dead_letter in bc.stage.await_dead_letters("broadcast.recipients.dlq", 2)
    ]
    assert any("has another part 1 already" in one for one in said), said
    assert any("is complete" in one for one in said), said


def test_a_part_beyond_the_last_is_refused(bc: BroadcastStage) -> None:
    bc.start()
    bc.publish(part("people", 1, (1,), parts=2))
    eventually(lambda: bc.query("SELECT parts FROM lists") == [(2,)])
    bc.publish(part("people", 3, (9,)))
    (dead_letter,) = bc.stage.await_dead_letters("broadcast.recipients.dlq")
    assert "the list people has 2 parts, so that there is no part 3" in str(
        dead_letter.message.headers["wch-error-message"]
    )
    bc.publish(part("people", 2, (9,), parts=4))
    said = [
        str(one.message.headers["wch-error-message"])
        for one in bc.stage.await_dead_letters("broadcast.recipients.dlq", 2)
    ]
    assert "data.parts: the list people was said to have 2 parts, not 4" in said[-1]


def test_a_list_that_never_comes_fails_its_campaign(bc: BroadcastStage) -> None:
    bc.start()
    bc.publish(campaign("big", None, list_id="nothing"))
    eventually(lambda: bc.state("big")[0] == "waiting")
    bc.query("UPDATE campaigns SET moved_at = now() - interval '31 minutes', due_at = now()")
    assert bc.await_told("campaign.failed")["reason"] == "list_incomplete"
