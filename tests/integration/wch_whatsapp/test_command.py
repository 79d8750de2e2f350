"""`wch whatsapp`: reads the ledger, and requests retries and suppressions."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from support.command import wch
from support.stage import Stage
from support.waiting import eventually
from support.whatsapp_stage import NUMBER, WhatsAppStage, message, phone


@pytest.fixture
def wa(stage: Stage, database_url: str) -> Iterator[WhatsAppStage]:
    made = WhatsAppStage(stage, database_url)
    made.start()
    yield made
    made.close()


def test_the_command_lists_shows_counts_and_retries_messages(wa: WhatsAppStage) -> None:
    wa.graph.message_errors[phone(2)] = (131026, "undeliverable")
    wa.publish(message(1), message(2), requester="carts")
    eventually(lambda: wa.states() == {"key-1": "accepted", "key-2": "failed"})
    listed = json.loads(wa.command("list", "--state", "failed", "--json"))
    assert [(row["send_key"], row["reason"], row["code"]) for row in listed] == [("key-2", "undeliverable", 131026)]
    for output in (wa.command("list"), wa.command("show", "key-2"), wa.command("stats")):
        assert "undeliverable" in output
        assert phone(2) not in output
    assert "the ledger has no message x" in wa.command("show", "x", code=1)
    assert "choose the messages to retry" in wa.command("retry", code=1)
    assert "would request a retry of 1 failed" in wa.command("retry", "--reason", "undeliverable", "--dry-run")
    assert "no such message: nokey" in wa.command("retry", "--key", "key-2", "--key", "nokey", code=1)
    output = wa.command("retry", "--key", "key-1", "--key", "key-2", "--dry-run")
    assert "would request a retry of 1 failed messages" in output
    assert "skipped: 1 accepted" in output
    assert "only the newest 1 messages" in wa.command("list", "--limit", "1")
    assert "has no country code" in wa.command("suppress", "0301234567", "--reason", "x", code=1)
    wa.command("suppress", phone(8), "--reason", "a trial", "--dry-run")
    output = wa.command("suppress", phone(7), "--reason", "asked by mail")
    assert phone(7) not in output
    eventually(lambda: wa.query("SELECT category FROM suppressions") == [("all",)])
    eventually(lambda: wa.query("SELECT count(*) FROM inbox WHERE queue = 'whatsapp.control'") == [(1,)])
    assert wa.row("key-2")["attempt"] == 1, "dry runs requested nothing"
    wa.graph.message_errors.clear()
    assert "requested a retry of 1 failed" in wa.command("retry", "--all", "--requester", "carts")
    eventually(lambda: wa.states()["key-2"] == "accepted")
    wa.command("suppress", phone(7), "--reason", "asked by mail", "--category", "marketing")
    eventually(lambda: wa.query("SELECT count(*) FROM suppressions") == [(2,)])
    assert "give the category to remove" in wa.command("suppress", phone(7), "--reason", "again", "--remove", code=1)
    wa.command("suppress", phone(7), "--reason", "again", "--remove", "--category", "all")
    eventually(lambda: wa.query("SELECT category FROM suppressions") == [("marketing",)], "other suppressions stay")
    wa.query("UPDATE numbers SET cause = 'billing', paused_until = now() + interval '1 hour'")
    assert f"{NUMBER} is paused: billing" in wa.command("stats")
    assert "give --database-url" in wch(wa.stage, "whatsapp", "list", code=1)
