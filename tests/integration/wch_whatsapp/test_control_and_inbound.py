"""Taking back, trying again, statuses in any order, what people write, and forgetting them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest
from pydantic import ValidationError

from support.command import wch
from support.stage import Stage
from support.waiting import eventually
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
from wch_common.events.whatsapp import (
    BatchCancelRequested,
    MessageCancelRequested,
    RetryRequested,
    SuppressionRemoveRequested,
)
from wch_common.events.whatsapp_content import Template

LATER = datetime.now(UTC) + timedelta(hours=5)


@pytest.fixture
def wa(stage: Stage, database_url: str) -> Iterator[WhatsAppStage]:
    made = WhatsAppStage(stage, database_url)
    made.start()
    yield made
    made.close()


def test_a_message_not_under_way_is_taken_back_and_one_that_was_sent_is_not(wa: WhatsAppStage) -> None:
    wa.publish(message(1, not_before=LATER), message(2), requester="carts")
    eventually(lambda: wa.states() == {"key-1": "queued", "key-2": "accepted"})
    wa.publish(*(MessageCancelRequested(send_key=f"key-{n}", reason="bought") for n in (1, 2)), requester="carts")
    eventually(lambda: wa.states() == {"key-1": "cancelled", "key-2": "accepted"})
    (fact,) = eventually(lambda: wa.facts("message.cancelled"))
    assert (fact["send_key"], fact["reason"]) == ("key-1", "bought")


def test_a_cancellation_that_comes_before_its_request_still_holds(wa: WhatsAppStage) -> None:
    wa.publish(MessageCancelRequested(send_key="key-1"), BatchCancelRequested(batch_id="b"), requester="carts")
    eventually(lambda: wa.states() == {"key-1": "cancelled"} and wa.query("SELECT asked FROM batches") == [(False,)])
    wa.publish(message(1), batch("b", range(10, 13)), requester="carts")
    (fact,) = eventually(lambda: wa.facts("batch.completed"))
    assert {one["outcome"] for one in fact["recipients"]} == {"cancelled"}
    eventually(lambda: len(wa.facts("message.cancelled")) == 1)
    assert wa.calls == []


def test_a_cancelled_batch_stops_at_once_and_its_counts_add_up(wa: WhatsAppStage) -> None:
    wa.graph.latency_seconds = 0.1
    wa.publish(batch("b", range(500)))
    eventually(lambda: len(wa.sent) > 20)
    wa.publish(BatchCancelRequested(batch_id="b", reason="stop it"))
    (fact,) = eventually(lambda: wa.facts("batch.completed"))
    outcomes = Counter(one["outcome"] for one in fact["recipients"])
    assert outcomes.total() == 500
    assert outcomes["cancelled"] > 100
    eventually(lambda: set(wa.states().values()) == {"accepted", "cancelled"})
    assert len(wa.sent) == Counter(wa.states().values())["accepted"] < 400


def test_a_failed_message_is_tried_again_when_asked_and_what_is_in_doubt_never(wa: WhatsAppStage) -> None:
    wa.graph.message_errors[phone(1)] = (131026, "undeliverable")
    wa.graph.message_errors[phone(3)] = (131049, "limit")
    wa.fail(reset="after")
    wa.publish(message(2), requester="carts")
    eventually(lambda: wa.states() == {"key-2": "in_doubt"})
    wa.publish(message(1), message(3), requester="carts")
    eventually(lambda: Counter(wa.states().values()) == {"failed": 2, "in_doubt": 1})
    wa.graph.message_errors.clear()
    keys = tuple(f"key-{n}" for n in (1, 2, 3))
    wa.publish(RetryRequested(send_keys=keys), requester="carts")
    eventually(lambda: wa.states()["key-1"] == "accepted")
    assert wa.states()["key-2"] == "in_doubt"
    assert (wa.states()["key-3"], len(wa.sent_to(3))) == ("queued", 0), "a person's limit is not tried within a day"
    assert wa.row("key-3")["due_at"] > datetime.now(UTC) + timedelta(hours=23)
    wa.publish(RetryRequested(send_keys=("key-1",)), requester="carts")
    eventually(lambda: len(wa.facts("message.accepted")) == 2, "it is answered with what became of it")
    assert len(wa.sent_to(1)) == 1


def test_what_has_expired_is_worth_sending_again_when_asked(wa: WhatsAppStage) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=1)
    wa.publish(message(1, expires_at=soon, not_before=LATER), requester="carts")
    eventually(lambda: wa.states() == {"key-1": "failed"})
    wa.publish(RetryRequested(send_keys=("key-1",)), requester="carts")
    eventually(lambda: wa.states() == {"key-1": "accepted"})


def test_what_is_tried_again_expires_when_its_request_says(wa: WhatsAppStage) -> None:
    wa.graph.message_errors[phone(1)] = (131026, "undeliverable")
    wa.publish(message(1), requester="carts")
    eventually(lambda: wa.states() == {"key-1": "failed"})
    wa.graph.message_errors.clear()
    wa.publish(
        RetryRequested(send_keys=("key-1",), expires_at=datetime.now(UTC) - timedelta(seconds=1)), requester="carts"
    )
    eventually(lambda: wa.row("key-1")["reason"] == "expired")
    assert wa.states() == {"key-1": "failed"}
    assert wa.sent == []
    assert [fact["attempt"] for fact in wa.facts("message.failed")] == [1, 2], "the later attempt's fact holds"


def test_what_was_taken_back_after_it_failed_is_not_tried_again(wa: WhatsAppStage) -> None:
    wa.graph.message_errors[phone(1)] = (131026, "undeliverable")
    wa.publish(message(1), requester="carts")
    eventually(lambda: wa.states() == {"key-1": "failed"})
    wa.graph.message_errors.clear()
    wa.publish(MessageCancelRequested(send_key="key-1", reason="bought"), requester="carts")
    eventually(lambda: wa.row("key-1")["cancelled"] == "bought")
    wa.publish(RetryRequested(send_keys=("key-1",)), requester="carts")
    eventually(lambda: len(wa.facts("message.failed")) == 2, "it is answered with what became of it")
    assert (wa.states(), wa.sent) == ({"key-1": "failed"}, [])


def test_a_message_that_was_mended_is_sent_as_it_says_now(wa: WhatsAppStage) -> None:
    wa.graph.message_errors[phone(1)] = (132001, "no such template")
    wa.publish(message(1), requester="carts")
    eventually(lambda: wa.states() == {"key-1": "failed"})
    wa.graph.message_errors.clear()
    mended = Template(name="mended", language="en_US")
    wa.publish(RetryRequested(send_keys=("key-1",), message=mended), requester="carts")
    eventually(lambda: wa.states() == {"key-1": "accepted"})
    assert [body["template"]["name"] for body in wa.sent] == ["mended"]


def test_who_had_no_value_for_a_text_is_sent_the_mended_one(wa: WhatsAppStage) -> None:
    wa.publish(
        wrote(1), batch("b", (1,), message=TEXT.model_copy(update={"body": "Hello {{name}}"})), requester="broadcast"
    )
    eventually(lambda: wa.row("b-1").get("reason") == "value_missing")
    assert wa.row("b-1")["detail"] == "there is no value for {{name}}"
    eventually(lambda: wa.query("SELECT count(*) FROM windows") == [(1,)])
    wa.publish(RetryRequested(send_keys=("b-1",), message=TEXT), requester="broadcast")
    eventually(lambda: wa.states() == {"b-1": "accepted"})
    assert [body["text"]["body"] for body in wa.sent] == ["Hello"]
    with pytest.raises(ValidationError, match="the same for all"):
        RetryRequested(send_keys=("b-1",), message=TEXT.model_copy(update={"body": "Hello {{name}}"}))


def test_nothing_of_a_batch_that_was_taken_back_is_tried_again(wa: WhatsAppStage) -> None:
    wa.graph.message_errors[phone(1)] = (132001, "no such template")
    wa.publish(batch("b", (1,)), requester="broadcast")
    eventually(lambda: wa.facts("batch.completed"))
    wa.graph.message_errors.clear()
    wa.publish(BatchCancelRequested(batch_id="b", reason="cancelled"), requester="broadcast")
    eventually(lambda: wa.query("SELECT 1 FROM batches WHERE cancelled IS NOT NULL"))
    wa.publish(RetryRequested(send_keys=("b-1",)), requester="broadcast")
    eventually(lambda: wa.facts("batch.updated"), "it is answered with what became of it")
    assert (wa.states(), wa.sent) == ({"b-1": "failed"}, [])


def test_who_cannot_be_tried_again_is_told_to_the_batch(wa: WhatsAppStage) -> None:
    for number in (1, 2):
        wa.graph.message_errors[phone(number)] = (131026, "undeliverable")
    wa.publish(batch("b", (1, 2)), requester="broadcast")
    eventually(lambda: wa.facts("batch.completed"))
    wa.graph.message_errors.clear()
    wa.query("UPDATE messages SET phone = NULL WHERE send_key = 'b-1'")
    wa.publish(RetryRequested(send_keys=("b-1", "b-2")), requester="broadcast")

    def told() -> dict[str, str]:
        facts = wa.facts("batch.updated")
        return {one["send_key"]: f"{one['outcome']} {one['reason']}" for fact in facts for one in fact["recipients"]}

    eventually(lambda: told() == {"b-1": "failed forgotten", "b-2": "accepted "})
    assert wa.facts("message.failed") == []


def test_what_is_tried_again_while_its_number_rests_is_told_to_the_batch(wa: WhatsAppStage) -> None:
    wa.graph.message_errors[phone(1)] = (131026, "undeliverable")
    wa.publish(batch("b", (1,)), requester="broadcast")
    eventually(lambda: wa.facts("batch.completed"))
    wa.query("UPDATE numbers SET paused_until = now() + interval '1 hour', cause = 'billing'")
    wa.publish(RetryRequested(send_keys=("b-1",)), requester="broadcast")
    (told,) = eventually(lambda: wa.facts("batch.updated"))
    assert [(one["outcome"], one["reason"]) for one in told["recipients"]] == [("deferred", "billing")]


def test_what_is_tried_again_and_brings_its_number_to_rest_is_told_to_the_batch(wa: WhatsAppStage) -> None:
    wa.graph.message_errors[phone(1)] = (131026, "undeliverable")
    wa.publish(batch("b", (1,)), requester="broadcast")
    eventually(lambda: wa.facts("batch.completed"))
    wa.graph.message_errors[phone(1)] = (131042, "billing")
    wa.publish(RetryRequested(send_keys=("b-1",)), requester="broadcast")
    (told,) = eventually(lambda: wa.facts("batch.updated"))
    assert [(one["outcome"], one["reason"]) for one in told["recipients"]] == [("deferred", "billing")]


def test_somebody_may_have_anothers_messages_tried_again_who_says_whose(wa: WhatsAppStage) -> None:
    wa.graph.message_errors[phone(1)] = (131026, "undeliverable")
    wa.publish(message(1), requester="carts")
    eventually(lambda: wa.states() == {"key-1": "failed"})
    wa.graph.message_errors.clear()
    wa.publish(RetryRequested(send_keys=("key-1",), of="carts"), requester="support")
    eventually(lambda: wa.states() == {"key-1": "accepted"})


MESSAGE_FACTS = ("message.accepted", "message.delivered", "message.read", "message.failed", "message.unknown")


def handle_one(wa: WhatsAppStage, status: StatusReceived) -> None:
    """Publish a status and wait until it was handled, as statuses beside each other go in any order."""
    handled = wa.query("SELECT count(*) FROM inbox")
    wa.publish(status)
    eventually(lambda: wa.query("SELECT count(*) FROM inbox") != handled)


@pytest.mark.parametrize("order", list(permutations(("sent", "delivered", "read"))))
def test_statuses_in_any_order_and_twice_end_as_read(wa: WhatsAppStage, order: tuple[str, ...]) -> None:
    wa.publish(message(1))
    eventually(lambda: wa.states() == {"key-1": "accepted"})
    for status in (*order, *order):
        handle_one(wa, wa.status("key-1", status, tagged=status != "read"))
    assert wa.states() == {"key-1": "read"}
    handle_one(wa, wa.status("key-1", "failed", error=131026))
    handle_one(wa, wa.status("key-1", "mystery"))
    assert wa.states() == {"key-1": "read"}
    raised = [status for place, status in enumerate(order) if status != "sent" and "read" not in order[:place]]
    eventually(lambda: wa.query("SELECT count(*) FROM outbox") == [(0,)])
    told = [kind for kind in MESSAGE_FACTS for _ in wa.facts(kind)]
    assert sorted(told) == sorted(f"message.{state}" for state in ("accepted", *raised))


def test_a_failed_status_ends_the_message_with_its_reason_and_opting_out_suppresses(wa: WhatsAppStage) -> None:
    wa.publish(message(1), message(2), batch("b", (3,)))
    eventually(lambda: set(wa.states().values()) == {"accepted"} and len(wa.states()) == 3)
    wa.publish(wa.status("key-1", "failed", error=131026), wa.status("key-2", "failed", error=131050))
    wa.publish(wa.status("b-3", "failed", error=131049))
    eventually(lambda: set(wa.states().values()) == {"failed"})
    assert [wa.row(key)["reason"] for key in ("key-1", "key-2", "b-3")] == [
        "undeliverable",
        "opted_out",
        "marketing_limit",
    ]
    wa.publish(message(2, send_key="again"), message(1, send_key="again-1"))
    eventually(lambda: wa.states().get("again") == "suppressed" and wa.states().get("again-1") == "accepted")
    (updated,) = eventually(lambda: wa.facts("batch.updated"))
    # What came later says so, as the broker may deliver the two in any order.
    assert (wa.facts("batch.completed")[0]["version"], updated["version"]) == (0, 1)
    assert [(one["outcome"], one["reason"]) for one in updated["recipients"]] == [("failed", "marketing_limit")]


def test_a_status_that_is_faster_than_the_answer_is_kept(wa: WhatsAppStage) -> None:
    wa.graph.latency_seconds = 1
    wa.publish(message(1))
    eventually(lambda: wa.states() == {"key-1": "sending"})
    wa.publish(wa.status("key-1", "read"))
    eventually(lambda: wa.states() == {"key-1": "read"})
    eventually(lambda: len(wa.sent) == 1)
    wa.publish(message(2))
    eventually(lambda: wa.states().get("key-2") == "accepted")
    assert wa.states()["key-1"] == "read"


def test_a_status_without_our_tag_that_is_faster_than_the_answer_waits_for_it(wa: WhatsAppStage) -> None:
    wa.graph.latency_seconds = 1
    wa.publish(message(1))
    eventually(lambda: wa.states() == {"key-1": "sending"})
    wamid = "wamid.simulated1"
    wa.publish(StatusReceived(phone_number_id=NUMBER, wamid=wamid, status="read", timestamp=datetime.now(UTC)))
    eventually(lambda: wa.states() == {"key-1": "read"})
    assert wa.row("key-1")["wamid"] == wamid


def test_a_status_that_says_the_window_was_closed_sends_the_fallback_and_only_once(wa: WhatsAppStage) -> None:
    wa.publish(wrote(1))
    eventually(lambda: wa.query("SELECT count(*) FROM windows") == [(1,)])
    wa.publish(message(1, message=TEXT, category="service", fallback=TEMPLATE))
    eventually(lambda: wa.states() == {"key-1": "accepted"})
    wa.publish(wa.status("key-1", "failed", error=131047))
    eventually(lambda: len(wa.sent_to(1)) == 2)
    assert [body["type"] for body in wa.sent] == ["text", "template"]
    eventually(lambda: wa.states() == {"key-1": "accepted"})
    wa.publish(wa.status("key-1", "failed", error=131047))
    eventually(lambda: wa.states() == {"key-1": "failed"})
    assert len(wa.calls) == 2


def test_a_failure_that_passes_and_comes_as_a_status_is_sent_again(wa: WhatsAppStage) -> None:
    wa.publish(message(1))
    eventually(lambda: wa.states() == {"key-1": "accepted"})
    failed = wa.status("key-1", "failed", error=131053)
    error = failed.errors[0].model_copy(update={"details": "the media host answered 503"})
    wa.publish(failed.model_copy(update={"errors": (error,)}))
    eventually(lambda: len(wa.sent_to(1)) == 2)
    eventually(lambda: wa.states() == {"key-1": "accepted"})
    assert len({body["biz_opaque_callback_data"] for body in wa.sent}) == 2, "as another attempt"


def test_what_was_taken_back_after_it_was_accepted_is_not_sent_again(wa: WhatsAppStage) -> None:
    wa.publish(message(1))
    eventually(lambda: wa.states() == {"key-1": "accepted"})
    wa.publish(MessageCancelRequested(send_key="key-1", reason="bought"))
    eventually(lambda: wa.query("SELECT cancelled FROM messages") == [("bought",)])
    wa.publish(wa.status("key-1", "failed", error=131000))
    eventually(lambda: wa.states() == {"key-1": "cancelled"})
    assert len(wa.calls) == 1


def test_what_meta_takes_each_time_and_reports_as_failed_ends(wa: WhatsAppStage) -> None:
    wa.publish(message(1))
    eventually(lambda: wa.states() == {"key-1": "accepted"})
    wa.query("UPDATE messages SET failures = 5")
    wa.publish(wa.status("key-1", "failed", error=131042))
    eventually(lambda: wa.states() == {"key-1": "failed"})
    assert wa.row("key-1")["reason"] == "billing"


def test_a_fallback_that_fails_by_a_status_ends_nobody_elses_free_text(wa: WhatsAppStage) -> None:
    wa.publish(wrote(2))
    eventually(lambda: wa.query("SELECT count(*) FROM windows") == [(1,)])
    wa.publish(batch("b", (1, 2), message=TEXT, category="service", fallback=TEMPLATE))
    eventually(lambda: wa.states() == {"b-1": "accepted", "b-2": "accepted"})
    wa.query("UPDATE messages SET state = 'queued', due_at = now() + interval '1 hour' WHERE send_key = 'b-2'")
    wa.publish(wa.status("b-1", "failed", error=132015))
    eventually(lambda: wa.states() == {"b-1": "failed", "b-2": "queued"})


def test_what_a_status_says_of_the_shop_rests_it_and_what_it_says_of_the_template_ends_the_batch(
    wa: WhatsAppStage,
) -> None:
    wa.publish(batch("b", (1,)))
    eventually(lambda: wa.states() == {"b-1": "accepted"})
    wa.publish(wa.status("b-1", "failed", error=131042))
    eventually(lambda: wa.query("SELECT cause FROM numbers") == [("billing",)])
    assert wa.states() == {"b-1": "queued"}, "it was not sent, and waits"
    wa.query("INSERT INTO messages (id, shop, requester, send_key, sender, person, category, state, batch, expires_at, due_at) "
             "SELECT gen_random_uuid(), shop, requester, 'b-2', sender, person, category, 'queued', batch, now() + interval '1 day', "
             "now() + interval '1 hour' FROM messages")  # fmt: skip
    wa.query("UPDATE messages SET state = 'accepted', due_at = NULL WHERE send_key = 'b-1'")
    wa.publish(wa.status("b-1", "failed", error=132015))
    eventually(lambda: wa.states() == {"b-1": "failed", "b-2": "failed"})
    assert wa.row("b-2")["reason"] == "template_paused"


def test_a_status_of_another_programs_message_is_let_go(wa: WhatsAppStage) -> None:
    foreign = StatusReceived(phone_number_id=NUMBER, wamid="wamid.x", status="read", timestamp=datetime.now(UTC))
    wa.publish(foreign, foreign.model_copy(update={"tag": "another program's"}))
    handled = "SELECT count(*) FROM inbox WHERE queue = 'whatsapp.status'"
    eventually(lambda: wa.query(handled) == [(2,)] or wa.stage.depth("whatsapp.status.retry.2s"))
    assert wa.states() == {}
    assert wa.stage.depth("whatsapp.status.retry.2s") == 0


def test_stop_words_and_wishes_suppress_marketing_only(wa: WhatsAppStage) -> None:
    wa.publish(wrote(1, " Stop! "), wrote(2, "please do not stop"), wrote(3, "", kind="preference", marketing="stop"))
    eventually(lambda: wa.query("SELECT count(*) FROM suppressions") == [(2,)])
    wa.publish(*(message(n) for n in (1, 2, 3)), message(1, send_key="utility", category="utility"))
    eventually(
        lambda: (
            wa.states() == {"key-1": "suppressed", "key-2": "accepted", "key-3": "suppressed", "utility": "accepted"}
        )
    )
    wa.publish(wrote(3, "", kind="preference", marketing="resume"))
    holding = "SELECT count(*), count(phone) FROM suppressions WHERE lifted_at IS NULL"
    eventually(lambda: wa.query(holding) == [(1, 1)])
    assert wa.query("SELECT count(phone) FROM suppressions") == [(1,)], (
        "of who may be written to nothing but when is kept"
    )
    assert wa.query("SELECT count(*) FROM windows") == [(2,)], "a wish is no message that may be answered freely"
    wa.publish(SuppressionRemoveRequested(phone=phone(1), category="marketing", reason="asked", by="tests"))
    eventually(lambda: wa.query(holding) == [(0, 0)])
    wa.publish(message(3, send_key="again"), message(1, send_key="again-1"))
    eventually(lambda: {wa.states().get(key) for key in ("again", "again-1")} == {"accepted"})
    wa.publish(wrote(3, "stop"))
    eventually(lambda: wa.query(holding) == [(1, 1)], "a wish taken back may be said anew")


def command(wa: WhatsAppStage, *words: str, code: int = 0) -> str:
    return wch(
        wa.stage, "whatsapp", *words, code=code, WCH_DATABASE_URL=wa.database_url, WCH_WHATSAPP_HASH_KEY=HASH_KEY
    )


def test_a_person_is_forgotten_and_still_not_written_to(wa: WhatsAppStage) -> None:
    wa.publish(suppression(1, "marketing"))
    eventually(lambda: wa.query("SELECT count(*) FROM suppressions") == [(1,)])
    wa.publish(
        message(1), message(1, send_key="utility", category="utility"), batch("b", (1,), not_before=LATER), wrote(1)
    )
    eventually(lambda: wa.states() == {"key-1": "suppressed", "utility": "accepted", "b-1": "queued"})
    known = json.loads(command(wa, "export", phone(1)))
    assert {one["phone"] for one in known["messages"]} == {phone(1)}
    assert "would be erased: 3 in messages" in command(wa, "forget", phone(1), "--dry-run")
    for what in ("forget", "export"):
        refused = wch(
            wa.stage,
            "whatsapp",
            what,
            phone(1),
            code=1,
            WCH_DATABASE_URL=wa.database_url,
            WCH_WHATSAPP_HASH_KEY="another key of theirs",
        )
        assert "another hash key" in refused
    said = command(wa, "forget", phone(1))
    assert "erased: 3 in messages, 1 in suppressions, 1 in windows" in said
    assert "the person's suppressions hold" in said
    assert wa.query("SELECT count(*) FROM messages WHERE content IS NOT NULL OR wamid IS NOT NULL") == [(0,)]
    assert [wa.query(f"SELECT count(*) FROM {table}") for table in ("windows", "pairs", "reached")] == [[(0,)]] * 3
    everything = wa.query("SELECT m::text FROM messages m") + wa.query("SELECT s::text FROM suppressions s")
    assert not [row for row in everything if phone(1).removeprefix("+") in row[0]]
    eventually(lambda: wa.states()["b-1"] == "failed", "what waited ends, and its batch is told")
    eventually(lambda: wa.facts("batch.completed"))
    wa.publish(message(1, send_key="later"))
    eventually(lambda: wa.states().get("later") == "suppressed")


def test_the_command_lists_shows_counts_and_retries(wa: WhatsAppStage) -> None:
    wa.graph.message_errors[phone(2)] = (131026, "undeliverable")
    wa.publish(message(1), message(2), requester="carts")
    eventually(lambda: wa.states() == {"key-1": "accepted", "key-2": "failed"})
    listed = json.loads(command(wa, "list", "--state", "failed", "--json"))
    assert [(row["send_key"], row["reason"], row["code"]) for row in listed] == [("key-2", "undeliverable", 131026)]
    for said in (command(wa, "list"), command(wa, "show", "key-2"), command(wa, "stats")):
        assert "undeliverable" in said
        assert phone(2) not in said
    assert "the ledger has no message x" in command(wa, "show", "x", code=1)
    assert "say which messages" in command(wa, "retry", code=1)
    assert "would try 1 failed" in command(wa, "retry", "--reason", "undeliverable", "--dry-run")
    assert "no such message: nokey" in command(wa, "retry", "--key", "key-2", "--key", "nokey", code=1)
    said = command(wa, "retry", "--key", "key-1", "--key", "key-2", "--dry-run")
    assert "would try 1 failed messages again" in said
    assert "not tried: 1 accepted" in said
    assert "the newest 1:" in command(wa, "list", "--limit", "1")
    assert "write it like +<country>" in command(wa, "suppress", "0301234567", "--reason", "x", code=1)
    command(wa, "suppress", phone(8), "--reason", "a trial", "--dry-run")
    said = command(wa, "suppress", phone(7), "--reason", "asked by mail")
    assert phone(7) not in said
    eventually(lambda: wa.query("SELECT category FROM suppressions") == [("all",)])
    eventually(lambda: wa.query("SELECT count(*) FROM inbox WHERE queue = 'whatsapp.control'") == [(1,)])
    assert wa.row("key-2")["attempt"] == 1, "dry runs asked for nothing"
    wa.graph.message_errors.clear()
    assert "asked to try 1 failed" in command(wa, "retry", "--all", "--requester", "carts")
    eventually(lambda: wa.states()["key-2"] == "accepted")
    command(wa, "suppress", phone(7), "--reason", "asked by mail", "--category", "marketing")
    eventually(lambda: wa.query("SELECT count(*) FROM suppressions") == [(2,)])
    assert "say what is to be removed" in command(wa, "suppress", phone(7), "--reason", "again", "--remove", code=1)
    command(wa, "suppress", phone(7), "--reason", "again", "--remove", "--category", "all")
    eventually(lambda: wa.query("SELECT category FROM suppressions") == [("marketing",)], "what holds besides stays")
    wa.query("UPDATE numbers SET cause = 'billing', paused_until = now() + interval '1 hour'")
    assert f"{NUMBER} rests: billing" in command(wa, "stats")
    assert "give --database-url" in wch(wa.stage, "whatsapp", "list", code=1)
