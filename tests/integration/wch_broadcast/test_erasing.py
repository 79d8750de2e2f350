"""Erasing a person from lists, once whatsapp says who it is, on a real broker and database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from support.broadcast_stage import BroadcastStage, campaign
from support.waiting import eventually
from support.whatsapp_stage import erased, phone
from wch_common.events.broadcast import (
    CampaignPauseRequested,
    CampaignRecipient,
    CampaignResumeRequested,
)
from wch_common.events.whatsapp_content import Parameter


def guest(number: int) -> CampaignRecipient:
    """Return a recipient with own values."""
    return CampaignRecipient(to=phone(number), body=(Parameter(text=f"Guest {number}"),))


def erase(bc: BroadcastStage, number: str, times: int) -> dict[str, Any]:
    """Publish that a person was erased, and return the fact with that number."""
    bc.publish(erased(number, erasure=f"erasure-{times}"), requester="crm")
    return bc.await_fact("recipient.erased", times)


def counts(fact: dict[str, Any]) -> dict[str, int]:
    """Return the rows of a fact by table."""
    return {one["table"]: one["rows"] for one in fact["rows"]}


def test_an_erasure_erases_a_person_from_every_list_and_is_answered(bc: BroadcastStage) -> None:
    bc.start()
    later = datetime.now(UTC) + timedelta(days=1)
    for name in ("a", "b"):
        recipients = (guest(1), guest(2), guest(1))
        bc.publish(campaign(name, None, recipients=recipients, start_at=later, exclusive=False))
    eventually(lambda: bc.query("SELECT count(*) FROM recipients") == [(6,)])
    assert counts(erase(bc, phone(1), 1)) == {"recipients": 4, "outbox": 0, "parked": 0}
    assert "broadcast.recipient.erased.v1.crm" in bc.keys
    rows = bc.query(
        "SELECT phone, person, own_values IS NULL, skip_reason FROM recipients WHERE position <> 1001 ORDER BY list, position"
    )
    assert rows == [(None, None, True, "erased"), (None, None, True, "duplicate_number")] * 2
    kept = bc.query("SELECT phone, own_values IS NULL, skip_reason FROM recipients WHERE position = 1001")
    assert kept == [(phone(2), False, None)] * 2


def test_a_second_erasure_is_answered_with_no_rows(bc: BroadcastStage) -> None:
    bc.start()
    bc.publish(campaign("a", range(2), start_at=datetime.now(UTC) + timedelta(days=1)))
    eventually(lambda: bc.query("SELECT count(*) FROM recipients") == [(2,)])
    assert counts(erase(bc, phone(1), 1))["recipients"] == 1
    assert set(counts(erase(bc, phone(1), 2)).values()) == {0}


def test_a_person_is_erased_and_skipped(bc: BroadcastStage) -> None:
    bc.start(broadcast_in_flight=1)
    guests = (CampaignRecipient(to=phone(n), body=(Parameter(text=f"Guest {n}"),)) for n in range(3))
    bc.publish(campaign("f", None, recipients=tuple(guests), batch_size=1))
    (first,) = bc.await_batches(1)
    bc.publish(CampaignPauseRequested(campaign_id="f", by="tests"))
    bc.await_fact("campaign.paused")
    for number in (0, 1):
        erase(bc, phone(number), number + 1)
    assert bc.query("SELECT count(*) FROM recipients WHERE phone = ANY(%s)", [phone(0), phone(1)]) == [(0,)]
    assert bc.query("SELECT own_values->'body'->0->>'text' FROM recipients WHERE own_values IS NOT NULL") == [
        ("Guest 2",)
    ]
    bc.publish(CampaignResumeRequested(campaign_id="f", by="tests"))
    bc.answer(first)
    last = bc.await_batches(2)[1]
    assert [one["to"] for one in last["recipients"]] == [phone(2)]
    bc.answer(last)
    totals = bc.await_fact("campaign.completed")["totals"]
    assert (totals["sent"], totals["skipped_by"]) == (2, [{"reason": "erased", "recipients": 1}])
