"""Erasing a person from Meta's contact books, too: which ids Meta is asked for, and what happens while it cannot be asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from support.stage import Stage
from support.waiting import eventually
from support.whatsapp_stage import NUMBER, SHORT, WhatsAppStage, message, phone, wrote
from wch_common.contract.event import new_event
from wch_common.events.meta import MetaUser, UserChanged
from wch_common.events.recipient import Recipient
from wch_common.events.whatsapp import RecipientEraseRequested
from wch_common.settings import QueueSettings
from wch_simulators.graph import GraphSimulator
from wch_simulators.running import InThread
from wch_whatsapp.contact_books import Deletion

ID, OTHER_ID, SOUTHERN_ID = "US.15550100001771", "US.15550100002772", "US.15550100003773"
PARENT = "US.ENT.15550100001774"
REFUSED = {"error": {"message": f"Unknown bsuid {ID}", "code": 100}}
BUSY = {"error": {"message": "Too many calls", "code": 4}}
ALWAYS = 1_000_000
TWO_ATTEMPTS = SHORT | {"WHATSAPP_CONTROL": QueueSettings(retry_delays=(2,), tries=1)}


@pytest.fixture
def wa(stage: Stage, database_url: str) -> Iterator[WhatsAppStage]:
    made = WhatsAppStage(stage, database_url)
    yield made
    made.close()


def erase(**who: str) -> RecipientEraseRequested:
    recipient = Recipient(phone=phone(1), **who)
    return RecipientEraseRequested(phone=recipient, reason="requested by mail", by="tests", contact_book=True)


def handle(wa: WhatsAppStage, *facts: Any) -> None:
    """Publish facts and wait until they are handled."""
    statement = "SELECT count(*) FROM inbox WHERE queue = 'whatsapp.inbound'"
    before = wa.query(statement)[0][0]
    wa.publish(*facts)
    eventually(lambda: wa.query(statement) == [(before + len(facts),)])


def link(wa: WhatsAppStage, id_: str = ID, **changes: Any) -> None:
    """Let Meta say that number 1 and an id are the same person's."""
    handle(wa, wrote(1, f"Hello {id_}", user_id=id_, **changes))


def changed(previous: str, current: str, **changes: Any) -> UserChanged:
    values: dict[str, Any] = {
        "phone_number_id": NUMBER,
        "message_id": f"wamid.changed-{current}",
        "timestamp": datetime.now(UTC),
        "previous": MetaUser(user_id=previous),
        "current": MetaUser(user_id=current, wa_id=phone(1).lstrip("+")),
    }
    return UserChanged(**(values | changes))


def values(wa: WhatsAppStage) -> set[str]:
    """Return the names of people that are known in clear."""
    return {row[0] for row in wa.query("SELECT value FROM person_ids WHERE value IS NOT NULL")}


def calls(wa: WhatsAppStage) -> list[dict[str, Any]]:
    return wa.graph.journal.calls("/contact_book", "DELETE")


def answered(wa: WhatsAppStage) -> dict[str, Any]:
    """Wait for the answer to the only request; return it."""
    (fact,) = eventually(lambda: wa.facts("recipient.erased"))
    return dict(fact)


def counts(wa: WhatsAppStage) -> list[tuple[int, int, int]]:
    """Return how many ids were deleted, refused and failed, by portfolio."""
    return [(one["deleted"], one["refused"], one["failed"]) for one in answered(wa)["contact_books"]]


def test_every_id_is_deleted_by_a_number_of_its_portfolio_with_its_token(wa: WhatsAppStage, tmp_path: Path) -> None:
    south = GraphSimulator(token="another token")
    with InThread(south) as running:
        numbers: dict[str, Any] = {"rate": 0, "messaging_limit": -1}
        northern = {"token": wa.graph.token, "url": wa.graph_url}
        shops = {
            "north": {
                "graph": northern,
                "whatsapp": numbers | {"phone_number_ids": ["1", "11"], "portfolio": "northern"},
            },
            "east": {"graph": northern, "whatsapp": numbers | {"phone_number_ids": ["2"], "portfolio": "northern"}},
            "south": {
                "graph": {"token": south.token, "url": running.url},
                "whatsapp": numbers | {"phone_number_ids": ["3"]},
            },
        }
        file = tmp_path / "shops.json"
        file.write_text(json.dumps(shops))
        wa.start(shops_file=file)
        link(wa, ID, phone_number_id="11", parent_id=PARENT)
        link(wa, SOUTHERN_ID, phone_number_id="3", message_id="wamid.south")
        handle(wa, changed(ID, OTHER_ID, phone_number_id="2"))
        handle(wa, wrote(2, user_id="US.15550100009779", phone_number_id="1"))
        assert values(wa) >= {phone(1), ID, OTHER_ID, SOUTHERN_ID, PARENT}
        wa.graph.contact_book = {OTHER_ID}
        wa.publish(erase())
        found = {one["portfolio"]: one for one in answered(wa)["contact_books"]}
        zero = {"refused": 0, "failed": 0}
        assert found == {
            "northern": {"portfolio": "northern", "deleted": 2, **zero},
            "south": {"portfolio": "south", "deleted": 1, **zero},
        }
        assert sorted(wa.graph.contact_book_deletions) == [("1", ID), ("1", OTHER_ID)]
        assert south.contact_book_deletions == [("3", SOUTHERN_ID)]
        assert wa.graph.contact_book == set()
        assert values(wa) == {phone(2), "US.15550100009779"}, "others are as they were"


