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
Joint: TypeAlias = Callable[[Sequence[Any]], Awaitable[None]]


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
    joint: Joint | None = None
    """Handles several events in one transaction: all, or none where it raises."""
    most_joint: int = 1

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
        commit_together: int = 1,
    ) -> Job:
        """Handle events one by one inside a transaction: `handler(event, tx)`.

        Inbox row, domain change and outbox rows commit together, so the effect happens once; no outside call belongs in it.
        With `commit_together` up to so many first tries that wait at the same moment share a transaction, one after the
        other by subject; where one fails, each is handled by itself. For handlers that are quick and lock few rows.
        """
        by_type = {model.TYPE: fn for model, fn in handlers.items()}
        run = {type_: partial(store.handle, fn) for type_, fn in by_type.items()}
        joint = partial(store.handle_together, by_type) if commit_together > 1 else None
        return cls(
            _checked(queue, handlers),
            run,
            given_up=given_up,
            held_back=held_back,
            joint=joint,
            most_joint=commit_together,
        )

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
