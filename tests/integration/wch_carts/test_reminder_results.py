"""Results of reminders, given by the tests in any order, on a real broker and database."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from support.carts_stage import CartsStage, ordered
from support.waiting import eventually
from wch_carts.topology import REQUESTER
from wch_common.contract.event import new_event
from wch_common.events.carts import (
    ReminderScanRequested,
)
from wch_common.events.whatsapp import (
    MessageAccepted,
    MessageDelivered,
    MessageFailed,
    MessageRead,
    MessageSuppressed,
    MessageUnknown,
)

SCAN = ReminderScanRequested()


@pytest.mark.parametrize(
    ("model", "values", "kind", "reason"),
    [
        (MessageFailed, {"reason": "undeliverable"}, "failed", "undeliverable"),
        (MessageUnknown, {}, "failed", "unknown"),
        (MessageSuppressed, {"reason": "opted_out"}, "skipped", "opted_out"),
    ],
)
def test_a_recipient_who_cannot_be_reached_is_not_reminded_again_in_that_period(
    ct: CartsStage, model: Any, values: dict[str, str], kind: str, reason: str
) -> None:
    ct.start()
    key = ct.remind()
    ct.answer(model, key, **values)
    fact = ct.await_fact(f"reminder.{kind}")
    assert (fact["reason"], fact.get("will_retry", False)) == (reason, False)
    assert not ct.cart()["remindable"]
    ct.query("UPDATE carts SET remind_after = NULL")
    ct.publish(SCAN)
    ct.await_handled("carts.reminder_scan", 2)
    assert ct.reminder()["state"] == kind
    assert ct.cart()["reminder_sent_at"] is None


def test_a_failure_that_passes_is_retried_later_under_the_same_key(ct: CartsStage) -> None:
    ct.start()
    key = ct.remind()
    ct.answer(MessageFailed, key, reason="meta_unreachable")
    assert ct.await_fact("reminder.failed") == {
        "cart_id": "c1",
        "version": 1,
        "reason": "meta_unreachable",
        "concerns": "number",
        "retryable": True,
        "will_retry": True,
    }
    ct.publish(SCAN)
    ct.await_handled("carts.reminder_scan", 2)
    assert ct.reminder()["state"] == "failed", "it is not retried at once"
    ((minutes,),) = ct.query("SELECT extract(epoch FROM remind_after - now()) / 60 FROM carts")
    assert 14 < minutes <= 15
    ct.query("UPDATE carts SET remind_after = now()")
    ct.publish(SCAN)
    (retry,) = ct.await_requests(kind="retry.requested")
    assert retry["send_keys"] == [key]
    assert retry["expires_at"] is not None
    assert retry["message"]["name"] == "cart_reminder", "with the current text"
    ct.answer(MessageFailed, key, reason="meta_unreachable", attempt=2)
    ct.await_fact("reminder.failed", 2)
    ((minutes,),) = ct.query("SELECT extract(epoch FROM remind_after - now()) / 60 FROM carts")
    assert 29 < minutes <= 30, "each wait is longer"
    ct.query("UPDATE carts SET remind_after = now()")
    ct.publish(SCAN)
    ct.await_requests(2, "retry.requested")
    ct.answer(MessageAccepted, key, wamid="w", attempt=3)
    ct.await_fact("reminder.sent")
    assert len(ct.requests()) == 1


def test_a_message_refused_before_the_ledger_knew_it_is_requested_again(ct: CartsStage) -> None:
    ct.start()
    key = ct.remind()
    for number in (1, 2):
        ct.answer(MessageFailed, key, reason="refused", message_id="", attempt=0)
        ct.await_fact("reminder.failed", number)
        ct.query("UPDATE carts SET remind_after = now()")
        ct.publish(SCAN)
        assert ct.await_requests(number + 1)[-1]["send_key"] == key
    assert ct.requests("retry.requested") == []


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        ((MessageAccepted, MessageFailed), "failed"),
        ((MessageFailed, MessageAccepted), "failed"),
        ((MessageDelivered, MessageAccepted, MessageRead), "sent"),
        ((MessageUnknown, MessageDelivered), "sent"),
        ((MessageRead, MessageUnknown), "sent"),
    ],
)
def test_facts_of_one_attempt_in_any_order_give_the_same_state(
    ct: CartsStage, facts: tuple[Any, ...], state: str
) -> None:
    ct.start()
    key = ct.remind()
    for number, model in enumerate(facts, 1):
        ct.answer(
            model, key, **{MessageAccepted: {"wamid": "w"}, MessageFailed: {"reason": "undeliverable"}}.get(model, {})
        )
        ct.await_handled("carts.answer", number)
    assert ct.reminder()["state"] == state
    assert (ct.cart()["reminder_sent_at"] is not None) == (state == "sent")
    assert len(ct.facts("reminder.sent")) <= 1


def test_a_fact_of_an_earlier_attempt_changes_nothing(ct: CartsStage) -> None:
    ct.start()
    key = ct.remind()
    ct.answer(MessageAccepted, key, wamid="w", attempt=2)
    ct.await_fact("reminder.sent")
    ct.answer(MessageFailed, key, reason="meta_failed", attempt=1)
    ct.await_handled("carts.answer", 2)
    assert ct.reminder()["state"] == "sent"


def test_results_of_deleted_carts_and_unknown_keys_are_ignored(ct: CartsStage) -> None:
    ct.start()
    key = ct.remind()
    ct.query("DELETE FROM carts")
    ct.answer(MessageAccepted, key, wamid="w")
    ct.answer(MessageAccepted, "unknown", wamid="w")
    ct.await_handled("carts.answer", 2)
    assert ct.query("SELECT state FROM reminders") == [("sent",)]
    assert ct.facts("reminder") == []


@pytest.mark.parametrize(("seconds", "recovered"), [(-60, True), (60, False)], ids=["accepted before", "after"])
def test_an_order_that_arrives_before_the_answer_is_a_recovery_if_it_was_placed_after_the_answer(
    ct: CartsStage, seconds: float, recovered: bool
) -> None:
    ct.start()
    key = ct.remind()
    now = datetime.now(UTC)
    ct.publish(replace(new_event(ordered(1), "/shop"), time=now))
    eventually(lambda: ct.cart()["status"] == "completed")
    accepted = MessageAccepted(send_key=key, message_id="m1", attempt=1, wamid="w")
    fact = new_event(accepted, "/wch/whatsapp", requester=REQUESTER)
    ct.publish(replace(fact, time=now + timedelta(seconds=seconds)))
    ct.await_fact("reminder.sent")
    ct.await_published()
    assert ct.facts("cart.recovered") == (
        [{"cart_id": "c1", "order_id": 101, "total": "19.9", "currency": "EUR"}] if recovered else []
    )
    assert "carts.cart.recovered.v1.carts" not in ct.keys
