"""Background loops of the carts service: abandoned carts, stale claims, retention, and the indexes they use."""

from __future__ import annotations

import pytest

from support.carts_stage import CartsStage, cart, ordered
from support.waiting import eventually
from support.whatsapp_stage import phone
from wch_carts import maintenance, queries
from wch_common.events.carts import (
    ReminderRequested,
    ReminderScanRequested,
)
from wch_common.events.whatsapp import (
    MessageAccepted,
    MessageRead,
)

SCAN = ReminderScanRequested()


def left(ct: CartsStage) -> set[str]:
    return {row[0] for row in ct.query("SELECT cart_id FROM carts")}


def test_a_cart_is_abandoned_a_day_after_an_unanswered_reminder(ct: CartsStage) -> None:
    service = ct.start()
    for number in (1, 2, 3):
        ct.answer(MessageAccepted, ct.remind(number), wamid="w")
    ct.await_fact("reminder.sent", 3)
    service.stop()
    ct.query("UPDATE carts SET reminder_sent_at = now() - interval '24 hours 1 second' WHERE cart_id <> 'c3'")
    ct.query("UPDATE carts SET reminder_sent_at = now() - interval '23 hours 50 minutes' WHERE cart_id = 'c3'")
    ct.start()
    eventually(lambda: {ct.cart("c1")["status"], ct.cart("c2")["status"]} == {"abandoned"})
    assert ct.cart("c3")["status"] == "active"
    ct.fill(cart(1, 2))
    assert ct.cart("c1")["status"] == "active", "its owner changed it"
    ct.publish(ordered(2, 2))
    assert ct.await_fact("cart.recovered")["cart_id"] == "c2"
    assert ct.cart("c2")["status"] == "completed"


@pytest.mark.parametrize(("hours", "is_repeated"), [(5.9, False), (6.1, True)])
def test_a_reminder_without_an_answer_is_requested_again_after_six_hours(
    ct: CartsStage, hours: float, is_repeated: bool
) -> None:
    service = ct.start()
    key = ct.remind()
    service.stop()
    ct.query("UPDATE reminders SET changed_at = now() - %s * interval '1 hour'", hours)
    ct.start()
    if is_repeated:
        eventually(lambda: ct.cart()["remindable"])
        ct.publish(SCAN)
        assert [one["send_key"] for one in ct.await_requests(2)] == [key, key]
    else:
        ct.publish(ReminderRequested(cart_id="c1"))
        assert ct.await_fact("reminder.skipped")["reason"] == "already_reminded"


def test_a_cart_emptied_after_its_reminder_does_not_become_abandoned(ct: CartsStage) -> None:
    ct.start()
    key = ct.remind()
    ct.answer(MessageAccepted, key, wamid="w")
    ct.await_fact("reminder.sent")
    ct.fill(cart(1, 2, items=(), total="0"))
    ct.answer(MessageRead, key)
    ct.await_handled("carts.answer", 2)
    assert ct.reminder()["rank"] == 5
    assert ct.cart()["reminder_sent_at"] is None


def test_a_claim_of_a_changed_cart_is_skipped_after_a_day(ct: CartsStage) -> None:
    service = ct.start()
    ct.fill(cart(1))
    ct.claim(1, "25 hours")
    ct.fill(cart(1, 2))
    service.stop()
    ct.start()
    eventually(lambda: ct.query("SELECT state, reason FROM reminders") == [("skipped", "changed")])


def test_a_claim_without_a_request_is_released_after_an_hour(ct: CartsStage) -> None:
    service = ct.start()
    ct.fill(cart(1), cart(2))
    service.stop()
    ct.claim(1, "61 minutes")
    ct.claim(2, "59 minutes")
    ct.start()
    eventually(lambda: ct.cart("c1")["remindable"])
    assert not ct.cart("c2")["remindable"]
    ct.publish(SCAN)
    assert [one["to"] for one in ct.await_requests()] == [phone(1)]


