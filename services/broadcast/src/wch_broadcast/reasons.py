"""What an outcome of a recipient means to the whole campaign, from what its event says about the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wch_common.events.failure_reasons import REFUSED

if TYPE_CHECKING:
    from wch_common.events.whatsapp import RecipientOutcome

OF_CAMPAIGN = frozenset({"message", "template", "number", "shop"})
"""Causes of these fail the other recipients, too, unless they pass by themselves."""
LIMITS = frozenset({"template", "number", "shop"})
"""While a recipient waits for one of these, so do the others."""


def concerns_campaign(one: RecipientOutcome) -> bool:
    """Whether the recipient failed for a cause that fails the others, too, and does not pass by itself."""
    return one.outcome == "failed" and one.concerns in OF_CAMPAIGN and not one.retryable


def concerns_content(one: RecipientOutcome) -> bool:
    """Whether the cause is the message itself, which is disproved if other recipients were sent it."""
    return one.concerns == "message" and one.reason != REFUSED


def pause_cause(one: RecipientOutcome) -> str:
    """Return why a campaign pauses itself after this outcome."""
    return f"{one.reason}: {one.detail}" if one.detail else one.reason
