"""Free text inside the 24-hour window, and the fallback outside it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.stage import Stage
from support.waiting import eventually
from support.whatsapp_stage import TEMPLATE, TEXT, WhatsAppStage, batch, message, wrote
from wch_common.events.whatsapp_content import Parameter


@pytest.fixture
def wa(stage: Stage, database_url: str) -> Iterator[WhatsAppStage]:
    made = WhatsAppStage(stage, database_url)
    yield made
    made.close()


def test_free_text_needs_an_open_window_or_a_fallback(wa: WhatsAppStage) -> None:
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


def test_the_fallback_of_a_batch_is_filled_with_the_values_of_each_recipient(wa: WhatsAppStage) -> None:
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


def test_the_fallback_is_sent_if_the_window_is_closed_by_metas_clock(wa: WhatsAppStage) -> None:
    wa.start()
    wa.publish(wrote(1))
    eventually(lambda: wa.query("SELECT count(*) FROM windows") == [(1,)])
    wa.fail(status=400, body={"error": {"code": 131047, "message": "Re-engagement message"}})
    wa.publish(message(1, message=TEXT, category="service", fallback=TEMPLATE))
    eventually(lambda: wa.states() == {"key-1": "accepted"})
    assert [body["type"] for body in wa.sent] == ["template"]
