"""One key in two requests: the message is sent once, and both requesters get all its results."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from support.stage import Stage
from support.waiting import eventually
from support.whatsapp_stage import WhatsAppStage, batch, message, phone
from wch_common.events.whatsapp import BatchRecipient, BatchRequested, RetryRequested

LATER = datetime.now(UTC) + timedelta(hours=5)


@pytest.fixture
def wa(stage: Stage, database_url: str) -> Iterator[WhatsAppStage]:
    made = WhatsAppStage(stage, database_url)
    made.start()
    yield made
    made.close()


def with_key(name: str, key: str, number: int) -> BatchRequested:
    """Return a batch of two recipients: one of its own, and one whose key another request has used."""
    known = BatchRecipient(to=phone(number), send_key=key)
    return batch(name, (50,), recipients=(*batch(name, (50,)).recipients, known))


def reported(wa: WhatsAppStage, kind: str) -> dict[str, dict[str, str]]:
    """Return the last result of each recipient by batch, from facts of a kind."""
    results: dict[str, dict[str, str]] = {}
    for fact in wa.facts(kind):
        for one in fact["recipients"]:
            results.setdefault(fact["batch_id"], {})[one["send_key"]] = f"{one['outcome']} {one['reason']}".strip()
    return results


def due(wa: WhatsAppStage) -> None:
    wa.query("UPDATE messages SET due_at = now() WHERE state = 'queued'")


def test_a_batch_waits_for_a_message_of_another_batch_and_both_get_its_results(wa: WhatsAppStage) -> None:
    wa.publish(batch("first", (1,), not_before=LATER), requester="shop")
    eventually(lambda: wa.states() == {"first-1": "queued"})
    wa.publish(with_key("second", "first-1", 1), requester="shop")
    eventually(lambda: wa.states() == {"first-1": "queued", "second-50": "accepted"})
    eventually(
        lambda: wa.query("SELECT batch_id, open FROM batches ORDER BY batch_id") == [("first", 1), ("second", 1)]
    )
    assert wa.facts("batch.completed") == []
    due(wa)
    results = {"first": {"first-1": "accepted"}, "second": {"first-1": "accepted", "second-50": "accepted"}}
    eventually(lambda: reported(wa, "batch.completed") == results)
    wa.publish(wa.status("first-1", "delivered"))
    eventually(
        lambda: reported(wa, "batch.updated") == {name: {"first-1": "delivered"} for name in ("first", "second")}
    )
    assert len(wa.sent_to(1)) == 1


def test_a_batch_waits_for_a_message_that_was_requested_alone(wa: WhatsAppStage) -> None:
    wa.publish(message(1, not_before=LATER), requester="shop")
    eventually(lambda: wa.states() == {"key-1": "queued"})
    wa.publish(with_key("b", "key-1", 1), requester="shop")
    eventually(lambda: wa.states() == {"key-1": "queued", "b-50": "accepted"})
    assert wa.facts("batch.completed") == []
    due(wa)
    eventually(lambda: reported(wa, "batch.completed") == {"b": {"key-1": "accepted", "b-50": "accepted"}})
    assert [fact["send_key"] for fact in wa.facts("message.accepted")] == ["key-1"]
    wa.publish(wa.status("key-1", "read"))
    eventually(lambda: reported(wa, "batch.updated") == {"b": {"key-1": "read"}})
    eventually(lambda: wa.facts("message.read"))


def test_a_single_request_for_a_message_of_a_batch_gets_its_own_fact(wa: WhatsAppStage) -> None:
    wa.publish(batch("b", (1,), not_before=LATER), requester="shop")
    eventually(lambda: wa.states() == {"b-1": "queued"})
    wa.publish(message(1, send_key="b-1"), requester="shop")
    eventually(lambda: wa.row("b-1")["requested_alone"])
    due(wa)
    (fact,) = eventually(lambda: wa.facts("message.accepted"))
    assert fact["send_key"] == "b-1"
    eventually(lambda: reported(wa, "batch.completed") == {"b": {"b-1": "accepted"}})
    assert len(wa.calls) == 1


def test_a_message_requested_before_that_waits_for_its_number_is_reported_as_deferred(wa: WhatsAppStage) -> None:
    wa.query("UPDATE numbers SET paused_until = now() + interval '1 hour', cause = 'billing'")
    wa.publish(message(1), requester="shop")
    eventually(lambda: wa.states() == {"key-1": "queued"})
    for name in ("first", "second"):
        known = BatchRecipient(to=phone(1), send_key="key-1")
        wa.publish(batch(name, (), recipients=(known,)), requester="shop")
        eventually(lambda: reported(wa, "batch.completed").get(name) == {"key-1": "deferred billing"})


def test_a_message_requested_before_that_waits_for_the_next_day_is_reported_as_deferred(wa: WhatsAppStage) -> None:
    wa.publish(message(1, not_before=LATER), requester="shop")
    eventually(lambda: wa.states() == {"key-1": "queued"})
    wa.query("UPDATE messages SET reason = 'messaging_limit'")  # as a full tier defers it
    wa.publish(batch("b", (), recipients=(BatchRecipient(to=phone(1), send_key="key-1"),)), requester="shop")
    eventually(lambda: reported(wa, "batch.completed") == {"b": {"key-1": "deferred messaging_limit"}})
    due(wa)
    eventually(lambda: reported(wa, "batch.updated") == {"b": {"key-1": "accepted"}})


def test_a_retry_is_reported_to_every_requester(wa: WhatsAppStage) -> None:
    wa.graph.message_errors[phone(1)] = (131026, "undeliverable")
    wa.publish(batch("first", (1,)), requester="shop")
    eventually(lambda: wa.states() == {"first-1": "failed"})
    wa.publish(with_key("second", "first-1", 1), requester="shop")
    results = {"first-1": "failed undeliverable", "second-50": "accepted"}
    eventually(lambda: reported(wa, "batch.completed").get("second") == results)
    wa.graph.message_errors.clear()
    for expected in (1, 2):  # sent, and then reported again
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
