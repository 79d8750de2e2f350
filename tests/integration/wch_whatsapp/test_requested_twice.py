"""One key in two requests: it is sent once, and both who asked are told all that becomes of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from support.stage import Stage
from support.waiting import eventually
from support.whatsapp_stage import WhatsAppStage, batch, message, phone
from wch_common.events.whatsapp import BatchRequested, Recipient, RetryRequested

LATER = datetime.now(UTC) + timedelta(hours=5)


@pytest.fixture
def wa(stage: Stage, database_url: str) -> Iterator[WhatsAppStage]:
    made = WhatsAppStage(stage, database_url)
    made.start()
    yield made
    made.close()


def with_key(name: str, key: str, number: int) -> BatchRequested:
    """A batch of two: one of its own, and one whose key another request has."""
    known = Recipient(to=phone(number), send_key=key)
    return batch(name, (50,), recipients=(*batch(name, (50,)).recipients, known))


def told(wa: WhatsAppStage, kind: str) -> dict[str, dict[str, str]]:
    """What each batch was told last of each recipient, by facts of a kind."""
    said: dict[str, dict[str, str]] = {}
    for fact in wa.facts(kind):
        for one in fact["recipients"]:
            said.setdefault(fact["batch_id"], {})[one["send_key"]] = f"{one['outcome']} {one['reason']}".strip()
    return said


def due(wa: WhatsAppStage) -> None:
    wa.query("UPDATE messages SET due_at = now() WHERE state = 'queued'")


def test_a_batch_waits_for_what_another_batch_asked_for_and_both_are_told_of_it(wa: WhatsAppStage) -> None:
    wa.publish(batch("first", (1,), not_before=LATER), requester="shop")
    eventually(lambda: wa.states() == {"first-1": "queued"})
    wa.publish(with_key("second", "first-1", 1), requester="shop")
    eventually(lambda: wa.states() == {"first-1": "queued", "second-50": "accepted"})
    eventually(
        lambda: wa.query("SELECT batch_id, open FROM batches ORDER BY batch_id") == [("first", 1), ("second", 1)]
    )
    assert wa.facts("batch.completed") == []
    due(wa)
    everybody = {"first": {"first-1": "accepted"}, "second": {"first-1": "accepted", "second-50": "accepted"}}
    eventually(lambda: told(wa, "batch.completed") == everybody)
    wa.publish(wa.status("first-1", "delivered"))
    eventually(lambda: told(wa, "batch.updated") == {name: {"first-1": "delivered"} for name in ("first", "second")})
    assert len(wa.sent_to(1)) == 1


def test_a_batch_waits_for_what_was_asked_for_by_itself(wa: WhatsAppStage) -> None:
    wa.publish(message(1, not_before=LATER), requester="shop")
    eventually(lambda: wa.states() == {"key-1": "queued"})
    wa.publish(with_key("b", "key-1", 1), requester="shop")
    eventually(lambda: wa.states() == {"key-1": "queued", "b-50": "accepted"})
    assert wa.facts("batch.completed") == []
    due(wa)
    eventually(lambda: told(wa, "batch.completed") == {"b": {"key-1": "accepted", "b-50": "accepted"}})
    assert [fact["send_key"] for fact in wa.facts("message.accepted")] == ["key-1"]
    wa.publish(wa.status("key-1", "read"))
    eventually(lambda: told(wa, "batch.updated") == {"b": {"key-1": "read"}})
    eventually(lambda: wa.facts("message.read"))


def test_who_asks_by_itself_for_what_waits_in_a_batch_is_told_by_itself(wa: WhatsAppStage) -> None:
    wa.publish(batch("b", (1,), not_before=LATER), requester="shop")
    eventually(lambda: wa.states() == {"b-1": "queued"})
    wa.publish(message(1, send_key="b-1"), requester="shop")
    eventually(lambda: wa.row("b-1")["asked_alone"])
    due(wa)
    (fact,) = eventually(lambda: wa.facts("message.accepted"))
    assert fact["send_key"] == "b-1"
    eventually(lambda: told(wa, "batch.completed") == {"b": {"b-1": "accepted"}})
    assert len(wa.calls) == 1


def test_a_batch_is_told_that_what_was_asked_for_before_waits_for_its_number(wa: WhatsAppStage) -> None:
    wa.query("UPDATE numbers SET paused_until = now() + interval '1 hour', cause = 'billing'")
    wa.publish(message(1), requester="shop")
    eventually(lambda: wa.states() == {"key-1": "queued"})
    for name in ("first", "second"):
        known = Recipient(to=phone(1), send_key="key-1")
        wa.publish(batch(name, (), recipients=(known,)), requester="shop")
        eventually(lambda: told(wa, "batch.completed").get(name) == {"key-1": "deferred billing"})


def test_a_batch_is_told_that_what_was_asked_for_before_waits_for_the_next_day(wa: WhatsAppStage) -> None:
    wa.publish(message(1, not_before=LATER), requester="shop")
    eventually(lambda: wa.states() == {"key-1": "queued"})
    wa.query("UPDATE messages SET reason = 'messaging_limit'")  # as a tier that is full puts it off
    wa.publish(batch("b", (), recipients=(Recipient(to=phone(1), send_key="key-1"),)), requester="shop")
    eventually(lambda: told(wa, "batch.completed") == {"b": {"key-1": "deferred messaging_limit"}})
    due(wa)
    eventually(lambda: told(wa, "batch.updated") == {"b": {"key-1": "accepted"}})


def test_what_is_tried_again_is_told_to_all_who_asked(wa: WhatsAppStage) -> None:
    wa.graph.message_errors[phone(1)] = (131026, "undeliverable")
    wa.publish(batch("first", (1,)), requester="shop")
    eventually(lambda: wa.states() == {"first-1": "failed"})
    wa.publish(with_key("second", "first-1", 1), requester="shop")
    said = {"first-1": "failed undeliverable", "second-50": "accepted"}
    eventually(lambda: told(wa, "batch.completed").get("second") == said)
    wa.graph.message_errors.clear()
    for expected in (1, 2):  # sent, and then answered with what is known
        wa.publish(RetryRequested(send_keys=("first-1",)), requester="shop")
        eventually(lambda: len(updates(wa)) == 2 * expected)
        assert {(batch_id, outcome) for batch_id, outcome, _ in updates(wa)} == {
            (name, "accepted") for name in ("first", "second")
        }
    assert len(wa.sent_to(1)) == 1


def updates(wa: WhatsAppStage) -> list[tuple[Any, ...]]:
    return [
        (fact["batch_id"], one["outcome"], fact["version"])
        for fact in wa.facts("batch.updated")
        for one in fact["recipients"]
    ]
