"""What an event is: typed, frozen data in a CloudEvents envelope, and the rule for naming types."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, PlainValidator, StringConstraints

REQUESTS_EXCHANGE = "wch.requests"
FACTS_EXCHANGE = "wch.facts"

ASKER_PATTERN = re.compile(r"^[a-z][a-z0-9_-]{0,62}$")
TYPE_PATTERN = re.compile(r"^(?P<name>[a-z][a-z0-9]*(?:\.[a-z][a-z0-9_]*){2})\.v(?P<version>[1-9][0-9]*)$")
# Past participles that do not end in -ed; `unknown`, the honest outcome of a send whose answer was lost; `too_late`.
_IRREGULAR_FACTS = frozenset({"sent", "read", "unknown", "found", "lost", "begun", "withdrawn", "late"})
_DERIVED_IDS = uuid.UUID("5f0c86e1-8f0c-5e55-9d5c-6b6f0b1c7a10")


class Part(BaseModel):
    """A piece of events' data: frozen, strict; unknown fields are ignored on read."""

    # JSON has no number for infinity, and a library would write it as null.
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)


class EventData(Part):
    """The data of one event type, with ids rather than objects."""

    TYPE: ClassVar[str]
    EXCHANGE: ClassVar[str]
    SIGNED: ClassVar[bool] = False
    """Whether it is published under the name of the AMQP user, whom the broker checks."""

    def subject(self) -> str | None:
        """What the event is about (`product/123`); never holds a phone number."""
        return None


class Request(EventData):
    """Asks exactly one service for work; its type ends in `requested`."""

    EXCHANGE = REQUESTS_EXCHANGE


class Fact(EventData):
    """Tells what happened, in the past tense; anyone may follow it, nobody is fine."""

    EXCHANGE = FACTS_EXCHANGE


def moment(value: object) -> datetime:
    """Return a time that was read, with its offset; raises ValueError for what is none."""
    read = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    if read.tzinfo is None:
        raise ValueError("it has no offset")
    return read


# As they are read; whoever makes an event by hand is checked when it is published.
Text = Annotated[str, StringConstraints(strict=True)]
NotEmpty = Annotated[str, StringConstraints(strict=True, min_length=1)]
Asker = Annotated[str, StringConstraints(strict=True, pattern=ASKER_PATTERN.pattern)]
Moment = Annotated[datetime, PlainValidator(moment)]

D = TypeVar("D", bound=EventData)
D_co = TypeVar("D_co", bound=EventData, covariant=True)


@dataclass(frozen=True, slots=True)
class Event(Generic[D_co]):
    """One CloudEvents 1.0 event: the envelope's attributes and its typed data.

    The last five describe this delivery and are not sent: its `queue`, its `attempt` (from 1), how often a person
    replayed it, its data as canonical JSON (sorted keys, unknown fields kept), which the inbox hashes, and the AMQP `user`
    who published it, where they signed it and the broker has checked that.
    """

    id: NotEmpty
    source: NotEmpty
    type: NotEmpty
    data: D_co
    time: Moment | None = None
    subject: Text | None = None
    shop: Text | None = None
    asker: Asker | None = None
    correlationid: Text | None = None
    causationid: Text | None = None
    traceparent: Text | None = None
    expirytime: Moment | None = None
    queue: str = ""
    attempt: int = 1
    replay: int = 0
    canonical: bytes = field(default=b"", repr=False, compare=False)
    user: str | None = None

    @property
    def exchange(self) -> str:
        """The exchange an event of this kind is published to."""
        return self.data.EXCHANGE

    @property
    def routing_key(self) -> str:
        """The type, followed for facts by who asked, so that each asker is sent only its own answers."""
        if self.asker and self.exchange == FACTS_EXCHANGE:
            return f"{self.type}.{self.asker}"
        return self.type

    def derive(self, data: D, source: str, *, key: str = "", asker: str | None = None) -> Event[D]:
        """Return the event that handling this one causes, with the same id however often it is handled.

        `key` tells several events of one type apart (a business key, never an ordinal); a replay gives new ids. `asker` is
        who asks for it, or is answered by it: the asker of this one unless given; empty for nobody.
        """
        name = "\n".join((self.source, self.id, self.queue, data.TYPE, key, str(self.replay or "")))
        return Event(
            id=str(uuid.uuid5(_DERIVED_IDS, name)),
            source=source,
            type=data.TYPE,
            data=data,
            time=datetime.now(UTC),
            subject=data.subject(),
            shop=self.shop,
            asker=self.asker if asker is None else asker or None,
            correlationid=self.correlationid or self.id,
            causationid=self.id,
            traceparent=self.traceparent,
        )

    def with_shop(self, shop: str | None) -> Event[D_co]:
        """Return the same event for another shop."""
        return replace(self, shop=shop)


DELIVERY_FIELDS = frozenset({"queue", "attempt", "replay", "canonical", "user"})


_write = object.__setattr__


def complete(
    event: Event[Any], data: EventData, canonical: bytes, *, queue: str, attempt: int, replay: int, user: str | None
) -> None:
    """Write into an event that was just read what its envelope does not say; a changed copy would cost 4 µs more."""
    _write(event, "data", data)
    _write(event, "canonical", canonical)
    _write(event, "queue", queue)
    _write(event, "attempt", attempt)
    _write(event, "replay", replay)
    _write(event, "user", user)


def new_event(  # noqa: PLR0913 - the envelope's attributes, each by name
    data: D,
    source: str,
    *,
    id: str | None = None,  # noqa: A002 - the attribute's name in CloudEvents
    shop: str | None = None,
    asker: str | None = None,
    correlationid: str | None = None,
    traceparent: str | None = None,
    expirytime: datetime | None = None,
) -> Event[D]:
    """Return an event that nothing caused, with a random id unless one is given."""
    return Event(
        id=str(uuid.uuid4()) if id is None else id,
        source=source,
        type=data.TYPE,
        data=data,
        time=datetime.now(UTC),
        subject=data.subject(),
        shop=shop,
        asker=asker,
        correlationid=correlationid,
        traceparent=traceparent,
        expirytime=expirytime,
    )


def naming_problem(model: type[EventData]) -> str | None:
    """Return why the model's type breaks the naming rule, or None."""
    match = TYPE_PATTERN.match(model.TYPE)
    if match is None:
        return "a type is family.thing.verb.vN in lower case, like sync.product.requested.v1"
    verb = match["name"].rsplit(".", 1)[1].rsplit("_", 1)[-1]
    if issubclass(model, Request):
        return None if verb == "requested" else "the type of a request ends in 'requested'"
    if not issubclass(model, Fact):
        return "an event is a Request or a Fact"
    if verb == "requested":
        return "a type that ends in 'requested' is a Request"
    past = verb.endswith("ed") or verb in _IRREGULAR_FACTS
    return None if past else "the type of a fact is in the past tense"
