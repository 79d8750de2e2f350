"""Suppressions by operators, by recipients and by Meta, and which of them holds."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr

from support.command import wch
from support.stage import Stage
from support.waiting import eventually
from support.whatsapp_stage import WhatsAppStage, batch, message, phone, suppression, wrote


@pytest.fixture
def wa(stage: Stage, database_url: str) -> Iterator[WhatsAppStage]:
    made = WhatsAppStage(stage, database_url)
    yield made
    made.close()


def test_an_opt_out_in_the_answer_to_a_call_suppresses_the_recipient(wa: WhatsAppStage) -> None:
    wa.graph.message_errors[phone(1)] = (131050, "opted out")
    wa.start()
    wa.publish(message(1))
    eventually(lambda: wa.states() == {"key-1": "failed"})
    assert wa.row("key-1")["reason"] == "opted_out"
    wa.publish(message(1, send_key="again"))
    eventually(lambda: wa.states().get("again") == "suppressed")
    assert len(wa.calls) == 1


def test_resuming_lifts_neither_a_newer_stop_nor_an_operators_suppression(wa: WhatsAppStage) -> None:
    before = datetime.now(UTC) - timedelta(minutes=5)
    wa.start()
    wa.publish(suppression(2, "marketing"), wrote(1, "STOP"))
    eventually(lambda: wa.query("SELECT count(*) FROM suppressions") == [(2,)])
    wa.publish(wrote(1, "", kind="preference", marketing="resume", timestamp=before))
    wa.publish(wrote(2, "", kind="preference", marketing="resume", timestamp=datetime.now(UTC) + timedelta(minutes=1)))
    eventually(lambda: wa.query("SELECT count(*) FROM inbox WHERE queue = 'whatsapp.inbound'") == [(3,)])
    wa.publish(message(1), message(2))
    eventually(lambda: wa.states() == {"key-1": "suppressed", "key-2": "suppressed"})


def test_an_operators_suppression_outlasts_the_recipients_stop_and_resume(wa: WhatsAppStage) -> None:
    wa.start()
    now = datetime.now(UTC)
    wa.publish(suppression(1, "marketing"))
    eventually(lambda: wa.query("SELECT by FROM suppressions") == [("tests",)])
    wa.publish(
        wrote(1, "STOP", timestamp=now - timedelta(minutes=2)), wrote(2, "STOP", timestamp=now - timedelta(minutes=2))
    )
    eventually(lambda: wa.query("SELECT count(*) FROM inbox WHERE queue = 'whatsapp.inbound'") == [(2,)])
    assert sorted(wa.query("SELECT by FROM suppressions")) == [("recipient",), ("tests",)]
    later = now - timedelta(minutes=1)  # both arrive late, one after the other
    wa.publish(*(wrote(n, "", kind="preference", marketing="resume", timestamp=later) for n in (1, 2)))
    eventually(lambda: wa.query("SELECT by FROM suppressions WHERE lifted_at IS NULL") == [("tests",)])
    wa.publish(message(1), message(2))
    eventually(lambda: wa.states() == {"key-1": "suppressed", "key-2": "accepted"})


def test_a_stop_that_is_handled_after_a_newer_resume_does_not_hold(wa: WhatsAppStage) -> None:
    wa.start()
    now = datetime.now(UTC)
    for number, resumed in ((1, now), (2, now - timedelta(minutes=9))):
        wa.publish(wrote(number, "", kind="preference", marketing="resume", timestamp=resumed))
    eventually(lambda: wa.query("SELECT count(*) FROM inbox WHERE queue = 'whatsapp.inbound'") == [(2,)])
    wa.publish(*(wrote(number, "STOP", timestamp=now - timedelta(minutes=5)) for number in (1, 2)))
    eventually(lambda: wa.query("SELECT count(*) FROM inbox WHERE queue = 'whatsapp.inbound'") == [(4,)])
    wa.publish(message(1), message(2))
    eventually(lambda: wa.states() == {"key-1": "accepted", "key-2": "suppressed"})


def test_a_deployment_with_a_list_writes_to_nobody_else(wa: WhatsAppStage) -> None:
    wa.start(whatsapp_only_to=(SecretStr(phone(1)),))
    said = wch(wa.stage, "doctor", code=1, WCH_DATABASE_URL=wa.database_url)
    assert "WCH_WHATSAPP_ONLY_TO is set since" in said
    assert "writes to listed recipients only (1)" in said
    wa.publish(message(1), batch("b", (1, 2)))
    (fact,) = eventually(lambda: wa.facts("batch.completed"))
    results = {one["send_key"]: (one["outcome"], one["reason"]) for one in fact["recipients"]}
    assert results == {"b-1": ("accepted", ""), "b-2": ("skipped", "not_in_allow_list")}
    eventually(lambda: wa.states()["key-1"] == "accepted")
    assert {body["to"] for body in wa.sent} == {phone(1)}
