"""Cleanups of expired carts in chunks, on a real broker and database."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from pydantic import ValidationError

from support.carts_stage import CartsStage, cart
from support.waiting import eventually
from wch_carts import cleanup
from wch_common.events.carts import (
    CleanupRequested,
)


def age(ct: CartsStage, hours: float, *numbers: int) -> None:
    """Move the last change and the expiry of carts back by so many hours."""
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
    completed = ct.await_fact("cleanup.completed")
    assert (completed["deleted"], completed["kept"], completed["dry_run"]) == (8, 4, False)
    assert completed["duration_seconds"] >= 0
    assert left(ct) == {"c8", "c9", "c10", "c11"}
    assert "carts.cleanup.completed.v1.scheduler" in ct.keys


@pytest.mark.parametrize(("seconds", "deleted"), [(-0.001, 1), (0, 0), (0.001, 0)], ids=["past", "exactly", "not yet"])
def test_a_cart_at_exactly_its_expiry_has_not_expired(ct: CartsStage, seconds: float, deleted: int) -> None:
    service = ct.start()
    ct.fill(cart(1))
    service.stop()
    ct.query("""INSERT INTO cleanups (id, shop, dry_run, due_at) VALUES (gen_random_uuid(), '', false, now())""")
    ct.query("UPDATE carts SET expires_at = (SELECT requested_at FROM cleanups) + %s * interval '1 second'", seconds)
    ct.start()
    assert ct.await_fact("cleanup.completed")["deleted"] == deleted


def test_older_than_limits_a_cleanup_to_carts_unchanged_for_longer(ct: CartsStage) -> None:
    ct.start()
    ct.fill(cart(1), cart(2), cart(3))
    age(ct, 100, 1)
    age(ct, 80, 2)
    ct.publish(CleanupRequested(older_than_hours=90))
    assert ct.await_fact("cleanup.completed")["deleted"] == 1
    assert left(ct) == {"c2", "c3"}
    ct.publish(CleanupRequested(older_than_hours=0))
    assert ct.await_fact("cleanup.completed", 2)["deleted"] == 1
    assert left(ct) == {"c3"}


def test_a_dry_run_counts_and_deletes_nothing(ct: CartsStage) -> None:
    ct.start()
    ct.fill(*(cart(number) for number in range(6)))
    age(ct, 73, *range(5))
    ct.publish(CleanupRequested(dry_run=True))
    completed = ct.await_fact("cleanup.completed")
    assert (completed["deleted"], completed["kept"], completed["dry_run"]) == (5, 1, True)
    assert len(left(ct)) == 6


def test_two_cleanups_at_once_delete_each_cart_once(ct: CartsStage) -> None:
    ct.start()
    ct.fill(*(cart(number) for number in range(20)))
    age(ct, 73, *range(20))
    ct.publish(CleanupRequested(), CleanupRequested())
    ct.await_fact("cleanup.completed", 2)
    assert sum(one["deleted"] for one in ct.facts("cleanup.completed")) == 20
    assert left(ct) == set()


def test_a_cleanup_continues_after_its_process_died(ct: CartsStage) -> None:
    service = ct.start()
    ct.fill(*(cart(number) for number in range(5)))
    age(ct, 73, *range(5))
    service.stop()
    ct.query(
        "INSERT INTO cleanups (id, shop, dry_run, deleted, due_at) VALUES (gen_random_uuid(), '', false, 7, now())"
    )
    ct.start()
    assert ct.await_fact("cleanup.completed")["deleted"] == 12, "earlier deletions count"


def test_a_cart_that_is_being_changed_is_kept_and_not_waited_for(ct: CartsStage) -> None:
    ct.start()
    ct.fill(*(cart(number) for number in range(5)))
    age(ct, 73, *range(5))
    with psycopg.connect(ct.database_url, options="-c search_path=carts") as other:
        other.execute("UPDATE carts SET expires_at = now() + interval '72 hours' WHERE cart_id = 'c0'")
        ct.publish(CleanupRequested())
        assert ct.await_fact("cleanup.completed")["deleted"] == 4
    assert left(ct) == {"c0"}


def test_a_cart_that_is_changed_during_a_cleanup_is_kept(ct: CartsStage, monkeypatch: pytest.MonkeyPatch) -> None:
    ct.start()
    ct.fill(*(cart(number) for number in range(9)))
    age(ct, 73, *range(9))
    age(ct, -0.5, 8)  # so that it is in the last chunk
    chunk = cleanup.Cleanup._chunk

    async def slowly(self: Any, id_: Any) -> bool:
        more = await chunk(self, id_)
        ct.query("UPDATE carts SET expires_at = now() + interval '72 hours' WHERE cart_id = 'c8'")
        return more

    monkeypatch.setattr(cleanup.Cleanup, "_chunk", slowly)
    ct.publish(CleanupRequested())
    assert ct.await_fact("cleanup.completed")["deleted"] == 8
    assert left(ct) == {"c8"}


def test_a_cleanup_that_fails_blocks_no_other(ct: CartsStage, caplog: pytest.LogCaptureFixture) -> None:
    ct.start()
    ct.fill(cart(1))
    age(ct, 73, 1)
    ct.query("""INSERT INTO cleanups (id, shop, older_than_hours, dry_run, due_at, correlationid)
    SELECT gen_random_uuid(), '', hours, false, now() - days * interval '1 day', 'x' FROM (VALUES (1e300, 2), (NULL, 1)) AS run (hours, days)""")
    assert ct.await_fact("cleanup.completed")["deleted"] == 1
    assert ct.query("SELECT older_than_hours FROM cleanups WHERE ended_at IS NULL") == [(1e300,)]


@pytest.mark.parametrize("hours", [1_000_001, float("inf"), float("nan")])
def test_hours_out_of_the_databases_range_are_refused(hours: float) -> None:
    with pytest.raises(ValidationError, match="older_than_hours"):
        CleanupRequested(older_than_hours=hours)


def test_a_cleanup_of_one_shop_leaves_other_shops_unchanged(ct: CartsStage, tmp_path: Any) -> None:
    file = tmp_path / "shops.json"
    file.write_text('{"north": {}, "south": {}}')
    ct.start(shops_file=file)
    for shop in ("north", "south"):
        ct.publish(cart(1), shop=shop)
    eventually(lambda: len(ct.query("SELECT 1 FROM carts")) == 2)
    age(ct, 73, 1)
    ct.publish(CleanupRequested(), shop="south")
    assert ct.await_fact("cleanup.completed")["kept"] == 0
    assert ct.query("SELECT shop FROM carts") == [("north",)]
