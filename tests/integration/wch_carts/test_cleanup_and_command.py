"""Cleaning up in chunks, what is kept for how long, and `wch carts` as an operator uses it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from pydantic import ValidationError

from support.carts_stage import CartsStage, cart, ordered
from support.command import wch
from support.stage import Stage
from support.waiting import eventually
from support.whatsapp_stage import phone
from wch_carts import cleanup, maintenance
from wch_common.events.carts import CleanupRequested, ReminderScanRequested
from wch_common.events.shop import Address, CartDeleted
from wch_common.events.whatsapp import MessageAccepted, MessageFailed


@pytest.fixture
def ct(stage: Stage, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[CartsStage]:
    monkeypatch.setattr(cleanup, "CHUNK", 3)
    yield CartsStage(stage, database_url)
    stage.stop()


def run(ct: CartsStage, *words: str, code: int = 0) -> str:
    return wch(ct.stage, "carts", *words, code=code, WCH_DATABASE_URL=ct.database_url)


def age(ct: CartsStage, hours: float, *numbers: int) -> None:
    """Let the last change of carts be so long ago."""
    ct.query(
        "UPDATE carts SET updated_at = updated_at - %s * interval '1 hour', expires_at = expires_at - %s * interval '1 hour' "
        "WHERE cart_id = ANY(%s)", hours, hours, [f"c{number}" for number in numbers],
    )  # fmt: skip


def left(ct: CartsStage) -> set[str]:
    return {row[0] for row in ct.query("SELECT cart_id FROM carts")}


def test_expired_carts_are_deleted_in_chunks_and_nothing_else(ct: CartsStage) -> None:
    ct.start()
    ct.fill(*(cart(number) for number in range(12)))
    age(ct, 73, *range(10))
    ct.query("UPDATE carts SET status = 'completed' WHERE cart_id = 'c8'")
    ct.query("UPDATE carts SET status = 'abandoned' WHERE cart_id = 'c9'")
    ct.publish(CleanupRequested(), requester="scheduler")
    told = ct.await_told("cleanup.completed")
    assert (told["deleted"], told["kept"], told["dry_run"]) == (8, 4, False)
    assert told["duration_seconds"] >= 0
    assert left(ct) == {"c8", "c9", "c10", "c11"}
    assert "carts.cleanup.completed.v1.scheduler" in ct.keys


@pytest.mark.parametrize(("seconds", "deleted"), [(-0.001, 1), (0, 0), (0.001, 0)], ids=["past", "exactly", "not yet"])
def test_a_cart_at_exactly_its_expiry_has_not_expired(ct: CartsStage, seconds: float, deleted: int) -> None:
    service = ct.start()
    ct.fill(cart(1))
    service.stop()
    ct.query("""INSERT INTO cleanups (id, shop, dry_run, due_at) VALUES (gen_random_uuid(), '', false, now())""")
    ct.query("UPDATE carts SET expires_at = (SELECT asked_at FROM cleanups) + %s * interval '1 second'", seconds)
    ct.start()
    assert ct.await_told("cleanup.completed")["deleted"] == deleted


def test_only_those_untouched_for_longer_where_that_is_asked_and_never_one_that_has_not_expired(ct: CartsStage) -> None:
    ct.start()
    ct.fill(cart(1), cart(2), cart(3))
    age(ct, 100, 1)
    age(ct, 80, 2)
    ct.publish(CleanupRequested(older_than_hours=90))
    assert ct.await_told("cleanup.completed")["deleted"] == 1
    assert left(ct) == {"c2", "c3"}
    ct.publish(CleanupRequested(older_than_hours=0))
    assert ct.await_told("cleanup.completed", 2)["deleted"] == 1
    assert left(ct) == {"c3"}


def test_a_dry_run_counts_and_deletes_nothing(ct: CartsStage) -> None:
    ct.start()
    ct.fill(*(cart(number) for number in range(6)))
    age(ct, 73, *range(5))
    ct.publish(CleanupRequested(dry_run=True))
    told = ct.await_told("cleanup.completed")
    assert (told["deleted"], told["kept"], told["dry_run"]) == (5, 1, True)
    assert len(left(ct)) == 6


def test_two_cleanups_at_once_delete_each_cart_once(ct: CartsStage) -> None:
    ct.start()
    ct.fill(*(cart(number) for number in range(20)))
    age(ct, 73, *range(20))
    ct.publish(CleanupRequested(), CleanupRequested())
    ct.await_told("cleanup.completed", 2)
    assert sum(one["deleted"] for one in ct.told("cleanup.completed")) == 20
    assert left(ct) == set()


def test_a_cleanup_that_died_goes_on_where_it_was(ct: CartsStage) -> None:
    service = ct.start()
    ct.fill(*(cart(number) for number in range(5)))
    age(ct, 73, *range(5))
    service.stop()
    ct.query(
        "INSERT INTO cleanups (id, shop, dry_run, deleted, due_at) VALUES (gen_random_uuid(), '', false, 7, now())"
    )
    ct.start()
    assert ct.await_told("cleanup.completed")["deleted"] == 12, "what it had deleted before counts"


def test_a_cart_that_is_being_changed_stays_and_holds_nobody_up(ct: CartsStage) -> None:
    ct.start()
    ct.fill(*(cart(number) for number in range(5)))
    age(ct, 73, *range(5))
    with psycopg.connect(ct.database_url, options="-c search_path=carts") as other:
        other.execute("UPDATE carts SET expires_at = now() + interval '72 hours' WHERE cart_id = 'c0'")
        ct.publish(CleanupRequested())
        assert ct.await_told("cleanup.completed")["deleted"] == 4
    assert left(ct) == {"c0"}


def test_a_cart_that_is_changed_during_a_cleanup_is_kept(ct: CartsStage, monkeypatch: pytest.MonkeyPatch) -> None:
    ct.start()
    ct.fill(*(cart(number) for number in range(9)))
    age(ct, 73, *range(9))
    age(ct, -0.5, 8)  # so that it comes last
    chunk = cleanup.Cleanup._chunk

    async def slowly(self: Any, id_: Any) -> bool:
        more = await chunk(self, id_)
        ct.query("UPDATE carts SET expires_at = now() + interval '72 hours' WHERE cart_id = 'c8'")
        return more

    monkeypatch.setattr(cleanup.Cleanup, "_chunk", slowly)
    ct.publish(CleanupRequested())
    assert ct.await_told("cleanup.completed")["deleted"] == 8
    assert left(ct) == {"c8"}


def test_a_cleanup_that_cannot_be_done_holds_up_no_other(ct: CartsStage, caplog: pytest.LogCaptureFixture) -> None:
    ct.start()
    ct.fill(cart(1))
    age(ct, 73, 1)
    ct.query("""INSERT INTO cleanups (id, shop, older_than_hours, dry_run, due_at, correlationid)
    SELECT gen_random_uuid(), '', hours, false, now() - days * interval '1 day', 'x' FROM (VALUES (1e300, 2), (NULL, 1)) AS run (hours, days)""")
    assert ct.await_told("cleanup.completed")["deleted"] == 1
    assert ct.query("SELECT older_than_hours FROM cleanups WHERE ended_at IS NULL") == [(1e300,)]


@pytest.mark.parametrize("hours", [1_000_001, float("inf"), float("nan")])
def test_hours_that_no_database_counts_are_refused(hours: float) -> None:
    with pytest.raises(ValidationError, match="older_than_hours"):
        CleanupRequested(older_than_hours=hours)


def test_a_shops_cleanup_leaves_the_others_alone(ct: CartsStage, tmp_path: Any) -> None:
    file = tmp_path / "shops.json"
    file.write_text('{"north": {}, "south": {}}')
    ct.start(shops_file=file)
    for shop in ("north", "south"):
        ct.publish(cart(1), shop=shop)
    eventually(lambda: len(ct.query("SELECT 1 FROM carts")) == 2)
    age(ct, 73, 1)
    ct.publish(CleanupRequested(), shop="south")
    assert ct.await_told("cleanup.completed")["kept"] == 0
    assert ct.query("SELECT shop FROM carts") == [("north",)]


def test_what_has_ended_is_deleted_when_it_was_kept_long_enough(
    ct: CartsStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "_CHUNK", 2)
    service = ct.start()
    ct.fill(*(cart(number) for number in range(8)))
    ended = {0: ("completed", 31), 1: ("completed", 29), 2: ("abandoned", 91), 3: ("abandoned", 89), 4: ("deleted", 31),
             5: ("completed", 40), 6: ("completed", 50)}  # fmt: skip
    for number, (status, days) in ended.items():
        change = "UPDATE carts SET status = %s, ended_at = now() - %s * interval '1 day' WHERE cart_id = %s"
        ct.query(change, status, days, f"c{number}")
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
    eventually(lambda: left(ct) == {"c1", "c3", "c7"})
    eventually(lambda: ct.query("SELECT count(*) FROM reminders") == [(1,)])
    eventually(lambda: ct.query("SELECT count(*) FROM cleanups") == [(3,)])
    kept = "SELECT shop, dry_run FROM cleanups ORDER BY shop, dry_run"
    assert ct.query(kept) == [("", False), ("other", False), ("other", True)], "each shop's last result is kept"


# -- wch carts


def test_an_operator_sees_counts_and_their_value(ct: CartsStage) -> None:
    assert "no carts" in run(ct, "stats", code=1)
    service = ct.start()
    eventually(lambda: "no cart" in run(ct, "stats"))
    ct.fill(*(cart(number) for number in range(5)))
    ct.publish(ReminderScanRequested())
    keys = {one["to"]: one["send_key"] for one in ct.await_asked(5)}
    for number in (0, 1):
        ct.answer(MessageAccepted, keys[phone(number)], wamid="w")
    ct.answer(MessageFailed, keys[phone(2)], reason="undeliverable")
    ct.await_told("reminder.sent", 2)
    ct.await_told("reminder.failed")
    ct.publish(ordered(0, total="20.00"), ordered(1, total="10.50"))
    ct.await_told("cart.recovered", 2)
    age(ct, 73, 3)
    told = json.loads(run(ct, "stats", "--json"))
    (counts,) = told["shops"]
    assert {name: counts[name] for name in ("active", "expired", "abandoned", "completed", "reminded", "recovered")} == {
        "active": 2, "expired": 1, "abandoned": 0, "completed": 2, "reminded": 2, "recovered": 2
    }  # fmt: skip
    assert counts["value"] == ["30.50 EUR"]
    assert told["not_reminded"] == [{"state": "failed", "reason": "undeliverable", "reminders": 1}]
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


def test_an_operator_reminds_and_sees_a_cart_without_its_owners_number(ct: CartsStage) -> None:
    ct.start(carts_delay_hours=4)
    ct.fill(cart(1), cart(2))
    assert "2 carts may be reminded of" in run(ct, "remind", "--dry-run")
    assert "1 carts may be reminded of" in run(ct, "remind", "c1", "--dry-run")
    assert "asked for the reminders of 1 carts" in run(ct, "remind", "c1")
    ct.await_asked()
    shown = eventually(lambda: found if "asked" in (found := run(ct, "show", "c1")) else "")
    assert "2 × Tee at 9.95" in shown
    assert phone(1) not in shown
    assert phone(1)[:3] in shown
    assert "there is no cart nothing" in run(ct, "show", "nothing", code=1)
    assert "there is no cart nothing" in run(ct, "remind", "c1", "nothing", code=1)
    ct.query("""INSERT INTO carts (id, shop, cart_id, version, status, expires_at)
    SELECT gen_random_uuid(), shop, 'shared', 1, 'active', now() FROM unnest(ARRAY['south', 'north']) AS shop""")
    assert "several shops have a cart shared: name one of north, south with --shop" in run(
        ct, "remind", "shared", code=1
    )
    assert "asked for the reminders of all idle carts" in run(ct, "remind")


def test_a_person_is_forgotten_and_shown(ct: CartsStage) -> None:
    ct.start()
    ct.fill(cart(1, coupon="X", link="https://shop.example/c", shipping_address=Address(city="Köln")), cart(2))
    (shown,) = json.loads(run(ct, "export", phone(1)))
    assert shown["reminders"] == []
    assert (shown["customer_name"], shown["address"], Decimal(shown["total"])) == (
        "Ada",
        {"city": "Köln"},
        Decimal("19.9"),
    )
    assert "would be erased from 1 carts" in run(ct, "forget", phone(1), "--dry-run")
    assert "erased from 1 carts" in run(ct, "forget", phone(1))
    assert json.loads(run(ct, "export", phone(1))) == []
    row = ct.cart()
    assert [row[name] for name in ("phone", "person", "customer_name", "items", "coupon", "link", "address")] == [
        None, None, "", [], "", "", None
    ]  # fmt: skip
    assert row["total"] == Decimal("19.9")
    ct.publish(ReminderScanRequested())
    assert [one["to"] for one in ct.await_asked()] == [phone(2)]
    assert "not a telephone number" in run(ct, "forget", "who", code=1)


def test_a_deleted_cart_counts_nowhere(ct: CartsStage) -> None:
    ct.start()
    ct.fill(cart(1))
    ct.publish(CartDeleted(cart_id="c1", version=2))
    eventually(lambda: ct.cart()["status"] == "deleted")
    assert json.loads(run(ct, "stats", "--json"))["shops"] == []
