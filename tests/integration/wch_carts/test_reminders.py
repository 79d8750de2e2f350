"""Reminders between a real broker and a real database; the whatsapp service's answers are given by the tests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from support.carts_stage import CartsStage, cart, ordered
from support.stage import Stage
from support.waiting import eventually
from support.whatsapp_stage import phone
from wch_carts import cleanup, maintenance, reminders
from wch_carts.carts import SOURCE
from wch_carts.identity import cart_uuid, send_key
from wch_carts.topology import REQUESTER
from wch_common.contract.event import new_event
from wch_common.events.carts import ReminderRequested, ReminderScanRequested
from wch_common.events.shop import CartDeleted
from wch_common.events.whatsapp import (
    MessageAccepted,
    MessageCancelled,
    MessageDelivered,
    MessageFailed,
    MessageRead,
    MessageSuppressed,
    MessageUnknown,
)

SCAN = ReminderScanRequested()


@pytest.fixture
def ct(stage: Stage, database_url: str) -> Iterator[CartsStage]:
    yield CartsStage(stage, database_url)
    stage.stop()


def handled(ct: CartsStage, queue: str, events: int) -> None:
    eventually(lambda: ct.query("SELECT count(*) FROM inbox WHERE queue = %s", queue) == [(events,)])


def no_event_waits(ct: CartsStage) -> None:
    """Wait until what was committed is published, so that what is not there will not come."""
    eventually(lambda: ct.query("SELECT 1 FROM outbox") == [])


def reminded(ct: CartsStage, number: int = 1) -> str:
    """Fill a cart, have its owner reminded, and return the send key."""
    ct.fill(cart(number))
    ct.publish(SCAN)
    return str(eventually(lambda: [one for one in ct.asked() if one["to"] == phone(number)])[0]["send_key"])


def claim(ct: CartsStage, number: int, age: str = "0 minutes") -> None:
    """Take a cart up, as a scan does whose request is still on its way."""
    statement = "INSERT INTO reminders (cart, period, shop, state, changed_at) VALUES (%s, 1, '', 'claimed', now() - %s::interval)"
    ct.query(statement, cart_uuid("", f"c{number}"), age)
    ct.query("UPDATE carts SET remindable = false WHERE cart_id = %s", f"c{number}")


# -- the main path


def test_an_idle_carts_owner_is_reminded_once_and_the_order_is_recovered(ct: CartsStage) -> None:
    ct.start(carts_body=("{name|there}", "{items}", "{total}"), carts_template="come_back", carts_language="de_DE")
    ct.fill(cart(1))
    ct.publish(SCAN, requester="scheduler")
    (asked,) = ct.await_asked()
    assert (asked["to"], asked["category"]) == (phone(1), "marketing")
    assert asked["send_key"] == send_key(cart_uuid("", "c1"), 1)
    assert (asked["message"]["name"], asked["message"]["language"]) == ("come_back", "de_DE")
    assert [value["text"] for value in asked["message"]["body"]] == ["Ada", "Tee ×2", "19,90 €"]
    assert ct.cart()["reminder_sent_at"] is None, "it is set when the message was accepted"
    ct.answer(MessageAccepted, asked["send_key"], wamid="w")
    assert ct.await_told("reminder.sent") == {"cart_id": "c1", "version": 1}
    assert "carts.reminder.sent.v1.scheduler" in ct.keys
    assert ct.cart()["reminder_sent_at"] is not None
    ct.publish(SCAN)
    handled(ct, "carts.reminder_scan", 2)
    ct.publish(ordered(1, total="25.50"), ordered(1, total="25.50"))
    recovered = ct.await_told("cart.recovered")
    assert recovered == {"cart_id": "c1", "order_id": 101, "total": "25.50", "currency": "EUR"}
    handled(ct, "carts.cart", 3)
    assert len(ct.told("cart.recovered")) == 1
    assert len(ct.asked()) == 1
    assert ct.asked("message.cancel_requested") == []


def test_a_customer_who_comes_back_changes_the_cart_and_orders_it_is_recovered(ct: CartsStage) -> None:
    ct.start()
    key = reminded(ct)
    ct.answer(MessageAccepted, key, wamid="w")
    ct.await_told("reminder.sent")
    ct.fill(cart(1, 2))
    ct.publish(ordered(1, 3))
    assert ct.await_told("cart.recovered")["cart_id"] == "c1"


def test_an_order_without_a_reminder_or_before_it_is_not_recovered(ct: CartsStage) -> None:
    ct.start()
    ct.fill(cart(2))
    ct.publish(ordered(2))
    key = reminded(ct)
    ct.answer(MessageFailed, key, reason="undeliverable")
    ct.await_told("reminder.failed")
    ct.publish(ordered(1))
    handled(ct, "carts.cart", 4)
    no_event_waits(ct)
    assert ct.told("cart.recovered") == []
    (cancel,) = ct.asked("message.cancel_requested")
    assert cancel["send_key"] == key, "somebody might have had it tried again"


@pytest.mark.parametrize(("hours", "found"), [(3.99, False), (4.01, True), (47.9, True), (48.1, False)], ids=str)
def test_only_carts_idle_long_enough_and_not_too_long_are_found(ct: CartsStage, hours: float, found: bool) -> None:
    ct.start(carts_delay_hours=4, carts_oldest_hours=48)
    ct.fill(cart(1))
    ct.query(
        "UPDATE carts SET idle_since = now() - %s * interval '1 hour', updated_at = now() - interval '5 hours'", hours
    )
    ct.publish(SCAN)
    handled(ct, "carts.reminder_scan", 1)
    handled(ct, "carts.reminder", int(found))
    assert len(ct.await_asked() if found else ct.asked()) == found
    assert (ct.reminder() != {}) == found


@pytest.mark.parametrize("change", [{"items": (), "total": "0"}, {"phone": None}, {"phone": "who knows"}])
def test_carts_that_are_empty_or_nobodys_are_not_found(ct: CartsStage, change: dict[str, Any]) -> None:
    ct.start()
    ct.fill(cart(1, **change))
    ct.publish(SCAN)
    handled(ct, "carts.reminder_scan", 1)
    assert ct.reminder() == {}


def test_a_scan_goes_on_in_chunks_over_all_carts_and_another_at_once_finds_none_twice(
    ct: CartsStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reminders, "CHUNK", 3)
    ct.start()
    ct.fill(*(cart(number) for number in range(10)))
    ct.publish(SCAN, SCAN)
    found = ct.await_asked(10)
    assert {one["to"] for one in found} == {phone(number) for number in range(10)}
    assert ct.query("SELECT DISTINCT tries FROM reminders") == [(0,)]


def test_a_reminder_is_worth_sending_while_its_cart_is_young_and_it_is_not_quiet(ct: CartsStage) -> None:
    begin = (datetime.now(UTC) + timedelta(hours=2)).replace(second=0, microsecond=0)
    end = begin + timedelta(hours=3)
    ct.start(carts_quiet_from=f"{begin:%H:%M}", carts_quiet_until=f"{end:%H:%M}", carts_oldest_hours=48)
    reminded(ct)
    (asked,) = ct.asked()
    assert datetime.fromisoformat(asked["expires_at"]) == begin
    ct.query("UPDATE carts SET idle_since = now() - interval '47 hours', filled_version = 5, remindable = true")
    ct.publish(SCAN)
    asked = ct.await_asked(2)[1]
    ((oldest,),) = ct.query("SELECT idle_since + interval '48 hours' FROM carts")
    assert datetime.fromisoformat(asked["expires_at"]) == oldest


def test_nobody_is_reminded_in_quiet_hours_and_all_are_after_them(ct: CartsStage) -> None:
    now = datetime.now(UTC)
    quiet = {
        "carts_quiet_from": f"{now - timedelta(hours=1):%H:%M}",
        "carts_quiet_until": f"{now + timedelta(hours=1):%H:%M}",
    }
    service = ct.start(**quiet)
    ct.fill(cart(1))
    ct.publish(SCAN, ReminderRequested(cart_id="c1"))
    assert ct.await_told("reminder.skipped")["reason"] == "quiet_hours"
    handled(ct, "carts.reminder_scan", 1)
    claim(ct, 1)  # from before they began
    ct.publish(ReminderRequested(cart_id="c1", version=1))
    ct.await_told("reminder.skipped", 2)
    assert ct.cart()["remindable"]
    service.stop()
    ct.start()
    ct.publish(SCAN)
    ct.await_asked()


def test_quiet_hours_are_those_of_each_shop(ct: CartsStage, tmp_path: Path) -> None:
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
    handled(ct, "carts.reminder_scan", 2)
    ct.await_asked()
    assert ct.query("SELECT shop FROM reminders") == [("far",)]


# -- between claim and send


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
def test_what_happens_between_claim_and_request_is_seen(ct: CartsStage, meanwhile: Any, reason: str) -> None:
    ct.start()
    ct.fill(cart(1))
    claim(ct, 1)
    ct.publish(meanwhile)
    handled(ct, "carts.cart", 2)
    ct.publish(ReminderRequested(cart_id="c1", version=1))
    assert ct.await_told("reminder.skipped") == {"cart_id": "c1", "version": 1, "reason": reason}
    rows = ct.query("SELECT state, reason FROM reminders WHERE period = 1")
    assert rows == [("skipped", reason)]
    assert ct.asked() == ct.asked("message.cancel_requested") == []


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
def test_what_happens_before_it_is_sent_takes_the_message_back(ct: CartsStage, meanwhile: Any, reason: str) -> None:
    ct.start()
    key = reminded(ct)
    ct.publish(meanwhile)
    (cancel,) = ct.await_asked(kind="message.cancel_requested")
    assert (cancel["send_key"], cancel["reason"]) == (key, reason)
    ct.answer(MessageCancelled, key, reason=reason)
    assert ct.await_told("reminder.skipped")["reason"] == reason
    assert ct.told("cart.recovered") == []


def test_what_failed_is_taken_back_too_as_somebody_may_have_it_tried_again(ct: CartsStage) -> None:
    ct.start()
    key = reminded(ct)
    ct.answer(MessageFailed, key, reason="refused", message_id="", attempt=0)
    ct.await_told("reminder.failed")
    ct.publish(ordered(1))
    (cancel,) = ct.await_asked(kind="message.cancel_requested")
    assert (cancel["send_key"], cancel["reason"]) == (key, "bought")


def test_a_reminder_is_taken_back_once_however_often_its_cart_changes(ct: CartsStage) -> None:
    ct.start()
    key = reminded(ct)
    ct.answer(MessageFailed, key, reason="undeliverable")
    ct.await_told("reminder.failed")
    for version in (2, 3, 4):
        ct.fill(cart(1, version))
    no_event_waits(ct)
    assert [one["send_key"] for one in ct.asked("message.cancel_requested")] == [key]


def test_what_was_sent_is_not_taken_back(ct: CartsStage) -> None:
    ct.start()
    key = reminded(ct)
    ct.answer(MessageAccepted, key, wamid="w")
    ct.await_told("reminder.sent")
    ct.fill(cart(1, 2))
    assert ct.cart()["reminder_sent_at"] is None
    no_event_waits(ct)
    assert ct.asked("message.cancel_requested") == []


def test_a_change_begins_a_new_period_with_a_key_of_its_own(ct: CartsStage) -> None:
    ct.start()
    first = reminded(ct)
    ct.answer(MessageAccepted, first, wamid="w")
    ct.await_told("reminder.sent")
    ct.fill(cart(1, 2))
    ct.publish(SCAN)
    second = ct.await_asked(2)[1]["send_key"]
    assert second != first
    ct.answer(MessageAccepted, second, wamid="w")
    assert ct.await_told("reminder.sent", 2)["version"] == 2


def test_a_claim_and_a_change_at_once_leave_one_of_them_first(ct: CartsStage) -> None:
    ct.start()
    ct.fill(cart(1))
    with psycopg.connect(ct.database_url, options="-c search_path=carts") as other:
        other.execute("UPDATE carts SET customer_name = 'in the middle of a change'")
        ct.publish(SCAN)
        handled(ct, "carts.reminder_scan", 1)
        assert ct.reminder() == {}, "a cart that is being changed is not waited for"
    ct.publish(SCAN)
    ct.await_asked()


# -- asked for by hand


def test_a_reminder_asked_for_by_hand_needs_no_idle_time_and_is_one_all_the_same(ct: CartsStage) -> None:
    ct.start(carts_delay_hours=4)
    ct.fill(cart(1))
    ct.publish(ReminderRequested(cart_id="c1"), requester="support")
    ct.await_asked()
    ct.publish(ReminderRequested(cart_id="c1"), requester="support")
    assert ct.await_told("reminder.skipped")["reason"] == "already_reminded"
    assert "carts.reminder.skipped.v1.support" in ct.keys
    ct.query("UPDATE carts SET idle_since = now() - interval '5 hours'")
    ct.publish(SCAN)
    handled(ct, "carts.reminder_scan", 1)
    assert len(ct.asked()) == 1


def test_a_scans_request_that_comes_twice_under_two_ids_asks_once(ct: CartsStage) -> None:
    ct.start()
    reminded(ct)
    ct.publish(new_event(ReminderRequested(cart_id="c1", version=1), SOURCE))
    handled(ct, "carts.reminder", 2)
    assert len(ct.asked()) == 1
    assert ct.told("reminder") == []
    ct.publish(ReminderRequested(cart_id="c1", version=1), requester="support")
    assert ct.await_told("reminder.skipped")["reason"] == "already_reminded", "whoever else asks is answered"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("", "no_such_cart"),
        ("DELETE FROM carts", "no_such_cart"),
        ("UPDATE carts SET item_count = 0", "emptied"),
        ("UPDATE carts SET expires_at = now() - interval '1 second'", "expired"),
        ("UPDATE carts SET phone = NULL, flaw = 'malformed_number: not a telephone number'", "malformed_number"),
        ("UPDATE carts SET idle_since = now() - interval '49 hours'", "too_old"),
        ("UPDATE carts SET status = 'completed'", "bought"),
    ],
)
def test_why_nobody_is_reminded_by_hand_is_told(ct: CartsStage, change: str, reason: str) -> None:
    ct.start()
    if change:
        ct.fill(cart(1))
        ct.query(change)
    ct.publish(ReminderRequested(cart_id="c1"))
    assert ct.await_told("reminder.skipped")["reason"] == reason
    assert ct.asked() == []


# -- what came of it


@pytest.mark.parametrize(
    ("model", "values", "kind", "reason"),
    [
        (MessageFailed, {"reason": "undeliverable"}, "failed", "undeliverable"),
        (MessageUnknown, {}, "failed", "unknown"),
        (MessageSuppressed, {"reason": "opted_out"}, "skipped", "opted_out"),
    ],
)
def test_who_cannot_be_reached_is_never_reminded_of_that_period_again(
    ct: CartsStage, model: Any, values: dict[str, str], kind: str, reason: str
) -> None:
    ct.start()
    key = reminded(ct)
    ct.answer(model, key, **values)
    told = ct.await_told(f"reminder.{kind}")
    assert told == {"cart_id": "c1", "version": 1, "reason": reason} | ({"again": False} if kind == "failed" else {})
    assert not ct.cart()["remindable"]
    ct.query("UPDATE carts SET remind_after = NULL")
    ct.publish(SCAN)
    handled(ct, "carts.reminder_scan", 2)
    assert ct.reminder()["state"] == kind
    assert ct.cart()["reminder_sent_at"] is None


def test_a_failure_that_passes_is_tried_again_later_under_the_same_key(ct: CartsStage) -> None:
    ct.start()
    key = reminded(ct)
    ct.answer(MessageFailed, key, reason="meta_unreachable")
    assert ct.await_told("reminder.failed") == {
        "cart_id": "c1",
        "version": 1,
        "reason": "meta_unreachable",
        "again": True,
    }
    ct.publish(SCAN)
    handled(ct, "carts.reminder_scan", 2)
    assert ct.reminder()["state"] == "failed", "not before some time has passed"
    ((minutes,),) = ct.query("SELECT extract(epoch FROM remind_after - now()) / 60 FROM carts")
    assert 14 < minutes <= 15
    ct.query("UPDATE carts SET remind_after = now()")
    ct.publish(SCAN)
    (again,) = ct.await_asked(kind="retry.requested")
    assert again["send_keys"] == [key]
    assert again["expires_at"] is not None
    assert again["message"]["name"] == "cart_reminder", "as it says by now"
    ct.answer(MessageFailed, key, reason="meta_unreachable", attempt=2)
    ct.await_told("reminder.failed", 2)
    ((minutes,),) = ct.query("SELECT extract(epoch FROM remind_after - now()) / 60 FROM carts")
    assert 29 < minutes <= 30, "each wait is longer"
    ct.query("UPDATE carts SET remind_after = now()")
    ct.publish(SCAN)
    ct.await_asked(2, "retry.requested")
    ct.answer(MessageAccepted, key, wamid="w", attempt=3)
    ct.await_told("reminder.sent")
    assert len(ct.asked()) == 1


def test_what_whatsapp_refused_before_its_ledger_knew_it_is_asked_for_anew(ct: CartsStage) -> None:
    ct.start()
    key = reminded(ct)
    for number in (1, 2):
        ct.answer(MessageFailed, key, reason="refused", message_id="", attempt=0)
        ct.await_told("reminder.failed", number)
        ct.query("UPDATE carts SET remind_after = now()")
        ct.publish(SCAN)
        assert ct.await_asked(number + 1)[-1]["send_key"] == key
    assert ct.asked("retry.requested") == []


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
def test_facts_of_one_attempt_in_any_order_end_alike(ct: CartsStage, facts: tuple[Any, ...], state: str) -> None:
    ct.start()
    key = reminded(ct)
    for number, model in enumerate(facts, 1):
        ct.answer(
            model, key, **{MessageAccepted: {"wamid": "w"}, MessageFailed: {"reason": "undeliverable"}}.get(model, {})
        )
        handled(ct, "carts.answer", number)
    assert ct.reminder()["state"] == state
    assert (ct.cart()["reminder_sent_at"] is not None) == (state == "sent")
    assert len(ct.told("reminder.sent")) <= 1


def test_a_fact_of_an_earlier_attempt_is_old_news(ct: CartsStage) -> None:
    ct.start()
    key = reminded(ct)
    ct.answer(MessageAccepted, key, wamid="w", attempt=2)
    ct.await_told("reminder.sent")
    ct.answer(MessageFailed, key, reason="meta_failed", attempt=1)
    handled(ct, "carts.answer", 2)
    assert ct.reminder()["state"] == "sent"


def test_what_came_of_a_cart_that_is_gone_or_of_nobodys_key_harms_nobody(ct: CartsStage) -> None:
    ct.start()
    key = reminded(ct)
    ct.query("DELETE FROM carts")
    ct.answer(MessageAccepted, key, wamid="w")
    ct.answer(MessageAccepted, "somebody's", wamid="w")
    handled(ct, "carts.answer", 2)
    assert ct.query("SELECT state FROM reminders") == [("sent",)]
    assert ct.told("reminder") == []


@pytest.mark.parametrize(("seconds", "recovered"), [(-60, True), (60, False)], ids=["accepted before", "after"])
def test_an_order_that_is_known_before_the_answer_is_recovered_where_that_came_first(
    ct: CartsStage, seconds: float, recovered: bool
) -> None:
    ct.start()
    key = reminded(ct)
    now = datetime.now(UTC)
    ct.publish(replace(new_event(ordered(1), "/shop"), time=now))
    eventually(lambda: ct.cart()["status"] == "completed")
    accepted = MessageAccepted(send_key=key, message_id="m1", attempt=1, wamid="w")
    told = new_event(accepted, "/wch/whatsapp", requester=REQUESTER)
    ct.publish(replace(told, time=now + timedelta(seconds=seconds)))
    ct.await_told("reminder.sent")
    no_event_waits(ct)
    assert ct.told("cart.recovered") == (
        [{"cart_id": "c1", "order_id": 101, "total": "19.9", "currency": "EUR"}] if recovered else []
    )
    assert "carts.cart.recovered.v1.carts" not in ct.keys


# -- what time does


def test_a_reminder_without_an_answer_for_a_day_makes_a_cart_abandoned(ct: CartsStage) -> None:
    service = ct.start()
    for number in (1, 2, 3):
        ct.answer(MessageAccepted, reminded(ct, number), wamid="w")
    ct.await_told("reminder.sent", 3)
    service.stop()
    ct.query("UPDATE carts SET reminder_sent_at = now() - interval '24 hours 1 second' WHERE cart_id <> 'c3'")
    ct.query("UPDATE carts SET reminder_sent_at = now() - interval '23 hours 50 minutes' WHERE cart_id = 'c3'")
    ct.start()
    eventually(lambda: {ct.cart("c1")["status"], ct.cart("c2")["status"]} == {"abandoned"})
    assert ct.cart("c3")["status"] == "active"
    ct.fill(cart(1, 2))
    assert ct.cart("c1")["status"] == "active", "its owner came back"
    ct.publish(ordered(2, 2))
    assert ct.await_told("cart.recovered")["cart_id"] == "c2"
    assert ct.cart("c2")["status"] == "completed"


@pytest.mark.parametrize(("hours", "again"), [(5.9, False), (6.1, True)])
def test_one_whose_answer_was_lost_is_asked_for_again_under_its_key(ct: CartsStage, hours: float, again: bool) -> None:
    service = ct.start()
    key = reminded(ct)
    service.stop()
    ct.query("UPDATE reminders SET changed_at = now() - %s * interval '1 hour'", hours)
    ct.start()
    if again:
        eventually(lambda: ct.cart()["remindable"])
        ct.publish(SCAN)
        assert [one["send_key"] for one in ct.await_asked(2)] == [key, key]
    else:
        ct.publish(ReminderRequested(cart_id="c1"))
        assert ct.await_told("reminder.skipped")["reason"] == "already_reminded"


def test_a_cart_that_was_emptied_after_its_reminder_is_never_abandoned_for_it(ct: CartsStage) -> None:
    ct.start()
    key = reminded(ct)
    ct.answer(MessageAccepted, key, wamid="w")
    ct.await_told("reminder.sent")
    ct.fill(cart(1, 2, items=(), total="0"))
    ct.answer(MessageRead, key)
    handled(ct, "carts.answer", 2)
    assert ct.reminder()["rank"] == 5
    assert ct.cart()["reminder_sent_at"] is None


def test_a_claim_whose_cart_is_another_by_now_is_over_after_a_day(ct: CartsStage) -> None:
    service = ct.start()
    ct.fill(cart(1))
    claim(ct, 1, "25 hours")
    ct.fill(cart(1, 2))
    service.stop()
    ct.start()
    eventually(lambda: ct.query("SELECT state, reason FROM reminders") == [("skipped", "changed")])


def test_a_claim_whose_request_ended_as_a_dead_letter_is_free_after_an_hour(ct: CartsStage) -> None:
    service = ct.start()
    ct.fill(cart(1), cart(2))
    service.stop()
    claim(ct, 1, "61 minutes")
    claim(ct, 2, "59 minutes")
    ct.start()
    eventually(lambda: ct.cart("c1")["remindable"])
    assert not ct.cart("c2")["remindable"]
    ct.publish(SCAN)
    assert [one["to"] for one in ct.await_asked()] == [phone(1)]


# -- how it is found


def test_what_is_looked_for_is_found_by_an_index(ct: CartsStage) -> None:
    ct.start()
    ct.fill(cart(1))
    ct.query("""INSERT INTO carts (id, shop, cart_id, version, status, remindable, expires_at, idle_since, phone, item_count)
    SELECT gen_random_uuid(), '', 'x' || n, 1, (ARRAY['active', 'completed', 'abandoned'])[1 + n % 3], n % 6 = 0,
           now() + n * interval '1 second' - interval '10 hours', now() - n * interval '1 second', '+1', 1
    FROM generate_series(1, 50000) AS n""")
    ct.query("""INSERT INTO reminders (cart, period, shop, state, changed_at)
    SELECT id, 1, '', (ARRAY['sent', 'skipped', 'failed'])[1 + (row_number() OVER ())::int % 3], now() - interval '1 week' FROM carts""")
    ct.query("""UPDATE reminders SET state = 'asked' WHERE cart IN (SELECT cart FROM reminders LIMIT 50)""")
    ct.query("ANALYZE carts, reminders")
    values = {
        "shop": "''",
        "delay": "4",
        "oldest": "48",
        "limit": "500",
        "chunk": "1000",
        "asked_at": "now()",
        "older_than_hours": "NULL",
        "hours": "24",
    }
    looked_for = (
        (reminders.CLAIM, "carts_idle"),
        (cleanup.DELETE, "carts_expiring"),
        (maintenance.ABANDON, "carts_unanswered"),
        (maintenance.FREE[0], "reminders_open"),
        (maintenance.FREE[1], "reminders_asked"),
        (maintenance.OVER, "reminders_open"),
    )
    for statement, index in looked_for:
        for name, value in values.items():
            statement = statement.replace(f"%({name})s", value)  # noqa: PLW2901 - its parameters one by one
        plan = "\n".join(str(row[0]) for row in ct.query(f"EXPLAIN {statement}"))
        assert index in plan, plan
        assert "Seq Scan" not in plan, plan
