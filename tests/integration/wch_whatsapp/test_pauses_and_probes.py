"""Pauses of numbers and shops, and the probes that end them."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from support.stage import Stage
from support.waiting import eventually
from support.whatsapp_ledger import LIMITS, claimed, fill, meeting, run
from support.whatsapp_stage import NUMBER, WhatsAppStage, batch, message, phone
from wch_common.store.store import Store
from wch_whatsapp import call_outcomes


@pytest.fixture
def wa(stage: Stage, database_url: str) -> Iterator[WhatsAppStage]:
    made = WhatsAppStage(stage, database_url)
    yield made
    made.close()


def test_a_pause_does_not_move_scheduled_messages_forward(wa: WhatsAppStage) -> None:
    later = datetime.now(UTC) + timedelta(hours=7)
    wa.start()
    wa.query("UPDATE numbers SET cause = 'billing', paused_until = now() + interval '1 hour'")
    wa.publish(batch("later", range(3), not_before=later), batch("now", range(10, 13)))
    (fact,) = eventually(lambda: wa.facts("batch.completed"))
    assert fact["batch_id"] == "now"
    due = wa.query("SELECT min(due_at) FROM messages WHERE send_key LIKE 'later%'")
    assert due[0][0] >= later


def test_an_unusable_number_is_paused_alone_and_a_refused_token_is_probed_once_for_the_shop(
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
    # So long that the other number would probe meanwhile, too.
    wa.fail(status=401, body=refusal, delay_seconds=2, times=10)
    wa.publish(*(message(n, sender=str(1 + n % 2)) for n in range(10, 20)))
    eventually(lambda: len(wa.states()) == 12)
    wa.stage.services[0].stop()
    wa.query("UPDATE numbers SET paused_until = now()")
    wa.start(shops_file=file, whatsapp_call_seconds=60)
    eventually(lambda: len(wa.calls) > before, "one number probes")
    eventually(lambda: [one for one in wa.calls[before:] if one["status"] == 401], "and is refused")
    eventually(lambda: Counter(wa.states().values())["sending"] == 0)
    assert len(wa.calls) == before + 1, "one probe for both numbers"


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
            pending = claimed(store, LIMITS, one, 1), claimed(store, second, two, 1)
            claims = await meeting(database_url, "LOCK TABLE messages", *pending)
        assert sum(len(one.sends) for one in claims) == 1

    run(database_url, test)


def test_a_number_does_not_probe_a_cause_that_another_number_of_its_shop_has_just_probed(database_url: str) -> None:
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


def test_a_message_claimed_while_the_token_is_refused_is_put_back_without_a_call(
    wa: WhatsAppStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call_outcomes, "PROBE_SECONDS", 3600.0)  # no probe meanwhile, however slow the machine is
    refusal = {"error": {"code": 190, "message": "Invalid OAuth access token."}}
    answered = threading.Event()
    wa.fail(status=401, body=refusal, until=answered)
    registry = wa.start(whatsapp_call_seconds=60).service._metrics.registry
    wa.publish(message(1))
    eventually(lambda: wa.states() == {"key-1": "sending"})
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with psycopg.connect(wa.database_url, options="-c search_path=whatsapp") as connection:
        connection.execute("SELECT 1 FROM numbers FOR UPDATE")
        wa.publish(message(2))
        eventually(lambda: wa.states().get("key-2") == "queued" and wa.query(waiting) == [(1,)], "the claim waits")
        # The claim may have begun before the message came; by its clock, the message would not be due yet.
        wa.query("UPDATE messages SET due_at = due_at - interval '1 hour' WHERE send_key = 'key-2'")
        answered.set()
        eventually(lambda: registry.get_sample_value("wch_whatsapp_call_seconds_count") == 1, "the refusal has arrived")
    eventually(lambda: wa.row("key-2")["attempt"] == 1, "its intent is committed")
    eventually(lambda: wa.states() == {"key-1": "queued", "key-2": "queued"})
    assert len(wa.calls) == 1


def test_a_probe_to_an_unreachable_recipient_shows_that_the_number_works(wa: WhatsAppStage) -> None:
    wa.start()
    wa.graph.message_errors[phone(1)] = (131026, "undeliverable")
    wa.query("UPDATE numbers SET cause = 'number_too_fast', paused_until = now() - interval '1 second'")
    wa.publish(message(1))
    eventually(lambda: wa.states() == {"key-1": "failed"})
    eventually(lambda: wa.query("SELECT cause, paused_until FROM numbers") == [(None, None)])
    wa.publish(message(2))
    eventually(lambda: wa.states().get("key-2") == "accepted")


def test_two_numbers_never_both_use_the_last_place_of_their_portfolio(database_url: str) -> None:
    async def test(store: Store) -> None:
        fill(database_url, 1)
        fill(database_url, 2, "sync")
        await store.database.rows("UPDATE messages SET sender = '3003' WHERE send_key = 'sync2'")
        await store.database.rows("INSERT INTO numbers (sender, slots_from) VALUES ('3003', now())")
        first = replace(LIMITS, recipients_a_day=1)
        second = replace(first, sender="3003")
        async with (
            store.lease(f"sender/{NUMBER}", seconds=60) as one,
            store.lease("sender/3003", seconds=60) as two,
        ):
            assert one is not None
            assert two is not None
            pending = claimed(store, first, one, 1), claimed(store, second, two, 1)
            claims = await meeting(database_url, "LOCK TABLE reached IN SHARE MODE", *pending)
        assert sum(len(one.sends) for one in claims) == 1

    run(database_url, test)


def test_a_refused_recipient_does_not_count_against_the_limit_of_the_day(wa: WhatsAppStage) -> None:
    for number in range(3):
        wa.graph.message_errors[phone(number)] = (131026, "undeliverable")
    wa.start(whatsapp_messaging_limit=3)
    wa.publish(*(message(number) for number in range(3)))
    eventually(lambda: set(wa.states().values()) == {"failed"})
    wa.publish(*(message(number) for number in range(3, 6)))
    eventually(lambda: Counter(wa.states().values()) == {"failed": 3, "accepted": 3})
