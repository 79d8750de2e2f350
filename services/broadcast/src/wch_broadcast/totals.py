"""How many recipients came to what: counted from their outcomes each time, never added up."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wch_common.events.broadcast import Count, Totals

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wch_broadcast.campaign import Campaign
    from wch_common.store.database import Row
    from wch_common.store.store import Transaction

_COUNTS = """
SELECT key, sum(value::int)::int AS recipients FROM batches, jsonb_each_text(counts)
WHERE campaign = %(id)s GROUP BY key
"""
# Answers of whatsapp that concern what the recipient is, or what was asked, and no failure to send.
SKIPPED = frozenset({"window_closed", "malformed_number", "forgotten"})
_SENT = ("accepted", "delivered", "read")


def is_skipped(outcome: str, reason: str) -> bool:
    """Tell whether a recipient was passed over rather than failed."""
    return outcome == "suppressed" or (outcome == "failed" and reason in SKIPPED)


@dataclass(frozen=True)
class CampaignCounts:
    """What the totals of a campaign rest upon beside its recipients' outcomes."""

    state: str
    given: int
    malformed: int
    duplicates: int
    released: bool
    stopped: bool

    @property
    def usable(self) -> int:
        """How many of the list are written to at most."""
        return self.given - self.malformed - self.duplicates


async def totals(tx: Transaction, campaign: Campaign) -> Totals:
    """Return what a campaign has come to."""
    rows = await tx.rows(_COUNTS, {"id": campaign.id})
    return totalled(campaign.counts, {row["key"]: row["recipients"] for row in rows})


def totalled(campaign: CampaignCounts, counts: dict[str, int]) -> Totals:
    """Return the totals of recipients by `outcome/reason`: a pure function."""
    by: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    skipped = Counter({"malformed_number": campaign.malformed, "duplicate_number": campaign.duplicates})
    for key, recipients in counts.items():
        outcome, _, reason = key.partition("/")
        if is_skipped(outcome, reason):
            skipped["suppressed" if outcome == "suppressed" else reason] += recipients
        elif outcome == "failed":
            failed[reason] += recipients
        else:
            by[outcome] += recipients
    rest = campaign.usable - sum(counts.values())
    if campaign.state in ("cancelling", "cancelled"):
        by["cancelled"] += rest
    elif campaign.stopped:
        skipped["stopped"] += rest
    elif campaign.released:
        skipped["forgotten"] += rest  # they were in the list, and no longer when their turn came
    else:
        by["asked"] += rest
    open_ = by["asked"] + by["deferred"]
    return Totals(
        recipients=campaign.given,
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
        waiting=by["asked"],
        # Rounded down: nothing is whole before the last recipient is.
        percentage=1000 * (campaign.given - open_) // campaign.given / 10
        if campaign.given
        else 100.0 * campaign.released,
    )


def _by_reason(counts: Counter[str]) -> tuple[Count, ...]:
    return tuple(Count(reason=reason, recipients=number) for reason, number in counts.most_common() if number)


# Reasons for which whatsapp lets a whole number, or all that is not answered yet, wait.
_OF_THE_NUMBER = frozenset({
    "token_refused", "permission_missing", "account_restricted", "billing", "number_not_usable", "messaging_limit",
    "usage_near_limit", "number_too_fast", "app_throttled", "spam_restriction", "meta_unreachable",
    "number_in_maintenance", "template_syncing",
})  # fmt: skip
# Answers after which nobody else of the campaign can be reached before somebody mends it.
OF_EVERYBODY = frozenset({
    "template_missing", "template_paused", "template_rejected", "template_disabled", "template_not_eligible",
    "not_a_marketing_template", "marketing_switched_off", "flow_blocked", "account_restricted",
})  # fmt: skip
# And these after which nobody can be who has no values of their own for the message.
OF_THE_MESSAGE = frozenset({"template_values_wrong", "request_refused"})
REFUSED = "refused"


def parked_by(rows: Iterable[Row]) -> str:
    """Return the limit of the whole number for which recipients wait, or an empty text."""
    found = {row["reason"] for row in rows if row["outcome"] == "deferred"} & _OF_THE_NUMBER
    return min(found, default="")


def concerns_everybody(outcome: str, reason: str, *, own_values: bool) -> bool:
    """Tell whether an answer to one recipient is the answer to all; `own_values`: the message had values of their own."""
    if outcome not in ("failed", "deferred"):
        return False
    return reason in OF_EVERYBODY or reason.startswith(REFUSED) or (reason in OF_THE_MESSAGE and not own_values)
