"""What the reply to a call means for its message, its recipient and its number. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from wch_common.events.failure_reasons import pauses_shop
from wch_whatsapp.bodies import is_free_form
from wch_whatsapp.changes import Change, StateReason
from wch_whatsapp.cloud import Accepted, InDoubt, RefusedByMeta, Reply, Unsent
from wch_whatsapp.error_policy import ErrorAction, ErrorPolicy, classify
from wch_whatsapp.queries import LONG_WAIT_SECONDS

if TYPE_CHECKING:
    from wch_common.store.database import Row
    from wch_whatsapp.decide import Send

PROBE_SECONDS: Final = 30.0
"""The pause of a number while its probe is the only call."""
BACK_OFF_SECONDS = (2.0, 8.0, 30.0, 120.0, 600.0)
_USAGE_PERCENT = 90.0
_USAGE_PAUSE_SECONDS = 60.0
_OUTAGE_PAUSE_SECONDS = 60.0
_LONGEST_PAIR_WAIT = 3600.0
_OF_MESSAGE = frozenset({
    ErrorAction.END_BATCH, ErrorAction.END_COUNTRY, ErrorAction.END_MESSAGE, ErrorAction.REFUSE, ErrorAction.PAUSE_RECIPIENT
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pause:
    """A number is paused for a cause; with `shop`, all numbers of its shop are."""

    cause: str
    seconds: float
    shop: bool = False


OUTAGE = Pause("meta_unreachable", _OUTAGE_PAUSE_SECONDS)


@dataclass(frozen=True)
class CallOutcome:
    """A finished call: its message and attempt, the reply, and what that means."""

    row: Row
    attempt: int
    send: Send
    reply: Reply
    policy: ErrorPolicy | None
    change: Change
    pause: Pause | None
    probe: bool

    @property
    def shows_number_works(self) -> bool:
        """Whether the message was accepted, or refused for a reason that concerns it or its recipient only."""
        return isinstance(self.reply, Accepted) or (self.policy is not None and self.policy.action in _OF_MESSAGE)


def decide_outcome(
    row: Row, attempt: int, send: Send, *, probe: bool, reply: Reply, settle_seconds: float
) -> CallOutcome:
    """Return the outcome of a call; `settle_seconds` is how long a message without an answer stays in doubt."""
    policy = None
    match reply:
        case Accepted(wamid=wamid):
            fallback = send.as_fallback
            change = Change(row["id"], "accepted", attempt=attempt, wamid=wamid, as_fallback=fallback, proven=True)
        case InDoubt(detail=detail):
            defers = settle_seconds > LONG_WAIT_SECONDS  # the batch does not wait that long for its completion
            reason = StateReason("no_answer", detail=detail)
            change = Change(row["id"], "in_doubt", settle_seconds, attempt, defers=defers, reason=reason)
        case Unsent(detail=detail):
            policy = ErrorPolicy(ErrorAction.RETRY, "meta_unreachable", detail=detail)
            change = change_for_error(row, attempt, policy)
        case RefusedByMeta(error=error):
            policy = classify(
                error.code,
                status=error.status,
                subcode=error.subcode,
                message=error.message,
                details=error.details,
                own_values=row["own_values"],
            )
            policy = limit_to_recipient(policy, row["content"], as_fallback=send.as_fallback)
            change = change_for_error(row, attempt, policy)
    return CallOutcome(row, attempt, send, reply, policy, unreported(row, change), _pause(reply, policy), probe)


def limit_to_recipient(policy: ErrorPolicy, content: dict[str, Any] | None, *, as_fallback: bool) -> ErrorPolicy:
    """Return the policy without its effect on the batch if others of it have an open window and need no template."""
    if policy.action is ErrorAction.END_BATCH and as_fallback and content is not None and is_free_form(content):
        return replace(policy, action=ErrorAction.END_MESSAGE)
    return policy


def unreported(row: Row, change: Change) -> Change:
    """Clear the reason of a retry whose batch has reported a result, so that it is not reported again unless it is deferred."""
    if row["answered"] and change.state == "queued" and not change.defers:
        return replace(change, reason=replace(change.reason, name=""))
    return change


def change_for_error(row: Row, attempt: int, policy: ErrorPolicy) -> Change:
    """Return the change of a message that Meta has certainly not accepted."""
    id_, reason = row["id"], policy.state_reason
    match policy.action:
        case ErrorAction.RETRY:
            failures = row["failures"] + 1
            if failures > (policy.most_failures or len(BACK_OFF_SECONDS)):
                return Change(id_, "failed", attempt=attempt, failed=True, reason=reason)
            wait = max(BACK_OFF_SECONDS[failures - 1], policy.wait_seconds or 0.0)
            return Change(id_, "queued", wait, attempt, failed=True, defers=wait > LONG_WAIT_SECONDS, reason=reason)
        case ErrorAction.PAUSE_NUMBER | ErrorAction.PAUSE_UNTIL_PROBED:
            return Change(id_, "queued", 0.0, attempt, reason=reason)
        case ErrorAction.PAUSE_RECIPIENT:
            wait = pair_wait(row)
            return Change(id_, "queued", wait, attempt, defers=wait > LONG_WAIT_SECONDS, reason=reason)
    if policy.reason == "window_closed" and row["fallback"] is not None and not row["as_fallback"]:
        # Meta's clock decides whether a window is open; a template needs none.
        return Change(id_, "queued", 0.0, attempt, as_fallback=True, reason=reason)
    return Change(id_, "failed", attempt=attempt, reason=reason)


def pair_wait(row: Row) -> float:
    """Return the pause of a recipient after Meta refused a message as too many: 1, 4, 16, 64 … seconds."""
    return min(_LONGEST_PAIR_WAIT, 4.0 ** min(row["pair_failures"] or 0, 10))


def pause_for(policy: ErrorPolicy, seconds: float = 0.0) -> Pause | None:
    """Return the pause for an error, at least the `seconds` that Meta asks for; None if the error needs none."""
    if policy.action is ErrorAction.PAUSE_UNTIL_PROBED:
        return Pause(policy.reason, PROBE_SECONDS, shop=pauses_shop(policy.reason))
    if policy.action is ErrorAction.PAUSE_NUMBER:
        return Pause(policy.reason, max(seconds, policy.wait_seconds or 2.0), shop=pauses_shop(policy.reason))
    return None


def _pause(reply: Reply, policy: ErrorPolicy | None) -> Pause | None:
    usage = getattr(reply, "usage", None)
    by_usage = usage.regain_seconds if usage is not None else 0.0
    by_error = reply.error.regain_seconds if isinstance(reply, RefusedByMeta) else None
    if policy is not None and (pause := pause_for(policy, max(by_usage, by_error or 0.0))) is not None:
        return pause
    if usage is not None and usage.percent >= _USAGE_PERCENT:
        return Pause("usage_near_limit", usage.regain_seconds or _USAGE_PAUSE_SECONDS, shop=True)
    return None
