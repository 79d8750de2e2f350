"""Shared by the programs of the comparison: does a job, marks it as handled, and publishes jobs.

A mark is one append of 24 bytes, which is safe across processes: the job's number, and the times of publishing and handling in
nanoseconds. This module imports only the standard library, because each library runs in its own environment.
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
    """The error of a job's first try in the mode `retry`."""


def mark(number: int, sent: int) -> None:
    """Append the mark of a handled job."""
    global _out  # noqa: PLW0603 - the process that handles opens it, after any fork
    if _out < 0:
        _out = os.open(os.environ["BENCH_MARKS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(_out, _MARK.pack(number, sent, time.time_ns()))


def should_fail(number: int) -> bool:
    """Return whether a job has to fail: in the mode `retry`, each job fails on its first try."""
    if MODE != "retry" or number in _SEEN:
        return False
    _SEEN.add(number)
    return True


def work(number: int, sent: int) -> None:
    """Handle a job in a thread."""
    if should_fail(number):
        raise FailsOnce
    if MODE == "wait":
        time.sleep(WAIT_SECONDS)
    mark(number, sent)


async def work_async(number: int, sent: int) -> None:
    """Handle a job in an event loop."""
    if should_fail(number):
        raise FailsOnce
    if MODE == "wait":
        await asyncio.sleep(WAIT_SECONDS)
    mark(number, sent)


class JobPublisher(Protocol):
    """Publishes jobs with confirms."""

    async def one(self, number: int, sent: int) -> None:
        """Publish one job and wait for the broker's confirm."""

    async def many(self, numbers: range) -> None:
        """Publish many jobs, each with a confirm, as fast as the library can."""


class BlockingPublisher:
    """Publishes with a library that waits for each confirm before the next job."""

    def __init__(self, publish: Callable[[int, int], object]) -> None:
        self._publish = publish

    async def one(self, number: int, sent: int) -> None:
        self._publish(number, sent)

    async def many(self, numbers: range) -> None:
        for number in numbers:
            self._publish(number, time.time_ns())


def publish_main(open_publisher: Callable[[], AbstractAsyncContextManager[JobPublisher]]) -> None:
    """Publish jobs as `one FIRST N`, `many FIRST N` or `pace RATE FIRST N` says, and print the seconds it took."""
    how, *numbers = sys.argv[1:]
    runner: Callable[[Any], Awaitable[float]] = {"one": _one, "many": _many, "pace": _pace}[how]
    print(asyncio.run(_run(open_publisher, runner, [int(text) for text in numbers])))


async def _run(open_publisher: Any, runner: Any, numbers: list[int]) -> float:
    async with open_publisher() as publisher:
        return await runner(publisher, *numbers)


async def _one(publisher: JobPublisher, first: int, count: int) -> float:
    started = time.perf_counter()
    for number in range(first, first + count):
        await publisher.one(number, time.time_ns())
    return time.perf_counter() - started


async def _many(publisher: JobPublisher, first: int, count: int) -> float:
    started = time.perf_counter()
    await publisher.many(range(first, first + count))
    return time.perf_counter() - started


async def _pace(publisher: JobPublisher, rate: int, first: int, count: int) -> float:
    started = time.perf_counter()
    for number in range(count):
        await asyncio.sleep(max(0.0, started + number / rate - time.perf_counter()))
        await publisher.one(first + number, time.time_ns())
    return time.perf_counter() - started


async def publish_windowed(publish: Callable[[int, int], Awaitable[None]], numbers: range, window: int) -> None:
    """Publish jobs with at most `window` confirms outstanding."""
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
