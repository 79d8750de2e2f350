"""Campaigns of random shape, the same in every run, and what must become of each of their recipients."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import TYPE_CHECKING, Any, Final

from support.whatsapp_stage import phone, template
from wch_common.events.broadcast import CampaignRecipient, CampaignRequested, RecipientsRequested
from wch_common.events.whatsapp_content import Parameter, Template, Text

if TYPE_CHECKING:
    from collections.abc import Iterator

PEOPLE: Final = 400
SENT: Final = "accepted"
MISSING: Final = "failed/value_missing"
MALFORMED, DUPLICATE = "skipped/malformed_number", "skipped/duplicate_number"
TEMPLATES: Final = [template("hello"), template("plain", {"type": "BODY", "text": "Hi"})]
BROKEN: Final = "failed/template_missing"
_ERRORS: Final = {131026: "undeliverable", 130472: "marketing_experiment", 130403: "blocked"}


@dataclass(frozen=True)
class Somebody:
    """A person who may be in many campaigns: how Meta answers, whether they opted out, and whether they wrote lately."""

    number: int
    error: int | None
    suppressed: bool
    window: bool

    @property
    def outcome(self) -> str | None:
        """What becomes of every message to them, or None if that depends on the message."""
        if self.suppressed:
            return "skipped/suppressed"
        return f"failed/{_ERRORS[self.error]}" if self.error else None


def people(random: Random) -> list[Somebody]:
    """Return the people of all campaigns."""
    return [
        Somebody(
            number,
            random.choice(list(_ERRORS)) if random.random() < 0.1 else None,
            suppressed=random.random() < 0.08,
            window=random.random() < 0.5,
        )
        for number in range(PEOPLE)
    ]


@dataclass
class Shape:
    """A campaign with the outcome of each of its recipients, in their order."""

    name: str
    message: Template | Text
    fallback: Template | None
    recipients: list[CampaignRecipient] = field(default_factory=list)
    outcomes: list[str] = field(default_factory=list)
    broken: bool = False
    """Meta does not have the template until somebody adds it."""
    has_duplicate: bool = False
    """The first recipient is listed twice; which of the two counts depends on the order of the list's parts."""
    stopped: bool = False
    control: str = ""
    """What an operator does to it meanwhile: pause or cancel."""
    options: dict[str, Any] = field(default_factory=dict)

    def allowed(self, place: int) -> frozenset[str]:
        """Return what may become of a recipient."""
        expected = self.outcomes[place]
        if expected == MALFORMED:
            return frozenset({MALFORMED})
        duplicate = {DUPLICATE} if self.has_duplicate and self.recipients[place] == self.recipients[0] else set()
        if self.stopped:
            return frozenset({"skipped/stopped", *duplicate})
        # Meta's answer may have been lost, whatever it was, and a cancellation may come before or after the failure of a template.
        lost = set() if expected.startswith("skipped/") or expected == MISSING else {"unknown"}
        cancelled = (
            {"cancelled", *({BROKEN} if self.broken and expected == SENT else ())}
            if self.control == "cancel"
            else set()
        )
        return frozenset({expected, *duplicate, *lost, *cancelled})

    def events(self, random: Random) -> Iterator[CampaignRequested | RecipientsRequested]:
        """Yield the requests: with its recipients, or with a list in one part or several, before or after the campaign."""
        request: dict[str, Any] = {"campaign_id": self.name, "message": self.message, "category": "marketing"}
        request |= {"fallback": self.fallback, "exclusive": False, **self.options}
        if self.options.get("list_id") is None:
            yield CampaignRequested(**request, recipients=tuple(self.recipients))
            return
        cut = self._parts(random)
        parts = [
            RecipientsRequested(list_id=self.name, part=number, parts=len(cut), recipients=tuple(some))
            for number, some in enumerate(cut, start=1)
        ]
        together: list[CampaignRequested | RecipientsRequested] = [CampaignRequested(**request), *parts]
        random.shuffle(together)
        yield from together

    def _parts(self, random: Random) -> list[list[CampaignRecipient]]:
        cut = random.randint(0, len(self.recipients))
        return [self.recipients] if cut in (0, len(self.recipients)) else [self.recipients[:cut], self.recipients[cut:]]


def shape(random: Random, number: int, everyone: list[Somebody]) -> Shape:
    """Return a campaign of random size, message, values, pace and fate."""
    name, kind = (
        f"campaign-{number:04d}",
        random.choice(["values", "own_values", "plain", "text", "fallback", "broken"]),
    )
    hello = Template(name="hello", language="en_US", body=(Parameter(text="you"),))
    found = Shape(name, hello, None)
    if kind == "own_values":
        found.message = hello.model_copy(update={"body": ()})
    elif kind == "plain":
        found.message = Template(name="plain", language="en_US")
    elif kind == "broken":
        found.message = hello.model_copy(update={"name": f"added_later_{number}"})
        found.broken = True
    elif kind in ("text", "fallback"):
        found.message = Text(kind="text", body="Dear {{1}}")
        found.fallback = hello if kind == "fallback" else None
    for person in random.sample(everyone, random.choice([0, 1, *range(2, 30)])):
        _add(random, found, kind, person)
    _add_useless(random, found)
    found.stopped = random.random() < 0.05
    found.control = random.choice(["pause", "cancel"]) if random.random() < 0.2 else ""
    found.options = {
        "batch_size": random.choice([1, 2, 3, 7, 50]),
        "pause_seconds": random.choice([0, 0, 0.01, 0.1]),
        "stop_at": datetime.now(UTC) - timedelta(hours=1) if found.stopped else None,
        "list_id": name if random.random() < 0.5 else None,
    }
    return found


def _add(random: Random, found: Shape, kind: str, person: Somebody) -> None:
    """Add a person, sometimes with values that Meta or the service refuses, and note what becomes of them."""
    own, outcome = _own_values(random, found, kind, person)
    body = None if own is None else tuple(Parameter(text=text) for text in own)
    found.recipients.append(CampaignRecipient(to=phone(person.number), body=body))
    found.outcomes.append(outcome)


def _own_values(random: Random, found: Shape, kind: str, person: Somebody) -> tuple[list[str] | None, str]:
    sent, chance = person.outcome or "accepted", random.random()
    text = f"{found.name} {person.number}"
    if kind in ("text", "fallback"):
        if chance < 0.1:
            return None, MISSING
        if kind == "text" and not person.window and person.outcome != "skipped/suppressed":
            return [text], "skipped/window_closed"
        return [text], sent
    if kind in ("plain", "broken"):
        return None, sent
    if chance < 0.1:
        return ["  \n"], MISSING
    if chance < 0.2:
        return [text, "too many"], person.outcome or "failed/template_values_wrong"
    if kind == "own_values":
        # Only while most of the list has values: then a recipient without them is a gap, and does not stop the campaign.
        gaps = sum(one == MISSING for one in found.outcomes) + 1
        is_gap = chance < 0.4 and 2 * gaps < len(found.outcomes) + 1
        return (None, MISSING) if is_gap else ([text], sent)
    return (None, sent) if chance < 0.6 else ([text], sent)


def _add_useless(random: Random, found: Shape) -> None:
    """Add a malformed number and a duplicate at the end, sometimes."""
    if found.recipients and random.random() < 0.3:
        found.recipients.append(found.recipients[0])
        found.outcomes.append(found.outcomes[0])
        found.has_duplicate = True
    if random.random() < 0.3:
        found.recipients.append(CampaignRecipient(to="nobody"))
        found.outcomes.append(MALFORMED)
