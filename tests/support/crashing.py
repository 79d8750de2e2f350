"""A service in its own process that is killed at a named step: `python crashing.py URL JOURNAL STEP [DATABASE]`.

The journal gets one line for each run of the handler: the thing's number and the attempt. With a database, the handler
runs in a transaction, writes its effect and emits a fact; a thing with the note `park` waits for its scope until the process
is restarted.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import signal
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

import wch_common.runtime.worker
from support.demo_events import ThingDone, ThingFailed, ThingRequested, thing_queue
from wch_common.broker.aio.publisher import Publisher
from wch_common.broker.aio.subscription import Delivery, Subscription
from wch_common.outcome import Reject, Throttled
from wch_common.runtime.job import Job
from wch_common.runtime.service import Platform, Service
from wch_common.runtime.settlement import Settlement
from wch_common.runtime.worker import EventWorker, Worker
from wch_common.settings import ServiceSettings
from wch_common.store.outbox import Outbox
from wch_common.store.parking import ParkingLot
from wch_common.store.store import Transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wch_common.contract.event import Event


def die(*_: object, **__: object) -> Any:
    """Kill this process."""
    os.kill(os.getpid(), signal.SIGKILL)


def dying_after(owner: type | ModuleType, name: str) -> None:
    """Kill this process after a coroutine method has finished."""
    original: Callable[..., Any] = getattr(owner, name)

    async def wrapped(*args: object, **kwargs: object) -> None:
        await original(*args, **kwargs)
        die()

    setattr(owner, name, wrapped)


STEPS: dict[str, Callable[[], None]] = {
    "never": lambda: None,
    "on delivery": lambda: setattr(Subscription, "_take", die),
    "before decoding": lambda: setattr(Worker, "_decode", die),
    "before the handler": lambda: setattr(EventWorker, "_handle", die),
    "after the handler": lambda: setattr(Worker, "_acknowledge", die),
    "before the ack is sent": lambda: setattr(Subscription, "_flush", die),
    "before the decision": lambda: setattr(Worker, "_decide", die),
    "before the retry is published": lambda: setattr(Settlement, "_pass_on", die),
    "after the retry is confirmed": lambda: dying_after(Settlement, "_pass_on"),
    "before the ack of the retried": lambda: setattr(Delivery, "ack", die),
    "before the dead letter is published": lambda: setattr(Settlement, "_pass_on", die),
    "after the dead letter is confirmed": lambda: dying_after(Settlement, "_pass_on"),
    "before the ack of the dead letter": lambda: setattr(Delivery, "ack", die),
}

STORE_STEPS: dict[str, Callable[[], None]] = {
    "before the inbox row": lambda: setattr(Transaction, "first_time", die),
    "after the inbox row": lambda: dying_after(Transaction, "first_time"),
    "before the outbox rows": lambda: setattr(Outbox, "add", die),
    "before the commit": lambda: dying_after(Outbox, "add"),
    "after the commit": lambda: setattr(Outbox, "relay", die),
    "before the ack, while the relay publishes": lambda: setattr(Worker, "_acknowledge", die),
    "before the relay publishes": lambda: setattr(Outbox, "_relay_one", die),
    "after the relay's confirm": lambda: dying_after(Outbox, "_relay_one"),
    "before the outbox row is deleted": lambda: setattr(Outbox, "delete_confirmed", die),
    "after the outbox row is deleted": lambda: dying_after(Outbox, "delete_confirmed"),
}
PARKING_STEPS: dict[str, Callable[[], None]] = {
    "before it is parked": lambda: setattr(ParkingLot, "park", die),
    "after it is parked": lambda: dying_after(ParkingLot, "park"),
    "before it is released": lambda: setattr(ParkingLot, "_release_one", die),
    "after its release is confirmed": lambda: dying_after(Publisher, "publish"),
    "after its row is deleted": lambda: dying_after(ParkingLot, "_release_one"),
}


def dying_with_many(owner: type, name: str) -> None:
    """Kill this process after a method that was called with several events."""
    original: Callable[..., Any] = getattr(owner, name)

    def wrapped(self: object, *args: Any) -> Any:
        given = original(self, *args)
        if len(args[-1]) > 1:
            die()
        return given

    async def waited(self: object, *args: Any) -> Any:
        given = await original(self, *args)
        if len(args[-1]) > 1:
            die()
        return given

    setattr(owner, name, waited if inspect.iscoroutinefunction(original) else wrapped)


def dying_at_the_second(owner: type, name: str) -> None:
    """Kill this process at the second call of a method."""
    original: Callable[..., Any] = getattr(owner, name)

    def first(*args: object) -> Any:
        setattr(owner, name, die)
        return original(*args)

    setattr(owner, name, first)


# Eight events wait behind the one in the only slot and share a transaction; the fourth is killed at the first step.
MIDDLE = "in the middle of a shared transaction"
SHARED_STEPS: dict[str, Callable[[], None]] = {
    MIDDLE: lambda: None,
    "before a shared commit": lambda: dying_with_many(Outbox, "add"),
    "after a shared commit": lambda: dying_with_many(Outbox, "relay"),
    "before the acks of a shared transaction": lambda: dying_at_the_second(Worker, "_acknowledge"),
}
SHARING = 8


def sleep_for_ever(_event: Event[ThingRequested]) -> None:
    """A blocking handler that hangs."""
    threading.Event().wait()


async def ignore_cancellation(_event: Event[ThingRequested]) -> None:
    """A handler that goes on although it is cancelled."""
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()


STUCK: dict[str, Callable[[Event[ThingRequested]], Any]] = {
    "a blocking handler never ends": sleep_for_ever,
    "a handler ignores its cancellation": ignore_cancellation,
}


def shorten_the_limits() -> None:
    """Shorten the time that a handler has after its time limit, of half an hour or a minute, to one second."""
    wch_common.runtime.worker._BROKER_LIMIT_SECONDS = wch_common.runtime.worker._STUCK_SECONDS = 1.0


def main() -> int:
    """Run until killed or stopped."""
    url, journal, step, *database = sys.argv[1:]
    first_life = not Path(journal).exists()
    fail_first = "retr" in step or "decision" in step

    async def handle(event: Event[ThingRequested]) -> None:
        with Path(journal).open("a") as file:
            file.write(f"{event.data.number} {event.attempt}\n")
        if event.data.note == "kill":
            die()
        if event.data.note == "reject":
            raise Reject("never")
        if fail_first and event.attempt == 1:
            raise ValueError("the first try fails")

    def on_dead_letter(event: Event[ThingRequested], reason: str) -> ThingFailed:
        return ThingFailed(number=event.data.number, reason=reason)

    async def handle_in(event: Event[ThingRequested], tx: Transaction) -> None:
        await handle(event)
        while first_life and event.data.note == "hold" and services[0]._consumers[0].worker.queued < SHARING:
            await asyncio.sleep(0.01)
        if first_life and event.data.note == step:
            die()
        if event.data.note == "park" and first_life:
            raise Throttled("the scope is rate-limited", scope="phone/1", after=1.5)
        await tx.rows("INSERT INTO effects (number) VALUES (%(number)s)", {"number": event.data.number})
        tx.emit(event.derive(ThingDone(number=event.data.number), "/wch/demo"))

    async def compose(platform: Platform[ServiceSettings]) -> Sequence[Job]:
        if step in STUCK:
            return [Job.with_handlers(thing_queue(time_limit_seconds=0.2), {ThingRequested: STUCK[step]})]
        if not database:
            return [Job.with_handlers(thing_queue(), {ThingRequested: handle}, on_dead_letter=on_dead_letter)]
        store = await platform.open_store(database[0])
        if step in SHARED_STEPS:
            one_slot = thing_queue(concurrency=1)
            return [Job.in_transaction(one_slot, {ThingRequested: handle_in}, store, share_limit=2 * SHARING)]
        return [Job.in_transaction(thing_queue(), {ThingRequested: handle_in}, store)]

    settings = ServiceSettings(
        amqp_url=SecretStr(url), health_host="127.0.0.1", health_port=0, confirm_timeout_seconds=2.0
    )

    services: list[Service[ServiceSettings]] = []

    async def run() -> int:
        service = Service("demo", settings, compose)
        services.append(service)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, service.stop_requested.set)
        return await service.run()

    (STEPS | STORE_STEPS | PARKING_STEPS | SHARED_STEPS | dict.fromkeys(STUCK, shorten_the_limits))[step]()
    return asyncio.run(run())


if __name__ == "__main__":
    sys.exit(main())