def test_ended_carts_reminders_and_cleanups_are_deleted_after_their_retention(
    ct: CartsStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "_CHUNK", 2)
    service = ct.start()
    ct.fill(*(cart(number) for number in range(10)))
    ended = {0: ("completed", 31), 1: ("completed", 29), 2: ("abandoned", 91), 3: ("abandoned", 89), 4: ("deleted", 31),
             5: ("completed", 40), 6: ("completed", 50)}  # fmt: skip
    for number, (status, days) in ended.items():
        change = "UPDATE carts SET status = %s, ended_at = now() - %s * interval '1 day' WHERE cart_id = %s"
        ct.query(change, status, days, f"c{number}")
    for number, days in ((8, 31), (9, 29)):
        ct.query("UPDATE carts SET expires_at = now() - %s * interval '1 day' WHERE cart_id = %s", days, f"c{number}")
    for days in (92, 3):
        change = "INSERT INTO reminders (cart, period, shop, state, changed_at) VALUES (gen_random_uuid(), 1, '', 'sent', now() - %s * interval '1 day')"
        ct.query(change, days)
        change = "INSERT INTO cleanups (id, shop, dry_run, ended_at) VALUES (gen_random_uuid(), '', false, now() - %s * interval '1 day')"
        ct.query(change, days)
    change = "INSERT INTO cleanups (id, shop, dry_run, ended_at) VALUES (gen_random_uuid(), 'other', %s, now() - %s * interval '1 day')"
    ct.query(change, False, 99)
    ct.query(change, True, 98)
    ct.query(change, True, 20)
    service.stop()
    ct.start()
    eventually(lambda: left(ct) == {"c1", "c3", "c7", "c9"})
    eventually(lambda: ct.query("SELECT count(*) FROM reminders") == [(1,)])
    eventually(lambda: ct.query("SELECT count(*) FROM cleanups") == [(3,)])
    kept = "SELECT shop, dry_run FROM cleanups ORDER BY shop, dry_run"
    assert ct.query(kept) == [("", False), ("other", False), ("other", True)], "the last cleanup of each shop is kept"


def test_every_search_uses_an_index(ct: CartsStage) -> None:
    ct.start()
    ct.fill(cart(1))
    ct.query("""INSERT INTO carts (id, shop, cart_id, version, status, remindable, expires_at, idle_since, phone, item_count)
    SELECT gen_random_uuid(), '', 'x' || n, 1, (ARRAY['active', 'completed', 'abandoned'])[1 + n % 3], n % 6 = 0,
           now() + n * interval '1 second' - interval '10 hours', now() - n * interval '1 second', '+1', 1
    FROM generate_series(1, 50000) AS n""")
    ct.query("""INSERT INTO reminders (cart, period, shop, state, changed_at)
    SELECT id, 1, '', (ARRAY['sent', 'skipped', 'failed'])[1 + (row_number() OVER ())::int % 3], now() - interval '1 week' FROM carts""")
    ct.query("""UPDATE reminders SET state = 'requested' WHERE cart IN (SELECT cart FROM reminders LIMIT 50)""")
    ct.query("ANALYZE carts, reminders")
    values = {
        "shop": "''",
        "delay": "4",
        "oldest": "48",
        "limit": "500",
        "chunk": "1000",
        "requested_at": "now()",
        "older_than_hours": "NULL",
        "hours": "24",
    }
    searches = (
        (queries.CLAIM_IDLE_CARTS, "carts_idle"),
        (queries.DELETE_EXPIRED, "carts_expiring"),
        (queries.ABANDON, "carts_unanswered"),
        (queries.RELEASE_STALE[0], "reminders_open"),
        (queries.RELEASE_STALE[1], "reminders_requested"),
        (queries.SKIP_STALE_CLAIMS, "reminders_open"),
    )
    for statement, index in searches:
        for name, value in values.items():
            statement = statement.replace(f"%({name})s", value)  # noqa: PLW2901 - one parameter after the other
        plan = "\n".join(str(row[0]) for row in ct.query(f"EXPLAIN {statement}"))
        assert index in plan, plan
        assert "Seq Scan" not in plan, plan
