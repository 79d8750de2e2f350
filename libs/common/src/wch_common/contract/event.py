"""Events: typed, frozen data in a CloudEvents envelope, and the naming rule for types."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Generic, TypeVar

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainValidator,
    StringConstraints,
    ValidationInfo,
)

REQUESTS_EXCHANGE = "wch.requests"
FACTS_EXCHANGE = "wch.facts"

REQUESTER_PATTERN = re.compile(r"^[a-z][a-z0-9_-]{0,62}$")
TYPE_PATTERN = re.compile(r"^(?P<name>[a-z][a-z0-9]*(?:\.[a-z][a-z0-9_]*){2})\.v(?P<version>[1-9][0-9]*)$")
# Past participles that do not end in -ed; `unknown`, the honest outcome of a send whose answer was lost; `too_late`.
_IRREGULAR_FACTS = frozenset({"sent", "read", "unknown", "found", "lost", "begun", "withdrawn", "late"})
_DERIVED_IDS = uuid.UUID("5f0c86e1-8f0c-5e55-9d5c-6b6f0b1c7a10")


class Part(BaseModel):
    """A part of an event's data: frozen and strict; unknown fields are ignored on read."""

    # JSON has no infinity; a library would write it as null.
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)


class EventData(Part):
    """The data of one event type, with ids rather than objects."""

    TYPE: ClassVar[str]
    EXCHANGE: ClassVar[str]
    SIGNED: ClassVar[bool] = False
    """Whether it is published in the name of the AMQP user, which the broker checks."""

    def subject(self) -> str | None:
        """What the event is about (`product/123`); never contains a phone number."""
        return None


class Request(EventData):
    """Asks exactly one service for work; its type ends in `requested`."""

    EXCHANGE = REQUESTS_EXCHANGE


class Fact(EventData):
    """States what happened, in the past tense; any number of services may follow it, including none."""

    EXCHANGE = FACTS_EXCHANGE


_RFC3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:?[0-9]{2})"
)


def timestamp(value: object) -> datetime:
    """Return a time that was read, with its offset from UTC; raises ValueError if it is not one."""
    # RFC 3339 allows a lower-case z, which Python does not read.
    read = value if isinstance(value, datetime) else datetime.fromisoformat(str(value).replace("z", "Z"))
    if read.tzinfo is None:
        raise ValueError("it has no offset from UTC")
    return read


def _read(value: object, info: ValidationInfo) -> object:
    """Read a time of JSON as RFC 3339 writes it; pydantic and Python read further forms, digits and week dates among them."""
    if info.mode != "json" or not isinstance(value, str):
        return value
    try:
        if _RFC3339.fullmatch(value) is not None:
            return timestamp(value)
    except ValueError:
        pass
    raise ValueError("must be a time with its offset from UTC, like 2030-01-31T09:00:00+01:00")


Time = Annotated[AwareDatetime, BeforeValidator(_read)]
"""A time with its offset from UTC."""

# As they are read; an event built by hand is checked when it is published.
Text = Annotated[str, StringConstraints(strict=True)]
NotEmpty = Annotated[str, StringConstraints(strict=True, min_length=1)]
Requester = Annotated[str, StringConstraints(strict=True, pattern=REQUESTER_PATTERN.pattern)]
Timestamp = Annotated[datetime, PlainValidator(timestamp)]

D = TypeVar("D", bound=EventData)
D_co = TypeVar("D_co", bound=EventData, covariant=True)


@dataclass(frozen=True, slots=True)
class Event(Generic[D_co]):
    """One CloudEvents 1.0 event: the envelope's attributes and its typed data.

    The last six describe this delivery and are not sent: its `queue`, its `attempt` (from 1), how often a person
    replayed it, its data as canonical JSON (sorted keys, unknown fields kept), which the inbox hashes, and the AMQP
    `user` who published it, if it is signed and the broker has checked that, and whether erased people were `left_out` of its data.
    """

    id: NotEmpty
    source: NotEmpty
    type: NotEmpty
    data: D_co
    time: Timestamp | None = None
    subject: Text | None = None
    shop: Text | None = None
    requester: Requester | None = None
    correlationid: Text | None = None
    causationid: Text | None = None
    traceparent: Text | None = None
    expirytime: Timestamp | None = None
    queue: str = ""
    attempt: int = 1
    replay: int = 0
    canonical: bytes = field(default=b"", repr=False, compare=False)
    user: str | None = None
    left_out: bool = False

    @property
    def exchange(self) -> str:
        """The exchange an event of this kind is published to."""
        return self.data.EXCHANGE

    @property
    def routing_key(self) -> str:
        """The type; for facts followed by the requester, so that each requester receives only its own answers."""
        if self.requester and self.exchange == FACTS_EXCHANGE:
            return f"{self.type}.{self.requester}"
        return self.type

    def derive(self, data: D, source: str, *, key: str = "", requester: str | None = None) -> Event[D]:
        """Return the event that handling this one causes, with the same id however often it is handled.

        `key` distinguishes several events of one type (a business key, never an ordinal); a replay gives new ids.
        `requester` is who requests it or is answered by it: the requester of this event unless given, empty for none.
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
            requester=self.requester if requester is None else requester or None,
            correlationid=self.correlationid or self.id,
            causationid=self.id,
            traceparent=self.traceparent,
        )


DELIVERY_FIELDS = frozenset({"queue", "attempt", "replay", "canonical", "user", "left_out"})


_write = object.__setattr__


def complete(
    event: Event[Any], data: EventData, canonical: bytes, *, queue: str, attempt: int, replay: int, user: str | None
) -> None:
    """Set what the envelope of a decoded event does not contain; a changed copy would cost 4 µs more."""
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
    requester: str | None = None,
    correlationid: str | None = None,
    traceparent: str | None = None,
    expirytime: datetime | None = None,
) -> Event[D]:
    """Return an event that no other event caused, with a random id unless one is given."""
    return Event(
        id=str(uuid.uuid4()) if id is None else id,
        source=source,
        type=data.TYPE,
        data=data,
        time=datetime.now(UTC),
        subject=data.subject(),
        shop=shop,
        requester=requester,
        correlationid=correlationid,
        traceparent=traceparent,
        expirytime=expirytime,
    )


def naming_problem(model: type[EventData]) -> str | None:
    """Return how the model's type breaks the naming rule, or None."""
    match = TYPE_PATTERN.match(model.TYPE)
    if match is None:
        return "a type has the form family.thing.verb.vN in lower case, like sync.product.requested.v1"
    verb = match["name"].rsplit(".", 1)[1].rsplit("_", 1)[-1]
    if issubclass(model, Request):
        return None if verb == "requested" else "the type of a request must end in 'requested'"
    if not issubclass(model, Fact):
        return "an event must be a Request or a Fact"
    if verb == "requested":
        return "an event whose type ends in 'requested' must be a Request"
    past = verb.endswith("ed") or verb in _IRREGULAR_FACTS
    return None if past else "the type of a fact must be in the past tense"
