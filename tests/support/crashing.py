"""A service in a process of its own that can be killed at a named step: `python crashing.py URL JOURNAL STEP`.

The journal gets one line per handler run: the number of the thing and the attempt.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from support.demo_family import ThingRequested, thing_queue
from wch_common.engine.consuming import Delivery, Subscription
from wch_common.runtime.job import Job
from wch_common.runtime.service import Platform, Service
from wch_common.runtime.settlement import Settlement
from wch_common.runtime.worker import Worker
from wch_common.settings import ServiceSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wch_common.event import Event


def die(*_: object, **__: object) -> Any:
    """End this process as the kernel would."""
    os.kill(os.getpid(), signal.SIGKILL)


def dying_after(owner: type, name: str) -> None:
    """Let a coroutine method finish and then die."""
    original: Callable[..., Any] = getattr(owner, name)

    async def wrapped(*args: object, **kwargs: object) -> None:
        await original(*args, **kwargs)
        die()

    setattr(owner, name, wrapped)


STEPS: dict[str, Callable[[], None]] = {
    "never": lambda: None,
    "on delivery": lambda: setattr(Subscription, "_on_message", die),
    "before decoding": lambda: setattr(Worker, "_decode", die),
    "before the handler": lambda: setattr(Worker, "_handle", die),
    "after the handler": lambda: setattr(Worker, "_acknowledge", die),
    "before the ack is sent": lambda: setattr(Subscription, "_flush", die),
    "before the verdict": lambda: setattr(Worker, "_verdict", die),
    "before the retry is published": lambda: setattr(Settlement, "_hand_on", die),
    "after the retry is confirmed": lambda: dying_after(Settlement, "_hand_on"),
    "before the ack of the retried": lambda: setattr(Delivery, "ack", die),
}


def main() -> int:
    """Run until killed or stopped."""
    url, journal, step = sys.argv[1:4]
    fail_first = "retr" in step or "verdict" in step

    async def handle(event: Event[ThingRequested]) -> None:
        with Path(journal).open("a") as file:
            file.write(f"{event.data.number} {event.attempt}\n")
        if event.data.note == "kill":
            die()
        if fail_first and event.attempt == 1:
            raise ValueError("the first try fails")

    async def compose(_platform: Platform[ServiceSettings]) -> Sequence[Job]:
        return [Job.for_each(thing_queue(), {ThingRequested: handle})]

    settings = ServiceSettings(amqp_url=SecretStr(url), health_host="127.0.0.1", health_port=0)

    async def run() -> int:
        service = Service("demo", settings, compose)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, service.stop_requested.set)
        return await service.run()

    STEPS[step]()
    return asyncio.run(run())


if __name__ == "__main__":
    sys.exit(main())
