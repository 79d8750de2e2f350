"""Which campaign of a shop runs when, on a real broker and database."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from support.broadcast_stage import BroadcastStage, campaign, totals_of
from support.waiting import eventually
from wch_common.events.broadcast import (
    CampaignPauseRequested,
    CampaignResumeRequested,
)


def test_exclusive_campaigns_of_a_shop_run_one_at_a_time_in_order(bc: BroadcastStage) -> None:
    bc.start()
    names = ("a", "b", "c")
    for number, name in enumerate(names):
        bc.publish(campaign(name, range(number * 10, number * 10 + 1)))
        eventually(lambda name=name: bc.state(name)[0] != "")  # type: ignore[misc]
    bc.publish(campaign("beside", range(90, 91), exclusive=False))
    assert {one["batch_id"] for one in bc.await_batches(2)} == {"a/1", "beside/1"}
    assert bc.state("b") == ("waiting", "another_campaign")
    for number, name in enumerate(names):
        found = eventually(lambda name=name: [one for one in bc.batches if one["batch_id"] == f"{name}/1"])  # type: ignore[misc]
        assert len(bc.batches) == number + 2
        bc.answer(found[0])
    bc.await_fact("campaign.completed", 3)


def test_campaigns_that_cannot_start_yet_block_no_other(bc: BroadcastStage) -> None:
    bc.start()
    bc.publish(campaign("tomorrow", range(1), start_at=datetime.now(UTC) + timedelta(days=1)))
    eventually(lambda: bc.state("tomorrow") == ("waiting", "start_at"))
    bc.publish(campaign("listless", None, list_id="unknown"))
    eventually(lambda: bc.state("listless") == ("waiting", "list_incomplete"))
    bc.publish(campaign("now", range(1)))
    assert bc.await_batches(1)[0]["batch_id"] == "now/1"


def test_the_next_campaign_starts_after_a_pause_or_failure_and_waits_for_a_resumed_one(bc: BroadcastStage) -> None:
    bc.start()
    for number, name in enumerate(("a", "b", "c")):
        bc.publish(campaign(name, range(number, number + 1)))
        eventually(lambda name=name: bc.state(name)[0] != "")  # type: ignore[misc]
    bc.await_batches(1)
    bc.publish(CampaignPauseRequested(campaign_id="a", by="me"))
    assert bc.await_batches(2)[1]["batch_id"] == "b/1"
    bc.query("UPDATE campaigns SET progressed_at = now() - interval '1 day', due_at = now() WHERE campaign_id = 'b'")
    assert bc.await_fact("campaign.failed")["reason"] == "stuck"
    bc.answer(bc.await_batches(3)[2])
    assert bc.await_fact("campaign.completed")["campaign_id"] == "c"
    bc.publish(CampaignResumeRequested(campaign_id="b", by="me"))
    bc.await_fact("campaign.resumed")
    assert bc.state("b") == ("running", "")
    bc.publish(campaign("d", range(9, 10)))
    eventually(lambda: bc.state("d")[0] != "")
    assert bc.state("d") == ("waiting", "another_campaign")


def test_shops_do_not_wait_for_each_other(bc: BroadcastStage, tmp_path: Path) -> None:
    file = tmp_path / "shops.json"
    file.write_text(json.dumps({"north": {}, "south": {}}))
    bc.start(shops_file=file)
    bc.publish(campaign("spring", range(1)), shop="north")
    bc.await_batches(1)
    bc.publish(campaign("spring", range(1)), shop="south")
    assert [one["batch_id"] for one in bc.await_batches(2)] == ["spring/1", "spring/1"]


def test_a_campaign_waits_for_start_at_and_gives_stop_at_as_expiry(bc: BroadcastStage) -> None:
    bc.start()
    now = datetime.now(UTC)
    soon = now + timedelta(seconds=2)
    bc.publish(campaign("later", range(2), batch_size=1, start_at=soon, stop_at=soon + timedelta(seconds=2)))
    eventually(lambda: bc.state("later") == ("waiting", "start_at"))
    (batch,) = bc.await_batches(1)[:1]
    assert datetime.fromisoformat(batch["expires_at"]) == soon + timedelta(seconds=2)
    ((started,),) = bc.query("SELECT started_at FROM campaigns")
    assert started >= soon


def test_recipients_that_are_not_released_by_stop_at_are_skipped(bc: BroadcastStage) -> None:
    bc.start(broadcast_in_flight=1)
    stop = datetime.now(UTC) + timedelta(seconds=3)
    bc.publish(campaign("short", range(5), batch_size=2, stop_at=stop))
    (batch,) = bc.await_batches(1)
    eventually(lambda: bc.query("SELECT 1 FROM campaigns WHERE stopped") == [(1,)])
    bc.answer(batch)
    assert totals_of(bc.await_fact("campaign.completed")) == {
        "recipients": 5, "sent": 2, "skipped": 3, "skipped_by": {"stopped": 3}
    }  # fmt: skip
