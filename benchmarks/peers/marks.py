"""What every program of the comparison shares: how a handled job is marked, what it does, and how jobs are published.

A mark is one append of 24 bytes (number, when it was published, now; nanoseconds), which is safe across processes.
Needs nothing but Python, as each peer runs in an environment of its own.
"""

from __future__ import annotations

import asyncio
import os
import struct
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

URL = os.environ.get("BENCH_AMQP_URL", "")
MODE = os.environ.get("BENCH_MODE", "noop")
SLOTS = int(os.environ.get("BENCH_SLOTS", "8"))
TEXT = "x" * 100
RETRY_SECONDS = 1
WAIT_SECONDS = 0.01
_MARK = struct.Struct("<qqq")
_SEEN: set[int] = set()
_out = -1


class FailsOnce(Exception):
    """What a job fails with the first time."""


def mark(number: int, sent: int) -> None:
    """Note that a job was handled."""
    global _out  # noqa: PLW0603 - opened by the process that handles, after any fork
    if _out < 0:
        _out = os.open(os.environ["BENCH_MARKS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(_out, _MARK.pack(number, sent, time.time_ns()))


def fails_now(number: int) -> bool:
    """Whether a job is to fail: in the mode `retry` each does when it is seen first."""
    if MODE != "retry" or number in _SEEN:
        return False
    _SEEN.add(number)
    return True


def work(number: int, sent: int) -> None:
    """Do a job in a thread."""
    if fails_now(number):
        raise FailsOnce
    if MODE == "wait":
        time.sleep(WAIT_SECONDS)
    mark(number, sent)


async def work_async(number: int, sent: int) -> None:
    """Do a job in an event loop."""
    if fails_now(number):
        raise FailsOnce
    if MODE == "wait":
        await asyncio.sleep(WAIT_SECONDS)
    mark(number, sent)


class Publishing(Protocol):
    """Publishes jobs, confirmed."""

    async def one(self, number: int, sent: int) -> None:
        """Publish one job and return when the broker has confirmed it."""

    async def many(self, numbers: range) -> None:
        """Publish many, as fast as the library can with a confirm for each."""


class OneByOne:
    """Publishing of a library that waits for each confirm before the next."""

    def __init__(self, publish: Callable[[int, int], object]) -> None:
        self._publish = publish

    async def one(self, number: int, sent: int) -> None:
        self._publish(number, sent)

    async def many(self, numbers: range) -> None:
        for number in numbers:
            self._publish(number, time.time_ns())


def publish_main(opened: Callable[[], AbstractAsyncContextManager[Publishing]]) -> None:
    """`one N`, `many N` or `pace RATE N`: publish jobs and print the seconds it took."""
    how, *numbers = sys.argv[1:]
    runner: Callable[[Any], Awaitable[float]] = {"one": _one, "many": _many, "pace": _pace}[how]
    print(asyncio.run(_run(opened, runner, [int(text) for text in numbers])))


async def _run(opened: Any, runner: Any, numbers: list[int]) -> float:
    async with opened() as publishing:
        return await runner(publishing, *numbers)


async def _one(publishing: Publishing, first: int, count: int) -> float:
    began = time.perf_counter()
    for number in range(first, first + count):
        await publishing.one(number, time.time_ns())
    return time.perf_counter() - began


async def _many(publishing: Publishing, first: int, count: int) -> float:
    began = time.perf_counter()
    await publishing.many(range(first, first + count))
    return time.perf_counter() - began


async def _pace(publishing: Publishing, rate: int, first: int, count: int) -> float:
    began = time.perf_counter()
    for number in range(count):
        await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
        await publishing.one(first + number, time.time_ns())
    return time.perf_counter() - began


async def each(publish: Callable[[int, int], Awaitable[None]], numbers: range, window: int) -> None:
    """Publish with so many confirms outstanding."""
    free = asyncio.Semaphore(window)

    async def one(number: int) -> None:
        try:
            await publish(number, time.time_ns())
        finally:
            free.release()

    tasks = set()
    for number in numbers:
        await free.acquire()
        task = asyncio.create_task(one(number))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
