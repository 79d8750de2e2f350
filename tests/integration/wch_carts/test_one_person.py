"""A person with several carts, and how many reminders a shop may send: whoever has ordered, was just reminded or has not agreed is left alone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from support.carts_stage import CartsStage, cart, ordered
from support.waiting import eventually
from support.whatsapp_stage import erased, phone
from wch_common.contract.event import new_event
from wch_common.events.carts import ReminderRequested, ReminderScanRequested
from wch_common.events.shop import CartDeleted, Consent
from wch_common.events.whatsapp import MessageAccepted, MessageFailed, MessageUnknown, RecipientLinked

SCAN = ReminderScanRequested()
OTHER_FORM = "+1 (555) 010-0001"


def test_two_carts_of_one_person_cause_one_reminder(ct: CartsStage) -> None:
    ct.start()
    ct.fill(cart(1), cart(2, phone=OTHER_FORM))
    ct.publish(SCAN)
    (request,) = ct.await_requests()
    ct.await_handled("carts.reminder", 2)
    left = "c2" if ct.reminder("c1")["state"] == "requested" else "c1"
    assert (ct.reminder(left)["state"], ct.reminder(left)["reason"]) == ("skipped", "reminded_recently")
    assert ct.await_fact("reminder.skipped")["reason"] == "reminded_recently"
    ct.answer(MessageAccepted, request["send_key"], wamid="w")
    ct.await_fact("reminder.sent")
    ct.publish(SCAN)
    ct.await_handled("carts.reminder_scan", 2)
    assert ct.cart(left)["remindable"], "a later scan may remind them of it"
    assert ct.cart(left)["remind_after"] > datetime.now(UTC) + timedelta(hours=23)
    ct.query("UPDATE carts SET remind_after = now()")
    ct.query("UPDATE reminders SET sent_at = sent_at - interval '25 hours' WHERE sent_at IS NOT NULL")
    ct.publish(SCAN)
    ct.await_requests(2)


def test_the_same_cart_does_not_cause_a_second_reminder_soon(ct: CartsStage) -> None:
    ct.start()
    ct.answer(MessageAccepted, ct.remind(), wamid="w")
    ct.await_fact("reminder.sent")
    ct.fill(cart(1, 2))
    ct.publish(SCAN)
    assert ct.await_fact("reminder.skipped") == {"cart_id": "c1", "version": 2, "reason": "reminded_recently"}


def test_a_person_is_remembered_although_the_reminded_cart_is_gone(ct: CartsStage) -> None:
    ct.start()
    ct.answer(MessageAccepted, ct.remind(), wamid="w")
    ct.await_fact("reminder.sent")
    ct.publish(CartDeleted(cart_id="c1", version=2))
    eventually(lambda: ct.cart()["person"] is None)
    ct.fill(cart(2, phone=OTHER_FORM))
    ct.publish(SCAN)
    assert ct.await_fact("reminder.skipped") == {"cart_id": "c2", "version": 1, "reason": "reminded_recently"}


def test_who_was_reminded_is_forgotten_when_it_decides_nothing_any_more(ct: CartsStage) -> None:
    service = ct.start()
    ct.answer(MessageAccepted, ct.remind(), wamid="w")
    ct.await_fact("reminder.sent")
    ct.fill(cart(2))
    ct.publish(SCAN)
    ct.await_requests(2)
    ct.query("UPDATE reminders SET changed_at = changed_at - interval '25 hours' WHERE state = 'sent'")
    service.stop()
    ct.start()
    eventually(lambda: ct.reminder("c1")["person"] is None)
    assert ct.reminder("c2")["person"] == phone(2)


def test_a_reminder_that_may_have_been_sent_counts(ct: CartsStage) -> None:
    ct.start()
    ct.answer(MessageUnknown, ct.remind())
    ct.await_fact("reminder.failed")
    ct.fill(cart(2, phone=OTHER_FORM))
    ct.publish(SCAN)
    assert ct.await_fact("reminder.skipped")["reason"] == "reminded_recently"


def test_a_setting_allows_reminders_of_one_person_at_any_time(ct: CartsStage) -> None:
    ct.start(carts_person_hours=0)
    ct.fill(cart(1), cart(2, phone=OTHER_FORM))
    ct.publish(SCAN)
    ct.await_requests(2)


def test_such_a_setting_holds_for_a_transaction_that_began_before_the_other_one(ct: CartsStage) -> None:
    ct.start(carts_person_hours=0)
    ct.answer(MessageAccepted, ct.remind(), wamid="w")
    ct.await_fact("reminder.sent")
    ct.query("UPDATE reminders SET changed_at = now() + interval '1 minute', sent_at = now() + interval '1 minute'")
    ct.fill(cart(2, phone=OTHER_FORM))
    ct.publish(SCAN)
    ct.await_requests(2)


def test_a_failed_reminder_leaves_the_other_cart_for_a_later_scan(ct: CartsStage) -> None:
    ct.start()
    ct.answer(MessageFailed, ct.remind(), reason="undeliverable")
    ct.await_fact("reminder.failed")
    ct.fill(cart(2, phone=OTHER_FORM))
    ct.publish(SCAN)
    ct.await_requests(2)


def test_a_person_who_ordered_with_another_cart_is_not_reminded_of_the_older_one(ct: CartsStage) -> None:
    ct.start(carts_person_hours=0)
    ct.fill(cart(1), cart(2, phone=OTHER_FORM), cart(3))
    ct.publish(ordered(2))
    eventually(lambda: ct.cart("c2")["status"] == "completed")
    ct.fill(cart(4, phone=phone(1)))
    ct.publish(SCAN)
    assert {one["to"] for one in ct.await_requests(2)} == {phone(1), phone(3)}
    assert ct.await_fact("reminder.skipped") == {"cart_id": "c1", "version": 1, "reason": "ordered_since"}
    assert ct.reminder("c4")["state"] == "requested", "they left it after their order"


def test_an_order_cancels_the_reminder_of_the_persons_older_cart(ct: CartsStage) -> None:
    ct.start()
    key = ct.remind()
    ct.fill(cart(2, phone=OTHER_FORM), cart(3))
    ct.publish(ordered(2))
    (cancel,) = ct.await_requests(kind="message.cancel_requested")
    assert cancel == {"send_key": key, "reason": "bought"}
    ct.fill(cart(4, phone=OTHER_FORM))
    ct.publish(ordered(3))
    ct.await_handled("carts.cart", 6)
    ct.await_published()
    assert len(ct.requests("message.cancel_requested")) == 1, "another person's order cancels nothing"


def test_an_order_that_arrives_before_its_cart_cancels_the_reminder_of_the_older_one(ct: CartsStage) -> None:
    ct.start()
    key = ct.remind()
    ct.publish(ordered(2, 2))
    eventually(lambda: ct.cart("c2").get("status") == "completed")
    ct.publish(cart(2, 1, phone=OTHER_FORM))
    (cancel,) = ct.await_requests(kind="message.cancel_requested")
    assert cancel == {"send_key": key, "reason": "bought"}


def test_an_order_and_a_reminder_at_the_same_time_end_without_a_message(ct: CartsStage) -> None:
    """Whichever comes first: the reminder is skipped, or its cancellation is requested."""
    ct.start(carts_person_hours=0)
    people = range(1, 21)
    ct.fill(*(cart(n) for n in people), *(cart(100 + n, phone=phone(n)) for n in people))
    requests = [ReminderRequested(cart_id=f"c{n}") for n in people]
    orders = [ordered(100 + n) for n in people]
    ct.publish(*(one for pair in zip(requests, orders, strict=True) for one in pair))
    ct.await_handled("carts.reminder", 20)
    ct.await_handled("carts.cart", 60)
    ct.await_published()

    def skipped() -> int:
        return sum(one["reason"] == "ordered_since" for one in ct.facts("reminder.skipped"))

    eventually(lambda: skipped() + len(ct.requests()) == len(people))
    eventually(lambda: _keys(ct, "message.cancel_requested") == _keys(ct, "message.requested"))


def _keys(ct: CartsStage, kind: str) -> set[str]:
    return {one["send_key"] for one in ct.requests(kind)}


def test_only_who_agreed_is_reminded_where_the_shop_requires_it(ct: CartsStage) -> None:
    ct.start(carts_consent_required=True)
    consent = Consent(source="checkout", time=datetime.now(UTC), text="Yes, remind me")
    ct.fill(cart(1), cart(2, consent=consent))
    ct.publish(SCAN)
    (request,) = ct.await_requests()
    assert request["to"] == phone(2)
    assert ct.await_fact("reminder.skipped") == {"cart_id": "c1", "version": 1, "reason": "no_consent"}
    assert ct.cart("c2")["consent"]["text"] == "Yes, remind me"


def test_a_shop_sends_so_many_reminders_an_hour_and_the_others_wait(ct: CartsStage) -> None:
    service = ct.start(carts_most_per_hour=2)
    ct.fill(*(cart(n) for n in range(1, 6)))
    ct.publish(SCAN)
    ct.await_requests(2)
    ct.publish(SCAN, SCAN)
    ct.await_handled("carts.reminder_scan", 3)
    assert len(ct.requests()) == 2
    registry = service.service._metrics.registry
    eventually(lambda: registry.get_sample_value("wch_carts_alerts_total", {"cause": "hourly_limit"}) == 2)
    ct.publish(new_event(ReminderRequested(cart_id="c5"), "/tests", requester="crm"))
    assert ct.await_fact("reminder.skipped")["reason"] == "hourly_limit"
    for request in ct.requests():
        ct.answer(MessageAccepted, request["send_key"], wamid="w")
    ct.await_fact("reminder.sent", 2)
    ct.query("UPDATE reminders SET sent_at = sent_at - interval '61 minutes'")
    ct.publish(SCAN)
    ct.await_requests(4)


def test_claims_whose_requests_are_lost_do_not_use_the_limit_for_ever(ct: CartsStage) -> None:
    ct.start(carts_most_per_hour=1)
    ct.fill(cart(1), cart(2))
    ct.claim(1, age="61 minutes")
    ct.publish(SCAN)
    (request,) = ct.await_requests()
    assert request["to"] == phone(2)


def test_no_alert_is_raised_while_no_cart_waits(ct: CartsStage) -> None:
    service = ct.start(carts_most_per_hour=1)
    ct.remind()
    ct.publish(SCAN)
    sample = service.service._metrics.registry.get_sample_value
    scans = {"queue": "carts.reminder_scan", "type": SCAN.TYPE, "outcome": "done"}
    eventually(lambda: sample("wch_events_handled_total", scans) == 2, "what follows the commit is done too")
    assert sample("wch_carts_alerts_total", {"cause": "hourly_limit"}) is None


@pytest.mark.parametrize("link", ["https://evil.example/c", "https://shop.example/c"])
def test_a_reminder_carries_no_words_of_a_stranger(ct: CartsStage, link: str) -> None:
    ct.start(carts_body=("{name|there}", "{link|our shop}"), carts_link_hosts=("shop.example",))
    ct.fill(cart(1, customer_name="You won: open evil.example", link=link))
    ct.publish(SCAN)
    (request,) = ct.await_requests()
    sent = [value["text"] for value in request["message"]["body"]]
    assert sent == ["there", link if "shop.example" in link else "our shop"]


ID = "US.15550100001771"


def test_an_owner_who_hides_their_number_is_reminded_by_their_id(ct: CartsStage) -> None:
    ct.start()
    ct.fill(cart(1, phone=None, user_id=ID), cart(2, user_id=ID, phone="no number"), cart(3, phone=None))
    ct.publish(SCAN)
    (request,) = ct.await_requests()
    assert request["to"] == ID
    assert ct.await_fact("reminder.skipped")["reason"] == "reminded_recently"
    assert (ct.cart("c3")["no_phone_reason"], ct.cart("c3")["remindable"]) == ("no_number", False)


def test_a_number_and_an_id_are_given_together(ct: CartsStage) -> None:
    ct.start()
    ct.fill(cart(1, user_id=ID))
    ct.publish(SCAN)
    (request,) = ct.await_requests()
    assert request["to"] == {"phone": phone(1), "user_id": ID, "parent_id": None}


@pytest.mark.parametrize("known", [{"phone": None, "user_id": ID}, {}], ids=["by id", "by number"])
def test_an_order_with_number_and_id_ends_reminders_of_older_carts_with_either(
    ct: CartsStage, known: dict[str, Any]
) -> None:
    ct.start()
    ct.fill(cart(1, **known))
    ct.publish(SCAN)
    (request,) = ct.await_requests()
    ct.fill(cart(2, phone=phone(1), user_id=ID))
    ct.publish(ordered(2))
    (cancel,) = ct.await_requests(kind="message.cancel_requested")
    assert cancel == {"send_key": request["send_key"], "reason": "bought"}


def test_two_carts_with_one_id_cause_one_reminder(ct: CartsStage) -> None:
    ct.start()
    ct.fill(cart(1, user_id=ID), cart(2, phone=None, user_id=ID))
    ct.publish(SCAN)
    ct.await_requests()
    ct.await_handled("carts.reminder", 2)
    assert ct.await_fact("reminder.skipped")["reason"] == "reminded_recently"


def test_an_owner_is_erased_by_their_id(ct: CartsStage) -> None:
    ct.start()
    ct.fill(cart(1, user_id=ID), cart(2, phone=None, user_id=ID), cart(3))
    ct.publish(erased(ID))
    ct.await_fact("customer.erased")
    rows = ct.query("SELECT cart_id, phone, user_id, person FROM carts ORDER BY cart_id")
    assert rows == [("c1", None, None, None), ("c2", None, None, None), ("c3", phone(3), None, phone(3))]


def linked(number: int, user_id: str = ID, minute: int = 0, portfolio: str = "main") -> RecipientLinked:
    """Return whatsapp's fact that Meta has used a number and an id for one person."""
    at = datetime(2026, 11, 1, 12, minute, tzinfo=UTC)
    return RecipientLinked(phone=phone(number), user_id=user_id, portfolio=portfolio, timestamp=at)


