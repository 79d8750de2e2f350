"""What may cost money: counted per number and month, a budget at which marketing waits, and messages without any status."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from support.stage import RunningService, Stage
from support.waiting import eventually
from support.whatsapp_stage import NUMBER, TEXT, WhatsAppStage, batch, message, wrote
from wch_whatsapp import maintenance


@pytest.fixture
def wa(stage: Stage, database_url: str) -> Iterator[WhatsAppStage]:
    made = WhatsAppStage(stage, database_url)
    yield made
    made.close()


def charges(wa: WhatsAppStage) -> dict[str, int]:
    """Return the counts of this month by kind."""
    now = "date_trunc('month', now() AT TIME ZONE 'UTC')"
    return dict(wa.query(f"SELECT kind, messages FROM charges WHERE month = {now} AND sender = '{NUMBER}'"))


def ended(wa: WhatsAppStage, *keys: str) -> None:
    eventually(lambda: all((row := wa.row(key)) and row["due_at"] is None for key in keys))


def gauge(service: RunningService, name: str, **labels: str) -> float | None:
    return service.service._metrics.registry.get_sample_value(f"wch_whatsapp_{name}", labels)


def test_what_may_cost_money_is_counted_by_kind_number_and_month(wa: WhatsAppStage) -> None:
    service = wa.start()
    wa.publish(wrote(9))
    eventually(lambda: wa.query("SELECT 1 FROM windows"))
    wa.publish(batch("b", (1, 2)), message(3, category="utility"), message(9, category="service", message=TEXT))
    wa.publish(message(5, category="service", message=TEXT))
    ended(wa, "b-1", "b-2", "key-3", "key-9", "key-5")
    assert charges(wa) == {"marketing": 2, "utility": 1, "free_form": 1}, "nothing for a closed window"
    eventually(lambda: gauge(service, "chargeable_messages", kind="marketing") == 2)
    assert gauge(service, "budget_used_ratio") == 0
    printed = wa.command("stats")
    assert f"the sending number {NUMBER} has sent in " in printed
    assert "what may cost money: 1 free_form, 2 marketing, 1 utility" in printed
    assert len(json.loads(wa.command("stats", "--json"))["charges"]) == 3


def test_what_meta_refuses_costs_nothing_and_a_retry_counts_once(wa: WhatsAppStage) -> None:
    wa.start()
    wa.graph.message_errors["hello"] = (132001, "no such template")
    wa.publish(message(1), message(2, category="utility"))
    ended(wa, "key-1", "key-2")
    assert charges(wa) == {"marketing": 0, "utility": 0}
    wa.graph.message_errors.clear()
    wa.fail(status=503, times=2)
    wa.publish(message(3))
    ended(wa, "key-3")
    assert wa.row("key-3")["attempt"] == 3
    assert charges(wa) == {"marketing": 1, "utility": 0}


def test_marketing_waits_before_the_budget_is_exceeded_and_nothing_else_does(wa: WhatsAppStage) -> None:
    service = wa.start(whatsapp_monthly_budget=3, whatsapp_calls_in_flight=10)
    wa.publish(batch("b", range(10)))
    (fact,) = eventually(lambda: wa.facts("batch.completed"))
    outcomes = sorted((one["outcome"], one["reason"]) for one in fact["recipients"])
    assert outcomes == [("accepted", "")] * 3 + [("deferred", "budget_used")] * 7
    assert {(one["concerns"], one["retryable"]) for one in fact["recipients"] if one["reason"]} == {("number", True)}
    wa.publish(message(20, category="utility"))
    ended(wa, "key-20")
    assert len(wa.sent) == 4
    eventually(lambda: gauge(service, "budget_used_ratio") == pytest.approx(4 / 3))
    waits = wa.query("SELECT DISTINCT due_at <= now() + interval '61 minutes' FROM messages WHERE state = 'queued'")
    assert waits == [(True,)], "somebody may raise the budget"
    wa.stage.stop()
    wa.query("UPDATE messages SET due_at = now() WHERE state = 'queued' RETURNING 1")
    wa.start(whatsapp_monthly_budget=8)
    eventually(lambda: charges(wa) == {"marketing": 7, "utility": 1})


def test_a_month_has_a_budget_of_its_own(wa: WhatsAppStage) -> None:
    wa.start(whatsapp_monthly_budget=1)
    wa.publish(message(1))
    ended(wa, "key-1")
    wa.query("UPDATE charges SET month = month - interval '1 month' RETURNING 1")
    wa.publish(message(2))
    ended(wa, "key-2")
    assert charges(wa) == {"marketing": 1}
    assert len(json.loads(wa.command("stats", "--json"))["charges"]) == 2


def test_accepted_messages_without_any_status_raise_an_alert(
    wa: WhatsAppStage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(maintenance, "_COUNT_SECONDS", 0.1)
    service = wa.start()
    wa.publish(message(1), message(2), message(3), message(4))
    ended(wa, *(f"key-{number}" for number in range(1, 5)))
    wa.publish(wa.status("key-1", "sent"), wa.status("key-2", "delivered"), wa.status("key-3", "sent", tagged=False))
    eventually(lambda: wa.query("SELECT count(*) FROM messages WHERE has_status") == [(2,)])
    eventually(lambda: wa.row("key-2")["state"] == "delivered")
    age(wa, "59 minutes")
    eventually(lambda: gauge(service, "messages_without_status") == 0)
    age(wa, "2 minutes")
    eventually(lambda: gauge(service, "messages_without_status") == 1)
    wa.publish(wa.status("key-4", "sent"))
    eventually(lambda: gauge(service, "messages_without_status") == 0)
    logged = capsys.readouterr().out
    assert logged.count("statuses_missing") == 1, "once, and not with each count"


def age(wa: WhatsAppStage, by: str) -> None:
    wa.query(f"UPDATE messages SET updated_at = updated_at - interval '{by}' RETURNING 1")


@pytest.mark.parametrize("again", ["retry", "failed status"])
def test_another_attempt_needs_a_status_of_its_own(wa: WhatsAppStage, again: str) -> None:
    wa.start()
    wa.publish(message(1))
    ended(wa, "key-1")
    wa.publish(wa.status("key-1", "sent"))
    eventually(lambda: wa.row("key-1")["has_status"])
    error: Any = 131000 if again == "failed status" else 131026
    wa.publish(wa.status("key-1", "failed", error=error))
    if again == "retry":
        eventually(lambda: wa.row("key-1")["state"] == "failed")
        wa.command("retry", "--key", "key-1")
    eventually(lambda: len(wa.sent) == 2)
    eventually(lambda: wa.row("key-1")["state"] == "accepted")
    assert not wa.row("key-1")["has_status"]
