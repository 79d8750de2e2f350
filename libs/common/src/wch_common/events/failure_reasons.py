"""Why a message is not sent, or waits: the one table from which services, metrics and documents take what a reason means.

Events carry what another service decides by (`concerns`, `retryable`), so that a consumer needs no list of reasons.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import Field

from wch_common.contract.personal import IMPERSONAL

Concern: TypeAlias = Literal["recipient", "message", "template", "country", "number", "shop"]
Concerns: TypeAlias = Annotated[
    Concern,
    Field(
        description="What the cause holds for: this recipient only, the message, everyone who is sent the template, the "
        "recipient's country, the sending number, or all numbers of the shop."
    ),
]
FailureReasonName: TypeAlias = Annotated[
    str,
    IMPERSONAL,
    Field(
        max_length=500,
        description="One of the reasons in services/whatsapp/README.md, like undeliverable, window_closed or expired. "
        "Later versions may add reasons: decide by `concerns` and `retryable`.",
    ),
]
Retryable: TypeAlias = Annotated[
    bool, Field(description="Whether the cause passes by itself, so that the same message may succeed later.")
]
Actor: TypeAlias = Literal["nobody", "requester", "operator"]


@dataclass(frozen=True)
class FailureReason:
    """What a reason means; `codes` are the error codes of Meta's Cloud API that report it."""

    concerns: Concern
    retryable: bool
    """Whether it passes by itself."""
    acts: Actor
    """Who has to do something about it; an alert is raised if it is an operator."""
    meaning: str
    remedy: str
    codes: tuple[int, ...] = ()
    skipped: bool = False
    """Whether a batch reports the recipient as skipped instead of failed."""
    caused_by_values: bool = False
    """Whether the values may be the cause, so that it concerns only the recipient if these are their own."""
    outage: bool = False
    """Whether Meta, or the way to it, fails: several in a row pause the number."""
    waits_a_day: bool = False
    """Whether a retry waits for a day, because Meta penalises earlier attempts."""

    def concern(self, *, own_values: bool) -> Concern:
        """Return what it concerns; `own_values` if the message had values of the recipient's own."""
        return "recipient" if self.caused_by_values and own_values else self.concerns

    @property
    def parks(self) -> bool:
        """Whether a number, or the whole shop, pauses until a call succeeds."""
        return self.concerns in ("number", "shop") and not self.retryable


_NOTHING_TO_DO: tuple[Actor, str] = ("nobody", "nothing")
_DEFAULTS: dict[tuple[Concern, bool], tuple[Actor, str]] = {
    ("message", False): ("requester", "correct the request, then retry"),
    ("message", True): ("requester", "retry, if the message has failed"),
    ("template", False): ("requester", "correct the template at Meta, then retry"),
    ("number", False): ("operator", "correct it at Meta; sending resumes by itself"),
    ("shop", False): ("operator", "correct it at Meta; sending resumes by itself"),
}


def _reason(
    concerns: Concern,
    meaning: str,
    *codes: int,
    retryable: bool = False,
    acts: Actor | None = None,
    remedy: str | None = None,
    **more: bool,
) -> FailureReason:
    actor, usual = _DEFAULTS.get((concerns, retryable), _NOTHING_TO_DO)
    return FailureReason(concerns, retryable, acts or actor, meaning, remedy or usual, codes, **more)


