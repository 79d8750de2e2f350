"""Totals that add up, and reasons that concern a whole campaign."""

from __future__ import annotations

import pytest

from wch_broadcast.reasons import concerns_campaign, number_limit
from wch_broadcast.totals import CampaignCounts, campaign_totals


@pytest.mark.parametrize("state", ["running", "cancelled", "completed", "failed"])
@pytest.mark.parametrize("stopped", [False, True])
def test_totals_always_add_up_to_the_recipients(state: str, stopped: bool) -> None:
    campaign_counts = CampaignCounts(
        state, submitted=100, malformed=3, duplicates=7, released=state == "completed", stopped=stopped
    )
    counts = {"accepted/": 10, "delivered/": 5, "read/": 4, "failed/undeliverable": 6, "failed/window_closed": 2,
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


def test_only_some_reasons_concern_the_whole_campaign() -> None:
    for reason in ("template_missing", "account_restricted", "refused: data.sender: the shop does not send from 1"):
        assert concerns_campaign("failed", reason, own_values=True)
        assert concerns_campaign("deferred", reason, own_values=False)
    for reason in ("undeliverable", "messaging_limit"):
        assert not concerns_campaign("failed", reason, own_values=False)
    assert concerns_campaign("failed", "template_values_wrong", own_values=False)
    assert not concerns_campaign("failed", "template_values_wrong", own_values=True)
    assert not concerns_campaign("suppressed", "template_missing", own_values=False)


def test_only_limits_of_the_sending_number_park_a_batch() -> None:
    assert number_limit(["pair_too_fast", "messaging_limit"]) == "messaging_limit"
    assert number_limit(["pair_too_fast"]) == number_limit([]) == ""