def link(ct: CartsStage, *facts: Any) -> None:
    """Publish links one after the other, and wait until they are handled."""
    for fact in facts:
        before = ct.query("SELECT count(*) FROM inbox WHERE queue = 'carts.cart'")[0][0]
        ct.publish(fact)
        ct.await_handled("carts.cart", before + 1)


BY_ID: dict[str, Any] = {"phone": None, "user_id": ID}


@pytest.mark.parametrize(("first", "second"), [({}, BY_ID), (BY_ID, {})], ids=["number, then id", "id, then number"])
def test_carts_with_a_number_and_with_the_linked_id_cause_one_reminder(
    ct: CartsStage, first: dict[str, Any], second: dict[str, Any]
) -> None:
    ct.start()
    ct.fill(cart(1, phone=phone(1)).model_copy(update=first))
    ct.publish(SCAN)
    ct.await_requests()
    link(ct, linked(1))
    ct.fill(cart(2, phone=phone(1)).model_copy(update=second))
    ct.publish(SCAN)
    assert ct.await_fact("reminder.skipped")["reason"] == "reminded_recently"
    ct.await_requests(1)


@pytest.mark.parametrize("old", [{}, BY_ID], ids=["by number", "by id"])
def test_an_order_under_the_linked_name_ends_reminders_of_older_carts(ct: CartsStage, old: dict[str, Any]) -> None:
    ct.start(carts_person_hours=0)
    link(ct, linked(1))
    new = {} if old else BY_ID
    ct.fill(cart(1, phone=phone(1)).model_copy(update=old))
    ct.publish(SCAN)
    (request,) = ct.await_requests()
    ct.fill(cart(2, phone=phone(1)).model_copy(update=new))
    ct.publish(ordered(2))
    (cancel,) = ct.await_requests(kind="message.cancel_requested")
    assert cancel["send_key"] == request["send_key"]


