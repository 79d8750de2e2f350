"""The statements of the ledger on a real database: leases, turns, slots and the query plan of the claim."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from support.whatsapp_ledger import LIMITS, claimed, fill, meeting, run
from support.whatsapp_stage import NUMBER
from wch_common.errors import LeaseLost
from wch_common.store.leases import Lease
from wch_common.store.store import Store
from wch_whatsapp.call_outcomes import decide_outcome
from wch_whatsapp.changes import Change
from wch_whatsapp.cloud import Accepted, Unsent, Usage
from wch_whatsapp.ledger import apply
from wch_whatsapp.outcomes import put_back, write
from wch_whatsapp.queries_sending import DELETE_OLD, DUE, LEDGER_DAYS


def test_a_process_that_lost_the_lease_claims_nothing(database_url: str) -> None:
    async def test(store: Store) -> None:
        fill(database_url, 1)
        async with store.lease(f"sender/{NUMBER}", seconds=60) as lease:
            assert lease is not None
            stale = Lease(lease.name, "nobody", lease.token - 1, 60, float("inf"))
            with pytest.raises(LeaseLost):
                await claimed(store, LIMITS, stale, 10)
            await store.database.rows("UPDATE leases SET until = now()")
            with pytest.raises(LeaseLost):
                await claimed(store, LIMITS, lease, 10)
            await store.database.rows("UPDATE leases SET until = now() + interval '1 minute'")
            assert len((await claimed(store, LIMITS, lease, 10)).sends) == 1

    run(database_url, test)


def test_the_outcome_of_an_earlier_attempt_does_not_overwrite_a_later_one(database_url: str) -> None:
    async def test(store: Store) -> None:
        fill(database_url, 1)
        async with store.lease(f"sender/{NUMBER}", seconds=60) as lease:
            assert lease is not None
            ((row, _),) = (await claimed(store, LIMITS, lease, 10)).sends
            async with store.transaction() as tx:
                await apply(tx, [Change(row["id"], "queued", 0.0, 1)], before=("sending",))
            await claimed(store, LIMITS, lease, 10)
            async with store.transaction() as tx:
                late = await apply(tx, [Change(row["id"], "accepted", attempt=1, wamid="old")], before=("sending",))
                assert late == []
                assert await apply(tx, [Change(row["id"], "accepted", attempt=2, wamid="new")], before=("sending",))

    run(database_url, test)


def test_requesters_take_turns_even_with_one_slot_at_a_time(database_url: str) -> None:
    async def test(store: Store) -> None:
        for requester, count in (("broadcast", 50), ("carts", 5), ("sync", 5)):
            fill(database_url, count, requester)
        async with store.lease(f"sender/{NUMBER}", seconds=60) as lease:
            assert lease is not None
            origins: list[str] = []
            for _ in range(9):
                ((row, _send),) = (await claimed(store, LIMITS, lease, 1)).sends
                origins.append(row["origin"])
            assert Counter(origins) == {"\nbroadcast": 3, "\ncarts": 3, "\nsync": 3}
            more = [row["origin"] for row, _ in (await claimed(store, LIMITS, lease, 6)).sends]
            assert Counter(more) == {"\nbroadcast": 2, "\ncarts": 2, "\nsync": 2}

    run(database_url, test)


def test_a_claim_uses_the_index_of_due_messages(database_url: str) -> None:
    async def test(store: Store) -> None:
        fill(database_url, 20_000, "broadcast")
        fill(database_url, 20_000, "old", state="accepted")
        await store.database.rows("ANALYZE messages")
        parameters = {"sender": NUMBER, "portfolio": "", "limit": 40, "last_served": ""}
        plan = await store.database.rows(f"EXPLAIN (FORMAT JSON) {DUE}", parameters)
        scans = list(nodes(plan[0]["QUERY PLAN"][0]["Plan"]))
        assert [one for one in scans if one["Node Type"] == "Seq Scan" and one["Relation Name"] == "messages"] == []
        assert "messages_due" in {one.get("Index Name") for one in scans}

    run(database_url, test)


def nodes(plan: dict[str, Any]) -> Any:
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


def test_concurrent_claims_never_take_a_message_twice(database_url: str) -> None:
    async def test(store: Store) -> None:
        fill(database_url, 200)
        async with store.lease(f"sender/{NUMBER}", seconds=60) as lease:
            assert lease is not None
            result: list[uuid.UUID] = []

            async def take() -> None:
                while sends := (await claimed(store, LIMITS, lease, 7)).sends:
                    result.extend(row["id"] for row, _ in sends)

            await asyncio.gather(*(take() for _ in range(4)))
            assert len(result) == len(set(result)) == 200

    run(database_url, test)


def test_slots_that_a_concurrent_transaction_used_are_not_free(database_url: str) -> None:
    async def test(store: Store) -> None:
        fill(database_url, 1)
        await store.database.rows("UPDATE numbers SET slots_from = now() - interval '1 hour'")
        async with store.lease(f"sender/{NUMBER}", seconds=60) as lease:
            assert lease is not None
            taking = "UPDATE numbers SET slots_from = now()"
            (result,) = await meeting(database_url, taking, claimed(store, replace(LIMITS, rate=0.1), lease, 1))
        assert result.sends == []

    run(database_url, test)


def test_a_message_that_is_being_cancelled_is_not_claimed(database_url: str) -> None:
    async def test(store: Store) -> None:
        fill(database_url, 1)
        async with store.lease(f"sender/{NUMBER}", seconds=60) as lease:
            assert lease is not None
            cancelling = "UPDATE messages SET state = 'cancelled', due_at = NULL"
            (result,) = await meeting(database_url, cancelling, claimed(store, LIMITS, lease, 1))
        assert result.sends == []
        assert await store.database.rows("SELECT state FROM messages") == [{"state": "cancelled"}]

    run(database_url, test)


def test_a_message_put_back_before_its_call_is_due_and_its_recipient_unreached(database_url: str) -> None:
    async def test(store: Store) -> None:
        fill(database_url, 1)
        limits = replace(LIMITS, recipients_a_day=1)
        async with store.lease(f"sender/{NUMBER}", seconds=60) as lease:
            assert lease is not None
            ((row, send),) = (await claimed(store, limits, lease, 10)).sends
            async with store.transaction() as tx:
                await put_back(tx, row, 1, send, limits)
            assert await store.database.rows("SELECT person FROM reached") == []
            (found,) = await store.database.rows("SELECT state, failures, due_at <= now() AS due FROM messages")
            assert found == {"state": "queued", "failures": 0, "due": True}

    run(database_url, test)


def test_metas_id_is_kept_however_late_the_outcome_is_written(database_url: str) -> None:
    """A process is stopped during a call, and resumes after others have settled the message."""

    async def test(store: Store) -> None:
        fill(database_url, 2)
        async with store.lease(f"sender/{NUMBER}", seconds=60) as lease:
            assert lease is not None
            sends = (await claimed(store, LIMITS, lease, 10)).sends
            await store.database.rows("UPDATE messages SET state = 'unknown' WHERE send_key = 'carts1'")
            await store.database.rows("UPDATE messages SET state = 'queued', due_at = now() WHERE send_key = 'carts2'")
            late = [
                decide_outcome(row, 1, send, probe=False, reply=Accepted("wamid.late", Usage()), settle_seconds=60)
                for row, send in sends
            ]
            async with store.transaction() as tx:
                await write(tx, late, LIMITS, [NUMBER])
            found = await store.database.rows("SELECT state, wamid FROM messages")
            assert found == [{"state": "accepted", "wamid": "wamid.late"}] * 2

    run(database_url, test)


def test_a_recipient_reached_by_another_message_counts_although_one_was_refused(database_url: str) -> None:
    async def test(store: Store) -> None:
        fill(database_url, 2)
        await store.database.rows("UPDATE messages SET person = 'one'")
        limits = replace(LIMITS, recipients_a_day=1)
        async with store.lease(f"sender/{NUMBER}", seconds=60) as lease:
            assert lease is not None
            sends = (await claimed(store, limits, lease, 10)).sends
            (counted,) = [one for one in sends if one[1].reaches]
            unsent = decide_outcome(counted[0], 1, counted[1], probe=False, reply=Unsent("refused"), settle_seconds=60)
            async with store.transaction() as tx:
                await write(tx, [unsent], limits, [NUMBER])
            assert await store.database.rows("SELECT person FROM reached") == [{"person": b"one"}]
            await store.database.rows("UPDATE messages SET sender = 'in another portfolio' WHERE state = 'sending'")
            async with store.transaction() as tx:
                await write(tx, [unsent], limits, [NUMBER])
            assert await store.database.rows("SELECT person FROM reached") == []

    run(database_url, test)


def test_a_probe_does_not_wait_for_a_number_that_is_just_being_paused(database_url: str) -> None:
    async def test(store: Store) -> None:
        fill(database_url, 1)
        await store.database.rows("INSERT INTO numbers (sender, slots_from) VALUES ('3003', now())")
        await store.database.rows("UPDATE numbers SET cause = 'token_refused', paused_until = now()")
        async with store.lease(f"sender/{NUMBER}", seconds=60) as lease:
            assert lease is not None
            with psycopg.connect(database_url, options="-c search_path=whatsapp") as another:
                another.execute("SELECT 1 FROM numbers WHERE sender = '3003' FOR UPDATE")
                result = await asyncio.wait_for(claimed(store, LIMITS, lease, 1), 180)
        assert len(result.sends) == 1

    run(database_url, test)


def test_only_rows_past_their_retention_are_deleted(database_url: str) -> None:
    async def test(store: Store) -> None:
        for state in ("accepted", "queued"):
            fill(database_url, 2, state, state)
        many, few = LEDGER_DAYS + 1, LEDGER_DAYS - 1
        with psycopg.connect(database_url, autocommit=True, options="-c search_path=whatsapp") as connection:
            connection.execute(
                f"""
                UPDATE messages SET due_at = NULL WHERE state = 'accepted';
                UPDATE messages SET updated_at = now() - interval '{many} days' WHERE send_key IN ('accepted1', 'queued1');
                UPDATE messages SET updated_at = now() - interval '{few} days' WHERE send_key = 'accepted2';
                INSERT INTO batches (id, shop, requester, batch_id, open, requested, due_at, created_at)
                SELECT gen_random_uuid(), '', '', name, 0, true, due_at, now() - age * interval '1 day' FROM (VALUES
                  ('old', NULL::timestamptz, {many}), ('unreported', now(), {many}), ('young', NULL, {few}), ('open', NULL, {many})
                ) AS new (name, due_at, age);
                UPDATE batches SET completed_at = created_at WHERE batch_id <> 'open';
                INSERT INTO windows VALUES ('1', 'old', now() - interval '1 minute'), ('1', 'young', now() + interval '1 hour');
                INSERT INTO suppressions SELECT '', person, 'marketing', NULL, '', 'recipient', now(), lifted_at FROM (VALUES
                  ('old'::bytea, now() - interval '{many} days'), ('young', now() - interval '{few} days'), ('holds', NULL)
                ) AS new (person, lifted_at);
                INSERT INTO pairs VALUES ('1', 'old', now() - interval '25 hours'), ('1', 'young', now() - interval '23 hours');
                INSERT INTO reached VALUES ('', 'old', now() - interval '25 hours'), ('', 'young', now() - interval '23 hours')
                """.encode()
            )
        for statement in DELETE_OLD:
            await store.database.rows(statement, {"chunk": 100})
        messages = await store.database.rows("SELECT send_key FROM messages ORDER BY 1")
        assert [row["send_key"] for row in messages] == ["accepted2", "queued1", "queued2"]
        batches = await store.database.rows("SELECT batch_id FROM batches ORDER BY 1")
        assert [row["batch_id"] for row in batches] == ["open", "unreported", "young"]
        suppressed = await store.database.rows("SELECT person FROM suppressions ORDER BY 1")
        assert [row["person"] for row in suppressed] == [b"holds", b"young"]
        for table in ("windows", "pairs", "reached"):
            (row,) = await store.database.rows(f"SELECT person FROM {table}")
            assert row["person"] == b"young", table

    run(database_url, test)
