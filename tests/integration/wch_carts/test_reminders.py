"""Reminders from a scan or a request to whatsapp's queue, on a real broker and database."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from support.carts_stage import CartsStage, cart, ordered
from support.waiting import eventually
from support.whatsapp_stage import phone
from wch_carts import reminders
from wch_carts.identity import cart_uuid, send_key
from wch_carts.topology import SOURCE
from wch_common.contract.event import new_event
from wch_common.events.carts import (
    ReminderRequested,
    ReminderScanRequested,
)
from wch_common.events.shop import CartDeleted
from wch_common.events.whatsapp import (
    MessageAccepted,
    MessageCancelled,
    MessageFailed,
)

SCAN = ReminderScanRequested()


def test_the_owner_of_an_idle_cart_is_reminded_once_and_the_order_is_a_recovery(ct: CartsStage) -> None:
    ct.start(carts_body=("{name|there}", "{items}", "{total}"), carts_template="come_back", carts_language="de_DE")
    ct.fill(cart(1))
    ct.publish(SCAN, requester="scheduler")
    (request,) = ct.await_requests()
    assert (request["to"], request["category"]) == (phone(1), "marketing")
    assert request["send_key"] == send_key(cart_uuid("", "c1"), 1)
    assert (request["message"]["name"], request["message"]["language"]) == ("come_back", "de_DE")
    assert [value["text"] for value in request["message"]["body"]] == ["Ada", "Tee ×2", "19,90 €"]
    assert ct.cart()["reminder_sent_at"] is None, "it is set once the message is accepted"
    ct.answer(MessageAccepted, request["send_key"], wamid="w")
    assert ct.await_fact("reminder.sent") == {"cart_id": "c1", "version": 1}
    assert "carts.reminder.sent.v1.scheduler" in ct.keys
    assert ct.cart()["reminder_sent_at"] is not None
    ct.publish(SCAN)
    ct.await_handled("carts.reminder_scan", 2)
    ct.publish(ordered(1, total="25.50"), ordered(1, total="25.50"))
    recovered = ct.await_fact("cart.recovered")
    assert recovered == {"cart_id": "c1", "order_id": 101, "total": "25.50", "currency": "EUR"}
    ct.await_handled("carts.cart", 3)
    assert len(ct.facts("cart.recovered")) == 1
    assert len(ct.requests()) == 1
    assert ct.requests("message.cancel_requested") == []


def test_an_order_after_a_reminder_and_a_change_is_a_recovery(ct: CartsStage) -> None:
    ct.start()
    key = ct.remind()
    ct.answer(MessageAccepted, key, wamid="w")
    ct.await_fact("reminder.sent")
    ct.fill(cart(1, 2))
    ct.publish(ordered(1, 3))
    assert ct.await_fact("cart.recovered")["cart_id"] == "c1"


def test_an_order_without_a_sent_reminder_is_not_a_recovery(ct: CartsStage) -> None:
    ct.start()
    ct.fill(cart(2))
    ct.publish(ordered(2))
    key = ct.remind()
    ct.answer(MessageFailed, key, reason="undeliverable")
    ct.await_fact("reminder.failed")
    ct.publish(ordered(1))
    ct.await_handled("carts.cart", 4)
    ct.await_published()
    assert ct.facts("cart.recovered") == []
    (cancel,) = ct.requests("message.cancel_requested")
    assert cancel["send_key"] == key, "a failed reminder may be retried"


@pytest.mark.parametrize(("hours", "found"), [(3.99, False), (4.01, True), (47.9, True), (48.1, False)], ids=str)
def test_a_scan_finds_carts_that_are_idle_long_enough_and_not_too_long(
    ct: CartsStage, hours: float, found: bool
) -> None:
    ct.start(carts_delay_hours=4, carts_oldest_hours=48)
    ct.fill(cart(1))
    ct.query(
        "UPDATE carts SET idle_since = now() - %s * interval '1 hour', updated_at = now() - interval '5 hours'", hours
    )
    ct.publish(SCAN)
    ct.await_handled("carts.reminder_scan", 1)
    ct.await_handled("carts.reminder", int(found))
    assert len(ct.await_requests() if found else ct.requests()) == found
    assert (ct.reminder() != {}) == found


@pytest.mark.parametrize("change", [{"items": (), "total": "0"}, {"phone": None}, {"phone": "not a number"}])
def test_a_scan_does_not_find_carts_without_items_or_number(ct: CartsStage, change: dict[str, Any]) -> None:
    ct.start()
    ct.fill(cart(1, **change))
    ct.publish(SCAN)
    ct.await_handled("carts.reminder_scan", 1)
    assert ct.reminder() == {}


def test_scans_in_chunks_find_all_carts_and_two_at_once_find_none_twice(
    ct: CartsStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reminders, "CHUNK", 3)
    ct.start()
    ct.fill(*(cart(number) for number in range(10)))
    ct.publish(SCAN, SCAN)
    found = ct.await_requests(10)
    assert {one["to"] for one in found} == {phone(number) for number in range(10)}
    assert ct.query("SELECT DISTINCT tries FROM reminders") == [(0,)]


def test_a_reminder_expires_when_quiet_hours_begin_or_its_cart_is_too_old(ct: CartsStage) -> None:
    begin = (datetime.now(UTC) + timedelta(hours=2)).replace(second=0, microsecond=0)
    end = begin + timedelta(hours=3)
    quiet = {"carts_quiet_from": f"{begin:%H:%M}", "carts_quiet_until": f"{end:%H:%M}"}
    ct.start(**quiet, carts_oldest_hours=48, carts_person_hours=0)
    ct.remind()
    (request,) = ct.requests()
    assert datetime.fromisoformat(request["expires_at"]) == begin
    ct.query("UPDATE carts SET idle_since = now() - interval '47 hours', filled_version = 5, remindable = true")
    ct.publish(SCAN)
    request = ct.await_requests(2)[1]
    ((oldest,),) = ct.query("SELECT idle_since + interval '48 hours' FROM carts")
    assert datetime.fromisoformat(request["expires_at"]) == oldest


def test_no_reminder_is_sent_in_quiet_hours_and_all_are_sent_after_them(ct: CartsStage) -> None:
    now = datetime.now(UTC)
    quiet = {
        "carts_quiet_from": f"{now - timedelta(hours=1):%H:%M}",
        "carts_quiet_until": f"{now + timedelta(hours=1):%H:%M}",
    }
    service = ct.start(**quiet)
    ct.fill(cart(1))
    ct.publish(SCAN, ReminderRequested(cart_id="c1"))
    assert ct.await_fact("reminder.skipped")["reason"] == "quiet_hours"
    ct.await_handled("carts.reminder_scan", 1)
    ct.claim(1)  # from before the quiet hours
    ct.publish(ReminderRequested(cart_id="c1", version=1))
    ct.await_fact("reminder.skipped", 2)
    assert ct.cart()["remindable"]
    service.stop()
    ct.start()
    ct.publish(SCAN)
    ct.await_requests()


def test_each_shop_has_its_own_quiet_hours(ct: CartsStage, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    quiet = {
        "quiet_from": f"{now - timedelta(hours=1):%H:%M}",
        "quiet_until": f"{now + timedelta(hours=1):%H:%M}",
        "delay_hours": 0,
    }
    far = quiet | {"time_zone": "Etc/GMT+6"}
    file = tmp_path / "shops.json"
    file.write_text(json.dumps({"here": {"carts": quiet}, "far": {"carts": far}}))
    ct.start(shops_file=file)
    for shop in ("here", "far"):
        ct.publish(cart(1), shop=shop)
    eventually(lambda: len(ct.query("SELECT 1 FROM carts")) == 2)
    for shop in ("here", "far"):
        ct.publish(SCAN, shop=shop)
    ct.await_handled("carts.reminder_scan", 2)
    ct.await_requests()
    assert ct.query("SELECT shop FROM reminders") == [("far",)]


@pytest.mark.parametrize(
    ("meanwhile", "reason"),
    [
        (ordered(1), "bought"),
        (cart(1, 2), "changed"),
        (cart(1, 2, items=(), total="0"), "emptied"),
        (CartDeleted(cart_id="c1", version=2), "deleted"),
    ],
    ids=["bought", "changed", "emptied", "deleted"],
)
def test_a_change_between_claim_and_request_skips_the_reminder(ct: CartsStage, meanwhile: Any, reason: str) -> None:
    ct.start()
    ct.fill(cart(1))
    ct.claim(1)
    ct.publish(meanwhile)
    ct.await_handled("carts.cart", 2)
    ct.publish(ReminderRequested(cart_id="c1", version=1))
    assert ct.await_fact("reminder.skipped") == {"cart_id": "c1", "version": 1, "reason": reason}
    rows = ct.query("SELECT state, reason FROM reminders WHERE period = 1")
    assert rows == [("skipped", reason)]
    assert ct.requests() == ct.requests("message.cancel_requested") == []


@pytest.mark.parametrize(
    ("meanwhile", "reason"),
    [
        (ordered(1), "bought"),
        (cart(1, 2), "changed"),
        (cart(1, 2, items=(), total="0"), "emptied"),
        (CartDeleted(cart_id="c1", version=2), "deleted"),
    ],
    ids=["bought", "changed", "emptied", "deleted"],
)
def test_a_change_after_the_request_cancels_the_message(ct: CartsStage, meanwhile: Any, reason: str) -> None:
    ct.start()
    key = ct.remind()
    ct.publish(meanwhile)
    (cancel,) = ct.await_requests(kind="message.cancel_requested")
    assert (cancel["send_key"], cancel["reason"]) == (key, reason)
    ct.answer(MessageCancelled, key, reason=reason)
    assert ct.await_fact("reminder.skipped")["reason"] == reason
    assert ct.facts("cart.recovered") == []


def test_a_failed_reminder_is_cancelled_too_as_it_may_be_retried(ct: CartsStage) -> None:
    ct.start()
    key = ct.remind()
    ct.answer(MessageFailed, key, reason="refused", message_id="", attempt=0)
    ct.await_fact("reminder.failed")
    ct.publish(ordered(1))
    (cancel,) = ct.await_requests(kind="message.cancel_requested")
    assert (cancel["send_key"], cancel["reason"]) == (key, "bought")


def test_a_reminder_is_cancelled_once_however_often_its_cart_changes(ct: CartsStage) -> None:
    ct.start()
    key = ct.remind()
    ct.answer(MessageFailed, key, reason="undeliverable")
    ct.await_fact("reminder.failed")
    for version in (2, 3, 4):
        ct.fill(cart(1, version))
    ct.await_published()
    assert [one["send_key"] for one in ct.requests("message.cancel_requested")] == [key]


def test_a_sent_reminder_is_not_cancelled(ct: CartsStage) -> None:
    ct.start()
    key = ct.remind()
    ct.answer(MessageAccepted, key, wamid="w")
    ct.await_fact("reminder.sent")
    ct.fill(cart(1, 2))
    assert ct.cart()["reminder_sent_at"] is None
    ct.await_published()
    assert ct.requests("message.cancel_requested") == []


def test_a_change_begins_a_new_idle_period_with_its_own_send_key(ct: CartsStage) -> None:
    ct.start(carts_person_hours=0)
    first = ct.remind()
    ct.answer(MessageAccepted, first, wamid="w")
    ct.await_fact("reminder.sent")
    ct.fill(cart(1, 2))
    ct.publish(SCAN)
    second = ct.await_requests(2)[1]["send_key"]
    assert second != first
    ct.answer(MessageAccepted, second, wamid="w")
    assert ct.await_fact("reminder.sent", 2)["version"] == 2


def test_a_scan_skips_a_cart_that_is_being_changed(ct: CartsStage) -> None:
    ct.start()
    ct.fill(cart(1))
    with psycopg.connect(ct.database_url, options="-c search_path=carts") as other:
        other.execute("UPDATE carts SET customer_name = 'in the middle of a change'")
        ct.publish(SCAN)
        ct.await_handled("carts.reminder_scan", 1)
        assert ct.reminder() == {}, "the scan does not wait for a cart that is being changed"
    ct.publish(SCAN)
    ct.await_requests()


def test_a_requested_reminder_needs_no_idle_time_and_counts_as_the_periods_reminder(ct: CartsStage) -> None:
    ct.start(carts_delay_hours=4)
    ct.fill(cart(1))
    ct.publish(ReminderRequested(cart_id="c1"), requester="support")
    ct.await_requests()
    ct.publish(ReminderRequested(cart_id="c1"), requester="support")
    assert ct.await_fact("reminder.skipped")["reason"] == "already_reminded"
    assert "carts.reminder.skipped.v1.support" in ct.keys
    ct.query("UPDATE carts SET idle_since = now() - interval '5 hours'")
    ct.publish(SCAN)
    ct.await_handled("carts.reminder_scan", 1)
    assert len(ct.requests()) == 1


def test_a_scans_request_repeated_under_another_id_sends_one_message(ct: CartsStage) -> None:
    ct.start()
    ct.remind()
    ct.publish(new_event(ReminderRequested(cart_id="c1", version=1), SOURCE))
    ct.await_handled("carts.reminder", 2)
    assert len(ct.requests()) == 1
    assert ct.facts("reminder") == []
    ct.publish(ReminderRequested(cart_id="c1", version=1), requester="support")
    assert ct.await_fact("reminder.skipped")["reason"] == "already_reminded", "another requester gets an answer"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("", "no_such_cart"),
        ("DELETE FROM carts", "no_such_cart"),
        ("UPDATE carts SET item_count = 0", "emptied"),
        ("UPDATE carts SET expires_at = now() - interval '1 second'", "expired"),
        (
            "UPDATE carts SET phone = NULL, no_phone_reason = 'malformed_number: not a phone number'",
            "malformed_number",
        ),
        ("UPDATE carts SET idle_since = now() - interval '49 hours'", "too_old"),
        ("UPDATE carts SET status = 'completed'", "bought"),
    ],
)
def test_the_reason_for_skipping_a_requested_reminder_is_published(ct: CartsStage, change: str, reason: str) -> None:
    ct.start()
    if change:
        ct.fill(cart(1))
        ct.query(change)
    ct.publish(ReminderRequested(cart_id="c1"))
    assert ct.await_fact("reminder.skipped")["reason"] == reason
    assert ct.requests() == []
