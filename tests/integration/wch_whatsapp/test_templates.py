"""Message templates: read from Meta at start and regularly, page by page, and kept when Meta cannot be read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from support.stage import RunningService, Stage
from support.waiting import eventually
from support.whatsapp_stage import NUMBER, WhatsAppStage, message, template
from wch_common.store.database import connection_parameters
from wch_whatsapp import admin
from wch_whatsapp.queries_templates import SendingNumber

ACCOUNT = "1001"


@pytest.fixture
def wa(stage: Stage, database_url: str) -> Iterator[WhatsAppStage]:
    made = WhatsAppStage(stage, database_url)
    yield made
    made.close()


def start(wa: WhatsAppStage, **changes: Any) -> RunningService:
    """Start the service with a business account, reading every ten seconds."""
    values = {"whatsapp_business_account_id": ACCOUNT, "whatsapp_templates_seconds": 10}
    return wa.start(**(values | changes))


def known(wa: WhatsAppStage, shop: str = "") -> Any:
    """Return what operators' commands read of the templates and numbers of a shop."""
    address = connection_parameters(wa.database_url, options="-c search_path=whatsapp")
    with psycopg.connect(address, row_factory=dict_row, autocommit=True) as connection:
        return (*admin.templates(connection, shop), admin.sending_numbers(connection, shop))


def names(wa: WhatsAppStage) -> list[str]:
    return [f"{name} {language}" for name, language in wa.query("SELECT name, language FROM templates ORDER BY 1, 2")]


def again(wa: WhatsAppStage) -> None:
    """Make the templates due, as time does."""
    wa.query("UPDATE template_reads SET due_at = now() RETURNING 1")


def reads(wa: WhatsAppStage) -> int:
    return len(wa.graph.journal.calls("message_templates", "GET"))


def age(running: RunningService) -> float | None:
    return running.service._metrics.registry.get_sample_value("wch_whatsapp_templates_age_seconds")


def test_templates_are_read_at_start_page_by_page_without_their_examples(wa: WhatsAppStage) -> None:
    examples = {"example": {"body_text": [["Ada"]]}}
    everyone = [template(f"t{n:03d}", {"type": "BODY", "text": "Hi {{1}}", **examples}) for n in range(250)]
    wa.graph.templates[ACCOUNT] = [*everyone, template("t000", language="de", status="PAUSED", category="UTILITY")]
    start(wa)
    eventually(lambda: len(names(wa)) == 251, "all templates")
    assert reads(wa) == 3
    read, found, _ = known(wa)
    assert (read.account, read.failed_at, read.failure) == (ACCOUNT, None, "")
    assert read.read_at is not None
    german, english = found[:2]
    assert (german.language, german.status, german.category, german.parameter_format) == (
        "de", "PAUSED", "UTILITY", "POSITIONAL",
    )  # fmt: skip
    assert english.components == [{"type": "BODY", "text": "Hi {{1}}"}]


def test_a_changed_list_replaces_the_copy(wa: WhatsAppStage) -> None:
    wa.graph.templates[ACCOUNT] = [template("old"), template("hello")]
    start(wa)
    eventually(lambda: names(wa) == ["hello en_US", "old en_US"])
    wa.graph.templates[ACCOUNT] = [template("hello"), template("new")]
    again(wa)
    eventually(lambda: names(wa) == ["hello en_US", "new en_US"])


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"reset": "before"}, "Meta cannot be reached"),
        ({"status": 500, "body": "<html>"}, "HTTP 500 without a Graph answer"),
        ({"status": 200, "body": {"data": [{"name": "x"}]}}, "Meta's answer is not a list of templates"),
        ({"status": 200, "body": [1]}, "HTTP 200 without a Graph answer"),
        ({"status": 400, "body": {"error": {"code": 200, "message": "(#200) Missing permission"}}}, "Missing permission"),
    ],
)  # fmt: skip
def test_a_failed_read_changes_nothing_and_says_why(wa: WhatsAppStage, fault: dict[str, Any], reason: str) -> None:
    wa.graph.templates[ACCOUNT] = [template("hello")]
    running = start(wa)
    eventually(lambda: names(wa) == ["hello en_US"])
    wa.graph.templates[ACCOUNT] = []
    wa.fail_at("message_templates", times=2, **fault)
    again(wa)
    failed: Any = eventually(lambda: found[0] if (found := known(wa))[0].failure else None)
    assert reason in failed.failure
    assert failed.failed_at > failed.read_at
    assert names(wa) == ["hello en_US"]
    before = reads(wa)
    again(wa)
    eventually(lambda: reads(wa) > before)
    again(wa)
    eventually(lambda: names(wa) == [], "Meta's present, empty list")
    assert known(wa)[0].failure == ""
    assert running.is_ready


