"""`wch carts` as an operator uses it, on a real broker and database."""

from __future__ import annotations

import json

from support.carts_stage import CartsStage, cart, ordered
from support.command import wch
from support.waiting import eventually
from support.whatsapp_stage import phone
from wch_common.events.carts import (
    ReminderScanRequested,
)
from wch_common.events.shop import CartDeleted
from wch_common.events.whatsapp import (
    MessageAccepted,
    MessageFailed,
)


def run(ct: CartsStage, *words: str, code: int = 0) -> str:
    """Run `wch carts` and return what it prints."""
    return wch(ct.stage, "carts", *words, code=code, WCH_DATABASE_URL=ct.database_url)


def age(ct: CartsStage, hours: float, *numbers: int) -> None:
    """Move the last change and the expiry of carts back by so many hours."""
    ct.query(
        "UPDATE carts SET updated_at = updated_at - %s * interval '1 hour', expires_at = expires_at - %s * interval '1 hour' "
        "WHERE cart_id = ANY(%s)", hours, hours, [f"c{number}" for number in numbers],
    )  # fmt: skip


def test_stats_show_counts_values_and_the_last_cleanup(ct: CartsStage) -> None:
    service = ct.start()
    eventually(lambda: "no cart" in run(ct, "stats"))
    ct.fill(*(cart(number) for number in range(5)))
    ct.publish(ReminderScanRequested())
    keys = {one["to"]: one["send_key"] for one in ct.await_requests(5)}
    for number in (0, 1):
        ct.answer(MessageAccepted, keys[phone(number)], wamid="w")
    ct.answer(MessageFailed, keys[phone(2)], reason="undeliverable")
    ct.await_fact("reminder.sent", 2)
    ct.await_fact("reminder.failed")
    ct.publish(ordered(0, total="20.00"), ordered(1, total="10.50"))
    ct.await_fact("cart.recovered", 2)
    age(ct, 73, 3)
    printed = json.loads(run(ct, "stats", "--json"))
    (counts,) = printed["shops"]
    assert {name: counts[name] for name in ("active", "expired", "abandoned", "completed", "reminded", "recovered")} == {
        "active": 2, "expired": 1, "abandoned": 0, "completed": 2, "reminded": 2, "recovered": 2
    }  # fmt: skip
    assert counts["value"] == ["30.50 EUR"]
    assert printed["not_reminded"] == [{"state": "failed", "reason": "undeliverable", "reminders": 1}]
    assert "1 carts would be deleted, 4 kept" in run(ct, "cleanup", "--dry-run")
    result = json.loads(run(ct, "cleanup", "--json"))["result"]
    assert (result["deleted"], result["kept"]) == (1, 4)
    text = run(ct, "stats")
    assert "30.50 EUR" in text
    assert "1 failed: undeliverable" in text
    assert "last cleanup: 1 carts deleted, 4 kept" in text
    service.stop()
    registry = ct.start().service._metrics.registry
    eventually(lambda: registry.get_sample_value("wch_carts_recovered") == 2)
    assert registry.get_sample_value("wch_carts_reminders", {"state": "sent"}) == 2
    assert registry.get_sample_value("wch_carts", {"status": "completed"}) == 2


def test_remind_requests_reminders_and_show_masks_the_owners_number(ct: CartsStage) -> None:
    ct.start(carts_delay_hours=4)
    ct.fill(cart(1), cart(2))
    assert "would remind the owners of up to 2 carts" in run(ct, "remind", "--dry-run")
    assert "would remind the owner of up to 1 cart," in run(ct, "remind", "c1", "--dry-run")
    assert "requested a reminder of 1 cart" in run(ct, "remind", "c1")
    ct.await_requests()
    shown = eventually(lambda: found if "reminder: requested" in (found := run(ct, "show", "c1")) else "")
    assert "2 × Tee at 9.95" in shown
    assert phone(1) not in shown
    assert phone(1)[:3] in shown
    assert "there is no cart unknown" in run(ct, "show", "unknown", code=1)
    assert "there is no cart unknown" in run(ct, "remind", "c1", "unknown", code=1)
    ct.query("""INSERT INTO carts (id, shop, cart_id, version, status, expires_at)
    SELECT gen_random_uuid(), shop, 'shared', 1, 'active', now() FROM unnest(ARRAY['south', 'north']) AS shop""")
    assert "several shops have a cart shared: give --shop north or south" in run(ct, "remind", "shared", code=1)
    assert "requested reminders of all idle carts" in run(ct, "remind")


def test_a_deleted_cart_is_not_counted(ct: CartsStage) -> None:
    ct.start()
    ct.fill(cart(1))
    ct.publish(CartDeleted(cart_id="c1", version=2))
    eventually(lambda: ct.cart()["status"] == "deleted")
    assert json.loads(run(ct, "stats", "--json"))["shops"] == []
