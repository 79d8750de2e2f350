"""Carts as the shop publishes them, in any order and repeated, on a real broker and database."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import permutations
from pathlib import Path
from typing import Any

import orjson
import pytest

from support.carts_stage import TEE, CartsStage, cart, ordered
from support.waiting import eventually
from support.whatsapp_stage import phone
from wch_carts.tables import CARTS
from wch_common.contract.envelope import STRUCTURED
from wch_common.contract.event import new_event
from wch_common.contract.message import Message
from wch_common.events.carts import ReminderScanRequested
from wch_common.events.shop import Address, CartCompleted, CartDeleted, CartItem, CartUpdated


def test_a_cart_is_stored_as_published(ct: CartsStage) -> None:
    ct.start(carts_expiry_hours=72)
    address = Address(name="Ada", city="Köln", country="DE")
    ct.fill(cart(1, coupon="SPRING", shipping_address=address, link="https://shop.example/cart/1"))
    row = ct.cart()
    assert (row["status"], row["phone"], row["total"], row["currency"]) == ("active", phone(1), Decimal("19.90"), "EUR")
    assert row["items"] == [{"product_id": 1, "name": "Tee", "quantity": 2, "price": "9.95"}]
    assert row["address"] == {"name": "Ada", "city": "Köln", "country": "DE"}
    assert row["expires_at"] - row["updated_at"] == timedelta(hours=72)
    assert row["reminder_sent_at"] is None


@pytest.mark.parametrize("order", list(permutations((1, 2, 3))))
def test_changes_in_any_order_end_in_the_newest(ct: CartsStage, order: tuple[int, ...]) -> None:
    ct.start()
    for number, version in enumerate(order, 1):
        ct.publish(cart(1, version, customer_name=f"at {version}"))
        ct.await_handled("carts.cart", number)
    ct.publish(cart(1, 3, customer_name="another one with version 3"))
    ct.await_handled("carts.cart", 4)
    assert (ct.cart()["version"], ct.cart()["customer_name"]) == (3, "at 3")


@pytest.mark.parametrize("order", list(permutations(("updated", "completed", "late"))))
def test_a_late_change_does_not_make_an_ordered_cart_active(ct: CartsStage, order: tuple[str, ...]) -> None:
    ct.start()
    facts = {"updated": cart(1, 2), "completed": ordered(1, 3, total="25.00"), "late": cart(1, 1)}
    for number, name in enumerate(order, 1):
        ct.publish(facts[name])
        ct.await_handled("carts.cart", number)
    row = ct.cart()
    assert (row["status"], row["version"], row["order_id"], row["order_total"]) == ("completed", 3, 101, 25)
    assert not row["remindable"]


def test_an_order_wins_over_a_change_of_the_same_version(ct: CartsStage) -> None:
    ct.start()
    ct.publish(ordered(1, 2))
    ct.await_handled("carts.cart", 1)
    ct.publish(cart(1, 2))
    ct.await_handled("carts.cart", 2)
    assert ct.cart()["status"] == "completed"


def filled(version: int) -> CartUpdated:
    return cart(1, version)


def emptied(version: int) -> CartUpdated:
    return cart(1, version, items=(), total="0")


def deleted(version: int) -> CartDeleted:
    return CartDeleted(cart_id="c1", version=version)


def bought(version: int) -> CartCompleted:
    return ordered(1, version)


@pytest.mark.parametrize(
    ("facts", "status", "items"),
    [
        ((filled(1), bought(2), emptied(3)), "completed", None),
        ((filled(1), bought(2), deleted(3)), "completed", None),
        ((filled(1), bought(2), filled(4)), "active", 1),
        ((filled(4), bought(5), bought(2)), "completed", None),
        ((bought(2), filled(4), deleted(5)), "deleted", 0),
        ((bought(2), filled(4), emptied(6)), "active", 0),
        ((filled(1), deleted(2), filled(3)), "active", 1),
        ((filled(1), deleted(2)), "deleted", 0),
        ((filled(1), deleted(2), emptied(3)), "active", 0),
    ],
    ids=lambda value: "-".join(f"{type(one).__name__[4:].lower()}{one.version}" for one in value) if isinstance(value, tuple) else str(value),
)  # fmt: skip
def test_facts_in_any_order_give_the_same_cart(
    ct: CartsStage, facts: tuple[Any, ...], status: str, items: int | None
) -> None:
    ct.start()
    number = 0
    for place, order in enumerate(permutations(facts)):
        for fact in order:
            number += 1
            ct.publish(fact.model_copy(update={"cart_id": f"p{place}"}))
            ct.await_handled("carts.cart", number)
        row = ct.cart(f"p{place}")
        assert row["status"] == status, order
        assert items in (None, row["item_count"]), order
        assert row["version"] == max(fact.version for fact in facts)
        assert row["remindable"] == (status == "active" and bool(items)), order
        assert (row["ended_at"] is None) == (status == "active"), order


def test_a_deleted_cart_contains_no_personal_data(ct: CartsStage) -> None:
    ct.start()
    ct.fill(cart(1, coupon="X", link="https://shop.example/c", shipping_address=Address(city="Köln")))
    ct.publish(deleted(2))
    ct.await_handled("carts.cart", 2)
    row = ct.cart()
    erased = CARTS.info["personal_data"].erased
    assert {name: row[name] for name in erased} == {name: getattr(left, "obj", left) for name, left in erased.items()}


def test_a_change_starts_a_new_idle_time_and_expiry(ct: CartsStage) -> None:
    ct.start()
    ct.fill(cart(1))
    ct.query(
        "UPDATE carts SET updated_at = now() - interval '9 hours', idle_since = now() - interval '9 hours', expires_at = now(), reminder_sent_at = now(), remindable = false"
    )
    ct.fill(cart(1, 2))
    ((fresh,),) = ct.query(
        "SELECT now() - updated_at < interval '1 minute' AND now() - idle_since < interval '1 minute' AND expires_at > now() + interval '71 hours' FROM carts"
    )
    assert fresh
    assert ct.cart()["reminder_sent_at"] is None
    assert ct.cart()["remindable"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"phone": None}, "no_number"),
        ({"phone": "not a number"}, "malformed_number"),
        ({"items": (), "total": "0"}, ""),
    ],
)
def test_a_cart_without_a_usable_number_or_items_is_kept(ct: CartsStage, changes: dict[str, Any], reason: str) -> None:
    ct.start()
    ct.fill(cart(1, **changes))
    assert ct.cart()["no_phone_reason"].partition(":")[0] == reason
    assert not ct.cart()["remindable"]


def test_a_cart_without_a_number_contains_no_personal_data(ct: CartsStage) -> None:
    ct.start()
    ct.fill(cart(1, phone="not a number", shipping_address=Address(city="Köln"), link="https://shop.example/c"))
    row = ct.cart()
    assert (row["customer_name"], row["address"], row["link"]) == ("", None, "")


def test_a_shop_clock_that_is_behind_does_not_remind_an_active_customer(ct: CartsStage) -> None:
    ct.start(carts_delay_hours=4)
    ct.publish(replace(new_event(cart(1), "/shop"), time=datetime.now(UTC) - timedelta(hours=5)))
    ct.await_handled("carts.cart", 1)
    ct.publish(ReminderScanRequested())
    eventually(lambda: ct.query("SELECT 1 FROM inbox WHERE queue = 'carts.reminder_scan'"))
    assert ct.query("SELECT 1 FROM reminders") == []
    ct.query("UPDATE carts SET updated_at = now() - interval '241 minutes'")
    ct.publish(ReminderScanRequested())
    ct.await_requests()


@pytest.mark.parametrize(("hours", "idle"), [(-72, 72), (5, 0)], ids=["behind, or late", "ahead"])
def test_late_facts_and_wrong_clocks_keep_the_idle_time_and_delete_nothing(
    ct: CartsStage, hours: float, idle: float
) -> None:
    ct.start()
    fact = new_event(cart(1), "/shop")
    ct.publish(replace(fact, time=datetime.now(UTC) + timedelta(hours=hours)))
    ct.await_handled("carts.cart", 1)
    ((seconds, left),) = ct.query(
        "SELECT extract(epoch FROM now() - idle_since)::float8, extract(epoch FROM expires_at - now())::float8 FROM carts"
    )
    assert abs(seconds - idle * 3600) < 60
    assert left > 71 * 3600, "by the database's clock"
    ct.publish(ReminderScanRequested())
    if idle:
        eventually(lambda: ct.query("SELECT 1 FROM inbox WHERE queue = 'carts.reminder_scan'"))
        assert ct.query("SELECT 1 FROM reminders") == []
    else:
        ct.await_requests()


def test_numbers_are_read_in_the_shops_country(ct: CartsStage) -> None:
    ct.start(whatsapp_region="US")
    ct.fill(cart(1, phone="(555) 010-0001"))
    assert ct.cart()["phone"] == "+15550100001"


def test_unusual_carts_are_stored(ct: CartsStage) -> None:
    ct.start()
    names = ("👩‍👩‍👧", "عباءة", "Café")
    many = tuple(CartItem(product_id=n, name=names[n % 3], quantity=1, price="0.0001") for n in range(1, 1001))
    ct.fill(cart(1, items=many, total="0.1000", currency="XXQ", customer_name="شيماء"), cart(2, total="0"))
    row = ct.cart()
    assert (row["item_count"], row["total"], row["currency"], row["customer_name"]) == (
        1000,
        Decimal("0.1"),
        "XXQ",
        "شيماء",
    )
    assert {item["name"] for item in row["items"]} == set(names)
    assert ct.cart("c2")["total"] == 0
    ct.publish(ReminderScanRequested())
    texts = {one["to"]: [value["text"] for value in one["message"]["body"]] for one in ct.await_requests(2)}
    assert texts[phone(1)][0] == "شيماء"
    assert texts[phone(1)][2] == "XXQ 0.10"
    assert texts[phone(2)][2] == "€0.00"


def test_an_invalid_cart_is_dead_lettered_with_the_field(ct: CartsStage) -> None:
    ct.start()
    event = {"specversion": "1.0", "id": "1", "source": "/shop", "type": "shop.cart.updated.v1"}
    data = cart(1).model_dump(mode="json")
    for wrong in ({"total": 19.9}, {"cart_id": f"of {phone(1)}"}):
        body = orjson.dumps(event | {"data": data | wrong})
        ct.stage.send("wch.facts", "shop.cart.updated.v1", Message(body, STRUCTURED, None, "1"))
    dead_letters = ct.stage.await_dead_letters("carts.cart.dlq", 2)
    fields = " ".join(str(dead_letter.message.headers["wch-error-fields"]) for dead_letter in dead_letters)
    assert "data.total" in fields
    assert "cart_id contains the number or the id of a person" in fields
    assert TEE.name not in fields


def test_two_shops_may_have_carts_of_the_same_name(ct: CartsStage, tmp_path: Path) -> None:
    file = tmp_path / "shops.json"
    file.write_text('{"north": {}, "south": {}}')
    ct.start(shops_file=file)
    ct.publish(cart(1, 1), shop="north")
    ct.publish(cart(1, 5), shop="south")
    eventually(lambda: ct.query("SELECT shop, version FROM carts ORDER BY shop") == [("north", 1), ("south", 5)])
