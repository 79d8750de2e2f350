"""Decisions about due messages: every reason not to send, in the order of precedence, and the limits of a number."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from wch_whatsapp.decide import ClaimState, Decision, Defer, End, Send
from wch_whatsapp.limits import Limits, PairLimit

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
TEMPLATE, TEXT = {"type": "template"}, {"type": "text"}
TO = "+15550100001"


def row(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "content": TEMPLATE,
        "fallback": None,
        "as_fallback": False,
        "category": "marketing",
        "phone": TO,
        "user_id": None,
        "owner": b"a",
        "own_ids": [b"a"],
        "created_at": NOW - HOUR,
        "replaced_at": None,
        "taken_at": None,
        "has_other_names": False,
        "is_one_person": False,
        "current_phone": None,
        "current_user_id": None,
        "cancelled": None,
        "expires_at": NOW + HOUR,
        "suppressed": None,
        "window_until": None,
        "pair_slots_from": None,
        "reached_at": None,
    }
    return values | changes


def sent(content: dict[str, Any], **changes: Any) -> Send:
    return Send(content, to=TO, charge="free_form" if content is TEXT else "marketing", **changes)


def claim_state(recipients_left: int | None = None, pair: PairLimit = PairLimit(6, 3)) -> ClaimState:  # noqa: B008 - frozen
    return ClaimState(NOW, pair, recipients_left, NOW + 5 * HOUR)


@pytest.mark.parametrize(
    ("changes", "decision"),
    [
        ({"content": None}, End("failed", "erased")),
        ({"phone": None}, End("failed", "erased")),
        ({"cancelled": "bought", "expires_at": NOW}, End("cancelled", "bought")),
        ({"expires_at": NOW}, End("failed", "expired")),
        ({"has_other_names": True}, End("failed", "different_people")),
        ({"replaced_at": NOW - 2 * HOUR, "current_phone": "+15550100002"}, End("failed", "number_changed")),
        ({"replaced_at": NOW}, End("failed", "number_changed")),
        ({"taken_at": NOW, "created_at": NOW - HOUR}, End("failed", "number_changed")),
        ({"suppressed": "wrote STOP"}, End("suppressed", "wrote STOP")),
        ({"content": TEXT}, End("failed", "window_closed")),
        ({"content": TEXT, "window_until": NOW}, End("failed", "window_closed")),
        ({"content": TEXT, "window_until": NOW + HOUR}, sent(TEXT, as_fallback=False, outside=False)),
        ({"content": TEXT, "fallback": TEMPLATE}, sent(TEMPLATE, as_fallback=True, outside=True, reaches=True)),
        (
            {"content": TEXT, "fallback": TEMPLATE, "as_fallback": True, "window_until": NOW + HOUR},
            sent(TEMPLATE, as_fallback=True, outside=False),
        ),
        ({"reached_at": NOW - HOUR}, sent(TEMPLATE, as_fallback=False, outside=True, reaches=False)),
        ({"reached_at": NOW - 25 * HOUR}, sent(TEMPLATE, as_fallback=False, outside=True, reaches=True)),
    ],
)
def test_a_message_is_sent_or_ends(changes: dict[str, Any], decision: Decision) -> None:
    assert claim_state().decide(row(**changes)) == decision


ID, OTHER_ID, OTHER = "US.15550100001771", "US.15550100001772", "+15550100002"


@pytest.mark.parametrize(
    ("changes", "to"),
    [
        ({"user_id": ID}, TO),
        ({"user_id": ID, "current_phone": OTHER}, TO),
        ({"phone": None, "user_id": ID}, ID),
        ({"phone": None, "user_id": ID, "current_phone": OTHER}, OTHER),
        ({"phone": None, "user_id": ID, "current_user_id": OTHER_ID}, ID),
        # Meta has said that the person has another number, or another id.
        ({"replaced_at": NOW, "current_phone": OTHER, "current_user_id": ID}, OTHER),
        ({"replaced_at": NOW, "current_user_id": ID}, ID),
        ({"taken_at": NOW - 2 * HOUR}, TO),
        ({"taken_at": NOW, "is_one_person": True}, TO),
        ({"replaced_at": NOW - 91 * DAY, "current_phone": OTHER}, TO),
        ({"phone": None, "user_id": ID, "replaced_at": NOW, "current_user_id": OTHER_ID}, OTHER_ID),
        ({"phone": None, "user_id": ID, "replaced_at": NOW}, ID),
    ],
)
def test_who_is_written_to(changes: dict[str, Any], to: str) -> None:
    decision = claim_state().decide(row(**changes))
    assert isinstance(decision, Send)
    assert decision.to == to


def test_a_recipient_may_be_sent_a_burst_and_then_waits() -> None:
    state, kinds = claim_state(), []
    for _ in range(4):
        decision = state.decide(row())
        kinds.append(type(decision))
        if isinstance(decision, Send):
            state.count(row(), decision)
    assert kinds == [Send, Send, Send, Defer]
    assert isinstance(decision, Defer)
    assert decision.until == NOW + timedelta(seconds=6)
    assert isinstance(state.decide(row(owner=b"b")), Send), "other recipients do not wait"


def test_each_recipient_counts_once_against_the_limit_of_the_day() -> None:
    state = claim_state(recipients_left=1)
    first = state.decide(row())
    assert isinstance(first, Send)
    state.count(row(), first)
    again = state.decide(row())
    assert again == sent(TEMPLATE, as_fallback=False, outside=True, reaches=False)
    assert state.decide(row(owner=b"b")) == Defer(NOW + 5 * HOUR, "messaging_limit")
    assert isinstance(state.decide(row(owner=b"b", window_until=NOW + HOUR)), Send)
    assert isinstance(state.decide(row(owner=b"b", reached_at=NOW - HOUR)), Send)


@pytest.mark.parametrize("rate", [1, 5, 20, 80, 1000])
def test_no_second_sees_more_messages_than_the_rate(rate: float) -> None:
    limits = Limits("1", ("1",), "", ("1",), rate, -1, PairLimit(0, 1), 60)
    slots_from, now, sent = NOW, NOW + HOUR, []
    for _ in range(4000):
        free, start, seconds = limits.slots(slots_from, now, 40)
        sent += [now] * free
        slots_from = start + timedelta(seconds=seconds * free)
        now += timedelta(milliseconds=1)
    most = max(sum(timestamp <= other < timestamp + timedelta(seconds=1) for other in sent) for timestamp in set(sent))
    assert most <= max(rate, 2)
    assert len(sent) >= 0.85 * rate * 4


def test_no_slot_is_free_while_the_clock_of_the_database_is_behind_the_used_slots() -> None:
    limits = Limits("1", ("1",), "", ("1",), 80, -1, PairLimit(0, 1), 60)
    assert limits.slots(NOW + timedelta(seconds=10), NOW, 40)[0] == 0


def test_without_a_rate_every_slot_is_free() -> None:
    limits = Limits("1", ("1",), "", ("1",), 0, -1, PairLimit(0, 1), 60)
    assert limits.slots(NOW, NOW, 40)[0] == 40


@pytest.mark.parametrize(
    ("listed", "sent"), [(None, True), (frozenset({b"a"}), True), (frozenset({b"b"}), False), (frozenset(), False)]
)
def test_only_listed_recipients_are_written_to(listed: frozenset[bytes] | None, sent: bool) -> None:
    state = claim_state()
    state.only_to = listed
    decision = state.decide(row(own_ids=[b"a", b"c"]))
    assert isinstance(decision, Send) if sent else decision == End("failed", "not_in_allow_list")


@pytest.mark.parametrize(
    ("left", "category", "sent"),
    [(None, "marketing", True), (1, "marketing", True), (0, "marketing", False), (0, "utility", True)],
)
def test_marketing_waits_when_the_budget_is_used(left: int | None, category: str, sent: bool) -> None:
    state = claim_state()
    state.budget_left, state.budget_until = left, NOW + 100 * HOUR
    decision = state.decide(row(category=category))
    assert isinstance(decision, Send) if sent else decision == Defer(NOW + HOUR, "budget_used")
    if isinstance(decision, Send):
        state.count(row(), decision)
        assert state.budget_left == (None if left is None else left - 1)


def test_a_new_month_begins_when_it_does() -> None:
    state = claim_state()
    state.budget_left, state.budget_until = 0, NOW + HOUR / 2
    assert state.decide(row()) == Defer(NOW + HOUR / 2, "budget_used")