def test_meta_is_not_asked_without_the_option(wa: WhatsAppStage) -> None:
    wa.start()
    link(wa)
    assert "Meta's contact book is not asked: --contact-book" in wa.recipients("erase", phone(1), "--dry-run")
    assert "Meta's contact book is not asked: --contact-book" in wa.recipients("erase", phone(1))
    assert answered(wa)["contact_books"] == []
    assert calls(wa) == []
    assert "contact book" not in wa.recipients("erase", phone(2)), "there is nothing to ask it for"


def test_the_command_prints_what_meta_answered(wa: WhatsAppStage) -> None:
    wa.start()
    link(wa)
    wa.graph.contact_book = {ID}
    printed = wa.recipients("erase", phone(1), "--contact-book", "--dry-run")
    assert "would ask Meta's contact book to delete 1 user id" in printed
    assert calls(wa) == []
    printed = wa.recipients("erase", phone(1), "--contact-book")
    assert "Meta's contact book: 1 user id deleted\n" in printed
    assert ID not in printed
    assert wa.graph.contact_book_deletions == [(NUMBER, ID)]
    printed = wa.recipients("erase", phone(1), "--contact-book")
    assert "Meta's contact book is not asked: no user id of the person is known" in printed
    (answer,) = json.loads(wa.recipients("erase", ID, "--contact-book", "--json"))["contact_books"]
    assert answer == {"portfolio": "", "deleted": 1, "refused": 0, "failed": 0}, "by an id that only the operator knows"
    assert wa.graph.contact_book_deletions == [(NUMBER, ID)] * 2


def test_a_person_with_a_number_alone_is_erased_without_a_call(wa: WhatsAppStage) -> None:
    wa.start()
    wa.publish(message(1))
    eventually(lambda: wa.states() == {"key-1": "accepted"})
    assert "no user id of the person is known" in wa.recipients("erase", phone(1), "--contact-book", "--dry-run")
    printed = wa.recipients("erase", phone(1), "--contact-book")
    assert "1 row in whatsapp.messages" in printed
    assert "Meta's contact book is not asked: no user id of the person is known" in printed
    assert answered(wa)["contact_books"] == []
    assert calls(wa) == []


def test_neither_a_parent_id_nor_a_number_is_sent(wa: WhatsAppStage) -> None:
    wa.start()
    wa.publish(erase(parent_id=PARENT))
    assert answered(wa)["contact_books"] == []
    assert calls(wa) == []


def test_names_are_kept_until_meta_is_reachable_again(wa: WhatsAppStage) -> None:
    wa.start()
    link(wa)
    old = new_event(message(1), "/tests")
    wa.fail_at("/contact_book", reset="before", times=ALWAYS)
    wa.publish(erase())
    eventually(lambda: len(calls(wa)) >= 3, "aiohttp itself repeats a DELETE once")
    assert values(wa) == {phone(1), ID}
    wa.publish(old)
    eventually(lambda: wa.states() == {"key-1": "failed"}, "the person counts as erased already")
    assert wa.row("key-1")["reason"] == "erased"
    assert wa.facts("recipient.erased") == []
    wa.graph.journal.faults.clear()
    assert counts(wa) == [(1, 0, 0)]
    assert values(wa) == set()
    assert wa.graph.contact_book_deletions == [(NUMBER, ID)]


