"""Calls whose result is unknown: which are repeated, and what later statuses settle."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from support.stage import Stage
from support.waiting import eventually
from support.whatsapp_stage import WhatsAppStage, message
from wch_common.events.meta import StatusReceived
from wch_common.events.whatsapp import MessageCancelRequested, RetryRequested


@pytest.fixture
def wa(stage: Stage, database_url: str) -> Iterator[WhatsAppStage]:
    made = WhatsAppStage(stage, database_url)
    yield made
    made.close()


def test_a_utility_message_in_doubt_is_sent_again_only_once(wa: WhatsAppStage) -> None:
    wa.fail(reset="after", times=10)
    wa.start(whatsapp_unknown_utility="resend", whatsapp_settle_seconds=0.2)
    wa.publish(message(1, category="utility"))
    eventually(lambda: wa.states() == {"key-1": "unknown"})
    assert len(wa.calls) == 2


@pytest.mark.parametrize("status", [408, 499, 505, 520, 524])
def test_an_answer_from_a_proxy_leaves_the_message_in_doubt(wa: WhatsAppStage, status: int) -> None:
    wa.fail(status=status, body="<html>?</html>")
    wa.start()
    wa.publish(message(1))
    eventually(lambda: wa.states() == {"key-1": "in_doubt"})


def test_json_of_a_gateway_is_not_a_graph_error(wa: WhatsAppStage) -> None:
    wa.fail(status=504, body={"error": {"code": 504, "message": "upstream timed out"}})
    wa.start()
    wa.publish(message(1))
    eventually(lambda: wa.states() == {"key-1": "in_doubt"})


def of_first(wa: WhatsAppStage, status: str, error: int | None = None) -> StatusReceived:
    """Return a status of a message's first attempt, after a second one was made."""
    first = wa.status("key-1", status, error=error)
    return first.model_copy(update={"tag": f"wch1:{wa.row('key-1')['id']}:1", "wamid": "wamid.first"})


def resent(wa: WhatsAppStage) -> None:
    """Cut the first call of a message, and refuse the second."""
    wa.fail(reset="after")
    wa.start(whatsapp_unknown_utility="resend", whatsapp_settle_seconds=0.2)
    wa.fail(status=400, body={"error": {"code": 131026, "message": "undeliverable"}})
    wa.publish(message(1, category="utility"), requester="carts")
    eventually(lambda: len(wa.calls) == 2)


def test_a_message_sent_again_in_doubt_never_fails_as_the_first_attempt_may_have_arrived(wa: WhatsAppStage) -> None:
    resent(wa)
    eventually(lambda: wa.states() == {"key-1": "unknown"})
    wa.publish(RetryRequested(send_keys=("key-1",)), requester="carts")
    eventually(
        lambda: len(wa.facts("message.unknown")) == 2, "the known result is published again, and nothing is sent"
    )
    wa.publish(of_first(wa, "delivered"))
    eventually(lambda: wa.states() == {"key-1": "delivered"}, "a status of the first attempt settles it")
    assert (len(wa.calls), wa.facts("message.failed")) == (2, [])


def test_a_failed_first_attempt_leaves_the_result_of_the_second(wa: WhatsAppStage) -> None:
    wa.fail(reset="after")
    wa.start(whatsapp_unknown_utility="resend", whatsapp_settle_seconds=0.2)
    wa.publish(message(1, category="utility"))
    eventually(lambda: wa.states() == {"key-1": "accepted"})
    wa.publish(of_first(wa, "failed", 131026))
    eventually(lambda: wa.query("SELECT doubted_attempt FROM messages") == [(None,)])
    assert wa.states() == {"key-1": "accepted"}
    wa.publish(wa.status("key-1", "failed", error=131026))
    eventually(lambda: wa.states() == {"key-1": "failed"})


def test_a_message_fails_once_both_attempts_are_known_to_have_failed(wa: WhatsAppStage) -> None:
    resent(wa)
    eventually(lambda: wa.states() == {"key-1": "unknown"})
    wa.publish(of_first(wa, "failed", 131050))
    eventually(lambda: wa.states() == {"key-1": "failed"})
    assert wa.row("key-1")["reason"] == "undeliverable"
    assert wa.query("SELECT reason FROM suppressions") == [("opted_out",)], "its opt-out suppresses the recipient"


def test_a_message_fails_if_its_first_attempt_failed_before_it_was_sent_again(wa: WhatsAppStage) -> None:
    waiting_again(wa)
    wa.publish(wa.status("key-1", "failed", error=131026))
    eventually(lambda: wa.states() == {"key-1": "failed"})


def test_a_first_attempt_that_was_accepted_and_failed_leaves_the_second_unknown(wa: WhatsAppStage) -> None:
    answered = threading.Event()
    wa.fail(reset="after")
    wa.start(whatsapp_unknown_utility="resend", whatsapp_settle_seconds=0.2, whatsapp_call_seconds=60)
    wa.fail(status=400, body={"error": {"code": 131026, "message": "undeliverable"}}, until=answered)
    wa.publish(message(1, category="utility"), requester="carts")
    eventually(lambda: wa.row("key-1").get("attempt") == 2)
    wa.publish(of_first(wa, "sent"))
    eventually(lambda: wa.states() == {"key-1": "accepted"})
    answered.set()
    wa.publish(of_first(wa, "failed", 131026))
    eventually(lambda: wa.states() == {"key-1": "unknown"})
    eventually(lambda: wa.facts("message.unknown"))


def test_a_message_in_doubt_after_a_failure_is_sent_again(wa: WhatsAppStage) -> None:
    wa.fail(status=503, body="<html>busy</html>")
    wa.fail(reset="after")
    wa.start(whatsapp_unknown_utility="resend", whatsapp_settle_seconds=0.2)
    wa.publish(message(1, category="utility"))
    eventually(lambda: wa.states() == {"key-1": "accepted"})
    assert len(wa.calls) == 3


def waiting_again(wa: WhatsAppStage) -> None:
    """Leave a message queued to be sent again in doubt."""
    wa.fail(reset="after")
    wa.start(whatsapp_unknown_utility="resend", whatsapp_settle_seconds=3600)
    wa.publish(message(1, category="utility"))
    eventually(lambda: wa.states() == {"key-1": "in_doubt"})
    wa.query("UPDATE numbers SET cause = 'billing', paused_until = now() + interval '1 hour'")
    wa.query("UPDATE messages SET due_at = now()")
    eventually(lambda: wa.states() == {"key-1": "queued"})


def test_a_message_cancelled_before_it_is_sent_again_in_doubt_is_unknown(wa: WhatsAppStage) -> None:
    waiting_again(wa)
    wa.publish(MessageCancelRequested(send_key="key-1", reason="bought"))
    eventually(lambda: wa.states() == {"key-1": "unknown"})
    eventually(lambda: wa.facts("message.unknown"))
    assert wa.facts("message.cancelled") == []


def test_a_message_cancelled_while_in_doubt_becomes_unknown(wa: WhatsAppStage) -> None:
    wa.fail(reset="after")
    wa.start(whatsapp_unknown_utility="resend", whatsapp_settle_seconds=3600)
    wa.publish(message(1, category="utility"))
    eventually(lambda: wa.states() == {"key-1": "in_doubt"})
    wa.publish(MessageCancelRequested(send_key="key-1", reason="bought"))
    eventually(lambda: wa.query("SELECT cancelled FROM messages") == [("bought",)])
    wa.query("UPDATE messages SET due_at = now()")
    eventually(lambda: wa.states() == {"key-1": "unknown"}, "it may have been sent")
    assert len(wa.calls) == 1
