"""Totals that add up, and reasons that concern a whole campaign."""

from __future__ import annotations

import pytest

from support.broadcast_stage import recipient_outcome
from wch_broadcast.reasons import concerns_campaign, concerns_content, pause_cause
from wch_broadcast.totals import CampaignCounts, campaign_totals
from wch_common.events.whatsapp import RecipientOutcome


@pytest.mark.parametrize("state", ["running", "cancelled", "completed", "failed"])
@pytest.mark.parametrize("stopped", [False, True])
def test_totals_always_add_up_to_the_recipients(state: str, stopped: bool) -> None:
    campaign_counts = CampaignCounts(
        state, submitted=100, malformed=3, duplicates=7, released=state == "completed", stopped=stopped
    )
    counts = {"accepted/": 10, "delivered/": 5, "read/": 4, "failed/undeliverable": 6, "skipped/window_closed": 2,
              "unknown/no_status": 1, "suppressed/opted_out": 3, "cancelled/x": 2, "deferred/y": 8, "requested/": 9}  # fmt: skip
    totals = campaign_totals(campaign_counts, counts)
    assert (totals.sent, totals.delivered, totals.read) == (19, 9, 4)
    parts = (
        totals.sent,
        totals.failed,
        totals.unknown,
        totals.skipped,
        totals.cancelled,
        totals.deferred,
        totals.waiting,
    )
    assert sum(parts) == totals.recipients == 100
    assert totals.percentage == 100 - totals.waiting - totals.deferred
    assert totals.skipped == sum(one.recipients for one in totals.skipped_by)
    assert totals.failed == sum(one.recipients for one in totals.failed_by) == 6


def test_the_percentage_is_100_only_when_the_last_recipient_has_a_result() -> None:
    campaign_counts = CampaignCounts(
        "running", submitted=10_000, malformed=0, duplicates=0, released=True, stopped=False
    )
    assert campaign_totals(campaign_counts, {"accepted/": 9_999, "requested/": 1}).percentage == 99.9
    assert campaign_totals(campaign_counts, {"accepted/": 10_000}).percentage == 100


@pytest.mark.parametrize(("released", "percentage"), [(False, 0.0), (True, 100.0)])
def test_the_percentage_of_a_list_that_has_not_arrived_is_0(released: bool, percentage: float) -> None:
    campaign_counts = CampaignCounts(
        "waiting", submitted=0, malformed=0, duplicates=0, released=released, stopped=False
    )
    assert campaign_totals(campaign_counts, {}).percentage == percentage


def outcome(text: str, *, own_values: bool = False) -> RecipientOutcome:
    recipient = {"send_key": "k", "body": [{"text": "Ada"}] if own_values else None}
    return recipient_outcome(recipient, text)


def test_only_some_reasons_concern_the_whole_campaign() -> None:
    for reason in ("template_missing", "account_restricted", "refused: data.sender: the shop does not send from 1"):
        assert concerns_campaign(outcome(f"failed/{reason}", own_values=True)), reason
        assert not concerns_campaign(outcome(f"suppressed/{reason}")), reason
    for reason in ("undeliverable", "country_not_allowed", "meta_failed", "expired", "spam_restriction"):
        assert not concerns_campaign(outcome(f"failed/{reason}")), reason
    for reason in ("template_values_wrong", "request_refused", "media_not_fetched"):
        assert concerns_campaign(outcome(f"failed/{reason}")), reason
        assert not concerns_campaign(outcome(f"failed/{reason}", own_values=True)), reason


def test_a_refused_message_is_disproved_by_others_and_a_refused_request_is_not() -> None:
    assert concerns_content(outcome("failed/request_refused"))
    assert not concerns_content(outcome("failed/refused: data.sender: the shop does not send from 1"))
    assert not concerns_content(outcome("failed/template_missing"))


def test_the_cause_of_a_pause_is_the_reason_with_its_detail() -> None:
    assert pause_cause(outcome("failed/template_paused")) == "template_paused"
    assert pause_cause(outcome("failed/refused: no such sender")) == "refused: no such sender"