REFUSED: Final = "refused"
"""The reason of a request that was dead-lettered before the ledger knew it: to try again, request everything again."""
FAILURE_REASONS: Final[dict[str, FailureReason]] = {
    # The recipient.
    "undeliverable": _reason("recipient", "Meta cannot deliver to the recipient", 131026),
    "not_delivered_in_time": _reason("recipient", "the recipient's device did not fetch the message in time", 131043),
    "blocked": _reason("recipient", "the recipient must not be written to", 130403),
    "own_number": _reason("recipient", "the recipient is the sending number itself", 131021),
    "identity_changed": _reason(
        "recipient",
        "the number has another owner or device than was confirmed",
        137000,
        remedy="ask the recipient",
        acts="requester",
    ),
    "opted_out": _reason("recipient", "the recipient wants no marketing; they are suppressed from now on", 131050),
    "marketing_limit": _reason(
        "recipient",
        "Meta sends the recipient no more marketing for now",
        131049,
        remedy="nothing; a retry waits a day",
        waits_a_day=True,
    ),
    "marketing_experiment": _reason("recipient", "Meta sends the recipient no marketing, as an experiment", 130472),
    "not_on_test_list": _reason(
        "recipient",
        "a test number may write to listed recipients only",
        131030,
        remedy="add the recipient to the list at Meta, then retry",
        acts="operator",
    ),
    "malformed_number": _reason(
        "recipient", "the number or the id is invalid", remedy="correct it in the list", acts="requester", skipped=True
    ),
    "different_people": _reason(
        "recipient",
        "the number and the id given for the recipient belong to different people",
        remedy="request it again under a new key, with the number or the id alone",
        acts="requester",
        skipped=True,
    ),
    "number_changed": _reason(
        "recipient",
        "Meta has said that the owner of the number has another one, or hides it",
        remedy="correct the number, or request it again under a new key with the person's id",
        acts="requester",
        skipped=True,
    ),
    "value_missing": _reason(
        "recipient",
        "a placeholder has no value",
        remedy="correct the values; `show` names the placeholder",
        acts="requester",
    ),
    "text_too_long": _reason(
        "recipient", "the text with its values is too long", 132005, remedy="shorten the values", acts="requester"
    ),
    "window_closed": _reason(
        "recipient",
        "free text without a fallback, and the recipient did not write within 24 hours",
        131047,
        remedy="give a fallback template",
        acts="requester",
        skipped=True,
    ),
    "erased": _reason("recipient", "the recipient was erased", skipped=True),
    "pair_too_fast": _reason("recipient", "too many messages to the recipient in a short time", 131056, retryable=True),
    # The country.
    "country_not_allowed": _reason(
        "country",
        "the business must not write to the recipient's country; the batch's other messages to it end, too",
        130497,
        acts="operator",
        remedy="check the restrictions of the business account at Meta",
    ),
    # The message.
    "request_refused": _reason(
        "message", "Meta refuses the content of the message", 100, 131008, 131009, 131051, 135000, caused_by_values=True
    ),
    "media_not_fetched": _reason("message", "Meta cannot use the media file", 131053, caused_by_values=True),
    REFUSED: _reason("message", "the request was dead-lettered before it reached the ledger; `detail` says why"),
    "dead_lettered": _reason(
        "message",
        "the request for the reminder is in the dead-letter queue",
        acts="operator",
        remedy="`wch dlq` shows why, and replays it",
    ),
    "expired": _reason(
        "message",
        "the message was not sent before its expiry",
        acts="requester",
        remedy="retry, if it is still worth sending",
        retryable=True,
    ),
    "meta_failed": _reason("message", "Meta failed without naming a cause", 1, 131000, retryable=True, outage=True),
    "meta_unavailable": _reason(
        "message", "Meta is overloaded or unavailable", 2, 131016, 133004, retryable=True, outage=True
    ),
    "media_host_failed": _reason("message", "the host of the media file failed", retryable=True),
    "no_answer": _reason(
        "message",
        "a call got no answer; the message is in doubt until a status arrives",
        remedy="nothing",
        acts="nobody",
        retryable=True,
    ),
    "process_died": _reason(
        "message",
        "the process died during the call; the message is in doubt",
        remedy="nothing",
        acts="nobody",
        retryable=True,
    ),
    "resent_after_doubt": _reason(
        "message",
        "sent again after a doubt, as configured; it may arrive twice",
        remedy="nothing",
        acts="nobody",
        retryable=True,
    ),
    "no_status": _reason(
        "message",
        "no status arrived, so it is unknown whether the message was sent",
        remedy="nothing; a later status settles it",
        acts="nobody",
    ),
    "unknown": _reason(
        "message",
        "it is unknown whether the message was sent",
        remedy="nothing; a later status settles it",
        acts="nobody",
    ),
    "not_in_allow_list": _reason(
        "recipient",
        "this deployment writes to listed recipients only (WCH_WHATSAPP_ONLY_TO)",
        remedy="add the recipient to the list, then retry",
        acts="requester",
        skipped=True,
    ),
    "value_refused": _reason(
        "recipient",
        "a value has a form that Meta refuses",
        132018,
        remedy="correct the value in the list, then retry",
        acts="requester",
    ),
    "needs_number": _reason(
        "recipient",
        "a one-time password can be sent to a telephone number only, not to a user id",
        131062,
        remedy="ask the recipient for their number",
        acts="requester",
    ),
    # The template.
    "template_missing": _reason("template", "the template does not exist in this language", 132001),
    "template_rejected": _reason("template", "Meta rejected the template", 132007),
    "template_paused": _reason("template", "Meta paused the template for its quality", 132015),
    "template_disabled": _reason("template", "Meta disabled the template", 132016),
    "template_not_eligible": _reason(
        "template", "the template may not be used by this account", 134102, acts="operator"
    ),
    "template_values_wrong": _reason(
        "template",
        "the values do not fit the template",
        132000,
        132012,
        remedy="correct the values or the template, then retry",
        caused_by_values=True,
    ),
    "not_a_marketing_template": _reason("template", "the template is not a marketing template", 131055, 134100),
    "marketing_switched_off": _reason(
        "template",
        "marketing is switched off for the account",
        131063,
        remedy="switch it on at Meta, then retry",
        acts="operator",
    ),
    "flow_blocked": _reason("template", "Meta blocked the flow of the template", 132068),
    "flow_throttled": _reason("template", "Meta limits the flow of the template", 132069, retryable=True),
    "template_syncing": _reason("template", "Meta is synchronising templates", 134101, retryable=True),
    # The sending number.
    "number_not_usable": _reason(
        "number",
        "the number is not registered, has no approved name, or was deleted",
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
    "number_too_fast": _reason("number", "the number sends too fast", 130429, retryable=True),
    "number_in_maintenance": _reason("number", "the number is in maintenance at Meta", 131057, retryable=True),
    "spam_restriction": _reason(
        "number",
        "recipients reported the number; it is paused for hours",
        131048,
        remedy="send fewer, more relevant messages; sending resumes by itself",
        acts="operator",
        retryable=True,
    ),
    "messaging_limit": _reason(
        "number",
        "the number's limit of recipients a day is reached",
        remedy="nothing; a higher tier at Meta raises it",
        retryable=True,
    ),
    "budget_used": _reason(
        "number",
        "the number's budget of messages that may cost money is used up for this month",
        remedy="raise WCH_WHATSAPP_MONTHLY_BUDGET, or wait for the next month (UTC); only marketing waits",
        retryable=True,
        acts="operator",
    ),
    "meta_unreachable": _reason("number", "Meta cannot be reached", retryable=True, outage=True),
    # The shop: its numbers share a token, an account and an app.
    "token_refused": _reason("shop", "Meta refuses the token", 0, 102, 104, 190),
    "permission_missing": _reason("shop", "the token lacks a permission", 3, 10, 131005, *range(200, 300)),
    "account_restricted": _reason("shop", "Meta restricted the account", 368, 131031, 131064),
    "billing": _reason("shop", "the account's payment method fails", 131042, 134011),
    "app_throttled": _reason(
        "shop", "the app makes too many calls", 4, 17, 32, 341, 613, 80007, 80008, 80009, 80014, retryable=True
    ),
    "usage_near_limit": _reason("shop", "the app is close to its limit of calls", retryable=True),
}
"""Every reason by name; a new reason is one entry here."""

_UNLISTED = _reason("recipient", "a reason that this version does not know", remedy="update the service that shows it")


def failure_reason(name: str) -> FailureReason:
    """Return what a reason means; a reason that is not in the table concerns its recipient only."""
    return FAILURE_REASONS.get(name, _UNLISTED)


def reason_of_code(code: int) -> str | None:
    """Return the reason that an error code of Meta reports, or None for an unlisted code."""
    return next((name for name, reason in FAILURE_REASONS.items() if code in reason.codes), None)


def parking_reasons() -> list[str]:
    """Return the reasons for which a number or a shop pauses until an operator has removed the cause."""
    return reasons_with("parks")


def pausing_reasons() -> list[str]:
    """Return the reasons for which a number or a shop pauses."""
    return sorted(name for name, reason in FAILURE_REASONS.items() if reason.concerns in ("number", "shop"))


def pauses_shop(name: str) -> bool:
    """Whether a pause for this reason holds for all numbers of the shop."""
    return failure_reason(name).concerns == "shop"


def reasons_with(attribute: str) -> list[str]:
    """Return the reasons for which an attribute of `FailureReason` is true, like `waits_a_day`."""
    return sorted(name for name, reason in FAILURE_REASONS.items() if getattr(reason, attribute))


def alerting_reasons() -> list[str]:
    """Return the reasons that an operator has to do something about."""
    return sorted(name for name, reason in FAILURE_REASONS.items() if reason.acts == "operator")
