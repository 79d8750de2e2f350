"""Requests that change accepted messages: cancel and retry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from support.stage import Stage
from support.waiting import eventually
from support.whatsapp_stage import TEXT, WhatsAppStage, batch, message, phone, wrote
from wch_common.events.whatsapp import BatchCancelRequested, MessageCancelRequested, RetryRequested
from wch_common.events.whatsapp_content import Template

LATER = datetime.now(UTC) + timedelta(hours=5)


@pytest.fixture
def wa(stage: Stage, database_url: str) -> Iterator[WhatsAppStage]:
    made = WhatsAppStage(stage, database_url)
    made.start()
    yield made
    made.close()


def test_cancels_a_queued_message_but_not_a_sent_one(wa: WhatsAppStage) -> None:
    wa.publish(message(1, not_before=LATER), message(2), requester="carts")
    eventually(lambda: wa.states() == {"key-1": "queued", "key-2": "accepted"})
    wa.publish(*(MessageCancelRequested(send_key=f"key-{n}", reason="bought") for n in (1, 2)), requester="carts")
    eventually(lambda: wa.states() == {"key-1": "cancelled", "key-2": "accepted"})
    (fact,) = eventually(lambda: wa.facts("message.cancelled"))
    assert (fact["send_key"], fact["reason"]) == ("key-1", "bought")


def test_a_cancellation_holds_for_a_request_that_arrives_later(wa: WhatsAppStage) -> None:
    wa.publish(MessageCancelRequested(send_key="key-1"), BatchCancelRequested(batch_id="b"), requester="carts")
    eventually(
        lambda: wa.states() == {"key-1": "cancelled"} and wa.query("SELECT requested FROM batches") == [(False,)]
    )
    wa.publish(message(1), batch("b", range(10, 13)), requester="carts")
    (fact,) = eventually(lambda: wa.facts("batch.completed"))
    assert {one["outcome"] for one in fact["recipients"]} == {"cancelled"}
    eventually(lambda: len(wa.facts("message.cancelled")) == 1)
    assert wa.calls == []


def test_a_cancelled_batch_stops_at_once_and_reports_every_recipient(wa: WhatsAppStage) -> None:
    wa.graph.latency_seconds = 0.1
    wa.publish(batch("b", range(500)))
    eventually(lambda: len(wa.sent) > 20)
    wa.publish(BatchCancelRequested(batch_id="b", reason="wrong text"))
    (fact,) = eventually(lambda: wa.facts("batch.completed"))
    outcomes = Counter(one["outcome"] for one in fact["recipients"])
    assert outcomes.total() == 500
    assert outcomes["cancelled"] > 100
    eventually(lambda: set(wa.states().values()) == {"accepted", "cancelled"})
    assert len(wa.sent) == Counter(wa.states().values())["accepted"] < 400


def test_a_retry_sends_failed_messages_but_none_in_doubt(wa: WhatsAppStage) -> None:
    wa.graph.message_errors[phone(1)] = (131026, "undeliverable")
    wa.graph.message_errors[phone(3)] = (131049, "limit")
    wa.fail(reset="after")
    wa.publish(message(2), requester="carts")
    eventually(lambda: wa.states() == {"key-2": "in_doubt"})
    wa.publish(message(1), message(3), requester="carts")
    eventually(lambda: Counter(wa.states().values()) == {"failed": 2, "in_doubt": 1})
    wa.graph.message_errors.clear()
    keys = tuple(f"key-{n}" for n in (1, 2, 3))
    wa.publish(RetryRequested(send_keys=keys), requester="carts")
    eventually(lambda: wa.states()["key-1"] == "accepted")
    assert wa.states()["key-2"] == "in_doubt"
    assert (wa.states()["key-3"], len(wa.sent_to(3))) == ("queued", 0), "a marketing limit is not retried within a day"
    assert wa.row("key-3")["due_at"] > datetime.now(UTC) + timedelta(hours=23)
    wa.publish(RetryRequested(send_keys=("key-1",)), requester="carts")
    eventually(lambda: len(wa.facts("message.accepted")) == 2, "its result is published again")
    assert len(wa.sent_to(1)) == 1


def test_a_retry_sends_an_expired_message(wa: WhatsAppStage) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=1)
    wa.publish(message(1, expires_at=soon, not_before=LATER), requester="carts")
    eventually(lambda: wa.states() == {"key-1": "failed"})
    wa.publish(RetryRequested(send_keys=("key-1",)), requester="carts")
    eventually(lambda: wa.states() == {"key-1": "accepted"})


def test_a_retried_message_expires_at_the_time_of_the_retry_request(wa: WhatsAppStage) -> None:
    wa.graph.message_errors[phone(1)] = (131026, "undeliverable")
    wa.publish(message(1), requester="carts")
    eventually(lambda: wa.states() == {"key-1": "failed"})
    wa.graph.message_errors.clear()
    wa.publish(
        RetryRequested(send_keys=("key-1",), expires_at=datetime.now(UTC) - timedelta(seconds=1)), requester="carts"
    )
    eventually(lambda: wa.row("key-1")["reason"] == "expired")
    assert wa.states() == {"key-1": "failed"}
    assert wa.sent == []
    eventually(lambda: len(wa.facts("message.failed")) == 2)
    assert [fact["attempt"] for fact in wa.facts("message.failed")] == [1, 2], (
        "the fact of the later attempt has a higher number"
    )


def test_a_message_cancelled_after_it_failed_is_not_retried(wa: WhatsAppStage) -> None:
    wa.graph.message_errors[phone(1)] = (131026, "undeliverable")
    wa.publish(message(1), requester="carts")
    eventually(lambda: wa.states() == {"key-1": "failed"})
    wa.graph.message_errors.clear()
    wa.publish(MessageCancelRequested(send_key="key-1", reason="bought"), requester="carts")
    eventually(lambda: wa.row("key-1")["cancelled"] == "bought")
    wa.publish(RetryRequested(send_keys=("key-1",)), requester="carts")
    eventually(lambda: len(wa.facts("message.failed")) == 2, "its result is published again")
    assert (wa.states(), wa.sent) == ({"key-1": "failed"}, [])


def test_a_retry_with_a_corrected_message_sends_that_message(wa: WhatsAppStage) -> None:
    wa.graph.message_errors[phone(1)] = (132001, "no such template")
    wa.publish(message(1), requester="carts")
    eventually(lambda: wa.states() == {"key-1": "failed"})
    wa.graph.message_errors.clear()
    corrected = Template(name="corrected", language="en_US")
    wa.publish(RetryRequested(send_keys=("key-1",), message=corrected), requester="carts")
    eventually(lambda: wa.states() == {"key-1": "accepted"})
    assert [body["template"]["name"] for body in wa.sent] == ["corrected"]


def test_a_recipient_without_a_value_for_the_text_is_sent_the_corrected_text(wa: WhatsAppStage) -> None:
    wa.publish(
        wrote(1), batch("b", (1,), message=TEXT.model_copy(update={"body": "Hello {{name}}"})), requester="broadcast"
    )
    eventually(lambda: wa.row("b-1").get("reason") == "value_missing")
    assert wa.row("b-1")["detail"] == "no value for {{name}}"
    eventually(lambda: wa.query("SELECT count(*) FROM windows") == [(1,)])
    wa.publish(RetryRequested(send_keys=("b-1",), message=TEXT), requester="broadcast")
    eventually(lambda: wa.states() == {"b-1": "accepted"})
    assert [body["text"]["body"] for body in wa.sent] == ["Hello"]
    with pytest.raises(ValidationError, match="the same for all"):
        RetryRequested(send_keys=("b-1",), message=TEXT.model_copy(update={"body": "Hello {{name}}"}))


def test_no_message_of_a_cancelled_batch_is_retried(wa: WhatsAppStage) -> None:
    wa.graph.message_errors[phone(1)] = (132001, "no such template")
    wa.publish(batch("b", (1,)), requester="broadcast")
    eventually(lambda: wa.facts("batch.completed"))
    wa.graph.message_errors.clear()
    wa.publish(BatchCancelRequested(batch_id="b", reason="cancelled"), requester="broadcast")
    eventually(lambda: wa.query("SELECT 1 FROM batches WHERE cancelled IS NOT NULL"))
    wa.publish(RetryRequested(send_keys=("b-1",)), requester="broadcast")
    eventually(lambda: wa.facts("batch.updated"), "its result is published again")
    assert (wa.states(), wa.sent) == ({"b-1": "failed"}, [])


def test_a_retry_reports_an_erased_recipient_to_the_batch(wa: WhatsAppStage) -> None:
    for number in (1, 2):
        wa.graph.message_errors[phone(number)] = (131026, "undeliverable")
    wa.publish(batch("b", (1, 2)), requester="broadcast")
    eventually(lambda: wa.facts("batch.completed"))
    wa.graph.message_errors.clear()
    wa.query("UPDATE messages SET phone = NULL WHERE send_key = 'b-1'")
    wa.publish(RetryRequested(send_keys=("b-1", "b-2")), requester="broadcast")

    def reported() -> dict[str, str]:
        facts = wa.facts("batch.updated")
        return {one["send_key"]: f"{one['outcome']} {one['reason']}" for fact in facts for one in fact["recipients"]}

    eventually(lambda: reported() == {"b-1": "skipped erased", "b-2": "accepted "})
    assert wa.facts("message.failed") == []


def test_a_message_retried_while_its_number_is_paused_is_reported_as_deferred(wa: WhatsAppStage) -> None:
    wa.graph.message_errors[phone(1)] = (131026, "undeliverable")
    wa.publish(batch("b", (1,)), requester="broadcast")
    eventually(lambda: wa.facts("batch.completed"))
    wa.query("UPDATE numbers SET paused_until = now() + interval '1 hour', cause = 'billing'")
    wa.publish(RetryRequested(send_keys=("b-1",)), requester="broadcast")
    (updated,) = eventually(lambda: wa.facts("batch.updated"))
    assert [(one["outcome"], one["reason"]) for one in updated["recipients"]] == [("deferred", "billing")]


def test_a_retried_message_that_pauses_its_number_is_reported_as_deferred(wa: WhatsAppStage) -> None:
    wa.graph.message_errors[phone(1)] = (131026, "undeliverable")
    wa.publish(batch("b", (1,)), requester="broadcast")
    eventually(lambda: wa.facts("batch.completed"))
    wa.graph.message_errors[phone(1)] = (131042, "billing")
    wa.publish(RetryRequested(send_keys=("b-1",)), requester="broadcast")
    (updated,) = eventually(lambda: wa.facts("batch.updated"))
    assert [(one["outcome"], one["reason"]) for one in updated["recipients"]] == [("deferred", "billing")]


def test_a_requester_may_retry_the_messages_of_another(wa: WhatsAppStage) -> None:
    wa.graph.message_errors[phone(1)] = (131026, "undeliverable")
    wa.publish(message(1), requester="carts")
    eventually(lambda: wa.states() == {"key-1": "failed"})
    wa.graph.message_errors.clear()
    wa.publish(RetryRequested(send_keys=("key-1",), keys_of="carts"), requester="support")
    eventually(lambda: wa.states() == {"key-1": "accepted"})