def test_each_change_of_state_is_logged_once(wa: WhatsAppStage, capfd: pytest.CaptureFixture[str]) -> None:
    wa.graph.templates[ACCOUNT] = [template("hello")]
    wa.fail_at("message_templates", times=3, status=500, body="<html>")
    start(wa)
    for number in (1, 2, 3):
        eventually(lambda number=number: reads(wa) == number and bool(known(wa)[0].failed_at))  # type: ignore[misc]
        eventually(lambda: known(wa)[0].due_at > known(wa)[0].now)
        again(wa)
    eventually(lambda: names(wa) == ["hello en_US"])
    logged = eventually(lambda: text if "templates_read_again" in (text := logs(capfd)) else "")
    assert logged.count("templates_not_read") == 1
    assert logged.count("templates_read_again") == 1


_LOGGED: list[str] = []


def logs(capfd: pytest.CaptureFixture[str]) -> str:
    """Return everything that was logged so far."""
    captured = capfd.readouterr()
    _LOGGED.append(captured.out + captured.err)
    return "".join(_LOGGED)


def test_an_unknown_account_is_a_failure_and_another_account_starts_anew(wa: WhatsAppStage) -> None:
    wa.graph.templates[ACCOUNT] = [template("hello")]
    first = start(wa)
    eventually(lambda: names(wa) == ["hello en_US"])
    first.stop()
    second = start(wa, whatsapp_business_account_id="1002")
    read: Any = eventually(lambda: found[0] if (found := known(wa))[0].failure else None)
    assert (read.account, read.read_at) == ("1002", None)
    assert "Object with ID" in read.failure
    assert names(wa) == []
    second.stop()
    third = start(wa, whatsapp_business_account_id=None)
    eventually(lambda: known(wa)[0].account is None)
    assert known(wa)[0].due_at is None
    eventually(lambda: age(third) == 0.0)


def test_replicas_share_the_reading(wa: WhatsAppStage) -> None:
    wa.graph.templates[ACCOUNT] = [template("hello")]
    for _ in range(2):
        start(wa)
    eventually(lambda: names(wa) == ["hello en_US"])
    for _ in range(5):
        before = known(wa)[0].read_at
        again(wa)
        eventually(lambda before=before: known(wa)[0].read_at > before)  # type: ignore[misc]
    assert reads(wa) <= 2 + 5, "each at its start, and then one of them"


def test_the_age_of_the_oldest_copy_is_measured(wa: WhatsAppStage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wch_whatsapp.templates._MEASURE_SECONDS", 0.05)
    wa.graph.templates[ACCOUNT] = [template("hello")]
    running = start(wa)
    eventually(lambda: names(wa) == ["hello en_US"])
    wa.query("UPDATE template_reads SET read_at = now() - interval '1 hour' RETURNING 1")
    eventually(lambda: (age(running) or 0) >= 3600)


def test_operators_read_each_shops_numbers_and_what_they_may_still_send(wa: WhatsAppStage, tmp_path: Path) -> None:
    graph = {"token": wa.graph.token, "url": wa.graph_url}
    numbers = {"phone_number_ids": [NUMBER, "3003"], "messaging_limit": 5, "portfolio": "p", "rate": 80}
    other = {"phone_number_ids": ["4004"], "messaging_limit": 9, "portfolio": "p", "rate": 0}
    shops = tmp_path / "shops.json"
    shops.write_text(json.dumps({"a": {"graph": graph, "whatsapp": numbers}, "b": {"graph": graph, "whatsapp": other}}))
    running = wa.start(shops_file=shops)
    wa.publish(message(1), message(2), shop="a")
    eventually(lambda: len(wa.sent) == 2)
    default, second = eventually(lambda: found if len(found := known(wa, "a")[2]) == 2 else [])
    assert (default.sender, default.rate, default.messaging_limit, default.reached) == (NUMBER, 76.0, 5, 2)
    assert default.frees_at is not None
    assert second.sender == "3003"
    (of_b,) = known(wa, "b")[2]
    assert of_b == SendingNumber("4004", 0.0, 9, 2, default.frees_at, None, None)
    running.stop()
    numbers["phone_number_ids"] = ["3003"]
    shops.write_text(json.dumps({"a": {"graph": graph, "whatsapp": numbers}}))
    wa.start(shops_file=shops)
    eventually(lambda: [one.sender for one in known(wa, "a")[2]] == ["3003"])
    eventually(lambda: known(wa, "b")[0] is None)
