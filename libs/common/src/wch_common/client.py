"""Publishes events from any synchronous program.

client = Client("amqp://shop:…@broker/wch", source="/shop/admin")
client.publish(ProductRequested(product_id=17))
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

from pydantic import ValidationError

from wch_common.broker.blocking.publisher import ConfirmedPublisher
from wch_common.contract.envelope import data_errors, data_problems, encode, envelope_problems
from wch_common.contract.event import REQUESTER_PATTERN, Event, EventData, new_event
from wch_common.contract.message import Publication
from wch_common.errors import FieldError, InvalidData, PublishError, WchError
from wch_common.events.scheduler import TimedEvent, TimerCancelRequested, TimerRequested

if TYPE_CHECKING:
    from collections.abc import Iterable


class PublishFailed(PublishError):
    """Some events of a call are not known to be safe: `failures` holds each with its error; the others are safe."""

    def __init__(self, failures: list[tuple[Event[EventData], PublishError]], total: int) -> None:
        event, error = failures[0]
        super().__init__(
            f"{len(failures)} of {total} events are not known to be published; the first is {event.type} {event.id}: {error}"
        )
        self.failures = failures


class InvalidAttributes(WchError):
    """Every consumer would refuse the event's envelope; `fields` names each wrong attribute."""

    def __init__(self, fields: list[FieldError]) -> None:
        super().__init__("the event cannot be published: " + "; ".join(map(str, fields)))
        self.fields = fields


class Client:
    """Publishes events with confirms: thread-safe and reconnecting; a call returns once the broker has the events.

    `source` names the publishing program (`/shop/admin`); `shop` and `requester` are added to events that have none.
    """

    def __init__(
        self,
        url: str,
        source: str,
        *,
        shop: str | None = None,
        requester: str | None = None,
        confirm_timeout_seconds: float = 30,
    ) -> None:
        if not source:
            raise ValueError("source must name the publishing program, like /shop/admin")
        if requester is not None and not REQUESTER_PATTERN.match(requester):
            raise ValueError("requester must match [a-z][a-z0-9_-]*, as it becomes part of the routing key")
        self._source = source
        self._shop = shop
        self._requester = requester
        self._publisher = ConfirmedPublisher(
            url, f"publisher {source}", confirm_timeout_seconds=confirm_timeout_seconds
        )

    def publish(self, event: EventData | Event[Any], **attributes: Any) -> str:  # noqa: ANN401 - those of new_event
        """Publish one event and return its id; `attributes` are those of the envelope (id, shop, correlationid, …).

        Raises what `event` raises, and Unroutable, Refused or Unconfirmed; after Unconfirmed, publish again with the same id.
        """
        made = self.event(event, **attributes)
        (error,) = self._publisher.publish([encode(made)])
        if error is not None:
            raise error
        return made.id

    def publish_many(self, events: Iterable[EventData | Event[Any]]) -> list[str]:
        """Publish many events with their confirms outstanding together, and return their ids; raises PublishFailed."""
        made = [self.event(event) for event in events]
        answers = self._publisher.publish(_Encoded(made))
        failures = [(event, error) for event, error in zip(made, answers, strict=True) if error is not None]
        if failures:
            raise PublishFailed(failures, len(made))
        return [event.id for event in made]

    def schedule(
        self,
        event: EventData,
        *,
        key: str,
        at: datetime | None = None,
        after: timedelta | None = None,
        group: str = "",
        shop: str | None = None,
    ) -> str:
        """Have a request published once, at a time or after a time by this machine's clock; the same key replaces it.

        Timers of a `group` can be cancelled together. The AMQP user needs permission (WCH_SCHEDULER_REQUESTERS). Returns the
        id of the request for the timer; the answer is a fact, `scheduler.timer.accepted.v1.<user>` or `…refused.v1.<user>`.
        Raises what `publish` raises, and InvalidData for a time without an offset or an empty key.
        """
        if (at is None) == (after is None):
            raise ValueError("give exactly one of at and after")
        due = at if at is not None else datetime.now(UTC) + (after or timedelta())
        with _naming_fields(TimerRequested):
            timed = TimedEvent(type=event.TYPE, data=event.model_dump(mode="json"), shop=shop or self._shop)
            wanted = TimerRequested(key=key, due=due, event=timed, group=group)
        return self.publish(wanted)

    def cancel(self, *, key: str | None = None, group: str | None = None) -> str:
        """Request the cancellation of the timer with a key, or of all timers of a group; returns the id of this request.

        The answer is a fact, `scheduler.timer.cancelled.v1.<user>`. Raises what `schedule` raises.
        """
        with _naming_fields(TimerCancelRequested):
            wanted = TimerCancelRequested(key=key, group=group)
        return self.publish(wanted)

    def event(self, event: EventData | Event[Any], **attributes: Any) -> Event[Any]:  # noqa: ANN401 - those of new_event
        """Return the event as it would be published.

        If every consumer would refuse it, raises InvalidAttributes for its envelope, and InvalidData for its data.
        """
        if not isinstance(event, Event):
            attributes.setdefault("shop", self._shop)
            attributes.setdefault("requester", self._requester)
            event = new_event(event, self._source, **attributes)
        if wrong := envelope_problems(event):
            raise InvalidAttributes(wrong)
        if wrong := data_problems(event):
            raise _invalid(event.data, wrong)
        return event

    def close(self) -> None:
        """Close the connection."""
        self._publisher.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def _naming_fields(model: type[EventData]) -> Iterator[None]:
    """Raise InvalidData, which names the wrong fields, if a request cannot be built."""
    try:
        yield
    except ValidationError as error:
        raise _invalid(model, data_errors(error)) from None


def _invalid(data: EventData | type[EventData], wrong: list[FieldError]) -> InvalidData:
    return InvalidData(f"{data.TYPE} is invalid: {'; '.join(map(str, wrong))}", wrong)


class _Encoded(Sequence[Publication]):
    """Events, each encoded when it is sent, while the broker works on those before it."""

    def __init__(self, events: Sequence[Event[Any]]) -> None:
        self._events = events

    def __len__(self) -> int:
        return len(self._events)

    def __getitem__(self, place: Any) -> Any:  # noqa: ANN401 - never sliced
        return encode(self._events[place])
