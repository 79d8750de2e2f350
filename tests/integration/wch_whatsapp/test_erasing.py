"""Erasing a recipient: the request, its effect on every table, and the command that sends it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from support.stage import Stage
from support.waiting import eventually
from support.whatsapp_stage import WhatsAppStage, batch, message, phone, suppression, wrote
from wch_common.contract.personal import ERASED
from wch_common.events.whatsapp import BatchRecipient, RecipientEraseRequested

LATER = datetime.now(UTC) + timedelta(hours=5)
ERASED_TABLES = {"messages", "person_ids", "suppressions", "windows", "pairs", "reached"}
NO_EVENTS = {"outbox": 0, "parked": 0}
NO_LINKS = NO_EVENTS | {"person_ids": 0}


@pytest.fixture
def wa(stage: Stage, database_url: str) -> Iterator[WhatsAppStage]:
    made = WhatsAppStage(stage, database_url)
    yield made
    made.close()


def erase(number: str) -> RecipientEraseRequested:
    return RecipientEraseRequested(phone=number, reason="requested by mail", by="tests")


def counts(fact: dict[str, Any]) -> dict[str, int]:
    return {one["table"]: one["rows"] for one in fact["rows"]}


def known_recipient(wa: WhatsAppStage) -> None:
    """Give recipient 1 a row in each table: messages, a suppression, a window, a pair, and a place of the day."""
    wa.start()
    wa.publish(suppression(1, "marketing"))
    eventually(lambda: wa.query("SELECT count(*) FROM suppressions") == [(1,)])
    wa.publish(message(1), message(1, send_key="utility", category="utility"), batch("b", (1,), not_before=LATER))
    eventually(lambda: wa.states() == {"key-1": "suppressed", "utility": "accepted", "b-1": "queued"})
    wa.publish(wrote(1))
    eventually(lambda: wa.query("SELECT count(*) FROM windows") == [(1,)])


def test_an_erased_recipient_leaves_no_number_and_stays_suppressed(wa: WhatsAppStage) -> None:
    known_recipient(wa)
    known = json.loads(wa.recipients("export", phone(1)))["whatsapp"]
    assert {one["phone"] for one in known["messages"]} == {phone(1)}
    assert ": 3 rows in whatsapp.messages" in wa.recipients("erase", phone(1), "--dry-run")
    for what in ("erase", "export"):
        refused = wa.recipients(what, phone(1), code=1, WCH_PERSON_HASH_KEY="another key of theirs")
        assert "another hash key" in refused
    output = wa.recipients("erase", phone(1), "--reason", "requested by mail")
    assert output.startswith("erased ")
    for part in (
        "3 rows in whatsapp.messages",
        "1 row in whatsapp.suppressions",
        "1 row in whatsapp.windows",
        "1 row in whatsapp.pairs",
        "1 row in whatsapp.reached",
    ):
        assert part in output
    assert "the person's suppressions stay in force" in output
    assert wa.query("SELECT count(*) FROM messages WHERE content IS NOT NULL OR wamid IS NOT NULL") == [(0,)]
    assert [wa.query(f"SELECT count(*) FROM {table}") for table in ("windows", "pairs", "reached")] == [[(0,)]] * 3
    everything = wa.query("SELECT m::text FROM messages m") + wa.query("SELECT s::text FROM suppressions s")
    assert not [row for row in everything if phone(1).removeprefix("+") in row[0]]
    eventually(lambda: wa.states()["b-1"] == "failed", "the queued message ends, and its batch is completed")
    eventually(lambda: wa.facts("batch.completed"))
    wa.publish(message(1, send_key="later"))
    eventually(lambda: wa.states().get("later") == "suppressed")


def test_an_erase_request_is_answered_with_the_erased_rows_and_a_repeated_one_with_none(wa: WhatsAppStage) -> None:
    known_recipient(wa)
    wa.publish(erase(phone(1)), requester="support")
    (fact,) = eventually(lambda: [one for one in wa.published() if "erased" in one["type"]])
    assert fact["key"] == "whatsapp.recipient.erased.v1.support"
    assert counts(fact["data"]) == {"messages": 3, "suppressions": 1, "windows": 1, "pairs": 1, "reached": 1} | NO_LINKS
    assert "subject" not in fact
    assert fact["data"]["names"] == [phone(1)], "the other services need it"
    eventually(lambda: wa.states()["b-1"] == "failed")
    wa.publish(erase(phone(1)), requester="support")
    _, again = eventually(lambda: two if len(two := wa.facts("recipient.erased")) == 2 else [])
    assert counts(again) == dict.fromkeys(ERASED_TABLES, 0) | NO_EVENTS
    output = wa.recipients("erase", phone(1))
    assert "nothing is stored about" in output


def test_a_dry_run_erases_nothing_and_requests_nothing(wa: WhatsAppStage) -> None:
    known_recipient(wa)
    before = wa.query("SELECT m::text FROM messages m ORDER BY id")
    requests = "SELECT count(*) FROM inbox WHERE queue = 'whatsapp.control'"
    handled = wa.query(requests)
    printed = json.loads(wa.recipients("erase", phone(1), "--dry-run", "--json"))
    assert printed["dry_run"]
    assert (
        printed["rows"]["whatsapp"]
        == {"messages": 3, "suppressions": 1, "windows": 1, "pairs": 1, "reached": 1} | NO_LINKS
    )
    wa.publish(suppression(2))
    eventually(lambda: wa.query("SELECT count(*) FROM suppressions") == [(2,)], "a later request is handled")
    assert wa.query(requests) == [(handled[0][0] + 1,)]
    assert wa.query("SELECT m::text FROM messages m ORDER BY id") == before
    assert wa.facts("recipient.erased") == []


def test_a_recipient_is_erased_from_all_shops(wa: WhatsAppStage, tmp_path: Path) -> None:
    graph = {"token": wa.graph.token, "url": wa.graph_url}
    file = tmp_path / "shops.json"
    shops = (("north", "1"), ("south", "3"))
    numbers = {"rate": 0, "messaging_limit": -1}
    file.write_text(
        json.dumps({name: {"graph": graph, "whatsapp": numbers | {"phone_number_ids": [id_]}} for name, id_ in shops})
    )
    wa.start(shops_file=file)
    for name, _ in shops:
        wa.publish(message(1, send_key=name), shop=name)
    eventually(lambda: wa.states() == {"north": "accepted", "south": "accepted"})
    wa.publish(erase(phone(1)))
    (fact,) = eventually(lambda: wa.facts("recipient.erased"))
    assert counts(fact)["messages"] == 2
    assert wa.query("SELECT count(phone) FROM messages") == [(0,)]


def test_a_request_to_erase_a_malformed_number_is_dead_lettered(wa: WhatsAppStage) -> None:
    wa.start()
    wa.publish(erase("12"))
    (dead_letter,) = wa.stage.await_dead_letters("whatsapp.control.dlq")
    assert str(dead_letter.message.headers["wch-error-message"]).startswith("data.phone: ")


def test_a_request_that_was_erased_while_it_waited_ends_as_erased(wa: WhatsAppStage) -> None:
    wa.start()
    recipients = (BatchRecipient(to=ERASED, send_key="b-1"), BatchRecipient(to=phone(2), send_key="b-2"))
    wa.publish(message(1, to=ERASED), batch("b", (), recipients=recipients))
    eventually(lambda: wa.states() == {"key-1": "failed", "b-1": "failed", "b-2": "accepted"})
    (failed,) = eventually(lambda: wa.facts("message.failed"))
    assert {name: failed[name] for name in ("send_key", "reason", "concerns", "retryable")} == {
        "send_key": "key-1", "reason": "erased", "concerns": "recipient", "retryable": False
    }  # fmt: skip
    (completed,) = eventually(lambda: wa.facts("batch.completed"))
    outcomes = {one["send_key"]: (one["outcome"], one["reason"]) for one in completed["recipients"]}
    assert outcomes == {"b-1": ("skipped", "erased"), "b-2": ("accepted", "")}
    assert wa.stage.depth("whatsapp.message.dlq") == 0
    wa.publish(message(1, to=ERASED))
    eventually(lambda: len(wa.facts("message.failed")) == 2, "a repeated request is answered")
