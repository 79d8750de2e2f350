"""The whatsapp service between a real broker, a real database and a simulated Graph: each message at most once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from support.stage import RunningService, Stage
from support.waiting import eventually
from support.whatsapp_stage import TEMPLATE, TEXT, WhatsAppStage, batch, message, phone, suppression, wrote
from wch_common.contract.event import new_event
from wch_common.events.whatsapp import Recipient
from wch_common.events.whatsapp_content import Parameter
from wch_simulators.graph import GraphSimulator
from wch_simulators.running import InThread
from wch_whatsapp.sender import NumberSender


@pytest.fixture
def wa(stage: Stage, database_url: str) -> Iterator[WhatsAppStage]:
    made = WhatsAppStage(stage, database_url)
    yield made
    made.close()


def test_a_message_is_sent_once_and_its_requester_is_told(wa: WhatsAppStage) -> None:
    wa.start()
    wa.publish(message(1), requester="carts")
    eventually(lambda: wa.states() == {"key-1": "accepted"})
    (body,) = wa.sent
    assert body["to"] == phone(1)
    assert body["template"]["components"] == [{"type": "body", "parameters": [{"type": "text", "text": "you"}]}]
    (told,) = eventually(wa.told)
    assert told["key"] == "whatsapp.message.accepted.v1.carts"
    fact = told["data"]
    assert fact["send_key"] == "key-1"
    assert fact["wamid"].startswith("wamid.")


def test_a_batch_is_completed_once_every_recipient_has_an_answer(wa: WhatsAppStage) -> None:
    wa.start()
    wa.publish(batch("b1", range(50)))
    eventually(lambda: len(wa.sent) == 50)
    eventually(lambda: len(wa.facts("batch.completed")) == 1)
    (fact,) = wa.facts()
    assert {one["outcome"] for one in fact["recipients"]} == {"accepted"}
    assert len(fact["recipients"]) == 50


def test_a_second_request_with_the_same_key_is_answered_from_the_ledger(wa: WhatsAppStage) -> None:
    wa.start()
    wa.publish(message(1), requester="carts")
    eventually(lambda: wa.states() == {"key-1": "accepted"})
    wa.publish(message(1), requester="carts")
    eventually(lambda: len(wa.facts()) == 2)
    first, second = wa.facts()
    assert first == second
    assert len(wa.sent) == 1
    wa.publish(message(1), requester="broadcast")
    eventually(lambda: len(wa.sent) == 2, "another requester's key is another message")


def test_a_batch_of_fifty_with_four_that_cannot_be_reached_sends_the_other_forty_six_once(wa: WhatsAppStage) -> None:
    wa.graph.message_errors[phone(1)] = (131056, "pair")
    wa.graph.message_errors[phone(2)] = (131026, "undeliverable")
    wa.publish(suppression(3))
    wa.start()
    eventually(lambda: wa.query("SELECT count(*) FROM suppressions") == [(1,)])
    whole = batch("b", range(50))
    spoiled = tuple(one if one.send_key != "b-4" else one.model_copy(update={"to": ""}) for one in whole.recipients)
    wa.publish(whole.model_copy(update={"recipients": spoiled}), requester="broadcast")
    eventually(lambda: Counter(wa.states().values())["accepted"] == 46)
    states = wa.states()
    assert states["b-2"] == "failed"
    assert states["b-3"] == "suppressed"
    assert states["b-4"] == "failed"
    assert (wa.row("b-2")["reason"], wa.row("b-4")["reason"]) == ("undeliverable", "malformed_number")
    assert wa.row("b-1")["reason"] == "pair_too_fast"
    assert Counter(body["to"] for body in wa.sent).most_common(1)[0][1] == 1

    def refused_four_times() -> bool:
        """Have each wait of the pair, but one of a minute and more, be over."""
        wa.query(
            "UPDATE pairs SET slots_from = now() WHERE failures < 4;"
            "UPDATE messages SET due_at = now() WHERE state = 'queued' AND due_at < now() + interval '1 minute'"
        )
        return wa.query("SELECT failures >= 4 FROM pairs WHERE failures > 0") == [(True,)]

    eventually(refused_four_times)
    assert wa.row("b-1")["failures"] == 0, "a pair's wait spends no try"
    (fact,) = eventually(lambda: wa.facts("batch.completed"), "a wait of a minute and more is an answer", seconds=120)
    outcomes = {one["send_key"]: one for one in fact["recipients"]}
    assert (outcomes["b-1"]["outcome"], outcomes["b-1"]["reason"]) == ("deferred", "pair_too_fast")
    assert outcomes["b-1"]["until"]
    del wa.graph.message_errors[phone(1)]
    wa.query("UPDATE messages SET due_at = now() WHERE state = 'queued'; UPDATE pairs SET slots_from = now()")
    eventually(lambda: len(wa.sent_to(1)) == 1)
    (later,) = eventually(lambda: wa.facts("batch.updated"))
    assert [(one["send_key"], one["outcome"]) for one in later["recipients"]] == [("b-1", "accepted")]


def test_a_wait_that_is_short_is_no_answer_to_a_batch(wa: WhatsAppStage) -> None:
    wa.fail(status=500, body={"error": {"code": 2, "message": "down"}})
    wa.start()
    wa.publish(batch("b", (1,)))
    (fact,) = eventually(lambda: wa.facts("batch.completed"))
    assert [one["outcome"] for one in fact["recipients"]] == ["accepted"]
    assert len(wa.calls) == 2


@pytest.mark.parametrize(
    ("fault", "state"),
    [
        ({"reset": "before"}, "in_doubt"),
        ({"reset": "after"}, "in_doubt"),
        ({"status": 502, "body": "<html>bad gateway</html>"}, "in_doubt"),
        ({"status": 504, "body": "<html>timeout</html>"}, "in_doubt"),
        ({"status": 200, "body": {"odd": True}}, "in_doubt"),
        ({"status": 503, "body": "<html>busy</html>"}, "queued"),
        ({"status": 500, "body": {"error": {"code": 2, "message": "down"}}}, "queued"),
    ],
)
def test_only_what_was_surely_not_accepted_is_tried_again(wa: WhatsAppStage, fault: dict[str, Any], state: str) -> None:
    """The simulator reads the whole request before it cuts the connection."""
    wa.fail(**fault)
    wa.start()
    wa.publish(message(1))
    eventually(lambda: wa.states() == {"key-1": state})
    if state == "queued":
        eventually(lambda: wa.states() == {"key-1": "accepted"})
        assert wa.row("key-1")["attempt"] == 2
    else:
        wa.query("UPDATE messages SET due_at = now()")
        eventually(lambda: wa.states() == {"key-1": "unknown"})
        assert len(wa.calls) == 1
        (fact,) = eventually(lambda: wa.facts("message.unknown"))
        assert fact["send_key"] == "key-1"


def test_an_answer_too_late_is_in_doubt_until_a_status_settles_it(wa: WhatsAppStage) -> None:
    wa.graph.latency_seconds = 3
    wa.start(whatsapp_call_seconds=0.3)
    wa.publish(message(1), requester="carts")
    eventually(lambda: wa.states() == {"key-1": "in_doubt"})
    wa.publish(wa.status("key-1", "delivered"))
    eventually(lambda: wa.states() == {"key-1": "delivered"})
    (fact,) = eventually(wa.facts)
    assert fact["send_key"] == "key-1"
    assert len(wa.calls) == 1


def test_a_utility_message_in_doubt_is_sent_again_where_that_is_set(wa: WhatsAppStage) -> None:
    wa.fail(reset="after")
    wa.start(whatsapp_unknown_utility="resend", whatsapp_settle_seconds=0.2)
    wa.publish(message(1, category="utility"))
    eventually(lambda: wa.states() == {"key-1": "accepted"})
    assert len(wa.calls) == 2
    wa.fail(reset="after")
    wa.publish(message(2))
    eventually(lambda: wa.states().get("key-2") == "unknown", "marketing never is")


def test_an_outage_rests_the_number_instead_of_failing_a_thousand_messages(wa: WhatsAppStage) -> None:
    wa.fail(status=503, body="<html>down</html>", times=1000)
    wa.start(whatsapp_calls_in_flight=5)
    wa.publish(*(message(n) for n in range(100)))
    eventually(lambda: wa.query("SELECT cause FROM numbers") == [("meta_unreachable",)])
    calls = len(wa.calls)
    assert calls < 20
    wa.graph.journal.faults.clear()
    eventually(lambda: set(wa.states().values()) == {"queued"})
    wa.query("UPDATE numbers SET paused_until = now(); UPDATE messages SET due_at = now()")
    wa.stage.services[0].stop()
    wa.start()
    eventually(lambda: set(wa.states().values()) == {"accepted"})
    assert len(wa.sent) == 100


def test_a_revoked_token_parks_its_shop_only_and_goes_on_without_a_duplicate(wa: WhatsAppStage, tmp_path: Path) -> None:
    other = GraphSimulator()
    with InThread(other) as there:
        shops = {
            "north": {
                "graph": {"token": wa.graph.token, "url": wa.graph_url},
                "whatsapp": {"phone_number_ids": ["1", "2"]},
            },
            "south": {"graph": {"token": other.token, "url": there.url}, "whatsapp": {"phone_number_ids": ["3"]}},
        }
        for shop in shops.values():
            shop["whatsapp"] |= {"rate": 0, "messaging_limit": -1}  # type: ignore[operator]
        file = tmp_path / "shops.json"
        file.write_text(json.dumps(shops))
        wa.graph.latency_seconds = 0.05
        running = wa.start(shops_file=file, whatsapp_calls_in_flight=4)
        wa.publish(*(message(n) for n in range(40)), shop="north")
        eventually(lambda: len(wa.sent) > 5)
        token, wa.graph.token = wa.graph.token, "revoked"
        refused = eventually(lambda: [one for one in wa.calls if one["status"] == 401])
        eventually(lambda: wa.query("SELECT cause FROM numbers WHERE sender IN ('1', '2')") == [("token_refused",)] * 2)
        wa.publish(*(message(n) for n in range(100, 120)), shop="south")
        eventually(lambda: len(other.sent) == 20, "another shop is not slowed")
        later = [one for one in wa.calls if one["time"] > refused[0]["time"] + 0.2]
        assert later == [], "after the refusal was known no further call was begun"
        eventually(lambda: metric(running, "wch_whatsapp_numbers_resting", cause="token_refused") == 2)
        assert wa.stage.depth("whatsapp.message.dlq") == 0
        before = len(wa.calls)
        wake(wa, running)
        eventually(lambda: len(wa.calls) == before + 1, "one call probes")
        eventually(lambda: wa.query("SELECT count(*) FROM numbers WHERE paused_until > now()") == [(2,)])
        assert len(wa.calls) == before + 1
        wa.graph.token = token

        def all_accepted() -> bool:
            wake(wa, running)  # again, as a refusal may become known to the process only after it is written
            return Counter(wa.states().values())["accepted"] == 60

        eventually(all_accepted)
        assert Counter(body["to"] for body in wa.sent).most_common(1)[0][1] == 1
        assert len(wa.sent) == 40
        eventually(lambda: metric(running, "wch_whatsapp_numbers_resting", cause="token_refused") == 0)


def test_a_probe_goes_on_past_those_who_must_not_be_written_to(wa: WhatsAppStage) -> None:
    wa.publish(*(suppression(n) for n in range(300)))
    wa.start()
    eventually(lambda: wa.query("SELECT count(*) FROM suppressions") == [(300,)])
    wa.query("UPDATE numbers SET cause = 'billing', paused_until = now() + interval '1 hour'")
    wa.publish(batch("b", range(301)))
    eventually(lambda: wa.facts("batch.completed"), "all are told to wait")
    wa.query("UPDATE messages SET due_at = now(); UPDATE numbers SET paused_until = now()")
    # At two a second this would take two minutes and a half.
    eventually(lambda: Counter(wa.states().values()) == {"suppressed": 300, "accepted": 1}, seconds=60)


def test_messages_of_many_requesters_take_turns(wa: WhatsAppStage) -> None:
    wa.graph.latency_seconds = 0.02
    wa.publish(batch("big", range(200)), requester="broadcast")
    wa.start(whatsapp_calls_in_flight=2)
    eventually(lambda: len(wa.sent) > 10)
    wa.publish(*(message(1000 + n) for n in range(10)), requester="carts")
    eventually(lambda: sum("1555010" not in body["to"] or body["to"] >= phone(1000) for body in wa.sent) >= 10)
    assert len(wa.sent) < 150, "carts did not stand behind the whole batch"


def test_a_number_sends_no_more_in_a_second_than_it_may(wa: WhatsAppStage) -> None:
    wa.graph.messages_per_second = 20
    wa.start(whatsapp_rate=20)
    wa.publish(batch("b", range(60)))
    eventually(lambda: set(wa.states().values()) == {"accepted"}, seconds=60)
    assert len(wa.calls) == 60, "the number's limit was never hit"


def test_a_throttled_number_rests_and_spends_no_try(wa: WhatsAppStage) -> None:
    wa.graph.messages_per_second = 10
    wa.start()
    wa.publish(batch("b", range(30)))
    eventually(lambda: set(wa.states().values()) == {"accepted"}, seconds=100)
    assert wa.query("SELECT max(failures) FROM messages") == [(0,)]
    assert len(wa.sent) == 30


def test_a_number_that_is_throttled_again_rests_longer(wa: WhatsAppStage) -> None:
    wa.fail(status=429, body={"error": {"code": 130429, "message": "Rate limit hit"}}, times=10)
    wa.start()
    wa.publish(message(1))
    # A probe under way rests the number for half a minute, and its answer for 2 s, then 4.
    rests = "SELECT paused_until - now() BETWEEN interval '2.5 seconds' AND interval '20 seconds' FROM numbers"
    eventually(lambda: wa.query(rests) == [(True,)])


def test_usage_near_metas_limit_rests_the_number_before_it_is_hit(wa: WhatsAppStage) -> None:
    wa.graph.usage_percent = 95
    wa.start(whatsapp_calls_in_flight=1)
    wa.publish(batch("b", range(5)))
    eventually(lambda: wa.query("SELECT cause FROM numbers") == [("usage_near_limit",)])
    (told,) = eventually(lambda: wa.facts("batch.completed"), "its batch is told, as it may rest again and again")
    said = Counter((one["outcome"], one["reason"]) for one in told["recipients"])
    assert said == {("accepted", ""): 1, ("deferred", "usage_near_limit"): 4}
    assert len(wa.calls) == 1


def test_one_person_is_written_to_at_the_pairs_pace_and_others_go_on(wa: WhatsAppStage) -> None:
    wa.start(whatsapp_pair_seconds=100, whatsapp_pair_burst=2)
    wa.publish(*(message(1, send_key=f"one-{n}") for n in range(4)), *(message(n) for n in range(2, 10)))
    eventually(lambda: len(wa.sent) == 10)
    eventually(lambda: Counter(wa.states().values()) == {"accepted": 10, "queued": 2})
    assert wa.query("SELECT DISTINCT reason FROM messages WHERE state = 'queued'") == [("pair_too_fast",)]


def test_a_persons_pace_holds_also_for_messages_that_come_one_by_one(wa: WhatsAppStage) -> None:
    wa.start(whatsapp_pair_seconds=100, whatsapp_pair_burst=2)
    for key in ("first", "second"):
        wa.publish(message(1, send_key=key))
        eventually(lambda: wa.states().get(key) == "accepted")
    wa.publish(message(1, send_key="third"))
    eventually(lambda: wa.row("third").get("reason") == "pair_too_fast")
    assert len(wa.calls) == 2


def test_no_more_people_a_day_than_metas_tier_are_written_to_outside_their_windows(wa: WhatsAppStage) -> None:
    wa.start(whatsapp_messaging_limit=3)
    wa.publish(wrote(5))
    eventually(lambda: wa.query("SELECT count(*) FROM windows") == [(1,)])
    wa.publish(batch("b", range(6)))
    eventually(lambda: Counter(wa.states().values()) == {"accepted": 4, "queued": 2})
    assert len(wa.sent_to(5)) == 1, "who wrote to us does not count"
    (fact,) = eventually(lambda: wa.facts("batch.completed"))
    assert Counter(one["reason"] for one in fact["recipients"])["messaging_limit"] == 2
    reached = next(n for n in range(5) if wa.sent_to(n))
    wa.publish(message(reached, send_key="again"))
    eventually(lambda: wa.states().get("again") == "accepted", "a person reached already counts once")


def test_who_was_written_to_today_still_counts_when_a_later_message_is_refused(wa: WhatsAppStage) -> None:
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
    eventually(lambda: wa.states()["key-2"] == "accepted", "who was written to yesterday counts no more")


def test_shops_of_one_portfolio_share_its_people_of_the_day(wa: WhatsAppStage, tmp_path: Path) -> None:
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


def test_a_number_without_a_country_is_read_as_one_of_the_shops(wa: WhatsAppStage) -> None:
    wa.start(whatsapp_region="DE")
    (one,) = batch("b", (1,)).recipients
    whole = batch("b", (1,), recipients=(one.model_copy(update={"to": "0170 7654321"}),))
    wa.publish(message(1, to="0170 1234567"), whole)
    eventually(lambda: wa.states() == {"key-1": "accepted", "b-1": "accepted"})
    assert {body["to"] for body in wa.sent} == {"+491701234567", "+491707654321"}


def test_a_wrong_template_ends_the_rest_of_its_batch(wa: WhatsAppStage) -> None:
    wa.graph.message_errors["hello"] = (132001, "Template name does not exist")
    wa.start(whatsapp_calls_in_flight=2)
    wa.publish(batch("b", range(300)), message(500))
    (fact,) = eventually(lambda: wa.facts("batch.completed"))
    assert {(one["outcome"], one["reason"]) for one in fact["recipients"]} == {("failed", "template_missing")}
    assert len(wa.calls) < 50
    eventually(lambda: wa.states().get("key-500") == "failed")


def test_a_country_that_may_not_be_written_to_ends_its_people_and_nobody_elses(wa: WhatsAppStage) -> None:
    german = tuple(Recipient(to=f"+49170123{n:04d}", send_key=f"de-{n}") for n in range(20))
    for one in german:
        wa.graph.message_errors[one.to] = (
            130497,
            "Business account is restricted from messaging users in this country.",
        )
    whole = batch("b", range(10), recipients=(*german, *batch("b", range(10)).recipients))
    wa.publish(whole)
    eventually(lambda: wa.stage.depth("whatsapp.batch") == 1)
    running = wa.start(whatsapp_calls_in_flight=1)
    (fact,) = eventually(lambda: wa.facts("batch.completed"))
    said = {one["send_key"]: (one["outcome"], one["reason"]) for one in fact["recipients"]}
    refused = dict.fromkeys((one.send_key for one in german), ("failed", "country_not_allowed"))
    assert said == refused | dict.fromkeys((f"b-{n}" for n in range(10)), ("accepted", ""))
    assert len(wa.calls) == 11, "one of them told what holds for all"
    assert metric(running, "wch_whatsapp_alerts_total", reason="country_not_allowed") == 1


def test_values_that_do_not_fit_are_not_those_of_who_has_their_own(wa: WhatsAppStage) -> None:
    plain, ours = batch("b", range(10)).recipients, batch("b", range(10, 20)).recipients
    for number in range(10):
        wa.graph.message_errors[phone(number)] = (132000, "Number of parameters does not match")
    own = (one.model_copy(update={"body": (Parameter(text="Ada"),)}) for one in ours)
    wa.publish(batch("b", (), recipients=(*plain, *own)))
    eventually(lambda: wa.stage.depth("whatsapp.batch") == 1)
    wa.start(whatsapp_calls_in_flight=1)
    (fact,) = eventually(lambda: wa.facts("batch.completed"))
    said = {one["send_key"]: (one["outcome"], one["reason"]) for one in fact["recipients"]}
    wrong = dict.fromkeys((one.send_key for one in plain), ("failed", "template_values_wrong"))
    assert said == wrong | dict.fromkeys((one.send_key for one in ours), ("accepted", ""))


def test_free_text_needs_an_open_window_or_takes_its_fallback(wa: WhatsAppStage) -> None:
    wa.start()
    wa.publish(
        message(1, message=TEXT, category="service"),
        message(2, message=TEXT, category="service", fallback=TEMPLATE),
        wrote(3),
    )
    eventually(lambda: wa.query("SELECT count(*) FROM windows") == [(1,)])
    wa.publish(message(3, message=TEXT, category="service"))
    eventually(lambda: wa.states() == {"key-1": "failed", "key-2": "accepted", "key-3": "accepted"})
    assert wa.row("key-1")["reason"] == "window_closed"
    assert [body["type"] for body in (*wa.sent_to(2), *wa.sent_to(3))] == ["template", "text"]


def test_a_batchs_fallback_is_filled_with_each_recipients_values(wa: WhatsAppStage) -> None:
    wa.start()
    wa.publish(wrote(1))
    eventually(lambda: wa.query("SELECT count(*) FROM windows") == [(1,)])
    text = TEXT.model_copy(update={"body": "Hello {{1}}"})
    own = (one.model_copy(update={"body": (Parameter(text=one.send_key),)}) for one in batch("b", (1, 2)).recipients)
    wa.publish(batch("b", (), message=text, fallback=TEMPLATE, category="service", recipients=tuple(own)))
    eventually(lambda: wa.states() == {"b-1": "accepted", "b-2": "accepted"})
    (free,), (template,) = wa.sent_to(1), wa.sent_to(2)
    assert free["text"]["body"] == "Hello b-1"
    assert template["template"]["components"] == [{"type": "body", "parameters": [{"type": "text", "text": "b-2"}]}]


def test_where_metas_clock_says_closed_the_fallback_goes(wa: WhatsAppStage) -> None:
    wa.start()
    wa.publish(wrote(1))
    eventually(lambda: wa.query("SELECT count(*) FROM windows") == [(1,)])
    wa.fail(status=400, body={"error": {"code": 131047, "message": "Re-engagement message"}})
    wa.publish(message(1, message=TEXT, category="service", fallback=TEMPLATE))
    eventually(lambda: wa.states() == {"key-1": "accepted"})
    assert [body["type"] for body in wa.sent] == ["template"]


def test_what_is_not_worth_sending_any_more_is_not_sent(wa: WhatsAppStage) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=1)
    wa.start()
    by_envelope = new_event(message(2, not_before=soon + timedelta(hours=1)), "/test", expirytime=soon)
    wa.publish(message(1, expires_at=soon, not_before=soon + timedelta(hours=1)), by_envelope)
    eventually(lambda: wa.states() == {"key-1": "failed", "key-2": "failed"})
    assert {wa.row(key)["reason"] for key in ("key-1", "key-2")} == {"expired"}
    assert wa.calls == []


def test_a_request_no_number_can_be_read_from_is_dead_lettered_and_told(wa: WhatsAppStage) -> None:
    wa.start()
    wa.publish(message(1, to="0170 12"), message(2, sender="999"), requester="carts")
    dead_letters = wa.stage.await_dead_letters("whatsapp.message.dlq", 2)
    told = sorted(str(dead_letter.message.headers["wch-error-message"]) for dead_letter in dead_letters)
    assert told[0].startswith("data.sender: the shop does not send from 999")
    assert told[1].startswith("data.to: not a telephone number")
    eventually(lambda: len(wa.facts("message.failed")) == 2)
    assert all("0170" not in str(dead_letter.message.headers) for dead_letter in dead_letters)


def rested(wa: WhatsAppStage, seconds: int = 3600) -> None:
    """Let the number rest, so that what is accepted waits."""
    wa.query(f"UPDATE numbers SET cause = 'billing', paused_until = now() + interval '{seconds} seconds'")


def test_no_more_is_accepted_than_may_wait(wa: WhatsAppStage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wch_whatsapp.maintenance._COUNT_SECONDS", 0.2)
    wa.start(whatsapp_most_waiting=5)
    rested(wa)
    wa.publish(*(message(n) for n in range(20)))
    eventually(lambda: len(wa.states()) > 5)
    eventually(lambda: wa.stage.queue_info("whatsapp.message").get("consumers") == 0, "no more are taken")
    accepted = len(wa.states())
    wa.publish(*(message(n) for n in range(100, 200)))
    wa.stage.await_depth("whatsapp.message", 120 - accepted)
    eventually(lambda: wa.stage.queue_info("whatsapp.batch").get("consumers") == 0, "nor of batches")
    wa.publish(batch("late", (300,)))
    wa.stage.await_depth("whatsapp.batch", 1)
    assert wa.stage.services[0].is_ready
    wa.query("UPDATE messages SET due_at = now() + interval '1 hour'")
    eventually(lambda: len(wa.states()) > accepted, "there is room again")
    assert wa.stage.depth("whatsapp.message.dlq") == 0


def test_one_shops_waiting_messages_stop_no_other_shops_acceptance(
    wa: WhatsAppStage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("wch_whatsapp.maintenance._COUNT_SECONDS", 0.2)
    graph = {"token": wa.graph.token, "url": wa.graph_url}
    numbers = {"rate": 0, "messaging_limit": -1}
    shops = {
        "north": {"graph": graph, "whatsapp": numbers | {"phone_number_ids": ["1"]}},
        "south": {"graph": graph, "whatsapp": numbers | {"phone_number_ids": ["3"]}},
    }
    file = tmp_path / "shops.json"
    file.write_text(json.dumps(shops))
    running = wa.start(shops_file=file, whatsapp_most_waiting=5)
    wa.query("UPDATE numbers SET cause = 'billing', paused_until = now() + interval '1 hour' WHERE sender = '1'")
    # One more than may wait, so that all of them are accepted whenever they are counted.
    wa.publish(*(message(n) for n in range(6)), shop="north")
    eventually(lambda: metric(running, "wch_whatsapp_messages_open", state="queued") == 6, "they are counted")
    wa.publish(message(50), shop="north")
    eventually(lambda: wa.query("SELECT queue, scope FROM parked") == [("whatsapp.message", "accepting/north")])
    assert "key-50" not in wa.states()
    wa.publish(*(message(n) for n in range(100, 105)), shop="south")
    eventually(lambda: len(wa.sent) == 5)


def test_every_queue_may_be_replayed_and_nobody_is_written_to_twice(wa: WhatsAppStage) -> None:
    wa.start()
    requests = [message(1), batch("b", range(10, 15)), wrote(1)]
    wa.publish(*requests, requester="carts")
    eventually(lambda: set(wa.states().values()) == {"accepted"} and len(wa.states()) == 6)
    wa.publish(wa.status("key-1", "delivered"), wa.status("b-10", "read"))
    eventually(lambda: wa.states()["key-1"] == "delivered" and wa.states()["b-10"] == "read")
    states = wa.states()
    wa.publish(*requests, wa.status("key-1", "sent"), wa.status("b-10", "delivered"), requester="carts")
    eventually(lambda: len(wa.facts("batch.completed")) == 2, "the batch is answered again")
    for queue in ("message", "batch", "status", "inbound"):
        wa.stage.await_depth(f"whatsapp.{queue}", 0)
    assert wa.states() == states
    assert len(wa.calls) == 6


def metric(running: RunningService, name: str, **labels: str) -> float | None:
    return running.service._metrics.registry.get_sample_value(name, labels)


def wake(wa: WhatsAppStage, running: RunningService) -> None:
    """Let half a minute pass: for the database, and for the process's own memory of the refusal."""
    wa.query("UPDATE numbers SET paused_until = now() WHERE cause IS NOT NULL")
    for task in running.service._tasks:
        frame = getattr(task.get_coro(), "cr_frame", None)
        run = frame.f_locals.get("run") if frame else None
        sender = getattr(run, "__self__", None)
        if isinstance(sender, NumberSender):
            sender._rest.until = sender._shop.rest.until = 0.0
