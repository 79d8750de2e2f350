"""What a reviewer found between two lines: each is impossible now, and shown to be."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from support.stage import Stage
from support.waiting import eventually
from support.whatsapp_ledger import LIMITS, claimed, fill, meeting, run
from support.whatsapp_stage import (
    HASH_KEY,
    NUMBER,
    TEMPLATE,
    TEXT,
    WhatsAppStage,
    batch,
    message,
    phone,
    suppression,
    wrote,
)
from wch_common.events.meta import StatusReceived
from wch_common.events.whatsapp import BatchCancelRequested, MessageCancelRequested, RetryRequested
from wch_common.integrations.phone import one_form
from wch_common.store.store import Store, Transaction
from wch_whatsapp import people
from wch_whatsapp.identity import People
from wch_whatsapp.ledger import Change, apply, ask_also, bundle


@pytest.fixture
def wa(stage: Stage, database_url: str) -> Iterator[WhatsAppStage]:
    made = WhatsAppStage(stage, database_url)
    yield made
    made.close()


def test_a_person_meta_says_has_opted_out_is_suppressed_by_the_answer_itself(wa: WhatsAppStage) -> None:
    wa.graph.message_errors[phone(1)] = (131050, "opted out")
    wa.start()
    wa.publish(message(1))
    eventually(lambda: wa.states() == {"key-1": "failed"})
    assert wa.row("key-1")["reason"] == "opted_out"
    wa.publish(message(1, send_key="again"))
    eventually(lambda: wa.states().get("again") == "suppressed")
    assert len(wa.calls) == 1


def test_a_person_forgotten_during_a_call_that_is_refused_ends_no_service(wa: WhatsAppStage) -> None:
    wa.graph.latency_seconds = 1
    running = wa.start()
    wa.publish(message(1))
    eventually(lambda: wa.states() == {"key-1": "sending"})
    wa.graph.message_errors[phone(1)] = (131000, "try later")
    person = People(HASH_KEY).person(phone(1))
    wa.query(people._FORGET[0].replace("%(person)s", f"'\\x{person.hex()}'::bytea"))
    # So that the sender finds it before what expires messages does.
    wa.query("UPDATE messages SET expires_at = now() + interval '1 hour'")
    eventually(lambda: wa.states() == {"key-1": "failed"})
    assert wa.row("key-1")["reason"] == "forgotten"
    wa.publish(message(2))
    eventually(lambda: wa.states().get("key-2") == "accepted")
    assert running.is_ready


def test_a_late_status_of_an_earlier_attempt_changes_no_later_one(wa: WhatsAppStage) -> None:
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
    assert wa.states()["key-1"] == "queued", "the retry is not lost to news of the attempt before"
    wa.query("UPDATE numbers SET cause = NULL, paused_until = NULL")
    eventually(lambda: wa.states() == {"key-1": "accepted", "key-2": "accepted"})
    wa.publish(late_failed, late_sent)
    wa.publish(message(3))
    eventually(lambda: wa.states().get("key-3") == "accepted")
    wa.stage.await_depth("whatsapp.status", 0)
    assert wa.states()["key-1"] == "accepted"
    assert len(wa.sent_to(1)) == 2, "one send that failed, and one retry"


def test_a_pause_moves_no_scheduled_message_forward(wa: WhatsAppStage) -> None:
    later = datetime.now(UTC) + timedelta(hours=7)
    wa.start()
    wa.query("UPDATE numbers SET cause = 'billing', paused_until = now() + interval '1 hour'")
    wa.publish(batch("later", range(3), not_before=later), batch("now", range(10, 13)))
    (fact,) = eventually(lambda: wa.facts("batch.completed"))
    assert fact["batch_id"] == "now"
    due = wa.query("SELECT min(due_at) FROM messages WHERE send_key LIKE 'later%'")
    assert due[0][0] >= later


def test_who_was_refused_does_not_use_up_the_people_of_the_day(wa: WhatsAppStage) -> None:
    for number in range(3):
        wa.graph.message_errors[phone(number)] = (131026, "undeliverable")
    wa.start(whatsapp_messaging_limit=3)
    wa.publish(*(message(number) for number in range(3)))
    eventually(lambda: set(wa.states().values()) == {"failed"})
    wa.publish(*(message(number) for number in range(3, 6)))
    eventually(lambda: Counter(wa.states().values()) == {"failed": 3, "accepted": 3})


def test_an_unusable_number_rests_alone_and_a_refused_token_is_probed_once_for_the_shop(
    wa: WhatsAppStage, tmp_path: Path
) -> None:
    numbers = {"phone_number_ids": ["1", "2"], "rate": 0, "messaging_limit": -1}
    file = tmp_path / "shops.json"
    file.write_text(json.dumps({"x": {"graph": {"token": wa.graph.token, "url": wa.graph_url}, "whatsapp": numbers}}))
    wa.start(shops_file=file)
    wa.graph.message_errors[phone(1)] = (133010, "not registered")
    wa.publish(message(1, sender="1"))
    eventually(
        lambda: wa.query("SELECT sender, cause FROM numbers WHERE cause IS NOT NULL") == [("1", "number_not_usable")]
    )
    wa.publish(message(2, sender="2"))
    eventually(lambda: wa.states().get("key-2") == "accepted")
    wa.graph.message_errors.clear()
    wa.query("UPDATE numbers SET cause = 'token_refused', paused_until = now() + interval '1 hour'")
    before = len(wa.calls)
    refusal = {"error": {"code": 190, "message": "Invalid OAuth access token."}}
    wa.fail(status=401, body=refusal, delay_seconds=2, times=10)
    wa.publish(*(message(n, sender=str(1 + n % 2)) for n in range(10, 20)))
    eventually(lambda: len(wa.states()) == 12)
    wa.stage.services[0].stop()
    wa.query("UPDATE numbers SET paused_until = now()")
    wa.start(shops_file=file)
    eventually(lambda: len(wa.calls) > before, "one number probes")
    eventually(lambda: [one for one in wa.calls[before:] if one["status"] == 401], "and is refused after a while")
    eventually(lambda: Counter(wa.states().values())["sending"] == 0)
    assert len(wa.calls) == before + 1, "for both"


def test_two_numbers_of_a_shop_never_probe_at_once(database_url: str) -> None:
    async def test(store: Store) -> None:
        fill(database_url, 1)
        fill(database_url, 1, "sync")
        await store.database.rows("UPDATE messages SET sender = '3003' WHERE requester = 'sync'")
        await store.database.rows("INSERT INTO numbers (sender, slots_from) VALUES ('3003', now())")
        await store.database.rows("UPDATE numbers SET cause = 'token_refused', paused_until = now()")
        async with (
            store.lease(f"sender/{NUMBER}", seconds=60) as one,
            store.lease("sender/3003", seconds=60) as two,
        ):
            assert one is not None
            assert two is not None
            second = replace(LIMITS, sender="3003")
            claims = claimed(store, LIMITS, one, 1), claimed(store, second, two, 1)
            taken = await meeting(database_url, "LOCK TABLE messages", *claims)
        assert sum(len(one.sends) for one in taken) == 1

    run(database_url, test)


def test_a_number_does_not_probe_what_another_of_its_shop_has_just_probed(database_url: str) -> None:
    async def test(store: Store) -> None:
        fill(database_url, 1)
        await store.database.rows(
            "INSERT INTO numbers (sender, slots_from, cause, paused_until) "
            "VALUES ('3003', now(), 'token_refused', now() + interval '20 seconds')"
        )
        await store.database.rows(
            "UPDATE numbers SET cause = 'token_refused', paused_until = now() WHERE sender <> '3003'"
        )
        async with store.lease(f"sender/{NUMBER}", seconds=60) as lease:
            assert lease is not None
            assert (await claimed(store, LIMITS, lease, 1)).sends == []
            await store.database.rows("UPDATE numbers SET cause = 'app_throttled' WHERE sender = '3003'")
            assert len((await claimed(store, LIMITS, lease, 1)).sends) == 1

    run(database_url, test)


def test_a_message_taken_up_while_the_token_is_refused_is_put_back_uncalled(wa: WhatsAppStage) -> None:
    refusal = {"error": {"code": 190, "message": "Invalid OAuth access token."}}
    wa.fail(status=401, body=refusal, delay_seconds=4)
    registry = wa.start().service._metrics.registry
    wa.publish(message(1))
    eventually(lambda: wa.states() == {"key-1": "sending"})
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with psycopg.connect(wa.database_url, options="-c search_path=whatsapp") as connection:
        connection.execute("SELECT 1 FROM numbers FOR UPDATE")
        wa.publish(message(2))
        eventually(lambda: wa.states().get("key-2") == "queued" and wa.query(waiting) == [(1,)], "the claim waits")
        eventually(lambda: registry.get_sample_value("wch_whatsapp_call_seconds_count") == 1, "the refusal has come")
    eventually(lambda: wa.row("key-2")["attempt"] == 1, "its intent was written")
    eventually(lambda: wa.states() == {"key-1": "queued", "key-2": "queued"})
    assert len(wa.calls) == 1


def test_a_cancellation_during_a_call_holds_when_the_message_comes_back(wa: WhatsAppStage) -> None:
    wa.graph.latency_seconds = 1
    wa.start()
    wa.publish(batch("b", range(3)), message(10), requester="broadcast")
    eventually(lambda: Counter(wa.states().values())["sending"] == 4)
    wa.graph.message_errors["hello"] = (131000, "try later")
    wa.publish(BatchCancelRequested(batch_id="b"), MessageCancelRequested(send_key="key-10"), requester="broadcast")
    eventually(lambda: set(wa.states().values()) == {"cancelled"}, seconds=40)
    assert wa.sent == []


def test_a_retry_that_ends_without_a_call_is_told_anew(wa: WhatsAppStage) -> None:
    wa.start()
    wa.publish(message(1, message=TEXT, category="service"), requester="carts")
    eventually(lambda: wa.states() == {"key-1": "failed"})
    wa.publish(RetryRequested(send_keys=("key-1",)), requester="carts")
    eventually(lambda: len(wa.facts("message.failed")) == 2)
    assert len({fact["id"] for fact in wa.told()}) == 2, "an inbox takes them for two events"


def test_a_utility_message_is_sent_again_once_and_not_every_ten_minutes(wa: WhatsAppStage) -> None:
    wa.fail(reset="after", times=10)
    wa.start(whatsapp_unknown_utility="resend", whatsapp_settle_seconds=0.2)
    wa.publish(message(1, category="utility"))
    eventually(lambda: wa.states() == {"key-1": "unknown"})
    assert len(wa.calls) == 2


@pytest.mark.parametrize("status", [408, 499, 505, 520, 524])
def test_an_answer_from_something_on_the_way_may_hide_an_accepted_message(wa: WhatsAppStage, status: int) -> None:
    wa.fail(status=status, body="<html>?</html>")
    wa.start()
    wa.publish(message(1))
    eventually(lambda: wa.states() == {"key-1": "in_doubt"})


def test_a_gateways_own_json_is_no_word_of_graph(wa: WhatsAppStage) -> None:
    wa.fail(status=504, body={"error": {"code": 504, "message": "upstream timed out"}})
    wa.start()
    wa.publish(message(1))
    eventually(lambda: wa.states() == {"key-1": "in_doubt"})


def test_a_refused_fallback_ends_nobody_elses_free_text(wa: WhatsAppStage) -> None:
    wa.graph.message_errors["hello"] = (132001, "Template does not exist")
    wa.start(whatsapp_calls_in_flight=1)
    wa.publish(wrote(2))
    eventually(lambda: wa.query("SELECT count(*) FROM windows") == [(1,)])
    wa.publish(batch("b", (1, 2), message=TEXT, category="service", fallback=TEMPLATE))
    eventually(lambda: wa.states() == {"b-1": "failed", "b-2": "accepted"})


def test_an_older_wish_takes_no_newer_stop_and_no_operators_word_back(wa: WhatsAppStage) -> None:
    before = datetime.now(UTC) - timedelta(minutes=5)
    wa.start()
    wa.publish(suppression(2, "marketing"), wrote(1, "STOP"))
    eventually(lambda: wa.query("SELECT count(*) FROM suppressions") == [(2,)])
    wa.publish(wrote(1, "", kind="preference", marketing="resume", timestamp=before))
    wa.publish(wrote(2, "", kind="preference", marketing="resume", timestamp=datetime.now(UTC) + timedelta(minutes=1)))
    eventually(lambda: wa.query("SELECT count(*) FROM inbox WHERE queue = 'whatsapp.inbound'") == [(3,)])
    wa.publish(message(1), message(2))
    eventually(lambda: wa.states() == {"key-1": "suppressed", "key-2": "suppressed"})


def test_an_operators_word_outlives_what_its_person_says_and_takes_back(wa: WhatsAppStage) -> None:
    wa.start()
    now = datetime.now(UTC)
    wa.publish(suppression(1, "marketing"))
    eventually(lambda: wa.query("SELECT by FROM suppressions") == [("tests",)])
    wa.publish(
        wrote(1, "STOP", timestamp=now - timedelta(minutes=2)), wrote(2, "STOP", timestamp=now - timedelta(minutes=2))
    )
    eventually(lambda: wa.query("SELECT count(*) FROM inbox WHERE queue = 'whatsapp.inbound'") == [(2,)])
    assert sorted(wa.query("SELECT by FROM suppressions")) == [("recipient",), ("tests",)]
    later = now - timedelta(minutes=1)  # both came late, one after the other
    wa.publish(*(wrote(n, "", kind="preference", marketing="resume", timestamp=later) for n in (1, 2)))
    eventually(lambda: wa.query("SELECT by FROM suppressions WHERE lifted_at IS NULL") == [("tests",)])
    wa.publish(message(1), message(2))
    eventually(lambda: wa.states() == {"key-1": "suppressed", "key-2": "accepted"})


def test_a_stop_that_is_handled_after_a_newer_wish_for_more_does_not_hold(wa: WhatsAppStage) -> None:
    wa.start()
    now = datetime.now(UTC)
    for number, resumed in ((1, now), (2, now - timedelta(minutes=9))):
        wa.publish(wrote(number, "", kind="preference", marketing="resume", timestamp=resumed))
    eventually(lambda: wa.query("SELECT count(*) FROM inbox WHERE queue = 'whatsapp.inbound'") == [(2,)])
    wa.publish(*(wrote(number, "STOP", timestamp=now - timedelta(minutes=5)) for number in (1, 2)))
    eventually(lambda: wa.query("SELECT count(*) FROM inbox WHERE queue = 'whatsapp.inbound'") == [(4,)])
    wa.publish(message(1), message(2))
    eventually(lambda: wa.states() == {"key-1": "accepted", "key-2": "suppressed"})


def test_a_probe_that_meets_a_recipient_who_cannot_be_reached_shows_that_its_number_works(wa: WhatsAppStage) -> None:
    wa.start()
    wa.graph.message_errors[phone(1)] = (131026, "undeliverable")
    wa.query("UPDATE numbers SET cause = 'number_too_fast', paused_until = now() - interval '1 second'")
    wa.publish(message(1))
    eventually(lambda: wa.states() == {"key-1": "failed"})
    eventually(lambda: wa.query("SELECT cause, paused_until FROM numbers") == [(None, None)])
    wa.publish(message(2))
    eventually(lambda: wa.states().get("key-2") == "accepted")


def of_first(wa: WhatsAppStage, status: str, error: int | None = None) -> StatusReceived:
    """A status of a message's first attempt, as another came after it."""
    first = wa.status("key-1", status, error=error)
    return first.model_copy(update={"tag": f"wch1:{wa.row('key-1')['id']}:1", "wamid": "wamid.first"})


