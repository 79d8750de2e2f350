"""What the reasons of whatsapp mean to a campaign: whether they concern one recipient, or all and pause it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# These depend on the recipient or on the request; they are not failures to send.
SKIPPED_REASONS = frozenset({"window_closed", "malformed_number", "erased"})
# For these, whatsapp defers everything that goes through the sending number.
_NUMBER_LIMITS = frozenset({
    "token_refused", "permission_missing", "account_restricted", "billing", "number_not_usable", "messaging_limit",
    "usage_near_limit", "number_too_fast", "app_throttled", "spam_restriction", "meta_unreachable",
    "number_in_maintenance", "template_syncing",
})  # fmt: skip
# These fail every recipient of the campaign until an operator corrects the cause.
CAMPAIGN_REASONS = frozenset({
    "template_missing", "template_paused", "template_rejected", "template_disabled", "template_not_eligible",
    "not_a_marketing_template", "marketing_switched_off", "flow_blocked", "account_restricted",
})  # fmt: skip
# These fail every recipient that has no values of its own for the message.
MESSAGE_REASONS = frozenset({"template_values_wrong", "request_refused"})
REFUSED = "refused"
"""Prefix of the reason for which whatsapp refused a batch before its ledger knew it."""


def is_skipped(outcome: str, reason: str) -> bool:
    """Whether a recipient counts as skipped rather than failed."""
    return outcome == "suppressed" or (outcome == "failed" and reason in SKIPPED_REASONS)


def number_limit(reasons: Iterable[str]) -> str:
    """Return the limit of the sending number among the reasons of deferred recipients, or an empty text."""
    return min(_NUMBER_LIMITS.intersection(reasons), default="")


def concerns_campaign(outcome: str, reason: str, *, own_values: bool) -> bool:
    """Whether one recipient's outcome holds for the others; `own_values` if its message had its own values."""
    if outcome not in ("failed", "deferred"):
        return False
    return reason in CAMPAIGN_REASONS or reason.startswith(REFUSED) or (reason in MESSAGE_REASONS and not own_values)
