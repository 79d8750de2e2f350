"""Changes that meet: requests and statuses during a call, and transactions that change the same message."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

import psycopg
import pytest

from support.stage import Stage
from support.waiting import eventually
from support.whatsapp_ledger import fill, run
from support.whatsapp_stage import TEMPLATE, TEXT, WhatsAppStage, batch, message, phone, wrote
from wch_common.events.whatsapp import (
    BatchCancelRequested,
    MessageCancelRequested,
    RecipientEraseRequested,
    RetryRequested,
)
from wch_common.store.store import Store, Transaction
from wch_whatsapp.changes import Change
from wch_whatsapp.ledger import apply, join_batch, publish_update


@pytest.fixture
def wa(stage: Stage, database_url: str) -> Iterator[WhatsAppStage]:
    made = WhatsAppStage(stage, database_url)
    yield made
    made.close()


def test_a_recipient_erased_during_a_call_that_is_refused_does_not_stop_the_service(wa: WhatsAppStage) -> None:
    wa.graph.latency_seconds = 3
    running = wa.start()
    wa.publish(message(1))
    eventually(lambda: wa.states() == {"key-1": "sending"})
    wa.graph.message_errors[phone(1)] = (131000, "try later")
    wa.publish(RecipientEraseRequested(phone=phone(1), reason="requested", by="tests"))
    eventually(lambda: wa.row("key-1")["phone"] is None)
    # So that the sender finds the message before it expires.
    wa.query("UPDATE messages SET expires_at = now() + interval '1 hour'")
    eventually(lambda: wa.states() == {"key-1": "failed"})
    assert wa.row("key-1")["reason"] == "erased"
    wa.publish(message(2))
    eventually(lambda: wa.states().get("key-2") == "accepted")
    assert running.is_ready


def test_a_late_status_of_an_earlier_attempt_does_not_change_a_later_one(wa: WhatsAppStage) -> None:
    wa.start()
    wa.publish(message(1), requester="carts")
    eventually(lambda: wa.states() == {"key-1": "accepted"})
    late_failed, late_sent = wa.status("key-1", "failed", error=131026, tagged=False), wa.status("key-1", "sent")
    wa.publish(wa.status("key-1", "failed", error=131026))
    eventually(lambda: wa.states() == {"key-1": "failed"})
    wa.query("UPDATE numbers SET cause = 'billing', paused_until = now() + interval '1 hour'")
    wa.publish(RetryRequested(send_keys=("key-1",)), requester="carts")
    eventually(lambda: wa.states() == {"key-1": "queued"})
    wa.publish(late_failed, late_sent)
    wa.stage.await_depth("whatsapp.status", 0)
    wa.publish(message(2))
    eventually(lambda: wa.states().get("key-2") == "queued")
    assert wa.states()["key-1"] == "queued", "a status of the attempt before does not end the retry"
    wa.query("UPDATE numbers SET cause = NULL, paused_until = NULL")
    eventually(lambda: wa.states() == {"key-1": "accepted", "key-2": "accepted"})
    wa.publish(late_failed, late_sent)
    wa.publish(message(3))
    eventually(lambda: wa.states().get("key-3") == "accepted")
    wa.stage.await_depth("whatsapp.status", 0)
    assert wa.states()["key-1"] == "accepted"
    assert len(wa.sent_to(1)) == 2, "one send that failed, and one retry"


def test_a_cancellation_during_a_call_holds_if_the_call_leaves_the_message_unsent(wa: WhatsAppStage) -> None:
    wa.graph.latency_seconds = 1
    wa.start()
    wa.publish(batch("b", range(3)), message(10), requester="broadcast")
    eventually(lambda: Counter(wa.states().values())["sending"] == 4)
    wa.graph.message_errors["hello"] = (131000, "try later")
    wa.publish(BatchCancelRequested(batch_id="b"), MessageCancelRequested(send_key="key-10"), requester="broadcast")
    eventually(lambda: set(wa.states().values()) == {"cancelled"})
    assert wa.sent == []


def test_a_retry_that_ends_without_a_call_is_published_as_another_event(wa: WhatsAppStage) -> None:
    wa.start()
    wa.publish(message(1, message=TEXT, category="service"), requester="carts")
    eventually(lambda: wa.states() == {"key-1": "failed"})
    wa.publish(RetryRequested(send_keys=("key-1",)), requester="carts")
    eventually(lambda: len(wa.facts("message.failed")) == 2)
    assert len({fact["id"] for fact in wa.published()}) == 2, "an inbox counts them as two events"


def test_a_refused_fallback_does_not_end_the_free_text_of_other_recipients(wa: WhatsAppStage) -> None:
    wa.graph.message_errors["hello"] = (132001, "Template does not exist")
    wa.start(whatsapp_calls_in_flight=1)
    wa.publish(wrote(2))
    eventually(lambda: wa.query("SELECT count(*) FROM windows") == [(1,)])
    wa.publish(batch("b", (1, 2), message=TEXT, category="service", fallback=TEMPLATE))
    eventually(lambda: wa.states() == {"b-1": "failed", "b-2": "accepted"})


def test_a_change_concurrent_with_an_update_is_reported_in_the_next_update(database_url: str) -> None:
    """The change commits after the update has read its rows, so its transaction must have scheduled another update."""

    async def test(store: Store) -> None:
        fill(database_url, 2)
        await store.database.rows(
            "INSERT INTO batches (id, shop, requester, batch_id, open, requested, completed_at, due_at) "
            "VALUES ('00000000-0000-0000-0000-00000000000b', '', 'carts', 'b', 0, true, now(), now())"
        )
        await store.database.rows(
            "UPDATE messages SET batch = '00000000-0000-0000-0000-00000000000b', answered = true, state = 'accepted'"
        )
        ids = [row["id"] for row in await store.database.rows("SELECT id FROM messages ORDER BY id")]
        batch_id = (await store.database.rows("SELECT id FROM batches"))[0]["id"]
        changed = asyncio.Event()

        async def change() -> None:
            async with store.transaction() as tx:
                await apply(tx, [Change(ids[0], "delivered")], before=("accepted",))
                changed.set()
                await asyncio.sleep(0.3)  # so that the other transaction starts while this one is open

        async def update() -> None:
            await changed.wait()
            async with store.transaction() as tx:
                await publish_update(tx, batch_id)

        await asyncio.gather(change(), update())
        (left,) = await store.database.rows("SELECT count(*) AS rows FROM messages WHERE changed")
        (scheduled,) = await store.database.rows("SELECT due_at FROM batches")
        assert left["rows"] == 0 or scheduled["due_at"] is not None

    run(database_url, test)


_BATCH = "00000000-0000-0000-0000-00000000000b"


@pytest.mark.parametrize("first", ["the outcome", "the batch"])
def test_an_outcome_concurrent_with_a_batch_of_the_same_key_is_reported_to_the_batch(
    database_url: str, first: str
) -> None:
    """The second transaction sees the first: the batch sees the outcome, or the outcome sees the batch."""

    async def test(store: Store) -> None:
        fill(database_url, 1, state="sending")
        await store.database.rows(
            f"INSERT INTO batches (id, shop, requester, batch_id, open, requested) VALUES ('{_BATCH}', '', 'carts', 'b', 1, true)"
        )
        (message,) = await store.database.rows("SELECT id FROM messages")
        waits = []

        async def end(tx: Transaction) -> None:
            await apply(tx, [Change(message["id"], "accepted", wamid="w")], before=("sending",))

        async def join(tx: Transaction) -> None:
            waits.append(await join_batch(tx, uuid.UUID(_BATCH), [message["id"]]))

        async def alone(step: Callable[[Transaction], Awaitable[None]]) -> None:
            async with store.transaction() as tx:
                await step(tx)

        one, two = (end, join) if first == "the outcome" else (join, end)
        async with store.transaction() as tx:
            await one(tx)
            other = asyncio.ensure_future(alone(two))
            await asyncio.to_thread(eventually, lambda: is_waiting(database_url), "the second waits for the first")
        await other
        (batch,) = await store.database.rows("SELECT open, completed_at IS NOT NULL AS is_complete FROM batches")
        rows = await store.database.rows("SELECT answered, changed FROM also_requested")
        assert rows == [{"answered": True, "changed": False}]
        # Accepting the batch does not count a message with a result; a later result completes the batch.
        assert (waits, batch["is_complete"]) == (([0], False) if first == "the outcome" else ([1], True))

    run(database_url, test)


def is_waiting(database_url: str) -> bool:
    """Whether a transaction waits for the lock of another."""
    with psycopg.connect(database_url) as connection:
        return connection.execute(_LOCKED).fetchone() == (1,)


_LOCKED = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
