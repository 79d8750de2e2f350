"""How to react to Meta's errors, by what their reason means; the HTTP status decides only for unlisted codes. No I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import Enum

from wch_common.events.failure_reasons import failure_reason, reason_of_code
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
_MOST_FAILURES = {"meta_failed": 3}
_WAIT_SECONDS = {
    "number_in_maintenance": 2 * _MINUTE,
    "app_throttled": 5 * _MINUTE,
    "template_syncing": 10 * _MINUTE,
    "flow_throttled": 10 * _MINUTE,
    "spam_restriction": 4 * _HOUR,
}
_ACTIONS: dict[tuple[str, bool], ErrorAction] = {
    ("recipient", False): ErrorAction.END_MESSAGE,
    ("recipient", True): ErrorAction.PAUSE_RECIPIENT,
    ("message", False): ErrorAction.REFUSE,
    ("message", True): ErrorAction.RETRY,
    ("template", False): ErrorAction.END_BATCH,
    ("template", True): ErrorAction.RETRY,
    ("country", False): ErrorAction.END_COUNTRY,
    ("number", False): ErrorAction.PAUSE_UNTIL_PROBED,
    ("number", True): ErrorAction.PAUSE_NUMBER,
    ("shop", False): ErrorAction.PAUSE_UNTIL_PROBED,
    ("shop", True): ErrorAction.PAUSE_NUMBER,
}


def policy_for(reason: str, *, own_values: bool = False) -> ErrorPolicy:
    """Return how to react to a reason: by what it concerns, and by whether it passes by itself."""
    found = failure_reason(reason)
    action = _ACTIONS[found.concern(own_values=own_values), found.retryable]
    return ErrorPolicy(action, reason, _WAIT_SECONDS.get(reason), _MOST_FAILURES.get(reason))


_INVALID, _INVISIBLE, _PARAMETER, _MEDIA = 100, 33, 131009, 131053
_DENIED, _TOO_MANY, _SERVER = frozenset({401, 403}), 429, 500
# Requires a word like "status" before the number, because sizes are numbers, too.
_HOST_FAILED = re.compile(
    r"\b(?:http|status|code|answered)\W{1,3}(?:(?:status|code)\W{1,3}){0,2}(429|5\d\d)\b", re.IGNORECASE
)


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
    found = policy_for(_reason(code, status, subcode, details), own_values=own_values)
    return replace(found, code=code, detail=redact(details or message, 400))


def _reason(code: int, status: int, subcode: int | None, details: str) -> str:
    if code == _INVALID and subcode == _INVISIBLE:
        return "number_not_usable"
    if code == _PARAMETER and "phone number" in details.lower():
        return "malformed_number"
    if code == _MEDIA and _HOST_FAILED.search(details):
        return "media_host_failed"
    return reason_of_code(code) or _reason_of_status(status)


def _reason_of_status(status: int) -> str:
    """Return the reason for an unlisted code."""
    if status in _DENIED:
        return "permission_missing"
    if status == _TOO_MANY:
        return "app_throttled"
    return "meta_failed" if status >= _SERVER else "request_refused"
