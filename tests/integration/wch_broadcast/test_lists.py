"""Lists of recipients in parts, on a real broker and database."""

from __future__ import annotations

from support.broadcast_stage import BroadcastStage, campaign, part
from support.waiting import eventually


def test_a_campaign_to_a_deleted_list_fails(bc: BroadcastStage) -> None:
    bc.start()
    bc.publish(part("old", 1, range(2), parts=1))
    bc.await_fact("recipients.added")
    bc.query("UPDATE lists SET deleted_at = now()")
    bc.publish(campaign("c", None, list_id="old"))
    assert bc.await_fact("campaign.failed")["reason"] == "list_deleted"
    assert bc.query("SELECT due_at FROM campaigns") == [(None,)]
    assert bc.facts("campaign.updated") == []


def test_a_refused_part_is_published(bc: BroadcastStage) -> None:
    bc.start()
    bc.publish(part("l", 3, range(2)))
    eventually(lambda: bc.query("SELECT submitted FROM lists") == [(2,)])
    bc.publish(part("l", 1, range(2), parts=2))
    refused = bc.await_fact("recipients.refused")
    assert (refused["list_id"], refused["part"]) == ("l", 1)
    assert refused["reason"] == "data.parts: the list l already has a part 3, so it has more than 2 parts"


def test_parts_arrive_in_any_order_and_the_campaign_waits_for_the_list(bc: BroadcastStage) -> None:
    bc.start()
    bc.publish(campaign("big", None, list_id="guests"))
    eventually(lambda: bc.state("big") == ("waiting", "list_incomplete"))
    bc.publish(part("guests", 2, (3, 4), parts=2))
    eventually(lambda: bc.query("SELECT submitted FROM lists") == [(2,)])
    assert bc.batches == []
    bc.publish(part("guests", 1, (1, 2, 3)))
    added = bc.await_fact("recipients.added")
    assert added == {"list_id": "guests", "recipients": 5, "malformed": 0, "duplicates": 1}
    (batch,) = bc.await_batches(1)
    assert len(batch["recipients"]) == 4
    bc.publish(part("guests", 1, (1, 2, 3)))
    bc.publish(part("guests", 1, (1, 2)), part("guests", 3, (9,)))
    errors = [
        str(dead_letter.message.headers["wch-error-message"])
        for dead_letter in bc.stage.await_dead_letters("broadcast.recipients.dlq", 2)
    ]
    assert any("already has another part 1" in one for one in errors), errors
    assert any("is complete" in one for one in errors), errors


def test_a_part_beyond_the_last_is_refused(bc: BroadcastStage) -> None:
    bc.start()
    bc.publish(part("guests", 1, (1,), parts=2))
    eventually(lambda: bc.query("SELECT parts FROM lists") == [(2,)])
    bc.publish(part("guests", 3, (9,)))
    (dead_letter,) = bc.stage.await_dead_letters("broadcast.recipients.dlq")
    assert "the list guests has 2 parts, so it cannot have a part 3" in str(
        dead_letter.message.headers["wch-error-message"]
    )
    bc.publish(part("guests", 2, (9,), parts=4))
    errors = [
        str(one.message.headers["wch-error-message"])
        for one in bc.stage.await_dead_letters("broadcast.recipients.dlq", 2)
    ]
    assert "data.parts: an earlier part gave the list guests 2 parts, not 4" in errors[-1]


def test_a_campaign_fails_if_its_list_does_not_arrive(bc: BroadcastStage) -> None:
    bc.start()
    bc.publish(campaign("big", None, list_id="unknown"))
    eventually(lambda: bc.state("big")[0] == "waiting")
    bc.query("UPDATE campaigns SET progressed_at = now() - interval '31 minutes', due_at = now()")
    assert bc.await_fact("campaign.failed")["reason"] == "list_incomplete"
