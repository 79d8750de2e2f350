"""Whether a campaign may start, and what it is going to do: its template, its list, its duration and the limit. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from difflib import get_close_matches
from typing import TYPE_CHECKING, Protocol

from wch_broadcast.estimate import Estimate, Pacing, estimate
from wch_broadcast.list_check import ListCheck, check
from wch_common.events.whatsapp_content import Template
from wch_common.integrations.templates import APPROVED

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from wch_broadcast.queries_admin import ListFound, ListRow
    from wch_common.events.broadcast import CampaignRequested
    from wch_common.integrations.templates import MetaTemplate

_SHOWN_NAMES = 10
# A replica that reads the templates moves their due time ahead; it is past for long only if none runs.
_OVERDUE = timedelta(minutes=2)


class TemplateRead(Protocol):
    """When whatsapp read the templates of a shop from Meta, and why not since."""

    account: str | None
    read_at: datetime | None
    failed_at: datetime | None
    failure: str
    due_at: datetime | None
    now: datetime


class SendingNumber(Protocol):
    """A number of the shop, and what it may still send."""

    sender: str
    rate: float
    messaging_limit: int
    reached: int
    frees_at: datetime | None
    cause: str | None
    paused_until: datetime | None


@dataclass(frozen=True)
class WhatsAppState:
    """What the whatsapp service knows of the shop, or the problem for which nothing is known."""

    read: TemplateRead | None = None
    templates: Sequence[MetaTemplate] = ()
    numbers: Sequence[SendingNumber] = ()
    problem: str = ""


@dataclass(frozen=True)
class LimitLeft:
    """The messaging limit of the portfolio: how many recipients it may still reach, and how many would have to wait."""

    limit: int
    reached: int
    left: int
    waiting: int
    frees_at: datetime | None


@dataclass
class StartPlan:
    """What a campaign is going to do, with the reasons why it must not start, and with warnings."""

    recipient_list: ListFound
    check: ListCheck = field(default_factory=ListCheck)
    template: MetaTemplate | None = None
    read_at: datetime | None = None
    copy: str = ""
    """How old the copy of Meta's templates is, as a sentence; empty if there is none."""
    sender: str = ""
    rate: float = 0.0
    duration: Estimate | None = None
    limit: LimitLeft | None = None
    refusals: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def plan(
    request: CampaignRequested,
    found: ListFound,
    rows: Iterable[ListRow],
    state: WhatsAppState,
    ahead: Sequence[str],
    now: datetime,
) -> StartPlan:
    """Return the plan of a campaign to a list; reads the rows of the list once."""
    result = StartPlan(found)
    _use_list(result)
    _use_template(result, request, state)
    result.check = check(request, found, rows, result.template)
    if why := result.check.refusal:
        result.refusals.append(f"the template {why}")
    elif result.check.recipients and result.check.bad == result.check.recipients:
        result.refusals.append("every recipient would fail")
    _use_number(result, request, state, now)
    if result.check.recipients:
        _use_times(result, request, ahead, now)
    return result


# -- the list


def unknown_list(name: str, shop: str | None, known: Sequence[str]) -> str:
    """Return the sentence about a list that does not exist."""
    of_shop = f" of the shop {shop}" if shop else ""
    return (
        f"there is no list {name}{of_shop}{_near(name, known)}; `wch campaigns list --lists` shows all. "
        "A list that was uploaded just now is there once the broadcast service has added it"
    )


def _use_list(result: StartPlan) -> None:
    found = result.recipient_list
    if found.deleted_at is not None:
        result.refusals.append(
            f"the recipients of the list {found.list_id} have been deleted, as their retention is over"
        )
    elif found.complete_at is None:
        result.warnings.append(
            f"the list {found.list_id} is not complete yet: only the {found.submitted} recipients that it has now were checked"
        )
    elif not found.recipients:
        result.refusals.append(f"the list {found.list_id} has no usable recipient")


# -- the template


def is_named(request: CampaignRequested, state: WhatsAppState) -> bool | None:
    """Whether the placeholders of the campaign's template have names; None if Meta's template is not known."""
    wanted = _template(request)
    found = _named(wanted, state.templates)[0] if wanted else None
    return None if found is None else found.is_named


def _template(request: CampaignRequested) -> Template | None:
    return request.message if isinstance(request.message, Template) else request.fallback


def _use_template(result: StartPlan, request: CampaignRequested, state: WhatsAppState) -> None:
    wanted = _template(request)
    if wanted is None:
        return
    read = state.read
    if read is None or read.read_at is None:
        result.warnings.append(f"the template was not checked: {_why_unknown(state)}")
        return
    result.read_at = read.read_at
    result.copy = _age(read)
    if _is_old(read):
        result.warnings.append(f"the template was checked against an old copy: {result.copy}")
    result.template, refusal = _named(wanted, state.templates)
    if refusal:
        result.refusals.append(refusal)
    elif result.template is not None and result.template.category.lower() == "marketing" != request.category:
        result.warnings.append(
            f"Meta's category of the template is marketing, and the campaign's is {request.category}: "
            "recipients who want no marketing would get it too; use --category marketing"
        )


