"""How long a message has been in a dead-letter queue, as far as it says, and when that is long enough to warn."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from wch_common.broker.headers import LAST_FAILED
from wch_common.contract.envelope import peek

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wch_common.contract.message import Message

DAY_SECONDS: Final = 86_400.0
_WARNED_SHARE = 2 / 3
# Clocks differ by less; a time further ahead is a mistake, with which a message would never grow old.
_AHEAD = timedelta(days=1)


def is_old(age_seconds: float, days: float) -> bool:
    """Whether a dead letter of this age is to be removed."""
    return age_seconds > days * DAY_SECONDS


def is_soon_old(age_seconds: float, days: float) -> bool:
    """Whether two thirds of the time until a dead letter's removal have passed."""
    return age_seconds >= days * DAY_SECONDS * _WARNED_SHARE


def age_seconds(message: Message, published: object) -> float | None:
    """Return for how long a message has been a dead letter; None if it says nothing about it.

    It counts from what the service or the broker noted, otherwise from what its publisher says: the property `timestamp`,
    given as `published`, and the event's `time`. The latest time counts, so that none is taken for older than it is.
    """
    now = datetime.now(UTC)
    latest = _latest(_noted(message), now) or _latest(_claimed(message, published), now)
    return None if latest is None else max(0.0, (now - latest).total_seconds())


def _noted(message: Message) -> Iterator[object]:
    yield message.headers.get(LAST_FAILED)
    deaths = message.headers.get("x-death")
    for death in deaths if isinstance(deaths, list) else ():
        if isinstance(death, dict):
            yield death.get("time")


def _claimed(message: Message, published: object) -> Iterator[object]:
    yield published
    event = peek(message)
    if event is not None:
        yield event.time


def _latest(values: Iterator[object], now: datetime) -> datetime | None:
    known = (_time(value) for value in values)
    return max((time for time in known if time is not None and time <= now + _AHEAD), default=None)


def _time(value: object) -> datetime | None:
    try:
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        elif isinstance(value, int):
            value = datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    if not isinstance(value, datetime):
        return None
    # py-amqp reads timestamps, which AMQP counts in UTC, without an offset.
    return value if value.tzinfo else value.replace(tzinfo=UTC)
