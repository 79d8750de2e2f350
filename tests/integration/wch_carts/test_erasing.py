"""Erasing a customer from carts, once whatsapp says who it is, on a real broker and database."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from support.carts_stage import CartsStage, cart, ordered
from support.waiting import eventually
from support.whatsapp_stage import erased, phone
from wch_common.contract.personal import ERASED
from wch_common.events.shop import Address
from wch_common.events.whatsapp import MessageAccepted


def erase(ct: CartsStage, number: str, times: int) -> dict[str, Any]:
    """Publish that a person was erased, and return the fact with that number."""
    ct.publish(erased(number, erasure=f"erasure-{times}"), requester="crm")
    return ct.await_fact("customer.erased", times)


def counts(fact: dict[str, Any]) -> dict[str, int]:
    """Return the rows of a fact by table."""
    return {one["table"]: one["rows"] for one in fact["rows"]}


def test_an_erasure_erases_a_customer_from_every_cart_and_is_answered(ct: CartsStage) -> None:
    ct.start()
    address = Address(name="Ada", city="Köln")
    ct.fill(
        *(cart(n, phone=phone(1), coupon="X", link="https://shop.example/c", shipping_address=address) for n in (1, 2))
    )
    ct.fill(cart(3))
    ct.publish(ordered(2))
    eventually(lambda: ct.cart("c2")["order_id"] == 102)
    assert counts(erase(ct, phone(1), 1)) == {"carts": 2, "outbox": 0, "parked": 0, "person_links": 0, "reminders": 0}
    assert "carts.customer.erased.v1.crm" in ct.keys
    left: dict[str, Any] = {
        "phone": None, "person": None, "customer_name": "", "items": [], "item_count": 0, "coupon": "", "link": "",
        "address": None, "order_id": None, "no_phone_reason": "erased", "remindable": False,
    }  # fmt: skip
    for name in ("c1", "c2"):
        assert {column: ct.cart(name)[column] for column in left} == left
    assert ct.cart("c2")["order_total"] == Decimal("19.9"), "the value is kept"
    assert (ct.cart("c3")["phone"], ct.cart("c3")["customer_name"]) == (phone(3), "Ada")


def test_a_second_erasure_is_answered_with_no_rows(ct: CartsStage) -> None:
    ct.start()
    ct.fill(cart(1))
    assert counts(erase(ct, phone(1), 1))["carts"] == 1
    assert set(counts(erase(ct, phone(1), 2)).values()) == {0}


def test_who_was_reminded_is_erased_although_the_cart_is_gone(ct: CartsStage) -> None:
    ct.start()
    ct.answer(MessageAccepted, ct.remind(), wamid="w")
    ct.await_fact("reminder.sent")
    ct.query("DELETE FROM carts")
    assert counts(erase(ct, phone(1), 1)) == {"carts": 0, "outbox": 0, "parked": 0, "person_links": 0, "reminders": 1}
    assert ct.query("SELECT person FROM reminders") == [(None,)]


def test_a_cart_whose_fact_was_erased_while_it_waited_has_no_owner(ct: CartsStage) -> None:
    ct.start()
    ct.fill(cart(1, phone=ERASED, customer_name=""))
    row = ct.cart()
    assert (row["phone"], row["no_phone_reason"], row["remindable"]) == (None, "erased", False)
