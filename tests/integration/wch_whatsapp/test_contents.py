"""Everything that a message may hold, through the service to a Graph that checks it as Meta does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from support.stage import Stage
from support.waiting import eventually
from support.whatsapp_stage import TEMPLATE, WhatsAppStage, batch, message, phone, wrote
from wch_common.contract.envelope import data_errors, encode
from wch_common.contract.event import new_event
from wch_common.events.whatsapp import BatchRecipient, MessageRequested, RecipientEraseRequested, RetryRequested
from wch_common.events.whatsapp_content import (
    Audio,
    Currency,
    DateTime,
    Document,
    Image,
    Location,
    Media,
    Parameter,
    Template,
    TemplateButton,
    Video,
)

PDF = "https://shop.example/invoices/7.pdf"
WHOLE = Template(
    name="ready_for_pickup",
    language="es_419",
    header=Location(kind="location", latitude=37.5, longitude=-122.25, name="Shop", address="1 Street"),
    body=(
        Parameter(name="customer", text="Ann"),
        Currency(name="total", kind="currency", fallback_value="54,70 €", code="EUR", amount_1000=54700),
        DateTime(name="day", kind="date_time", fallback_value="15 de febrero"),
    ),
    buttons=(
        TemplateButton(index=0, kind="quick_reply", value="later"),
        TemplateButton(index=1, kind="url", value="orders/7?" + "x" * 300),
        TemplateButton(index=2, kind="copy_code", value="SPRING20"),
        TemplateButton(index=3, kind="flow", flow_token="t", flow_action_data={"times": [8, "noon"]}),
        TemplateButton(index=4, kind="catalog", value="171"),
    ),
)
INVOICE = Document(kind="document", link=PDF, caption="Your invoice", filename="Invoice 7.pdf")


@pytest.fixture
def wa(stage: Stage, database_url: str) -> Iterator[WhatsAppStage]:
    made = WhatsAppStage(stage, database_url)
    yield made
    made.close()


def open_windows(wa: WhatsAppStage, *numbers: int) -> None:
    wa.publish(*map(wrote, numbers))
    eventually(lambda: wa.query("SELECT count(*) FROM windows") == [(len(numbers),)])


def test_a_template_with_everything_reaches_meta(wa: WhatsAppStage) -> None:
    wa.start()
    wa.publish(message(1, message=WHOLE))
    eventually(lambda: wa.states() == {"key-1": "accepted"})
    (body,) = wa.sent
    assert body["template"]["language"]["code"] == "es_419"
    header, values, *buttons = body["template"]["components"]
    place = {"latitude": 37.5, "longitude": -122.25, "name": "Shop", "address": "1 Street"}
    assert header == {"type": "header", "parameters": [{"type": "location", "location": place}]}
    assert [(one["parameter_name"], one["type"]) for one in values["parameters"]] == [
        ("customer", "text"),
        ("total", "currency"),
        ("day", "date_time"),
    ]
    assert values["parameters"][1]["currency"] == {"fallback_value": "54,70 €", "code": "EUR", "amount_1000": 54700}
    assert [(one["index"], one["sub_type"]) for one in buttons] == [
        ("0", "quick_reply"),
        ("1", "url"),
        ("2", "copy_code"),
        ("3", "flow"),
        ("4", "catalog"),
    ]
    assert buttons[3]["parameters"][0]["action"] == {"flow_token": "t", "flow_action_data": {"times": [8, "noon"]}}


def test_files_are_sent_inside_the_window_only(wa: WhatsAppStage) -> None:
    wa.start()
    open_windows(wa, 1, 2, 3, 4)
    files = (
        INVOICE,
        Image(kind="image", link="https://shop.example/a.jpg", caption="Look"),
        Video(kind="video", id="1013859600285441"),
        Audio(kind="audio", link="https://shop.example/a.ogg"),
    )
    wa.publish(*(message(number, message=file, category="service") for number, file in enumerate(files, start=1)))
    wa.publish(
        message(5, message=INVOICE, category="service"),
        message(6, message=INVOICE, category="service", fallback=TEMPLATE),
    )
    eventually(lambda: len(states := wa.states()) == 6 and set(states.values()) == {"accepted", "failed"})
    assert wa.row("key-5")["reason"] == "window_closed"
    assert wa.sent_to(1)[0]["document"] == {"link": PDF, "caption": "Your invoice", "filename": "Invoice 7.pdf"}
    assert wa.sent_to(2)[0]["image"] == {"link": "https://shop.example/a.jpg", "caption": "Look"}
    assert wa.sent_to(3)[0]["video"] == {"id": "1013859600285441"}
    assert wa.sent_to(4)[0]["audio"] == {"link": "https://shop.example/a.ogg"}
    assert [body["type"] for body in wa.sent_to(6)] == ["template"]
    assert dict(wa.query("SELECT kind, messages FROM charges")) == {"free_form": 4, "utility": 1}


def test_each_recipient_gets_their_own_file_and_caption_and_a_wrong_file_fails_its_recipient(wa: WhatsAppStage) -> None:
    wa.start()
    open_windows(wa, 1, 3)
    template = Template(
        name="invoice", language="en_US", header=Media(kind="document", link=PDF), body=(Parameter(text="you"),)
    )
    everyone = Document(kind="document", link=PDF, caption="For {{1}}")

    def own(number: int, link: str) -> BatchRecipient:
        header = Media(kind="document", link=link, filename=f"{number}.pdf")
        return BatchRecipient(
            to=phone(number), send_key=f"b-{number}", header=header, body=(Parameter(text=f"n{number}"),)
        )

    recipients = (own(1, f"{PDF}?1"), own(2, f"{PDF}?2"), own(3, "shop.example/3.pdf"))
    wa.publish(batch("b", (), message=everyone, fallback=template, category="service", recipients=recipients))
    (fact,) = eventually(lambda: wa.facts("batch.completed"))
    assert wa.sent_to(1)[0]["document"] == {"link": f"{PDF}?1", "filename": "1.pdf", "caption": "For n1"}
    header, body = wa.sent_to(2)[0]["template"]["components"]
    assert header["parameters"] == [{"type": "document", "document": {"link": f"{PDF}?2", "filename": "2.pdf"}}]
    assert body["parameters"] == [{"type": "text", "text": "n2"}]
    assert wa.sent_to(3) == []
    outcome = next(one for one in fact["recipients"] if one["send_key"] == "b-3")
    assert (outcome["outcome"], outcome["reason"], outcome["concerns"]) == ("failed", "value_refused", "recipient")
    assert (
        wa.row("b-3")["detail"] == "header.link must be an http or https address, like https://shop.example/invoice.pdf"
    )


def test_a_refused_file_can_be_corrected_and_an_erased_one_is_gone(wa: WhatsAppStage) -> None:
    wa.start()
    open_windows(wa, 1)
    wa.graph.message_errors[phone(1)] = (131053, "unsupported file type")
    wa.publish(message(1, message=INVOICE, category="service"))
    eventually(lambda: wa.states() == {"key-1": "failed"})
    wa.graph.message_errors.clear()
    wa.publish(
        RetryRequested(send_keys=("key-1",), message=Document(kind="document", id="77", filename="Invoice 7.pdf"))
    )
    eventually(lambda: wa.states() == {"key-1": "accepted"})
    assert wa.sent_to(1)[0]["document"] == {"id": "77", "filename": "Invoice 7.pdf"}
    wa.publish(RecipientEraseRequested(phone=phone(1), reason="asked", by="tests"))
    eventually(lambda: wa.row("key-1")["content"] is None)


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"language": "en-US"}, "data.message.template.language: must be written as Meta writes it: en_US"),
        ({"header": {"kind": "image", "id": "1", "filename": "a"}}, "filename: WhatsApp shows none with an image; leave it out"),
        ({"body": [{"text": "a"}, {"text": "b", "name": "b"}]}, "the values must all have a name or all have none"),
        ({"buttons": [{"index": 0, "kind": "copy_code", "value": "A" * 21}]}, "the coupon code must have at most 20 characters"),
    ],
)  # fmt: skip
def test_a_message_that_meta_would_refuse_is_refused_in_our_words_before_it_is_sent(
    wa: WhatsAppStage, wrong: dict[str, Any], problem: str
) -> None:
    wa.start()
    publication = encode(new_event(message(1), "/tests"))
    event = json.loads(publication.message.body)
    event["data"]["message"] |= wrong
    with pytest.raises(ValidationError) as refused:
        MessageRequested.model_validate_json(json.dumps(event["data"]))
    assert problem in "; ".join(map(str, data_errors(refused.value)))
    # A program in another language may check nothing.
    sent = replace(publication.message, body=json.dumps(event).encode())
    wa.stage.send(publication.exchange, publication.routing_key, sent)
    (dead_letter,) = wa.stage.await_dead_letters("whatsapp.message.dlq")
    fields = json.loads(str(dead_letter.message.headers["wch-error-fields"]))
    said = "; ".join(f"{one['field']}: {one['problem']}" for one in fields)
    assert problem in said
    assert "Value error" not in said
    assert "Input should" not in said
    assert wa.calls == []