OTHER_ID = "US.15550100002772"


@pytest.mark.parametrize(
    "names", [({}, BY_ID, {"phone": None, "user_id": OTHER_ID}), ({"phone": None, "user_id": OTHER_ID}, {}, BY_ID)]
)
def test_a_number_and_its_ids_of_several_portfolios_are_one_person(
    ct: CartsStage, names: Sequence[dict[str, Any]]
) -> None:
    ct.start()
    link(ct, linked(1), linked(1, OTHER_ID, minute=1, portfolio="second"))
    ct.fill(*(cart(number, phone=phone(1)).model_copy(update=one) for number, one in enumerate(names, start=1)))
    ct.publish(SCAN)
    assert {ct.await_fact("reminder.skipped", number)["reason"] for number in (1, 2)} == {"reminded_recently"}
    ct.await_requests(1)


def test_a_number_that_its_owner_gave_up_is_another_persons(ct: CartsStage) -> None:
    ct.start()
    link(ct, linked(2, minute=2), linked(1, minute=1))
    ct.fill(cart(1), cart(2, phone=phone(2)), cart(3, **BY_ID))
    ct.publish(SCAN)
    requests = ct.await_requests(2)
    assert phone(1) in {request["to"] for request in requests}, "the new owner of the number"
    assert ct.await_fact("reminder.skipped")["reason"] == "reminded_recently"


def test_of_two_links_of_a_number_the_later_holds_whichever_arrives_first(ct: CartsStage) -> None:
    ct.start()
    other = "US.15550100002772"
    link(ct, linked(1, other, minute=2), linked(1, ID, minute=1), linked(2, ID, minute=3))
    ct.fill(cart(1), cart(2, phone=phone(2)), cart(3, **BY_ID))
    ct.publish(SCAN)
    requests = ct.await_requests(2)
    assert phone(1) in {request["to"] for request in requests}, "the number is another person's by now"
    assert ct.await_fact("reminder.skipped")["reason"] == "reminded_recently"


def test_a_link_is_erased_with_the_person_and_one_from_before_is_not_stored(ct: CartsStage) -> None:
    ct.start()
    old = new_event(linked(2, "US.15550100002772", minute=1), "/wch/whatsapp")
    link(ct, linked(1))
    ct.publish(erased(ID), erased(phone(2), erasure="second"), requester="crm")
    ct.await_fact("customer.erased", 2)
    assert ct.query("SELECT * FROM person_links") == []
    link(ct, old)
    assert ct.query("SELECT * FROM person_links") == []
