"""Totals of a campaign: counted from the outcomes of its recipients each time, never incremented."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wch_common.events.broadcast import CampaignTotals, ReasonCount

if TYPE_CHECKING:
    from collections.abc import Mapping

_SENT = ("accepted", "delivered", "read")


@dataclass(frozen=True)
class CampaignCounts:
    """What the totals of a campaign depend on besides the outcomes of its recipients."""

    state: str
    submitted: int
    malformed: int
    duplicates: int
    released: bool
    stopped: bool

    @property
    def usable(self) -> int:
        """The number of recipients that can be sent a message."""
        return self.submitted - self.malformed - self.duplicates


def campaign_totals(campaign: CampaignCounts, outcomes: Mapping[str, int]) -> CampaignTotals:
    """Return the totals for numbers of recipients by `outcome/reason`."""
    by: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    skipped = Counter({"malformed_number": campaign.malformed, "duplicate_number": campaign.duplicates})
    for key, recipients in outcomes.items():
        outcome, _, reason = key.partition("/")
        if outcome == "suppressed":
            skipped["suppressed"] += recipients
        elif outcome == "skipped":
            skipped[reason] += recipients
        elif outcome == "failed":
            failed[reason] += recipients
        else:
            by[outcome] += recipients
    without_outcome = campaign.usable - sum(outcomes.values())
    if campaign.state in ("cancelling", "cancelled"):
        by["cancelled"] += without_outcome
    elif campaign.stopped:
        skipped["stopped"] += without_outcome
    elif campaign.released:
        skipped["erased"] += without_outcome  # they were erased from the list before their batch was released
    else:
        by["requested"] += without_outcome
    return CampaignTotals(
        recipients=campaign.submitted,
        sent=sum(by[outcome] for outcome in _SENT),
        delivered=by["delivered"] + by["read"],
        read=by["read"],
        failed=failed.total(),
        failed_by=_by_reason(failed),
        unknown=by["unknown"],
        skipped=skipped.total(),
        skipped_by=_by_reason(skipped),
        cancelled=by["cancelled"],
        deferred=by["deferred"],
        waiting=by["requested"],
        percentage=_percentage(campaign, by["requested"] + by["deferred"]),
    )


def _percentage(campaign: CampaignCounts, without_result: int) -> float:
    """Return the share of recipients with a result, rounded down, so that it is 100 only if all have one."""
    if campaign.submitted:
        return 1000 * (campaign.submitted - without_result) // campaign.submitted / 10
    return 100.0 * campaign.released


def _by_reason(counts: Counter[str]) -> tuple[ReasonCount, ...]:
    return tuple(ReasonCount(reason=reason, recipients=number) for reason, number in counts.most_common() if number)