def _why_unknown(state: WhatsAppState) -> str:
    if state.problem:
        return state.problem
    if state.read is None:
        return "the whatsapp service does not know this shop; is it running with it?"
    if state.read.account is None:
        return (
            "the whatsapp service does not know the WhatsApp business account; set WCH_WHATSAPP_BUSINESS_ACCOUNT_ID "
            "(in a file of shops `business_account_id` in the section `whatsapp`)"
        )
    return f"the whatsapp service has not read Meta's templates yet{': ' + state.read.failure if state.read.failure else ''}"


def _is_old(read: TemplateRead) -> bool:
    return read.failed_at is not None or (read.due_at is not None and read.now - read.due_at > _OVERDUE)


def _age(read: TemplateRead) -> str:
    """Return when the templates were read, and why not since if that is long ago."""
    age = f"the templates were last read from Meta {span((read.now - (read.read_at or read.now)).total_seconds())} ago"
    if not _is_old(read):
        return age
    return f"{age}, and not since: {read.failure or 'the whatsapp service has not tried (is it running?)'}"


def _named(wanted: Template, templates: Sequence[MetaTemplate]) -> tuple[MetaTemplate | None, str]:
    """Return the template of a name in a language, and why it cannot be sent."""
    languages = {one.language: one for one in templates if one.name == wanted.name}
    if not languages:
        return None, f"Meta has no template {wanted.name}{_near(wanted.name, [one.name for one in templates])}"
    found = languages.get(wanted.language)
    if found is None:
        return (
            None,
            f"Meta does not have the template {wanted.name} in {wanted.language}, but in {', '.join(languages)}",
        )
    if found.status != APPROVED:
        return (
            found,
            f"the template {found.name} ({found.language}) is {found.status} at Meta; only an approved one can be sent",
        )
    return found, ""


def _near(name: str, known: Sequence[str]) -> str:
    """Return a suggestion of names, or all of them if there are few."""
    names = sorted(set(known))
    if near := get_close_matches(name, names, n=3, cutoff=0.6):
        return f" (did you mean {' or '.join(near)}?)"
    return f" (there are {', '.join(names)})" if 0 < len(names) <= _SHOWN_NAMES else ""


# -- the number, its limit, and the duration


def _use_number(result: StartPlan, request: CampaignRequested, state: WhatsAppState, now: datetime) -> None:
    if not state.numbers:
        reason = state.problem or "the whatsapp service does not know this shop; is it running with it?"
        result.warnings.append(f"the limits of the number are not known: {reason}")
        return
    by_id = {one.sender: one for one in state.numbers}
    number = by_id.get(request.sender or state.numbers[0].sender)
    if number is None:
        result.refusals.append(f"the shop does not send from {request.sender}; it has {', '.join(by_id)}")
        return
    result.sender, result.rate = number.sender, number.rate
    if number.cause and number.paused_until and number.paused_until > now:
        result.warnings.append(
            f"the number {number.sender} is paused ({number.cause}); `wch whatsapp stats` says what to do"
        )
    if number.messaging_limit >= 0 and (isinstance(request.message, Template) or request.fallback):
        left = max(0, number.messaging_limit - number.reached)
        waiting = max(0, result.check.recipients - result.check.bad - left)
        result.limit = LimitLeft(number.messaging_limit, number.reached, left, waiting, number.frees_at)


def _use_times(result: StartPlan, request: CampaignRequested, ahead: Sequence[str], now: datetime) -> None:
    begins_at = max(now, request.start_at or now)
    pacing = Pacing(request.batch_size, request.pause_seconds, result.rate)
    result.duration = estimate(result.check.recipients, pacing, begins_at, request.stop_at)
    if request.stop_at is not None and request.stop_at <= now:
        result.refusals.append("stop_at has passed, so nobody would be sent the message")
    elif cut := result.duration.cut_off:
        result.warnings.append(
            f"stop_at would cut it off: about {cut} of {result.check.recipients} recipients are not reached"
        )
    if request.exclusive and ahead:
        others = ", ".join(ahead[:_SHOWN_NAMES])
        result.warnings.append(
            f"it waits for the shop's other campaigns first: {others} (--beside-others does not wait)"
        )


def span(seconds: float) -> str:
    """Return a duration in its two largest units, like `2 min 5 s`."""
    left, parts = round(seconds), []
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        number, left = divmod(left, size)
        if number:
            parts.append(f"{number} {unit}")
    return " ".join(parts[:2]) or "under 1 s"
