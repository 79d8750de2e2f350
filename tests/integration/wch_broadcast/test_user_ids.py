"""Recipients of campaigns by Meta's ids of them, alone or beside their number."""

from __future__ import annotations

from pathlib import Path

from support.broadcast_stage import BroadcastStage, campaign
from support.command import wch
from support.waiting import eventually
from support.whatsapp_stage import erased, phone
from wch_common.events.broadcast import CampaignRecipient
from wch_common.events.recipient import Recipient

ID, OTHER_ID, PARENT = "US.15550100001771", "US.15550100002772", "US.ENT.15550100003773"


def run(bc: BroadcastStage, *words: str) -> str:
    """Run `wch campaigns` and return what it prints."""
    return wch(bc.stage, "campaigns", *words, WCH_DATABASE_URL=bc.database_url)


def test_a_person_counts_once_under_every_name_that_the_list_gives(bc: BroadcastStage) -> None:
    bc.start(whatsapp_region="US")
    both = Recipient(phone="(555) 010-0001", user_id=ID)
    to = (both, phone(1), ID, both, OTHER_ID, f" {OTHER_ID}\u200e", PARENT, phone(2), "us.15550100001771")
    bc.publish(campaign("c", None, recipients=tuple(CampaignRecipient(to=one) for one in to)))
    (batch,) = bc.await_batches(1)
    assert [one["to"] for one in batch["recipients"]] == [
        {"phone": phone(1), "user_id": ID, "parent_id": None},
        OTHER_ID,
        PARENT,
        phone(2),
    ]
    assert bc.query("SELECT malformed, duplicates FROM lists") == [(1, 4)]


def test_a_file_may_have_numbers_and_ids(bc: BroadcastStage, tmp_path: Path) -> None:
    bc.start()
    file = tmp_path / "guests.csv"
    file.write_text(f"to\n{phone(1)}\n{ID}\nUS 15550100001771\n{PARENT}\n")
    printed = run(bc, "import", "guests", str(file))
    assert "line 4: to: not a phone number" in printed
    bc.publish(campaign("c", None, list_id="guests"))
    (batch,) = bc.await_batches(1)
    assert [one["to"] for one in batch["recipients"]] == [phone(1), ID, PARENT]


def test_a_person_is_reported_and_erased_under_their_id(bc: BroadcastStage) -> None:
    bc.start()
    both = Recipient(phone=phone(1), user_id=ID)
    bc.publish(campaign("c", None, recipients=tuple(CampaignRecipient(to=one) for one in (both, OTHER_ID))))
    bc.await_batches(1)
    assert phone(1) in run(bc, "report", "c")
    assert OTHER_ID in run(bc, "report", "c")
    bc.publish(erased(ID, OTHER_ID))
    eventually(lambda: bc.query("SELECT phone, user_id, person FROM recipients") == [(None, None, None)] * 2)