def resent(wa: WhatsAppStage) -> None:
    """Have a message's first call cut, and its second refused."""
    wa.fail(reset="after")
    wa.start(whatsapp_unknown_utility="resend", whatsapp_settle_seconds=0.2)
    wa.fail(status=400, body={"error": {"code": 131026, "message": "undeliverable"}})
    wa.publish(message(1, category="utility"), requester="carts")
    eventually(lambda: len(wa.calls) == 2)


def test_of_what_was_sent_again_in_doubt_no_failure_is_told_as_the_first_may_have_arrived(wa: WhatsAppStage) -> None:
    resent(wa)
    eventually(lambda: wa.states() == {"key-1": "unknown"})
    wa.publish(RetryRequested(send_keys=("key-1",)), requester="carts")
    eventually(lambda: len(wa.facts("message.unknown")) == 2, "it is answered with what is known, and not sent")
    wa.publish(of_first(wa, "delivered"))
    eventually(lambda: wa.states() == {"key-1": "delivered"}, "a status of the first attempt settles it")
    assert (len(wa.calls), wa.facts("message.failed")) == (2, [])


def test_a_status_that_the_first_attempt_failed_leaves_the_second_to_be_told(wa: WhatsAppStage) -> None:
    wa.fail(reset="after")
    wa.start(whatsapp_unknown_utility="resend", whatsapp_settle_seconds=0.2)
    wa.publish(message(1, category="utility"))
    eventually(lambda: wa.states() == {"key-1": "accepted"})
    wa.publish(of_first(wa, "failed", 131026))
    eventually(lambda: wa.query("SELECT doubted FROM messages") == [(None,)])
    assert wa.states() == {"key-1": "accepted"}
    wa.publish(wa.status("key-1", "failed", error=131026))
    eventually(lambda: wa.states() == {"key-1": "failed"})


