"""Headers written by other programs: no value makes the library fail."""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from typing import Any

import pika.data
import pytest

import wch_common.broker.aio.connection
from wch_common.broker import headers as wch
from wch_common.broker.queue_policy import QueuePolicy
from wch_common.contract.message import Message
from wch_common.outcome import Reject, Throttled
from wch_common.runtime.retry_decision import ToParking, decide


def table(value: bytes) -> bytes:
    entry = b"\x02at" + value
    return struct.pack(">I", len(entry)) + entry


def test_a_timestamp_in_milliseconds_is_read_as_a_number() -> None:
    assert wch_common.broker.aio.connection
    milliseconds = 1_795_312_566_000_000
    decoded, _ = pika.data.decode_table(table(b"T" + struct.pack(">Q", milliseconds)), 0)
    assert decoded == {"at": milliseconds}
    decoded, _ = pika.data.decode_table(table(b"T" + struct.pack(">Q", 1_795_312_566)), 0)
    assert decoded["at"].year == 2026


NONSENSE: list[dict[str, Any]] = [
    {wch.ATTEMPT: "three", wch.WAITING_SINCE: "soon", wch.REPLAY: None},
    {wch.ATTEMPT: -5, wch.WAITING_SINCE: "2026-01-01T00:00:00", wch.ATTEMPTS: "none"},
    {wch.ATTEMPT: b"1", wch.WAITING_SINCE: 7, wch.ATTEMPTS: [1, 2]},
]


@pytest.mark.parametrize("headers", NONSENSE)
def test_nonsense_in_our_headers_counts_as_absent(headers: dict[str, Any]) -> None:
    message = Message(b"", headers=headers)
    delivery_state = wch.delivery_state(message, None)
    assert (delivery_state.attempt, delivery_state.waiting_since, wch.replay_count(message)) == (1, None, 0)
    made = wch.failure_headers(
        message, ValueError("x"), queue="q", kind="rejected", counted=True, worker=wch.WorkerIdentity("1", "host")
    )
    assert made[wch.ATTEMPT] == 1
    assert "n" not in made[wch.ATTEMPTS], "text is not read as a list of deaths"  # type: ignore[operator]


def test_waiting_since_the_end_of_time_is_waiting_since_now() -> None:
    message = Message(b"", headers={wch.WAITING_SINCE: "9999-12-31T23:59:59+00:00"})
    now = datetime(2026, 1, 1, tzinfo=UTC)
    decision = decide(
        Throttled("", scope="s", after=999), wch.delivery_state(message, None), QueuePolicy(), now=now, can_park=True
    )
    assert decision == ToParking(999, scope="s", counted=False)


def test_a_copy_strips_what_the_broker_wrote_and_keeps_what_others_did() -> None:
    headers: dict[str, Any] = {
        "x-death": [{}],
        "X-First-Death-Queue": "q",
        "CC": ["k"],
        "BCC": ["k"],
        "tenant": "t",
        "gone": 1,
    }
    copy = Message(b"b", "t", "utf-8", "id", headers).copied({"wch-queue": "q", "gone": None})
    assert copy == Message(b"b", "t", "utf-8", "id", {"tenant": "t", "wch-queue": "q"})


def test_failures_with_the_same_cause_have_the_same_fingerprint() -> None:
    def fingerprint(error: Exception) -> object:
        worker = wch.WorkerIdentity("1")
        return wch.failure_headers(Message(b""), error, queue="q", kind="rejected", counted=True, worker=worker)[
            wch.FINGERPRINT
        ]

    one = fingerprint(Reject("the catalog refused wc_31: image_link: this field is required"))
    assert one == fingerprint(Reject("the catalog refused wc_7: image_link: this field is required"))
    assert one != fingerprint(Reject("the catalog refused wc_31: price: currency unknown"))
    assert fingerprint(Reject("the shop 'a' is not configured")) == fingerprint(
        Reject("the shop 'b' is not configured")
    )
    assert fingerprint(ValueError("1")) == fingerprint(ValueError("two"))
