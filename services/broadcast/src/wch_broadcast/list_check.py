"""Checks a list of recipients against the message of a campaign before it starts. No I/O."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from wch_broadcast.lists import PART_SIZE
from wch_common.events.broadcast import CampaignRecipient
from wch_common.events.whatsapp_content import Template
from wch_common.events.whatsapp_template import refuse_unfit
from wch_common.integrations.recipients import masked
from wch_common.integrations.templates import (
    Preview,
    empty_values,
    fallback_with_own_values,
    filled,
    is_changed,
    misfits,
    preview,
    texts,
    unfilled,
    with_own_values,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wch_broadcast.queries_admin import ListFound, ListRow
    from wch_common.events.broadcast import CampaignRequested
    from wch_common.events.whatsapp_content import Content
    from wch_common.integrations.templates import MetaTemplate

_SHOWN: Final = 10
_SAMPLES: Final = 3


@dataclass(frozen=True)
class BadRecipient:
    """A recipient who would fail: the place in the list from 1, the masked number or id, and why."""

    number: int
    to: str
    problem: str


@dataclass(frozen=True)
class Sample:
    """The message as one recipient will see it, and what they see outside the 24-hour window if that is another one."""

    to: str
    message: Preview
    outside_window: Preview | None = None


@dataclass
class ListCheck:
    """What was found in a list: how many recipients fit, and the first of those who do not."""

    recipients: int = 0
    bad: int = 0
    first: list[BadRecipient] = field(default_factory=list)
    changed: int = 0
    """Recipients with line breaks, tabs or long runs of spaces in a value, which become one space."""
    samples: list[Sample] = field(default_factory=list)
    relying: int = 0
    """Recipients who are sent the campaign's values, if those do not fit the template."""
    of_campaign: tuple[str, ...] = ()
    """Why the campaign's values do not fit the template."""
    of_recipients: Counter[str] = field(default_factory=Counter)
    """Why values of recipients do not fit the template, and of how many."""

    @property
    def refusal(self) -> str:
        """Why the campaign must not start, as a sentence about the template; empty if it may.

        A recipient who fails alone does not prevent it, but half of the list does: then its columns do not fit.
        """
        if self.relying:
            others = (
                f" ({self.relying} recipients have no values of their own)" if self.relying < self.recipients else ""
            )
            return f"{'; it '.join(self.of_campaign)}{others}"
        misfitting = sum(self.of_recipients.values())
        if misfitting and 2 * misfitting >= self.recipients:
            (common, _), *_ = self.of_recipients.most_common(1)
            return f"{common} (the values of {misfitting} of {self.recipients} recipients do not fit)"
        return ""


def check(
    request: CampaignRequested, found: ListFound, rows: Iterable[ListRow], meta: MetaTemplate | None
) -> ListCheck:
    """Return what is wrong in a list for a campaign; without Meta's template only empty and missing values are found."""
    checker = _Checker(request, found, meta)
    for row in rows:
        checker.add(row)
    return checker.result


class _Checker:
    def __init__(self, request: CampaignRequested, found: ListFound, meta: MetaTemplate | None) -> None:
        message = request.message
        self._message = message
        self._fallback = request.fallback
        self._meta = meta
        self._known: dict[object, tuple[str, ...]] = {}
        # As the service decides (Campaign.values_required): recipients without values then fail alone.
        is_empty = isinstance(message, Template) and not message.body
        self._values_required = is_empty and 2 * found.with_values > found.recipients
        template = message if isinstance(message, Template) else request.fallback
        self.result = ListCheck(of_campaign=self._misfits(template) + _given_empty(template))

    def add(self, row: ListRow) -> None:
        """Check one recipient."""
        values = row.own_values
        own = CampaignRecipient.model_validate({"to": row.name, **values}, strict=False) if values else None
        result = self.result
        result.recipients += 1
        message = self._message
        problem = self._in_template(message, own) if isinstance(message, Template) else self._in_text(own)
        if problem:
            result.bad += 1
            if len(result.first) < _SHOWN:
                result.first.append(BadRecipient(row.position - PART_SIZE + 1, masked(row.name), problem))
        elif len(result.samples) < _SAMPLES:
            result.samples.append(self._sample(row.name, own))

    def _in_template(self, message: Template, own: CampaignRecipient | None) -> str:
        """Return why the message to a recipient would fail, or an empty text."""
        template = with_own_values(message, own)
        if self._values_required and (own is None or own.body is None):
            return "has no values for the body"
        problem = self._with_values(template)
        found = self.result.of_campaign if own is None else self._misfits(template)
        if own is None and found:
            self.result.relying += 1
        elif problem:
            return problem
        elif found:
            self.result.of_recipients[found[0]] += 1
        return f"the template {'; it '.join(found)}" if found else ""

    def _in_text(self, own: CampaignRecipient | None) -> str:
        """Return why the text or its fallback to a recipient would fail, or an empty text."""
        values = (own and own.body) or ()
        if missing := unfilled(_text(self._message), values):
            return f"has no value for {', '.join(missing)}"
        if self._fallback is None:
            return ""
        if self.result.of_campaign:
            self.result.relying += 1
            return f"the fallback template {'; it '.join(self.result.of_campaign)}"
        return self._with_values(fallback_with_own_values(self._fallback, own))

    def _with_values(self, template: Template) -> str:
        self.result.changed += any(is_changed(text) for _, text in texts(template))
        if empty := empty_values(template):
            return f"the value for {', '.join(empty)} is empty"
        try:
            refuse_unfit(template.header, template.body, template.buttons)
        except ValueError as error:
            return str(error)
        return ""

    def _misfits(self, template: Template | None) -> tuple[str, ...]:
        if template is None or self._meta is None:
            return ()
        # Most recipients of a list have the same kinds of values, and the texts do not matter here.
        header = template.header
        kinds = (
            header and (getattr(header, "kind", "text"), getattr(header, "name", None)),
            tuple(value.name for value in template.body),
            tuple((button.index, button.kind) for button in template.buttons),
        )
        if kinds not in self._known:
            self._known[kinds] = tuple(misfits(template, self._meta))
        return self._known[kinds]

    def _sample(self, name: str, own: CampaignRecipient | None) -> Sample:
        if isinstance(self._message, Template):
            return Sample(masked(name), self._preview(with_own_values(self._message, own)))
        shown = Preview(filled(_text(self._message), (own and own.body) or ()))
        if self._fallback is None:
            return Sample(masked(name), shown)
        return Sample(masked(name), shown, self._preview(fallback_with_own_values(self._fallback, own)))

    def _preview(self, template: Template) -> Preview:
        if self._meta is not None:
            return preview(template, self._meta)
        given = ", ".join(f"{place}: {text}" for place, text in texts(template))
        return Preview(f"[template {template.name} in {template.language}{'; ' + given if given else ''}]")


def _given_empty(template: Template | None) -> tuple[str, ...]:
    empty = [] if template is None else empty_values(template)
    return (f"is given an empty value for {', '.join(empty)}",) if empty else ()


def _text(message: Content) -> str:
    return getattr(message, "body", None) or ""
