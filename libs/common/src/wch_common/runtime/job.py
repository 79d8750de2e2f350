"""What a family hands to the runtime: a queue and the handlers of its events."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from wch_common.errors import DuplicateRegistration
from wch_common.event import Event, EventData

if TYPE_CHECKING:
    from wch_common.store.store import Store
    from wch_common.topology import WorkQueue

Each: TypeAlias = Callable[[Any], Awaitable[None]]
Answer: TypeAlias = "Exception | None"
"""What a batch handler says of one event: None for done, or the outcome it would have raised."""
Together: TypeAlias = Callable[[Sequence[Any]], Awaitable[Sequence[Answer]]]
GivenUp: TypeAlias = Callable[[Event[Any], str], EventData | None]
HeldBack: TypeAlias = Callable[[], str | None]


@dataclass(frozen=True)
class Job:
    """One queue and what is done with its events; build it with one of the constructors."""

    queue: WorkQueue
    each: Mapping[str, Each]
    together: Together | None = None
    given_up: GivenUp | None = None
    """Called with an event that is being dead-lettered and the reason; returns the fact that tells so, or None."""
    blocking: bool = False
    source: str = "/wch"
    held_back: HeldBack | None = None
    """Returns why no more events should be taken for now, or None; asked about once a second."""

    @classmethod
    def for_each(
        cls,
        queue: WorkQueue,
        handlers: Mapping[type[EventData], Callable[..., Any]],
        *,
        given_up: GivenUp | None = None,
    ) -> Job:
        """Handle events one by one: `handler(event)`; plain functions run in threads.

        For calls that may be repeated harmlessly, and for families without tables.
        """
        blocking = [not inspect.iscoroutinefunction(_unwrapped(handler)) for handler in handlers.values()]
        if any(blocking) and not all(blocking):
            raise ValueError(f"{queue.name}: the handlers of one queue are all `async def` or all plain functions")
        run = {model.TYPE: partial(asyncio.to_thread, fn) if any(blocking) else fn for model, fn in handlers.items()}
        return cls(_checked(queue, handlers), run, given_up=given_up, blocking=any(blocking))

    @classmethod
    def in_transaction(
        cls,
        queue: WorkQueue,
        handlers: Mapping[type[EventData], Callable[..., Awaitable[None]]],
        store: Store,
        *,
        given_up: GivenUp | None = None,
        held_back: HeldBack | None = None,
    ) -> Job:
        """Handle events one by one inside a transaction: `handler(event, tx)`.

        Inbox row, domain change and outbox rows commit together, so the effect happens once; no outside call belongs in it.
        """
        run = {model.TYPE: partial(store.handle, fn) for model, fn in handlers.items()}
        return cls(_checked(queue, handlers), run, given_up=given_up, held_back=held_back)

    @classmethod
    def for_batch(cls, queue: WorkQueue, handler: Together, *, given_up: GivenUp | None = None) -> Job:
        """Handle many events at once: `handler(events)` answers for each, in order."""
        if queue.policy.batching is None:
            raise ValueError(f"{queue.name}: a batch handler needs a policy with batching (size and window)")
        return cls(queue, {}, together=handler, given_up=given_up)


def _unwrapped(handler: Callable[..., Any]) -> Callable[..., Any]:
    return handler.func if isinstance(handler, partial) else handler


def _checked(queue: WorkQueue, handlers: Mapping[type[EventData], object]) -> WorkQueue:
    expected, given = {model.TYPE for model in queue.models}, {model.TYPE for model in handlers}
    if missing := expected - given:
        raise ValueError(f"{queue.name}: no handler for {', '.join(sorted(missing))}")
    if surplus := given - expected:
        raise DuplicateRegistration(f"{queue.name} does not carry {', '.join(sorted(surplus))}; another queue may")
    return queue
