"""How to react to each of Meta's error codes; the HTTP status decides only for unlisted codes. No I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

from wch_common.observability.redact import redact
from wch_whatsapp.changes import StateReason


class ErrorAction(Enum):
    """How to react to an error; what pauses or waits uses no attempt."""

    RETRY = "retry"
    """Meta accepted nothing: retry the message after a growing wait."""
    PAUSE_NUMBER = "pause_number"
    """Pause the number for a time."""
    PAUSE_RECIPIENT = "pause_recipient"
    """Pause this recipient for a time."""
    PAUSE_UNTIL_PROBED = "pause_until_probed"
    """Pause the number, or all numbers of the shop, until a call succeeds; an operator has to remove the cause."""
    END_BATCH = "end_batch"
    """End the message and the rest of its batch: the template can reach no recipient."""
    END_COUNTRY = "end_country"
    """End the message and the batch's others to its country, which the business cannot reach."""
    END_MESSAGE = "end_message"
    """End the message: this recipient cannot be reached, but others can."""
    REFUSE = "refuse"
    """End the message: the request itself is wrong."""


@dataclass(frozen=True)
class ErrorPolicy:
    """The reaction to one error, its reason, the shortest wait, and the most failures before the message ends."""

    action: ErrorAction
    reason: str
    wait_seconds: float | None = None
    most_failures: int | None = None
    code: int | None = None
    detail: str = ""

    @property
    def state_reason(self) -> StateReason:
        """The part that the ledger stores."""
        return StateReason(self.reason, self.code, self.detail)


_MINUTE, _HOUR = 60.0, 3600.0
# Meta advises only a few retries for errors that do not name their cause.
_AMBIGUOUS = 3


def _reaction(action: ErrorAction, reason: str, *codes: int) -> dict[int, ErrorPolicy]:
    return dict.fromkeys(codes, ErrorPolicy(action, reason))


