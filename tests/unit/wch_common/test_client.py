"""What `Client` refuses before it publishes."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from wch_common.client import Client
from wch_common.errors import InvalidData
from wch_common.events.broadcast import CampaignRecipient, RecipientsRequested
from wch_common.events.whatsapp import MessageRequested
from wch_common.events.whatsapp_content import Parameter, Template, TemplateButton, Text


def requested(text: str) -> MessageRequested:
    return MessageRequested(to="+15550100001", send_key="k", category="marketing", message=Text(kind="text", body=text))


def flow(data: dict[str, object]) -> MessageRequested:
    button = TemplateButton(index=0, kind="flow", flow_action_data=data)
    template = Template(name="t", language="en_US", buttons=(button,))
    return MessageRequested(to="+15550100001", send_key="k", category="marketing", message=template)


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (requested("An\0na"), "data.message.body"),
        (flow({"times": [8, "no\0on"]}), "data.message.buttons.0.flow_action_data.times.1"),
        (flow({"ti\0mes": 8}), "data.message.buttons.0.flow_action_data"),
        (
            RecipientsRequested(
                list_id="l",
                part=1,
                recipients=(
                    CampaignRecipient(to="+15550100001"),
                    CampaignRecipient(to="+15550100002", body=(Parameter(text="\0"),)),
                ),
            ),
            "data.recipients.1.body.0.text",
        ),
    ],
)
def test_the_null_character_is_refused_and_its_field_is_named(
    data: MessageRequested | RecipientsRequested, field: str
) -> None:
    client = Client("amqp://nobody@localhost:1/none", "/test")
    for refused in (lambda: client.event(data), lambda: client.publish(data), lambda: client.publish_many([data])):
        with pytest.raises(InvalidData) as error:
            refused()
        assert [str(one) for one in error.value.fields] == [
            f"{field}: must not contain the character U+0000, which cannot be stored"
        ]


def test_a_timer_for_an_event_with_the_null_character_is_refused() -> None:
    client = Client("amqp://nobody@localhost:1/none", "/test")
    with pytest.raises(InvalidData, match=r"data\.event\.data\.message\.body: must not contain"):
        client.schedule(requested("An\0na"), key="k", at=datetime(2030, 1, 1, tzinfo=UTC))


def test_the_escape_of_the_null_character_is_a_text_like_any_other() -> None:
    client = Client("amqp://nobody@localhost:1/none", "/test")
    assert client.event(requested("An\\u0000na")).data == requested("An\\u0000na")