def test_a_message_whose_both_attempts_are_known_to_have_failed_has_failed(wa: WhatsAppStage) -> None:
    resent(wa)
    eventually(lambda: wa.states() == {"key-1": "unknown"})
    wa.publish(of_first(wa, "failed", 131050))
    eventually(lambda: wa.states() == {"key-1": "failed"})
    assert wa.row("key-1")["reason"] == "undeliverable"
    assert wa.query("SELECT reason FROM suppressions") == [("opted_out",)], "what it says of the person holds"


def test_a_first_attempt_that_failed_before_it_was_sent_again_has_failed(wa: WhatsAppStage) -> None:
    waiting_again(wa)
    wa.publish(wa.status("key-1", "failed", error=131026))
    eventually(lambda: wa.states() == {"key-1": "failed"})


def test_a_first_attempt_that_was_taken_and_failed_leaves_the_second_unknown(wa: WhatsAppStage) -> None:
    wa.fail(reset="after")
    wa.start(whatsapp_unknown_utility="resend", whatsapp_settle_seconds=0.2)
    wa.fail(status=400, body={"error": {"code": 131026, "message": "undeliverable"}}, delay_seconds=2)
    wa.publish(message(1, category="utility"), requester="carts")
    eventually(lambda: wa.row("key-1").get("attempt") == 2)
    wa.publish(of_first(wa, "sent"))
    eventually(lambda: wa.states() == {"key-1": "accepted"})
    wa.publish(of_first(wa, "failed", 131026))
    eventually(lambda: wa.states() == {"key-1": "unknown"})
    eventually(lambda: wa.facts("message.unknown"))