TABLE: Final[dict[int, ErrorPolicy]] = {
    **_reaction(ErrorAction.PAUSE_UNTIL_PROBED, "token_refused", 0, 102, 104, 190),
    **_reaction(ErrorAction.PAUSE_UNTIL_PROBED, "permission_missing", 3, 10, 131005, *range(200, 300)),
    **_reaction(ErrorAction.PAUSE_UNTIL_PROBED, "account_restricted", 368, 131031, 131064),
    **_reaction(ErrorAction.PAUSE_UNTIL_PROBED, "billing", 131042, 134011),
    **_reaction(
        ErrorAction.PAUSE_UNTIL_PROBED,
        "number_not_usable",
        33,
        131037,
        131045,
        133000,
        133005,
        133006,
        133008,
        133009,
        133010,
        133015,
        133016,
    ),
    1: ErrorPolicy(ErrorAction.RETRY, "meta_failed", most_failures=_AMBIGUOUS),
    131000: ErrorPolicy(ErrorAction.RETRY, "meta_failed", most_failures=_AMBIGUOUS),
    **_reaction(ErrorAction.RETRY, "meta_unavailable", 2, 131016, 133004),
    131057: ErrorPolicy(ErrorAction.PAUSE_NUMBER, "number_in_maintenance", wait_seconds=2 * _MINUTE),
    134101: ErrorPolicy(ErrorAction.RETRY, "template_syncing", wait_seconds=10 * _MINUTE),
    132069: ErrorPolicy(ErrorAction.RETRY, "flow_throttled", wait_seconds=10 * _MINUTE),
    130429: ErrorPolicy(ErrorAction.PAUSE_NUMBER, "number_too_fast"),
    **dict.fromkeys(
        (4, 17, 32, 341, 613, 80007, 80008, 80009, 80014),
        ErrorPolicy(ErrorAction.PAUSE_NUMBER, "app_throttled", 5 * _MINUTE),
    ),
    131048: ErrorPolicy(ErrorAction.PAUSE_NUMBER, "spam_restriction", 4 * _HOUR),
    131056: ErrorPolicy(ErrorAction.PAUSE_RECIPIENT, "pair_too_fast"),
    **_reaction(ErrorAction.END_MESSAGE, "blocked", 130403),
    **_reaction(ErrorAction.END_MESSAGE, "marketing_experiment", 130472),
    **_reaction(ErrorAction.END_COUNTRY, "country_not_allowed", 130497),
    **_reaction(ErrorAction.END_MESSAGE, "own_number", 131021),
    **_reaction(ErrorAction.END_MESSAGE, "undeliverable", 131026),
    **_reaction(ErrorAction.END_MESSAGE, "not_on_test_list", 131030),
    **_reaction(ErrorAction.END_MESSAGE, "expired", 131043),
    **_reaction(ErrorAction.END_MESSAGE, "window_closed", 131047),
    **_reaction(ErrorAction.END_MESSAGE, "marketing_limit", 131049),
    **_reaction(ErrorAction.END_MESSAGE, "opted_out", 131050),
    **_reaction(ErrorAction.END_MESSAGE, "text_too_long", 132005),
    **_reaction(ErrorAction.END_MESSAGE, "identity_changed", 137000),
    **_reaction(ErrorAction.END_BATCH, "not_a_marketing_template", 131055, 134100),
    **_reaction(ErrorAction.END_BATCH, "marketing_switched_off", 131063),
    **_reaction(ErrorAction.END_BATCH, "template_values_wrong", 132000, 132012, 132018),
    **_reaction(ErrorAction.END_BATCH, "template_missing", 132001),
    **_reaction(ErrorAction.END_BATCH, "template_rejected", 132007),
    **_reaction(ErrorAction.END_BATCH, "template_paused", 132015),
    **_reaction(ErrorAction.END_BATCH, "template_disabled", 132016),
    **_reaction(ErrorAction.END_BATCH, "template_not_eligible", 134102),
    **_reaction(ErrorAction.END_BATCH, "flow_blocked", 132068),
    **_reaction(ErrorAction.REFUSE, "request_refused", 100, 131008, 131009, 131051, 135000),
    **_reaction(ErrorAction.REFUSE, "media_not_fetched", 131053),
}
NEEDS_OPERATOR: Final = frozenset(
    policy.reason for policy in TABLE.values() if policy.action is ErrorAction.PAUSE_UNTIL_PROBED
)
"""Causes of a pause that an operator has to remove."""
SHOP_WIDE: Final = NEEDS_OPERATOR - {"number_not_usable"} | {"app_throttled", "usage_near_limit"}
"""Causes that pause all numbers of a shop, because these share its token, account and app."""
# These depend on the values, which may be the recipient's own.
_OF_VALUES = frozenset({132000, 132012})
_INVALID, _INVISIBLE, _PARAMETER, _MEDIA = 100, 33, 131009, 131053
_DENIED, _TOO_MANY, _SERVER = frozenset({401, 403}), 429, 500
# Requires a word like "status" before the number, because sizes are numbers, too.
_HOST_FAILED = re.compile(
    r"\b(?:http|status|code|answered)\W{1,3}(?:(?:status|code)\W{1,3}){0,2}(429|5\d\d)\b", re.IGNORECASE
)
ALERTING: Final = frozenset({
    "spam_restriction", "not_on_test_list", "marketing_switched_off", "country_not_allowed", "template_not_eligible"
})  # fmt: skip
"""Reasons that an operator should know about although they do not stop a number permanently."""


def classify(
    code: int,
    *,
    status: int = 400,
    subcode: int | None = None,
    message: str = "",
    details: str = "",
    own_values: bool = False,
) -> ErrorPolicy:
    """Return how to react to an error; `own_values` means that the placeholders' values are the recipient's own."""
    found = TABLE.get(code) or _by_status(status)
    if code == _INVALID and subcode == _INVISIBLE:
        found = ErrorPolicy(ErrorAction.PAUSE_UNTIL_PROBED, "number_not_usable")
    elif code == _PARAMETER and "phone number" in details.lower():
        found = ErrorPolicy(ErrorAction.END_MESSAGE, "malformed_number")
    elif code == _MEDIA and _HOST_FAILED.search(details):
        found = ErrorPolicy(ErrorAction.RETRY, "media_host_failed")
    elif code in _OF_VALUES and own_values:
        found = ErrorPolicy(ErrorAction.END_MESSAGE, "template_values_wrong")
    text = redact(details or message, 400)
    return ErrorPolicy(found.action, found.reason, found.wait_seconds, found.most_failures, code, text)


def _by_status(status: int) -> ErrorPolicy:
    """Return how to react to an unlisted code."""
    if status in _DENIED:
        return ErrorPolicy(ErrorAction.PAUSE_UNTIL_PROBED, "permission_missing")
    if status == _TOO_MANY:
        return ErrorPolicy(ErrorAction.PAUSE_NUMBER, "app_throttled", 5 * _MINUTE)
    if status >= _SERVER:
        return ErrorPolicy(ErrorAction.RETRY, "meta_failed", most_failures=_AMBIGUOUS)
    return ErrorPolicy(ErrorAction.REFUSE, "request_refused")
