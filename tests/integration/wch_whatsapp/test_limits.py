"""Limits of sending: turns of requesters, the rate of a number, the pace of a recipient, and the tier of a portfolio."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.stage import Stage
from support.waiting import eventually
from support.whatsapp_stage import WhatsAppStage, batch, message, phone, wrote


@pytest.fixture
def wa(stage: Stage, database_url: str) -> Iterator[WhatsAppStage]:
    made = WhatsAppStage(stage, database_url)
    yield made
    made.close()


def test_the_messages_of_several_requesters_take_turns(wa: WhatsAppStage) -> None:
    wa.graph.latency_seconds = 0.02
    wa.publish(batch("big", range(200)), requester="broadcast")
    wa.start(whatsapp_calls_in_flight=2)
    eventually(lambda: len(wa.sent) > 10)
    wa.publish(*(message(1000 + n) for n in range(10)), requester="carts")
    eventually(lambda: sum("1555010" not in body["to"] or body["to"] >= phone(1000) for body in wa.sent) >= 10)
    assert len(wa.sent) < 150, "the messages of carts do not wait behind the whole batch"


def test_a_number_sends_no_more_messages_a_second_than_its_rate(wa: WhatsAppStage) -> None:
    wa.graph.messages_per_second = 20
    wa.start(whatsapp_rate=20)
    wa.publish(batch("b", range(60)))
    eventually(lambda: set(wa.states().values()) == {"accepted"})
    assert len(wa.calls) == 60, "Meta throttled no call"


def test_a_throttled_number_is_paused_and_uses_no_attempt(wa: WhatsAppStage) -> None:
    wa.graph.messages_per_second = 10
    wa.start()
    wa.publish(batch("b", range(30)))
    eventually(lambda: set(wa.states().values()) == {"accepted"})
    assert wa.query("SELECT max(failures) FROM messages") == [(0,)]
    assert len(wa.sent) == 30


def test_a_number_that_is_throttled_repeatedly_is_paused_longer(wa: WhatsAppStage) -> None:
    wa.fail(status=429, body={"error": {"code": 130429, "message": "Rate limit hit"}}, times=10)
    wa.start()
    wa.publish(message(1))
    # A probe pauses the number for half a minute while it is in flight; its answer for 2 s, then 4 s.
    paused = "SELECT paused_until - now() BETWEEN interval '2.5 seconds' AND interval '20 seconds' FROM numbers"
    eventually(lambda: wa.query(paused) == [(True,)])


def test_usage_near_metas_limit_pauses_the_number(wa: WhatsAppStage) -> None:
    wa.graph.usage_percent = 95
    wa.start(whatsapp_calls_in_flight=1)
    wa.publish(batch("b", range(5)))
    eventually(lambda: wa.query("SELECT cause FROM numbers") == [("usage_near_limit",)])
    (fact,) = eventually(lambda: wa.facts("batch.completed"), "the batch is reported, as the pause may repeat")
    results = Counter((one["outcome"], one["reason"]) for one in fact["recipients"])
    assert results == {("accepted", ""): 1, ("deferred", "usage_near_limit"): 4}
    assert len(wa.calls) == 1


def test_messages_to_one_recipient_are_paced_and_others_are_not(wa: WhatsAppStage) -> None:
    wa.start(whatsapp_pair_seconds=100, whatsapp_pair_burst=2)
    wa.publish(*(message(1, send_key=f"one-{n}") for n in range(4)), *(message(n) for n in range(2, 10)))
    eventually(lambda: len(wa.sent) == 10)
    eventually(lambda: Counter(wa.states().values()) == {"accepted": 10, "queued": 2})
    assert wa.query("SELECT DISTINCT reason FROM messages WHERE state = 'queued'") == [("pair_too_fast",)]


def test_the_pace_of_a_recipient_holds_for_messages_that_arrive_one_by_one(wa: WhatsAppStage) -> None:
    wa.start(whatsapp_pair_seconds=100, whatsapp_pair_burst=2)
    for key in ("first", "second"):
        wa.publish(message(1, send_key=key))
        eventually(lambda: wa.states().get(key) == "accepted")
    wa.publish(message(1, send_key="third"))
    eventually(lambda: wa.row("third").get("reason") == "pair_too_fast")
    assert len(wa.calls) == 2


def test_the_tier_limits_the_recipients_a_day_outside_windows(wa: WhatsAppStage) -> None:
    wa.start(whatsapp_messaging_limit=3)
    wa.publish(wrote(5))
    eventually(lambda: wa.query("SELECT count(*) FROM windows") == [(1,)])
    wa.publish(batch("b", range(6)))
    eventually(lambda: Counter(wa.states().values()) == {"accepted": 4, "queued": 2})
    assert len(wa.sent_to(5)) == 1, "a recipient with an open window does not count"
    (fact,) = eventually(lambda: wa.facts("batch.completed"))
    assert Counter(one["reason"] for one in fact["recipients"])["messaging_limit"] == 2
    reached = next(n for n in range(5) if wa.sent_to(n))
    wa.publish(message(reached, send_key="again"))
    eventually(lambda: wa.states().get("again") == "accepted", "a recipient counts once a day")


def test_a_recipient_of_today_still_counts_when_a_later_message_is_refused(wa: WhatsAppStage) -> None:
    wa.start(whatsapp_messaging_limit=1)
    wa.publish(message(1))
    eventually(lambda: wa.states() == {"key-1": "accepted"})
    wa.graph.message_errors[phone(1)] = (131026, "undeliverable")
    wa.publish(message(1, send_key="again"))
    eventually(lambda: wa.states().get("again") == "failed")
    wa.publish(message(2))
    eventually(lambda: wa.row("key-2").get("reason") == "messaging_limit")
    wa.query(
        "UPDATE reached SET at = now() - interval '25 hours'; UPDATE messages SET due_at = now() WHERE state = 'queued'"
    )
    eventually(lambda: wa.states()["key-2"] == "accepted", "a recipient of yesterday no longer counts")


def test_shops_of_one_portfolio_share_its_recipients_of_the_day(wa: WhatsAppStage, tmp_path: Path) -> None:
    graph = {"token": wa.graph.token, "url": wa.graph_url}
    numbers = {"rate": 0, "messaging_limit": 1, "portfolio": "ours"}
    file = tmp_path / "shops.json"
    shops = (("north", "1"), ("south", "3"))
    file.write_text(
        json.dumps({name: {"graph": graph, "whatsapp": numbers | {"phone_number_ids": [id_]}} for name, id_ in shops})
    )
    wa.start(shops_file=file)
    wa.publish(message(1), shop="north")
    eventually(lambda: wa.states() == {"key-1": "accepted"})
    wa.publish(message(2), shop="south")
    eventually(lambda: wa.row("key-2").get("reason") == "messaging_limit")
