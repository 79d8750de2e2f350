"""What each of Meta's error codes asks for, decided by the code and never by the HTTP status."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

from wch_common.observability.redact import redact
from wch_whatsapp.ledger import Why


class Action(Enum):
    """What is done about an error."""

    BACK_OFF = "back_off"
    """Nothing was accepted: the message is tried again after a growing wait."""
    THROTTLE = "throttle"
    """The number rests; the message waits uncounted."""
    PAIR = "pair"
    """This recipient rests; the message waits uncounted."""
    PARK = "park"
    """The shop's token, account or billing is refused: all its numbers rest and are probed, with an alert."""
    CAMPAIGN = "campaign"
    """No recipient of this template can be reached: the rest of the batch ends with it."""
    COUNTRY = "country"
    """Nobody of the recipient's country can be reached: those of the batch end with it."""
    RECIPIENT = "recipient"
    """This recipient cannot be reached; others can."""
    REFUSE = "refuse"
    """The request itself is wrong: it ends for good."""


@dataclass(frozen=True)
class ErrorPolicy:
    """What is done about one error, in which words, how long it waits, and how often it is tried at most."""

    action: Action
    reason: str
    wait_seconds: float | None = None
    most_failures: int | None = None
    code: int | None = None
    detail: str = ""

    @property
    def why(self) -> Why:
        """What the ledger keeps of it."""
        return Why(self.reason, self.code, self.detail)


_MINUTE, _HOUR = 60.0, 3600.0
# Meta asks for so few tries of errors that say nothing of their cause.
_AMBIGUOUS = 3


def _park(reason: str, *codes: int) -> dict[int, ErrorPolicy]:
    return dict.fromkeys(codes, ErrorPolicy(Action.PARK, reason))


def _one(action: Action, reason: str, *codes: int) -> dict[int, ErrorPolicy]:
    return dict.fromkeys(codes, ErrorPolicy(action, reason))


TABLE: Final[dict[int, ErrorPolicy]] = {
    **_park("token_refused", 0, 102, 104, 190),
    **_park("permission_missing", 3, 10, 131005, *range(200, 300)),
    **_park("account_restricted", 368, 131031, 131064),
    **_park("billing", 131042, 134011),
    **_park("number_not_usable", 33, 131037, 131045, 133000, 133005, 133006, 133008, 133009, 133010, 133015, 133016),
    1: ErrorPolicy(Action.BACK_OFF, "meta_failed", most_failures=_AMBIGUOUS),
    131000: ErrorPolicy(Action.BACK_OFF, "meta_failed", most_failures=_AMBIGUOUS),
    **_one(Action.BACK_OFF, "meta_unavailable", 2, 131016, 133004),
    131057: ErrorPolicy(Action.THROTTLE, "number_in_maintenance", wait_seconds=2 * _MINUTE),
    134101: ErrorPolicy(Action.BACK_OFF, "template_syncing", wait_seconds=10 * _MINUTE),
    132069: ErrorPolicy(Action.BACK_OFF, "flow_throttled", wait_seconds=10 * _MINUTE),
    130429: ErrorPolicy(Action.THROTTLE, "number_too_fast"),
    **dict.fromkeys(
        (4, 17, 32, 341, 613, 80007, 80008, 80009, 80014), ErrorPolicy(Action.THROTTLE, "app_throttled", 5 * _MINUTE)
    ),
    131048: ErrorPolicy(Action.THROTTLE, "spam_restriction", 4 * _HOUR),
    131056: ErrorPolicy(Action.PAIR, "pair_too_fast"),
    **_one(Action.RECIPIENT, "blocked", 130403),
    **_one(Action.RECIPIENT, "marketing_experiment", 130472),
    **_one(Action.COUNTRY, "country_not_allowed", 130497),
    **_one(Action.RECIPIENT, "own_number", 131021),
    **_one(Action.RECIPIENT, "undeliverable", 131026),
    **_one(Action.RECIPIENT, "not_on_test_list", 131030),
    **_one(Action.RECIPIENT, "expired", 131043),
    **_one(Action.RECIPIENT, "window_closed", 131047),
    **_one(Action.RECIPIENT, "marketing_limit", 131049),
    **_one(Action.RECIPIENT, "opted_out", 131050),
    **_one(Action.RECIPIENT, "text_too_long", 132005),
    **_one(Action.RECIPIENT, "identity_changed", 137000),
    **_one(Action.CAMPAIGN, "not_a_marketing_template", 131055, 134100),
    **_one(Action.CAMPAIGN, "marketing_switched_off", 131063),
    **_one(Action.CAMPAIGN, "template_values_wrong", 132000, 132012, 132018),
    **_one(Action.CAMPAIGN, "template_missing", 132001),
    **_one(Action.CAMPAIGN, "template_rejected", 132007),
    **_one(Action.CAMPAIGN, "template_paused", 132015),
    **_one(Action.CAMPAIGN, "template_disabled", 132016),
    **_one(Action.CAMPAIGN, "template_not_eligible", 134102),
    **_one(Action.CAMPAIGN, "flow_blocked", 132068),
    **_one(Action.REFUSE, "request_refused", 100, 131008, 131009, 131051, 135000),
    **_one(Action.REFUSE, "media_not_fetched", 131053),
}
# They rest upon the values, which may be one recipient's own.
_OF_VALUES = frozenset({132000, 132012})
_INVALID, _INVISIBLE, _PARAMETER, _MEDIA = 100, 33, 131009, 131053
_DENIED, _TOO_MANY, _SERVER = frozenset({401, 403}), 429, 500
# A status after the word for it, and not any number, as sizes are numbers, too.
_HOST_FAILED = re.compile(
    r"\b(?:http|status|code|answered)\W{1,3}(?:(?:status|code)\W{1,3}){0,2}(429|5\d\d)\b", re.IGNORECASE
)
ALERTING: Final = frozenset({
    "spam_restriction", "not_on_test_list", "marketing_switched_off", "country_not_allowed", "template_not_eligible"
})  # fmt: skip
"""Reasons a person should hear of though nothing rests."""


def classify(
    code: int,
    *,
    status: int = 400,
    subcode: int | None = None,
    message: str = "",
    details: str = "",
    own_values: bool = False,
) -> ErrorPolicy:
    """Return what an error asks for; `own_values` says that the placeholders' values are this recipient's own."""
    found = TABLE.get(code) or _by_status(status)
    if code == _INVALID and subcode == _INVISIBLE:
        found = ErrorPolicy(Action.PARK, "number_not_usable")
    elif code == _PARAMETER and "phone number" in details.lower():
        found = ErrorPolicy(Action.RECIPIENT, "malformed_number")
    elif code == _MEDIA and _HOST_FAILED.search(details):
        found = ErrorPolicy(Action.BACK_OFF, "media_host_failed")
    elif code in _OF_VALUES and own_values:
        found = ErrorPolicy(Action.RECIPIENT, "template_values_wrong")
    text = redact(details or message, 400)
    return ErrorPolicy(found.action, found.reason, found.wait_seconds, found.most_failures, code, text)


def _by_status(status: int) -> ErrorPolicy:
    """Decide on a code that nobody listed."""
    if status in _DENIED:
        return ErrorPolicy(Action.PARK, "permission_missing")
    if status == _TOO_MANY:
        return ErrorPolicy(Action.THROTTLE, "app_throttled", 5 * _MINUTE)
    if status >= _SERVER:
        return ErrorPolicy(Action.BACK_OFF, "meta_failed", most_failures=_AMBIGUOUS)
    return ErrorPolicy(Action.REFUSE, "request_refused")
