"""Sending with a real broker, a real database and a simulated Graph: each message is sent at most once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from support.stage import RunningService, Stage
from support.waiting import eventually
from support.whatsapp_stage import WhatsAppStage, batch, message, phone, suppression, wrote
from wch_common.contract.event import new_event
from wch_common.events.whatsapp import BatchRecipient
from wch_common.events.whatsapp_content import Parameter, Template
from wch_simulators.graph import GraphSimulator
from wch_simulators.running import InThread
from wch_whatsapp.call_outcomes import OUTAGE
from wch_whatsapp.sender import NumberSender


@pytest.fixture
def wa(stage: Stage, database_url: str) -> Iterator[WhatsAppStage]:
    made = WhatsAppStage(stage, database_url)
    yield made
    made.close()


def test_a_message_is_sent_once_and_reported_to_its_requester(wa: WhatsAppStage) -> None:
    wa.start()
    wa.publish(message(1), requester="carts")
    eventually(lambda: wa.states() == {"key-1": "accepted"})
    (body,) = wa.sent
    assert body["to"] == phone(1)
    assert body["template"]["components"] == [{"type": "body", "parameters": [{"type": "text", "text": "you"}]}]
    (published,) = eventually(wa.published)
    assert published["key"] == "whatsapp.message.accepted.v1.carts"
    fact = published["data"]
    assert fact["send_key"] == "key-1"
    assert "wamid" not in fact, "it contains the number"


def test_a_batch_is_completed_once_every_recipient_has_a_result(wa: WhatsAppStage) -> None:
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


def test_a_batch_of_fifty_with_four_unreachable_recipients_sends_the_other_forty_six_once(wa: WhatsAppStage) -> None:
    wa.graph.message_errors[phone(1)] = (131056, "pair")
    wa.graph.message_errors[phone(2)] = (131026, "undeliverable")
    wa.publish(suppression(3))
    wa.start()
    eventually(lambda: wa.query("SELECT count(*) FROM suppressions") == [(1,)])
    whole = batch("b", range(50))
    invalid = tuple(one if one.send_key != "b-4" else one.model_copy(update={"to": ""}) for one in whole.recipients)
    wa.publish(whole.model_copy(update={"recipients": invalid}), requester="broadcast")
    eventually(lambda: Counter(wa.states().values())["accepted"] == 46)
    states = wa.states()
    assert states["b-2"] == "failed"
    assert states["b-3"] == "suppressed"
    assert states["b-4"] == "failed"
    assert (wa.row("b-2")["reason"], wa.row("b-4")["reason"]) == ("undeliverable", "malformed_number")
    assert wa.row("b-1")["reason"] == "pair_too_fast"
    assert Counter(body["to"] for body in wa.sent).most_common(1)[0][1] == 1

    def refused_four_times() -> bool:
        """End each pause of the recipient, except one of a minute or more."""
        wa.query(
            "UPDATE pairs SET slots_from = now() WHERE failures < 4;"
            "UPDATE messages SET due_at = now() WHERE state = 'queued' AND due_at < now() + interval '1 minute'"
        )
        return wa.query("SELECT failures >= 4 FROM pairs WHERE failures > 0") == [(True,)]

    eventually(refused_four_times)
    assert wa.row("b-1")["failures"] == 0, "the pause of a recipient uses no attempt"
    (fact,) = eventually(lambda: wa.facts("batch.completed"), "a wait of a minute or more is a result")
    outcomes = {one["send_key"]: one for one in fact["recipients"]}
    assert (outcomes["b-1"]["outcome"], outcomes["b-1"]["reason"]) == ("deferred", "pair_too_fast")
    assert outcomes["b-1"]["until"]
    del wa.graph.message_errors[phone(1)]
    wa.query("UPDATE messages SET due_at = now() WHERE state = 'queued'; UPDATE pairs SET slots_from = now()")
    eventually(lambda: len(wa.sent_to(1)) == 1)
    (later,) = eventually(lambda: wa.facts("batch.updated"))
    assert [(one["send_key"], one["outcome"]) for one in later["recipients"]] == [("b-1", "accepted")]


def test_a_short_wait_is_not_reported_to_the_batch(wa: WhatsAppStage) -> None:
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
def test_only_a_message_that_was_certainly_not_accepted_is_retried(
    wa: WhatsAppStage, fault: dict[str, Any], state: str
) -> None:
    """The simulator reads the complete request before it cuts the connection."""
    wa.fail(**fault)
    wa.start()
    wa.publish(message(1))
    if state == "queued":  # for two seconds
        eventually(lambda: wa.states() == {"key-1": "accepted"})
        assert wa.row("key-1")["attempt"] == 2
    else:
        eventually(lambda: wa.states() == {"key-1": state})
        wa.query("UPDATE messages SET due_at = now()")
        eventually(lambda: wa.states() == {"key-1": "unknown"})
        assert len(wa.calls) == 1
        (fact,) = eventually(lambda: wa.facts("message.unknown"))
        assert fact["send_key"] == "key-1"


def test_a_call_without_an_answer_in_time_is_in_doubt_until_a_status_settles_it(wa: WhatsAppStage) -> None:
    wa.graph.latency_seconds = 3
    wa.start(whatsapp_call_seconds=0.3)
    wa.publish(message(1), requester="carts")
    eventually(lambda: wa.states() == {"key-1": "in_doubt"})
    wa.publish(wa.status("key-1", "delivered"))
    eventually(lambda: wa.states() == {"key-1": "delivered"})
    (fact,) = eventually(wa.facts)
    assert fact["send_key"] == "key-1"
    assert len(wa.calls) == 1


def test_a_utility_message_in_doubt_is_sent_again_if_configured(wa: WhatsAppStage) -> None:
    wa.fail(reset="after")
    wa.start(whatsapp_unknown_utility="resend", whatsapp_settle_seconds=0.2)
    wa.publish(message(1, category="utility"))
    eventually(lambda: wa.states() == {"key-1": "accepted"})
    assert len(wa.calls) == 2
    wa.fail(reset="after")
    wa.publish(message(2))
    eventually(lambda: wa.states().get("key-2") == "unknown", "a marketing message is never sent again")


def test_an_outage_pauses_the_number_instead_of_failing_its_messages(
    wa: WhatsAppStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wch_whatsapp.sender.OUTAGE", replace(OUTAGE, seconds=3600.0))
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


def test_a_revoked_token_pauses_its_shop_only_and_causes_no_duplicate(wa: WhatsAppStage, tmp_path: Path) -> None:
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
        assert later == [], "no call begins after the refusal"
        eventually(lambda: metric(running, "wch_whatsapp_numbers_paused", cause="token_refused") == 2)
        assert wa.stage.depth("whatsapp.message.dlq") == 0
        before = len(wa.calls)
        end_pauses(wa, running)
        eventually(lambda: len(wa.calls) == before + 1, "one call probes")
        eventually(lambda: wa.query("SELECT count(*) FROM numbers WHERE paused_until > now()") == [(2,)])
        assert len(wa.calls) == before + 1
        wa.graph.token = token

        def all_accepted() -> bool:
            end_pauses(wa, running)  # repeated, because the process may learn of a refusal only after it is written
            return Counter(wa.states().values())["accepted"] == 60

        eventually(all_accepted)
        assert Counter(body["to"] for body in wa.sent).most_common(1)[0][1] == 1
        assert len(wa.sent) == 40
        eventually(lambda: metric(running, "wch_whatsapp_numbers_paused", cause="token_refused") == 0)


def test_a_probe_skips_suppressed_recipients(wa: WhatsAppStage) -> None:
    wa.publish(*(suppression(n) for n in range(300)))
    wa.start()
    eventually(lambda: wa.query("SELECT count(*) FROM suppressions") == [(300,)])
    wa.query("UPDATE numbers SET cause = 'billing', paused_until = now() + interval '1 hour'")
    wa.publish(batch("b", range(301)))
    eventually(lambda: wa.facts("batch.completed"), "every recipient is reported as deferred")
    wa.query("UPDATE messages SET due_at = now(); UPDATE numbers SET paused_until = now()")
    # At two messages a second, this would take two and a half minutes.
    eventually(lambda: Counter(wa.states().values()) == {"suppressed": 300, "accepted": 1})


def test_a_number_without_a_country_code_is_read_in_the_region_of_the_shop(wa: WhatsAppStage) -> None:
    wa.start(whatsapp_region="DE")
    (one,) = batch("b", (1,)).recipients
    whole = batch("b", (1,), recipients=(one.model_copy(update={"to": "0170 7654321"}),))
    wa.publish(message(1, to="0170 1234567"), whole)
    eventually(lambda: wa.states() == {"key-1": "accepted", "b-1": "accepted"})
    assert {body["to"] for body in wa.sent} == {"+491701234567", "+491707654321"}


def test_recipients_without_required_values_fail_before_a_call(wa: WhatsAppStage) -> None:
    wa.start()
    (one,) = batch("b", (1,)).recipients
    valued = one.model_copy(
        update={"to": phone(2), "send_key": "b-2", "body": (Parameter(text="Main Street 1\nBerlin"),)}
    )
    blank = one.model_copy(update={"to": phone(3), "send_key": "b-3", "body": (Parameter(text=" \n"),)})
    template = Template(name="hello", language="en_US")
    whole = batch("b", (1,), recipients=(one, valued, blank), message=template, values_required=True)
    wa.publish(whole, message(9, message=template.model_copy(update={"body": (Parameter(text=""),)})))
    (fact,) = eventually(lambda: wa.facts("batch.completed"))
    assert {one["send_key"]: one["reason"] for one in fact["recipients"]} == {
        "b-1": "value_missing", "b-2": "", "b-3": "value_missing",
    }  # fmt: skip
    (body,) = wa.sent
    assert body["template"]["components"][0]["parameters"][0]["text"] == "Main Street 1 Berlin"
    (refused,) = wa.stage.await_dead_letters("whatsapp.message.dlq")
    assert "data.message: a value of the template is empty" in str(refused.message.headers["wch-error-message"])


def test_a_wrong_template_ends_the_rest_of_its_batch(wa: WhatsAppStage) -> None:
    wa.graph.message_errors["hello"] = (132001, "Template name does not exist")
    wa.start(whatsapp_calls_in_flight=2)
    wa.publish(batch("b", range(300)), message(500))
    (fact,) = eventually(lambda: wa.facts("batch.completed"))
    assert {(one["outcome"], one["reason"]) for one in fact["recipients"]} == {("failed", "template_missing")}
    assert len(wa.calls) < 50
    eventually(lambda: wa.states().get("key-500") == "failed")


def test_a_refused_country_ends_the_messages_to_it_and_no_others(wa: WhatsAppStage) -> None:
    german = tuple(BatchRecipient(to=f"+4917139200{n:02d}", send_key=f"de-{n}") for n in range(20))
    for one in german:
        wa.graph.message_errors[str(one.to)] = (
            130497,
            "Business account is restricted from messaging users in this country.",
        )
    whole = batch("b", range(10), recipients=(*german, *batch("b", range(10)).recipients))
    wa.publish(whole)
    eventually(lambda: wa.stage.depth("whatsapp.batch") == 1)
    running = wa.start(whatsapp_calls_in_flight=1)
    (fact,) = eventually(lambda: wa.facts("batch.completed"))
    results = {one["send_key"]: (one["outcome"], one["reason"]) for one in fact["recipients"]}
    refused = dict.fromkeys((one.send_key for one in german), ("failed", "country_not_allowed"))
    assert results == refused | dict.fromkeys((f"b-{n}" for n in range(10)), ("accepted", ""))
    assert len(wa.calls) == 11, "the first refusal holds for all of them"
    assert metric(running, "wch_whatsapp_alerts_total", reason="country_not_allowed") == 1


def test_wrong_values_of_a_batch_do_not_end_recipients_with_their_own_values(wa: WhatsAppStage) -> None:
    plain, ours = batch("b", range(10)).recipients, batch("b", range(10, 20)).recipients
    for number in range(10):
        wa.graph.message_errors[phone(number)] = (132000, "Number of parameters does not match")
    own = (one.model_copy(update={"body": (Parameter(text="Ada"),)}) for one in ours)
    wa.publish(batch("b", (), recipients=(*plain, *own)))
    eventually(lambda: wa.stage.depth("whatsapp.batch") == 1)
    wa.start(whatsapp_calls_in_flight=1)
    (fact,) = eventually(lambda: wa.facts("batch.completed"))
    results = {one["send_key"]: (one["outcome"], one["reason"]) for one in fact["recipients"]}
    wrong = dict.fromkeys((one.send_key for one in plain), ("failed", "template_values_wrong"))
    assert results == wrong | dict.fromkeys((one.send_key for one in ours), ("accepted", ""))


def test_an_expired_message_is_not_sent(wa: WhatsAppStage) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=1)
    wa.start()
    by_envelope = new_event(message(2, not_before=soon + timedelta(hours=1)), "/test", expirytime=soon)
    wa.publish(message(1, expires_at=soon, not_before=soon + timedelta(hours=1)), by_envelope)
    eventually(lambda: wa.states() == {"key-1": "failed", "key-2": "failed"})
    assert {wa.row(key)["reason"] for key in ("key-1", "key-2")} == {"expired"}
    assert wa.calls == []


def test_a_request_with_a_malformed_number_or_a_foreign_sender_is_dead_lettered_and_reported(wa: WhatsAppStage) -> None:
    wa.start()
    wa.publish(message(1, to="0170 12"), message(2, sender="999"), requester="carts")
    dead_letters = wa.stage.await_dead_letters("whatsapp.message.dlq", 2)
    errors = sorted(str(dead_letter.message.headers["wch-error-message"]) for dead_letter in dead_letters)
    assert errors[0].startswith("data.sender: the shop does not send from 999")
    assert errors[1].startswith("data.to: not a phone number")
    eventually(lambda: len(wa.facts("message.failed")) == 2)
    assert all("0170" not in str(dead_letter.message.headers) for dead_letter in dead_letters)


def pause(wa: WhatsAppStage, seconds: int = 3600) -> None:
    """Pause the number, so that accepted messages wait."""
    wa.query(f"UPDATE numbers SET cause = 'billing', paused_until = now() + interval '{seconds} seconds'")


def test_acceptance_pauses_while_too_many_messages_wait(wa: WhatsAppStage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wch_whatsapp.maintenance._COUNT_SECONDS", 0.2)
    wa.start(whatsapp_most_waiting=5)
    pause(wa)
    wa.publish(*(message(n) for n in range(20)))
    eventually(lambda: len(wa.states()) > 5)
    eventually(lambda: wa.stage.queue_info("whatsapp.message").get("consumers") == 0, "messages are paused")
    accepted = len(wa.states())
    wa.publish(*(message(n) for n in range(100, 200)))
    wa.stage.await_depth("whatsapp.message", 120 - accepted)
    eventually(lambda: wa.stage.queue_info("whatsapp.batch").get("consumers") == 0, "batches are paused, too")
    wa.publish(batch("late", (300,)))
    wa.stage.await_depth("whatsapp.batch", 1)
    assert wa.stage.services[0].is_ready
    wa.query("UPDATE messages SET due_at = now() + interval '1 hour'")
    eventually(lambda: len(wa.states()) > accepted, "consumption resumes")
    assert wa.stage.depth("whatsapp.message.dlq") == 0


def test_the_waiting_messages_of_one_shop_do_not_pause_another_shop(
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
    # One more than the limit, so that all of them are accepted whenever the count runs.
    wa.publish(*(message(n) for n in range(6)), shop="north")
    eventually(lambda: metric(running, "wch_whatsapp_messages_open", state="queued") == 6, "they are counted")
    wa.publish(message(50), shop="north")
    eventually(lambda: wa.query("SELECT queue, scope FROM parked") == [("whatsapp.message", "accepting/north")])
    assert "key-50" not in wa.states()
    wa.publish(*(message(n) for n in range(100, 105)), shop="south")
    eventually(lambda: len(wa.sent) == 5)


def test_every_queue_may_be_replayed_and_no_message_is_sent_twice(wa: WhatsAppStage) -> None:
    wa.start()
    requests = [message(1), batch("b", range(10, 15)), wrote(1)]
    wa.publish(*requests, requester="carts")
    eventually(lambda: set(wa.states().values()) == {"accepted"} and len(wa.states()) == 6)
    wa.publish(wa.status("key-1", "delivered"), wa.status("b-10", "read"))
    eventually(lambda: wa.states()["key-1"] == "delivered" and wa.states()["b-10"] == "read")
    states = wa.states()
    wa.publish(*requests, wa.status("key-1", "sent"), wa.status("b-10", "delivered"), requester="carts")
    eventually(lambda: len(wa.facts("batch.completed")) == 2, "the batch is reported again")
    for queue in ("message", "batch", "status", "inbound"):
        wa.stage.await_depth(f"whatsapp.{queue}", 0)
    assert wa.states() == states
    assert len(wa.calls) == 6


def metric(running: RunningService, name: str, **labels: str) -> float | None:
    return running.service._metrics.registry.get_sample_value(name, labels)


def end_pauses(wa: WhatsAppStage, running: RunningService) -> None:
    """End the pauses, in the database and in the memory of the process."""
    wa.query("UPDATE numbers SET paused_until = now() WHERE cause IS NOT NULL")
    for task in running.service._tasks:
        frame = getattr(task.get_coro(), "cr_frame", None)
        run = frame.f_locals.get("run") if frame else None
        sender = getattr(run, "__self__", None)
        if isinstance(sender, NumberSender):
            sender._pause.until = sender._shop.pause.until = 0.0