@pytest.mark.parametrize(
    "fault",
    [
        {"reset": "before"},
        {"status": 502, "body": "<html>Bad gateway</html>"},
        {"status": 401, "body": {"error": {"message": "Invalid token", "code": 190}}},
    ],
    ids=["unreachable", "gateway", "token"],
)
def test_own_data_does_not_wait_longer_than_the_attempts_last(wa: WhatsAppStage, fault: dict[str, Any]) -> None:
    wa.start(queues=TWO_ATTEMPTS)
    link(wa)
    wa.fail_at("/contact_book", times=ALWAYS, **fault)
    printed = wa.recipients("erase", phone(1), "--contact-book")
    assert "Meta's contact book: 0 user ids deleted, 1 failed; the log of whatsapp says why" in printed
    assert counts(wa) == [(0, 0, 1)]
    assert len(calls(wa)) >= 2
    assert values(wa) == set()
    assert wa.stage.depth("whatsapp.control.dlq") == 0


def test_meta_is_asked_again_when_it_has_time(wa: WhatsAppStage) -> None:
    wa.start()
    link(wa)
    wa.fail_at("/contact_book", status=400, body=BUSY)
    wa.publish(erase())
    parked = "SELECT count(*) FROM parked WHERE due_at > now() + interval '4 minutes'"
    eventually(lambda: wa.query(parked) == [(1,)], "the request waits for some minutes")
    assert values(wa) == {phone(1), ID}
    wa.query("UPDATE parked SET due_at = now() RETURNING 1")
    assert counts(wa) == [(1, 0, 0)]
    assert len(calls(wa)) == 2


def test_an_id_that_meta_refuses_does_not_keep_our_own_data(
    wa: WhatsAppStage, capfd: pytest.CaptureFixture[str]
) -> None:
    wa.start()
    link(wa)
    link(wa, OTHER_ID, message_id="wamid.other", sender=None)
    handle(wa, changed(ID, OTHER_ID))
    wa.fail_at(f"/contact_book.*{ID}", status=400, body=REFUSED, times=ALWAYS)
    wa.graph.contact_book = {ID, OTHER_ID}
    printed = wa.recipients("erase", phone(1), "--contact-book")
    assert "Meta's contact book: 1 user id deleted, 1 refused; the log of whatsapp says why" in printed
    assert counts(wa) == [(1, 1, 0)]
    assert (values(wa), wa.graph.contact_book) == (set(), {ID})
    assert len(calls(wa)) == 2, "a refusal is final"
    logged = "".join(capfd.readouterr())
    assert "contact_book_entry_not_deleted" in logged
    assert ID not in logged


def test_a_repeated_deletion_is_answered_once(wa: WhatsAppStage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process may die between the deletion and the commit."""
    keep, died = Deletion.keep_answers, threading.Event()

    async def dies_once(self: Deletion, tx: Any) -> None:
        await keep(self, tx)
        if not died.is_set():
            died.set()
            raise RuntimeError("killed")

    monkeypatch.setattr(Deletion, "keep_answers", dies_once)
    wa.start()
    link(wa)
    wa.graph.contact_book = {ID}
    (request,) = wa.publish(erase())
    eventually(died.is_set)
    assert counts(wa) == [(1, 0, 0)]
    assert wa.graph.contact_book_deletions == [(NUMBER, ID)] * 2
    assert wa.query("SELECT erasure, deleted, refused, failed FROM contact_book_answers") == [(request, 1, 0, 0)]
    assert len(wa.facts("recipient.erased")) == 1


def test_an_id_that_becomes_known_while_meta_is_asked_is_deleted_too(wa: WhatsAppStage) -> None:
    wa.start()
    link(wa)
    go_on = threading.Event()
    wa.fail_at("/contact_book", until=go_on)
    wa.publish(erase())
    eventually(lambda: calls(wa))
    handle(wa, changed(ID, OTHER_ID))
    go_on.set()
    assert counts(wa) == [(2, 0, 0)]
    assert set(wa.graph.contact_book_deletions) == {(NUMBER, ID), (NUMBER, OTHER_ID)}
    assert values(wa) == set()


def test_an_id_of_a_portfolio_without_a_number_is_reported(wa: WhatsAppStage) -> None:
    wa.start()
    link(wa)
    wa.query("UPDATE person_ids SET portfolio = 'given up' RETURNING 1")
    wa.publish(erase())
    assert answered(wa)["contact_books"] == [{"portfolio": "given up", "deleted": 0, "refused": 0, "failed": 1}]
    assert calls(wa) == []


def test_two_requesters_may_use_the_same_id(wa: WhatsAppStage) -> None:
    wa.start()
    for number, source in enumerate(("/one", "/other"), start=1):
        wa.publish(new_event(erase(user_id=ID), source, id="the same"))
        eventually(lambda number=number: len(wa.facts("recipient.erased")) == number)  # type: ignore[misc]
    assert [one["contact_books"][0]["deleted"] for one in wa.facts("recipient.erased")] == [1, 1]
