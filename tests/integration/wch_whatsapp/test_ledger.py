"""The ledger's statements by themselves: fences, turns, slots and the plan of the claim, on a real database."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from typing import Any

import pytest

from support.whatsapp_ledger import LIMITS, fill, run
from support.whatsapp_stage import NUMBER
from wch_common.errors import LeaseLost
from wch_common.store.lease import Lease
from wch_common.store.store import Store
from wch_whatsapp.claims import _DUE, claim
from wch_whatsapp.ledger import Change, apply


def test_who_lost_the_lease_claims_nothing(database_url: str) -> None:
    async def test(store: Store) -> None:
        fill(database_url, 1)
        async with store.lease(f"sender/{NUMBER}", seconds=60) as lease:
            assert lease is not None
            stale = Lease(lease.name, "nobody", lease.token - 1, 60, float("inf"))
            with pytest.raises(LeaseLost):
                await claim(store, LIMITS, stale, 10)
            assert len((await claim(store, LIMITS, lease, 10)).sends) == 1

    run(database_url, test)


def test_the_outcome_of_an_earlier_attempt_is_not_written_over_a_later_one(database_url: str) -> None:
    async def test(store: Store) -> None:
        fill(database_url, 1)
        async with store.lease(f"sender/{NUMBER}", seconds=60) as lease:
            assert lease is not None
            ((row, _),) = (await claim(store, LIMITS, lease, 10)).sends
            async with store.transaction() as tx:
                await apply(tx, [Change(row["id"], "queued", 0.0, 1)], before=("sending",))
            await claim(store, LIMITS, lease, 10)
            async with store.transaction() as tx:
                late = await apply(tx, [Change(row["id"], "accepted", attempt=1, wamid="old")], before=("sending",))
                assert late == []
                assert await apply(tx, [Change(row["id"], "accepted", attempt=2, wamid="new")], before=("sending",))

    run(database_url, test)


def test_lanes_take_turns_also_where_only_one_may_go_at_a_time(database_url: str) -> None:
    async def test(store: Store) -> None:
        for asker, count in (("broadcast", 50), ("carts", 5), ("sync", 5)):
            fill(database_url, count, asker)
        async with store.lease(f"sender/{NUMBER}", seconds=60) as lease:
            assert lease is not None
            lanes: list[str] = []
            for _ in range(9):
                ((row, _send),) = (await claim(store, LIMITS, lease, 1)).sends
                lanes.append(row["lane"])
            assert Counter(lanes) == {"\nbroadcast": 3, "\ncarts": 3, "\nsync": 3}
            more = [row["lane"] for row, _ in (await claim(store, LIMITS, lease, 6)).sends]
            assert Counter(more) == {"\nbroadcast": 2, "\ncarts": 2, "\nsync": 2}

    run(database_url, test)


def test_a_claim_finds_its_messages_by_index_among_many(database_url: str) -> None:
    async def test(store: Store) -> None:
        fill(database_url, 20_000, "broadcast")
        fill(database_url, 20_000, "old", state="accepted")
        await store.database.rows("ANALYZE messages")
        parameters = {"sender": NUMBER, "portfolio": "", "limit": 40, "last_lane": ""}
        plan = await store.database.rows(f"EXPLAIN (FORMAT JSON) {_DUE}", parameters)
        scans = list(nodes(plan[0]["QUERY PLAN"][0]["Plan"]))
        assert [one for one in scans if one["Node Type"] == "Seq Scan" and one["Relation Name"] == "messages"] == []
        assert "messages_due" in {one.get("Index Name") for one in scans}

    run(database_url, test)


def nodes(plan: dict[str, Any]) -> Any:
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


def test_two_senders_at_once_never_take_one_message_twice(database_url: str) -> None:
    async def test(store: Store) -> None:
        fill(database_url, 200)
        async with store.lease(f"sender/{NUMBER}", seconds=60) as lease:
            assert lease is not None
            taken: list[uuid.UUID] = []

            async def take() -> None:
                while sends := (await claim(store, LIMITS, lease, 7)).sends:
                    taken.extend(row["id"] for row, _ in sends)

            await asyncio.gather(*(take() for _ in range(4)))
            assert len(taken) == len(set(taken)) == 200

    run(database_url, test)