def test_what_failed_once_and_is_in_doubt_then_is_sent_again_too(wa: WhatsAppStage) -> None:
    wa.fail(status=503, body="<html>busy</html>")
    wa.fail(reset="after")
    wa.start(whatsapp_unknown_utility="resend", whatsapp_settle_seconds=0.2)
    wa.publish(message(1, category="utility"))
    eventually(lambda: wa.states() == {"key-1": "accepted"})
    assert len(wa.calls) == 3


def waiting_again(wa: WhatsAppStage) -> None:
    """Have a message wait to be sent again in doubt."""
    wa.fail(reset="after")
    wa.start(whatsapp_unknown_utility="resend", whatsapp_settle_seconds=1)
    wa.publish(message(1, category="utility"))
    eventually(lambda: wa.states() == {"key-1": "in_doubt"})
    wa.query("UPDATE numbers SET cause = 'billing', paused_until = now() + interval '1 hour'")
    eventually(lambda: wa.states() == {"key-1": "queued"})


def test_what_was_to_be_sent_again_in_doubt_and_is_taken_back_is_unknown(wa: WhatsAppStage) -> None:
    waiting_again(wa)
    wa.publish(MessageCancelRequested(send_key="key-1", reason="bought"))
    eventually(lambda: wa.states() == {"key-1": "unknown"})
    eventually(lambda: wa.facts("message.unknown"))
    assert wa.facts("message.cancelled") == []


