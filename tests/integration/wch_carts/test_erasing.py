"""Erasing and exporting a customer, by request and with `wch carts`, on a real broker and database."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from support.carts_stage import CartsStage, cart, ordered
from support.command import wch
from support.waiting import eventually
from support.whatsapp_stage import phone
from wch_common.contract.personal import ERASED
from wch_common.events.carts import (
    CustomerErased,
    CustomerEraseRequested,
    ReminderScanRequested,
)
from wch_common.events.shop import Address
from wch_common.events.whatsapp import MessageAccepted


def run(ct: CartsStage, *words: str, code: int = 0) -> str:
    """Run `wch carts` and return what it prints."""
    return wch(ct.stage, "carts", *words, code=code, WCH_DATABASE_URL=ct.database_url)


def erase(ct: CartsStage, number: str, times: int) -> dict[str, Any]:
    """Publish a request to erase a customer, and return the fact with that number."""
    ct.publish(CustomerEraseRequested(phone=number, reason="requested", by="tests"), requester="crm")
    return ct.await_fact("customer.erased", times)


def counts(fact: dict[str, Any]) -> dict[str, int]:
    """Return the rows of a fact by table."""
    return {one["table"]: one["rows"] for one in fact["rows"]}


def test_a_request_erases_a_customer_from_every_cart_and_is_answered(ct: CartsStage) -> None:
    ct.start()
    address = Address(name="Ada", city="Köln")
    ct.fill(
        *(cart(n, phone=phone(1), coupon="X", link="https://shop.example/c", shipping_address=address) for n in (1, 2))
    )
    ct.fill(cart(3))
    ct.publish(ordered(2))
    eventually(lambda: ct.cart("c2")["order_id"] == 102)
    assert counts(erase(ct, phone(1), 1)) == {"carts": 2, "outbox": 0, "parked": 0, "reminders": 0}
    assert "carts.customer.erased.v1.crm" in ct.keys
    erased: dict[str, Any] = {
        "phone": None, "person": None, "customer_name": "", "items": [], "item_count": 0, "coupon": "", "link": "",
        "address": None, "order_id": None, "no_phone_reason": "erased", "remindable": False,
    }  # fmt: skip
    for name in ("c1", "c2"):
        assert {column: ct.cart(name)[column] for column in erased} == erased
    assert ct.cart("c2")["order_total"] == Decimal("19.9"), "the value is kept"
    assert (ct.cart("c3")["phone"], ct.cart("c3")["customer_name"]) == (phone(3), "Ada")


def test_a_repeated_erase_request_is_answered_with_no_rows(ct: CartsStage) -> None:
    ct.start()
    ct.fill(cart(1))
    assert counts(erase(ct, phone(1), 1))["carts"] == 1
    assert set(counts(erase(ct, phone(1), 2)).values()) == {0}


def test_an_erase_request_with_a_malformed_number_is_dead_lettered(ct: CartsStage) -> None:
    ct.start()
    ct.publish(CustomerEraseRequested(phone="12", reason="", by="tests"))
    (dead_letter,) = ct.stage.await_dead_letters("carts.control.dlq")
    assert "data.phone: not a phone number" in str(dead_letter.message.headers["wch-error-message"])
    assert ct.facts() == []


def test_neither_the_request_nor_the_fact_names_the_customer_in_its_subject() -> None:
    request = CustomerEraseRequested(phone=phone(1), reason="", by="tests")
    assert (request.subject(), CustomerErased(rows=()).subject()) == (None, None)


def test_who_was_reminded_is_erased_although_the_cart_is_gone(ct: CartsStage) -> None:
    ct.start()
    ct.answer(MessageAccepted, ct.remind(), wamid="w")
    ct.await_fact("reminder.sent")
    ct.query("DELETE FROM carts")
    assert counts(erase(ct, phone(1), 1)) == {"carts": 0, "outbox": 0, "parked": 0, "reminders": 1}
    assert ct.query("SELECT person FROM reminders") == [(None,)]


def test_a_customer_is_exported_and_erased_by_command(ct: CartsStage) -> None:
    ct.start()
    ct.fill(cart(1, coupon="X", link="https://shop.example/c", shipping_address=Address(city="Köln")), cart(2))
    (shown,) = json.loads(run(ct, "export", phone(1)))["carts"]
    assert shown["reminders"] == []
    assert (shown["customer_name"], shown["address"], Decimal(shown["total"])) == (
        "Ada",
        {"city": "Köln"},
        Decimal("19.9"),
    )
    assert "would erase" in run(ct, "erase", phone(1), "--dry-run")
    assert json.loads(run(ct, "export", phone(1)))["carts"] == [shown], "a dry run changes nothing"
    assert ": 1 row in carts" in run(ct, "erase", phone(1))
    assert json.loads(run(ct, "export", phone(1))) == {"carts": [], "outbox": [], "parked": [], "reminders": []}
    row = ct.cart()
    assert [row[name] for name in ("phone", "person", "customer_name", "items", "coupon", "link", "address")] == [
        None, None, "", [], "", "", None
    ]  # fmt: skip
    assert row["total"] == Decimal("19.9")
    ct.publish(ReminderScanRequested())
    assert [one["to"] for one in ct.await_requests()] == [phone(2)]
    assert "not a phone number" in run(ct, "erase", "who", code=1)


def test_a_cart_whose_fact_was_erased_while_it_waited_has_no_owner(ct: CartsStage) -> None:
    ct.start()
    ct.fill(cart(1, phone=ERASED, customer_name=""))
    row = ct.cart()
    assert (row["phone"], row["no_phone_reason"], row["remindable"]) == (None, "erased", False)
