"""What the facts of whatsapp mean for a reminder."""

from __future__ import annotations

import pytest

from wch_carts.reminder_decisions import reminder_result
from wch_common.events.failure_reasons import Concern
from wch_common.events.whatsapp import MessageFailed, MessageUnknown


def failed(reason: str, concerns: Concern, *, retryable: bool) -> MessageFailed:
    return MessageFailed(send_key="k", message_id="m", reason=reason, concerns=concerns, retryable=retryable)


@pytest.mark.parametrize(
    ("concerns", "retryable", "again"),
    [
        ("recipient", False, False),
        ("recipient", True, True),
        ("country", False, False),
        ("message", False, True),
        ("template", False, True),
        ("number", False, True),
        ("shop", False, True),
        ("number", True, True),
    ],
)
def test_a_reminder_is_tried_again_by_what_the_fact_says_and_not_by_the_name_of_its_reason(
    concerns: Concern, retryable: bool, again: bool
) -> None:
    for reason in ("undeliverable", "a_reason_of_a_later_version"):
        assert reminder_result(failed(reason, concerns, retryable=retryable)).tries_again is again


def test_a_reminder_that_may_have_been_sent_is_not_tried_again() -> None:
    assert not reminder_result(MessageUnknown(send_key="k", message_id="m")).tries_again