def test_what_is_in_doubt_and_wanted_no_more_stays_unknown(wa: WhatsAppStage) -> None:
    wa.fail(reset="after")
    wa.start(whatsapp_unknown_utility="resend", whatsapp_settle_seconds=2)
    wa.publish(message(1, category="utility"))
    eventually(lambda: wa.states() == {"key-1": "in_doubt"})
    wa.publish(MessageCancelRequested(send_key="key-1", reason="bought"))
    eventually(lambda: wa.query("SELECT cancelled FROM messages") == [("bought",)])
    eventually(lambda: wa.states() == {"key-1": "unknown"}, "it may have been sent")
    assert len(wa.calls) == 1


@pytest.mark.parametrize(
    ("sent", "written"),
    [("+5215512345678", "+525512345678"), ("+5511987654321", "+551187654321"), ("+5491112345678", "+541112345678")],
)
def test_a_number_meta_writes_in_two_ways_is_one_person(sent: str, written: str) -> None:
    known = People(HASH_KEY)
    assert one_form(sent) == one_form(written)
    assert known.person(sent) == known.person(written)
    assert known.person("+4917012345678") != known.person("+4917012345679")


def test_a_change_beside_the_telling_of_a_bundle_is_told_in_the_next(database_url: str) -> None:
    """The change is committed after the bundle was gathered: its transaction has to have planned another."""

    async def test(store: Store) -> None:
        fill(database_url, 2)
        await store.database.rows(
            "INSERT INTO batches (id, shop, requester, batch_id, open, asked, completed_at, due_at) "
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
                await asyncio.sleep(0.3)  # the other transaction has to meet this one open

        async def tell() -> None:
            await changed.wait()
            async with store.transaction() as tx:
                await bundle(tx, batch_id)

        await asyncio.gather(change(), tell())
        (left,) = await store.database.rows("SELECT count(*) AS rows FROM messages WHERE changed")
        (planned,) = await store.database.rows("SELECT due_at FROM batches")
        assert left["rows"] == 0 or planned["due_at"] is not None

    run(database_url, test)


_ASKED = "00000000-0000-0000-0000-00000000000b"


@pytest.mark.parametrize("first", ["the outcome", "the batch"])
def test_an_outcome_beside_a_batch_that_asks_for_the_same_key_is_told_to_it(database_url: str, first: str) -> None:
    """Either sees the other: the batch what has become of the message, or the outcome who asks."""

    async def test(store: Store) -> None:
        fill(database_url, 1, state="sending")
        await store.database.rows(
            f"INSERT INTO batches (id, shop, requester, batch_id, open, asked) VALUES ('{_ASKED}', '', 'carts', 'b', 1, true)"
        )
        (message,) = await store.database.rows("SELECT id FROM messages")
        waits = []

        async def end(tx: Transaction) -> None:
            await apply(tx, [Change(message["id"], "accepted", wamid="w")], before=("sending",))

        async def ask(tx: Transaction) -> None:
            waits.append(await ask_also(tx, uuid.UUID(_ASKED), [message["id"]]))

        async def alone(step: Callable[[Transaction], Awaitable[None]]) -> None:
            async with store.transaction() as tx:
                await step(tx)

        one, two = (end, ask) if first == "the outcome" else (ask, end)
        async with store.transaction() as tx:
            await one(tx)
            other = asyncio.ensure_future(alone(two))
            await asyncio.to_thread(eventually, lambda: is_waiting(database_url), "the second waits for the first")
        await other
        (batch,) = await store.database.rows("SELECT open, completed_at IS NOT NULL AS is_complete FROM batches")
        told = await store.database.rows("SELECT answered, changed FROM also_asked")
        assert told == [{"answered": True, "changed": False}]
        # What has its answer already is not counted by who accepts the batch; what gets it later completes it.
        assert (waits, batch["is_complete"]) == (([0], False) if first == "the outcome" else ([1], True))

    run(database_url, test)


def is_waiting(database_url: str) -> bool:
    """Whether a transaction waits for another's lock."""
    with psycopg.connect(database_url) as connection:
        return connection.execute(_LOCKED).fetchone() == (1,)


_LOCKED = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


def test_two_numbers_never_give_the_last_place_of_a_portfolio_away_twice(database_url: str) -> None:
    async def test(store: Store) -> None:
        fill(database_url, 1)
        fill(database_url, 2, "sync")
        await store.database.rows("UPDATE messages SET sender = '3003' WHERE send_key = 'sync2'")
        await store.database.rows("INSERT INTO numbers (sender, slots_from) VALUES ('3003', now())")
        first = replace(LIMITS, people_a_day=1)
        second = replace(first, sender="3003")
        async with (
            store.lease(f"sender/{NUMBER}", seconds=60) as one,
            store.lease("sender/3003", seconds=60) as two,
        ):
            assert one is not None
            assert two is not None
            claims = claimed(store, first, one, 1), claimed(store, second, two, 1)
            taken = await meeting(database_url, "LOCK TABLE reached IN SHARE MODE", *claims)
        assert sum(len(one.sends) for one in taken) == 1

    run(database_url, test)
