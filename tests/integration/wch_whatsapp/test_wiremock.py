"""Faults injected by WireMock: at most one call for each tag, and a correct state for each message."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import HttpUrl

from support.stage import Stage
from support.waiting import eventually
from support.whatsapp_stage import WhatsAppStage, message, phone
from support.wiremock import WireMock, jar

WIREMOCK = jar()
pytestmark = pytest.mark.skipif(
    WIREMOCK is None, reason="WireMock is not installed: `make develop` installs it if npm and Java are present"
)

ACCEPTED = {
    "status": 200,
    "jsonBody": {"messaging_product": "whatsapp", "contacts": [], "messages": [{"id": "wamid.wiremock"}]},
}
USAGE = json.dumps({"1": [{"type": "whatsapp", "call_count": 100, "total_cputime": 1, "total_time": 1,
                           "estimated_time_to_regain_access": 0}]})  # fmt: skip
THROTTLED = {
    "status": 429,
    "headers": {"X-Business-Use-Case-Usage": USAGE, "Content-Type": "application/json"},
    "jsonBody": {"error": {"message": "(#130429) Rate limit hit", "code": 130429, "error_data": {"details": "slower"}}},
}
HTML = {"status": 502, "headers": {"Content-Type": "text/html"}, "body": "<html>Bad gateway</html>"}


@pytest.fixture
def wa(stage: Stage, database_url: str) -> Iterator[WhatsAppStage]:
    made = WhatsAppStage(stage, database_url)
    yield made
    made.close()


def test_no_tag_is_sent_twice_whatever_fault_the_connection_has(wa: WhatsAppStage, tmp_path: Path) -> None:
    assert WIREMOCK is not None
    faults: dict[int, tuple[Any, ...]] = {
        1: ({"fault": "CONNECTION_RESET_BY_PEER"}, ACCEPTED),
        2: ({"fault": "EMPTY_RESPONSE"}, ACCEPTED),
        3: ({"fault": "MALFORMED_RESPONSE_CHUNK", "status": 200}, ACCEPTED),
        4: ({"fault": "RANDOM_DATA_THEN_CLOSE"}, ACCEPTED),
        5: (HTML, ACCEPTED),
        6: ({**ACCEPTED, "fixedDelayMilliseconds": 4000}, ACCEPTED),
        7: (ACCEPTED,),
    }
    with WireMock(WIREMOCK, tmp_path) as server:
        for number, responses in faults.items():
            server.answer(phone(number), *responses)
        # One call at a time and no pause, so that every fault takes effect.
        wa.start(graph_url=HttpUrl(server.url), whatsapp_call_seconds=1.0)
        for number in faults:
            wa.publish(message(number))
            eventually(lambda: wa.states().get(f"key-{number}") in {"in_doubt", "accepted"})
            wa.query("UPDATE numbers SET paused_until = NULL, cause = NULL")
            if number == 4:  # four in a row; a fifth failure would pause the number
                server.answer(phone(100), ACCEPTED)
                wa.publish(message(100))
                eventually(lambda: wa.states().get("key-100") == "accepted")
        expected = {f"key-{number}": "in_doubt" for number in range(1, 7)} | {
            "key-7": "accepted",
            "key-100": "accepted",
        }
        assert wa.states() == expected
        tags = Counter(body["biz_opaque_callback_data"] for body in server.bodies())
        assert set(tags.values()) == {1}
        assert len(tags) == len(expected)


def test_a_throttled_message_waits_and_is_then_sent_once(wa: WhatsAppStage, tmp_path: Path) -> None:
    assert WIREMOCK is not None
    with WireMock(WIREMOCK, tmp_path) as server:
        server.answer(phone(1), THROTTLED, THROTTLED, ACCEPTED)
        wa.start(graph_url=HttpUrl(server.url))
        wa.publish(message(1))
        eventually(lambda: wa.states() == {"key-1": "accepted"})
        tags = Counter(body["biz_opaque_callback_data"] for body in server.bodies())
        assert set(tags.values()) == {1}
        assert len(tags) == 3, "each attempt has its own tag"
        assert wa.row("key-1")["failures"] == 0
