"""Meta's reports: statuses in any order, and messages from customers."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import pytest

from support.stage import Stage
from support.waiting import eventually
from support.whatsapp_stage import NUMBER, TEMPLATE, TEXT, WhatsAppStage, batch, message, phone, wrote
from wch_common.events.meta import MessageReceived, MetaUser, StatusReceived, UserChanged
from wch_common.events.whatsapp import MessageCancelRequested, RecipientEraseRequested, SuppressionRemoveRequested
from wch_whatsapp import call_outcomes

MESSAGE_FACTS = ("message.accepted", "message.delivered", "message.read", "message.failed", "message.unknown")


@pytest.fixture
def wa(stage: Stage, database_url: str) -> Iterator[WhatsAppStage]:
    made = WhatsAppStage(stage, database_url)
    made.start()
    yield made
    made.close()


def handle_one(wa: WhatsAppStage, report: StatusReceived | MessageReceived | UserChanged) -> None:
    """Publish a report and wait until it is handled, because concurrent reports are handled in any order."""
    handled = wa.query("SELECT count(*) FROM inbox")
    wa.publish(report)
    eventually(lambda: wa.query("SELECT count(*) FROM inbox") != handled)


@pytest.mark.parametrize("order", list(permutations(("sent", "delivered", "read"))))
def test_repeated_statuses_in_any_order_end_as_read(wa: WhatsAppStage, order: tuple[str, ...]) -> None:
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
    published = [kind for kind in MESSAGE_FACTS for _ in wa.facts(kind)]
    assert sorted(published) == sorted(f"message.{state}" for state in ("accepted", *raised))


def test_a_failed_status_ends_the_message_and_an_opt_out_suppresses_the_recipient(wa: WhatsAppStage) -> None:
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
    # The later fact has the higher version, because the broker may deliver the two in any order.
    assert (wa.facts("batch.completed")[0]["version"], updated["version"]) == (0, 1)
    assert [(one["outcome"], one["reason"]) for one in updated["recipients"]] == [("failed", "marketing_limit")]


def test_a_status_that_overtakes_the_answer_to_the_call_is_kept(wa: WhatsAppStage) -> None:
    wa.graph.latency_seconds = 1
    wa.publish(message(1))
    eventually(lambda: wa.states() == {"key-1": "sending"})
    wa.publish(wa.status("key-1", "read"))
    eventually(lambda: wa.states() == {"key-1": "read"})
    eventually(lambda: len(wa.sent) == 1)
    wa.publish(message(2))
    eventually(lambda: wa.states().get("key-2") == "accepted")
    assert wa.states()["key-1"] == "read"


def test_a_status_without_a_tag_that_overtakes_the_answer_waits_for_it(wa: WhatsAppStage) -> None:
    wa.graph.latency_seconds = 1
    wa.publish(message(1))
    eventually(lambda: wa.states() == {"key-1": "sending"})
    wamid = "wamid.simulated1"
    wa.publish(StatusReceived(phone_number_id=NUMBER, wamid=wamid, status="read", timestamp=datetime.now(UTC)))
    eventually(lambda: wa.states() == {"key-1": "read"})
    assert wa.row("key-1")["wamid"] == wamid


def test_a_status_that_the_window_was_closed_sends_the_fallback_once(wa: WhatsAppStage) -> None:
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


def test_a_temporary_failure_reported_by_a_status_is_retried(wa: WhatsAppStage) -> None:
    wa.publish(message(1))
    eventually(lambda: wa.states() == {"key-1": "accepted"})
    failed = wa.status("key-1", "failed", error=131053)
    error = failed.errors[0].model_copy(update={"details": "the media host answered 503"})
    wa.publish(failed.model_copy(update={"errors": (error,)}))
    eventually(lambda: len(wa.sent_to(1)) == 2)
    eventually(lambda: wa.states() == {"key-1": "accepted"})
    assert len({body["biz_opaque_callback_data"] for body in wa.sent}) == 2, "the retry is another attempt"


def test_a_message_cancelled_after_it_was_accepted_is_not_retried(wa: WhatsAppStage) -> None:
    wa.publish(message(1))
    eventually(lambda: wa.states() == {"key-1": "accepted"})
    wa.publish(MessageCancelRequested(send_key="key-1", reason="bought"))
    eventually(lambda: wa.query("SELECT cancelled FROM messages") == [("bought",)])
    wa.publish(wa.status("key-1", "failed", error=131000))
    eventually(lambda: wa.states() == {"key-1": "cancelled"})
    assert len(wa.calls) == 1


def test_a_message_that_meta_accepts_and_then_fails_each_time_ends(wa: WhatsAppStage) -> None:
    wa.publish(message(1))
    eventually(lambda: wa.states() == {"key-1": "accepted"})
    wa.query("UPDATE messages SET failures = 5")
    wa.publish(wa.status("key-1", "failed", error=131042))
    eventually(lambda: wa.states() == {"key-1": "failed"})
    assert wa.row("key-1")["reason"] == "billing"


def test_a_failed_fallback_does_not_end_the_free_text_of_other_recipients(wa: WhatsAppStage) -> None:
    wa.publish(wrote(2))
    eventually(lambda: wa.query("SELECT count(*) FROM windows") == [(1,)])
    wa.publish(batch("b", (1, 2), message=TEXT, category="service", fallback=TEMPLATE))
    eventually(lambda: wa.states() == {"b-1": "accepted", "b-2": "accepted"})
    wa.query("UPDATE messages SET state = 'queued', due_at = now() + interval '1 hour' WHERE send_key = 'b-2'")
    wa.publish(wa.status("b-1", "failed", error=132015))
    eventually(lambda: wa.states() == {"b-1": "failed", "b-2": "queued"})


def test_a_failed_status_pauses_the_shop_or_ends_the_batch(wa: WhatsAppStage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_outcomes, "PROBE_SECONDS", 3600.0)  # no probe meanwhile, however slow the machine is
    wa.publish(batch("b", (1,)))
    eventually(lambda: wa.states() == {"b-1": "accepted"})
    wa.publish(wa.status("b-1", "failed", error=131042))
    eventually(lambda: wa.query("SELECT cause FROM numbers") == [("billing",)])
    assert wa.states() == {"b-1": "queued"}, "it was not delivered, and waits"
    wa.query("INSERT INTO messages (id, shop, requester, send_key, sender, person, category, state, batch, expires_at, due_at) "
             "SELECT gen_random_uuid(), shop, requester, 'b-2', sender, person, category, 'queued', batch, now() + interval '1 day', "
             "now() + interval '1 hour' FROM messages")  # fmt: skip
    wa.query("UPDATE messages SET state = 'accepted', due_at = NULL WHERE send_key = 'b-1'")
    wa.publish(wa.status("b-1", "failed", error=132015))
    eventually(lambda: wa.states() == {"b-1": "failed", "b-2": "failed"})
    assert wa.row("b-2")["reason"] == "template_paused"


def test_a_status_of_another_programs_message_is_ignored(wa: WhatsAppStage) -> None:
    foreign = StatusReceived(phone_number_id=NUMBER, wamid="wamid.x", status="read", timestamp=datetime.now(UTC))
    wa.publish(foreign, foreign.model_copy(update={"tag": "another program's"}))
    handled = "SELECT count(*) FROM inbox WHERE queue = 'whatsapp.status'"
    eventually(lambda: wa.query(handled) == [(2,)] or wa.stage.depth("whatsapp.status.retry.2s"))
    assert wa.states() == {}
    assert wa.stage.depth("whatsapp.status.retry.2s") == 0


def test_stop_words_and_preferences_suppress_marketing_only(wa: WhatsAppStage) -> None:
    wa.publish(
        wrote(1, "ARRET svp 🙏\nAda"),
        wrote(2, "please do not stop"),
        wrote(3, "", kind="preference", marketing="stop"),
    )
    eventually(lambda: wa.query("SELECT count(*) FROM suppressions") == [(2,)])
    wa.publish(*(message(n) for n in (1, 2, 3)), message(1, send_key="utility", category="utility"))
    eventually(
        lambda: (
            wa.states() == {"key-1": "suppressed", "key-2": "accepted", "key-3": "suppressed", "utility": "accepted"}
        )
    )
    assert "asked_to_stop: 'arrêt' (fr) alone on the first line" in wa.command("show", "key-1")
    assert "asked_to_stop: the marketing preference" in wa.command("show", "key-3")
    wa.publish(wrote(3, "", kind="preference", marketing="resume"))
    holding = "SELECT count(*), count(phone) FROM suppressions WHERE lifted_at IS NULL"
    eventually(lambda: wa.query(holding) == [(1, 1)])
    assert wa.query("SELECT count(phone) FROM suppressions") == [(1,)], "a lifted suppression keeps no number"
    assert wa.query("SELECT count(*) FROM windows") == [(2,)], "a changed preference opens no window"
    wa.publish(SuppressionRemoveRequested(phone=phone(1), category="marketing", reason="asked", by="tests"))
    eventually(lambda: wa.query(holding) == [(0, 0)])
    wa.publish(message(3, send_key="again"), message(1, send_key="again-1"))
    eventually(lambda: {wa.states().get(key) for key in ("again", "again-1")} == {"accepted"})
    wa.publish(wrote(3, "stop"))
    eventually(lambda: wa.query(holding) == [(1, 1)], "a customer may opt out again")


USER_ID = "US.15550100001771"
LINKED = {"phone": phone(1), "user_id": USER_ID, "portfolio": ""}


def test_that_a_number_and_an_id_are_one_persons_is_published_once_a_week(wa: WhatsAppStage) -> None:
    handle_one(wa, wrote(1))
    assert wa.facts("recipient.linked") == []
    at = datetime.now(UTC)
    handle_one(wa, wrote(1, "both", user_id=USER_ID, timestamp=at))
    eventually(lambda: len(wa.facts("recipient.linked")) == 1)
    (fact,) = wa.facts("recipient.linked")
    assert {name: fact[name] for name in LINKED} == LINKED
    assert datetime.fromisoformat(fact["timestamp"]) == at
    handle_one(wa, wrote(1, "again", user_id=USER_ID))
    handle_one(wa, wrote(1, "only the id", user_id=USER_ID, sender=None))
    eventually(lambda: wa.query("SELECT 1 FROM outbox") == [])
    assert len(wa.facts("recipient.linked")) == 1
    handle_one(wa, wrote(1, "next week", user_id=USER_ID, timestamp=at + timedelta(days=7)))
    eventually(lambda: len(wa.facts("recipient.linked")) == 2)


def test_a_link_is_published_again_when_an_erased_person_writes_again(wa: WhatsAppStage) -> None:
    handle_one(wa, wrote(1, "both", user_id=USER_ID))
    eventually(lambda: len(wa.facts("recipient.linked")) == 1)
    wa.publish(RecipientEraseRequested(phone=phone(1), reason="asked", by="tests"))
    eventually(lambda: wa.facts("recipient.erased"))
    handle_one(wa, wrote(1, "both again", user_id=USER_ID, timestamp=datetime.now(UTC)))
    eventually(lambda: len(wa.facts("recipient.linked")) == 2)


def test_a_link_to_a_new_id_is_published_although_the_number_was_not_said_with_it(wa: WhatsAppStage) -> None:
    new, at = "US.15550100001999", datetime.now(UTC)
    handle_one(wa, wrote(1, "both", user_id=USER_ID, timestamp=at))
    users = MetaUser(user_id=USER_ID), MetaUser(user_id=new)
    changed: dict[str, Any] = {
        "phone_number_id": NUMBER,
        "message_id": "wamid.changed",
        "timestamp": at + timedelta(seconds=1),
    }
    handle_one(wa, UserChanged(previous=users[0], current=users[1], **changed))
    handle_one(wa, wrote(1, "both again", user_id=new, timestamp=at + timedelta(seconds=2)))
    eventually(lambda: [fact["user_id"] for fact in wa.facts("recipient.linked")] == [USER_ID, new])


def test_a_link_is_published_from_a_status_and_from_a_change_of_the_number(wa: WhatsAppStage) -> None:
    wa.publish(message(1))
    eventually(lambda: wa.states() == {"key-1": "accepted"})
    names = {"recipient": phone(1).removeprefix("+"), "user_id": USER_ID}
    handle_one(wa, wa.status("key-1", "delivered").model_copy(update=names))
    eventually(lambda: [fact["phone"] for fact in wa.facts("recipient.linked")] == [phone(1)])
    users = {number: MetaUser(wa_id=phone(number).removeprefix("+"), user_id=USER_ID) for number in (1, 2)}
    changed: dict[str, Any] = {"phone_number_id": NUMBER, "message_id": "wamid.changed", "timestamp": datetime.now(UTC)}
    handle_one(wa, UserChanged(previous=users[1], current=users[2], **changed))
    eventually(lambda: [fact["phone"] for fact in wa.facts("recipient.linked")] == [phone(1), phone(2)])
