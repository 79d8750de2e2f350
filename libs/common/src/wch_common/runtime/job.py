"""What a family gives the runtime: a queue, and how its events are processed."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from wch_common.contract.event import Event, EventData

if TYPE_CHECKING:
    from wch_common.broker.topology import WorkQueue
    from wch_common.store.store import Store

Handler: TypeAlias = Callable[[Any], Awaitable[None]]
BatchResult: TypeAlias = "Exception | None"
"""What a batch handler returns for one event: None for done, or the outcome it would have raised."""
BatchHandler: TypeAlias = Callable[[Sequence[Any]], Awaitable[Sequence[BatchResult]]]
OnDeadLetter: TypeAlias = Callable[[Event[Any], str], EventData | None]
"""Called with an event that is being dead-lettered and the reason; returns the fact to publish about it, or None."""
PausedBy: TypeAlias = Callable[[], str | None]
"""Returns why no more events should be taken for now, or None; called about once a second."""


@dataclass(frozen=True)
class OneEvent:
    """Processes events one by one, each by the handler of its type; `blocking` handlers run in threads."""

    handlers: Mapping[str, Handler]
    blocking: bool = False


@dataclass(frozen=True)
class Batch:
    """Processes many events in one call, which returns a result for each, in order."""

    handler: BatchHandler


@dataclass(frozen=True)
class SharedTransaction:
    """Processes up to `limit` waiting events in one transaction, all or none; otherwise each in a transaction of its own."""

    own: OneEvent
    shared: Callable[[Sequence[Any]], Awaitable[None]]
    limit: int


Processor: TypeAlias = OneEvent | Batch | SharedTransaction


@dataclass(frozen=True)
class Job:
    """A queue and its processor; build it with one of the constructors."""

    queue: WorkQueue
    processor: Processor
    on_dead_letter: OnDeadLetter | None = None
    paused_by: PausedBy | None = None

    @classmethod
    def with_handlers(
        cls,
        queue: WorkQueue,
        handlers: Mapping[type[EventData], Callable[..., Any]],
        *,
        on_dead_letter: OnDeadLetter | None = None,
    ) -> Job:
        """Handle events one by one with `handler(event)`; plain functions run in threads.

        For families without tables, and for calls that may be repeated without harm.
        """
        blocking = [not inspect.iscoroutinefunction(_unwrapped(handler)) for handler in handlers.values()]
        if any(blocking) and not all(blocking):
            raise ValueError(f"{queue.name}: the handlers of a queue must be all `async def` or all plain functions")
        run = {model.TYPE: partial(asyncio.to_thread, fn) if any(blocking) else fn for model, fn in handlers.items()}
        return cls(_checked(queue, handlers), OneEvent(run, blocking=any(blocking)), on_dead_letter)

    @classmethod
    def in_transaction(
        cls,
        queue: WorkQueue,
        handlers: Mapping[type[EventData], Callable[..., Awaitable[None]]],
        store: Store,
        *,
        on_dead_letter: OnDeadLetter | None = None,
        paused_by: PausedBy | None = None,
        share_limit: int = 1,
        beside: Mapping[type[EventData], Handler] | None = None,
    ) -> Job:
        """Handle events one by one with `handler(event, tx)`, inside a transaction.

        The inbox row, the domain change and the outbox rows commit together, so the effect happens once; the handler
        must not call an outside system. With `share_limit` above 1, up to so many first attempts that wait at the same
        time share a transaction, ordered by subject; if one fails, each is handled in a transaction of its own. Use it
        for handlers that are quick and lock few rows. The handlers of `beside` are called with the event alone: they need
        several transactions, the last of which runs under `store.handle`.
        """
        by_type, several = {model.TYPE: fn for model, fn in handlers.items()}, beside or {}
        own = OneEvent(
            {type_: partial(store.handle, fn) for type_, fn in by_type.items()}
            | {model.TYPE: fn for model, fn in several.items()}
        )
        processor: Processor = own
        if share_limit > 1:
            if several:
                raise ValueError(f"{queue.name}: handlers with several transactions cannot share one")
            processor = SharedTransaction(own, partial(store.handle_shared, by_type), share_limit)
        return cls(_checked(queue, {**handlers, **several}), processor, on_dead_letter, paused_by)

    @classmethod
    def with_batch_handler(
        cls, queue: WorkQueue, handler: BatchHandler, *, on_dead_letter: OnDeadLetter | None = None
    ) -> Job:
        """Handle many events at once with `handler(events)`, which returns a result for each, in order."""
        if queue.policy.batching is None:
            raise ValueError(f"{queue.name}: a batch handler needs a queue policy with `batching` (size and window)")
        return cls(queue, Batch(handler), on_dead_letter)


def _unwrapped(handler: Callable[..., Any]) -> Callable[..., Any]:
    return handler.func if isinstance(handler, partial) else handler


def _checked(queue: WorkQueue, handlers: Mapping[type[EventData], object]) -> WorkQueue:
    expected, given = {model.TYPE for model in queue.models}, {model.TYPE for model in handlers}
    if missing := expected - given:
        raise ValueError(f"{queue.name}: no handler for {', '.join(sorted(missing))}")
    if surplus := given - expected:
        raise ValueError(f"{queue.name} does not carry {', '.join(sorted(surplus))}; another queue may")
    return queue
