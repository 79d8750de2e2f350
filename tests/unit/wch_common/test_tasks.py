"""Ending tasks, including those in which a library suppresses the cancellation."""

from __future__ import annotations

import asyncio

from wch_common.tasks import cancel_and_wait


def test_a_task_that_swallows_its_first_cancellation_ends_too() -> None:
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed += 1
                if swallowed > 1:
                    raise

    async def play() -> None:
        task = asyncio.create_task(stubborn())
        await asyncio.sleep(0)
        await cancel_and_wait((task,))
        assert task.cancelled()

    asyncio.run(asyncio.wait_for(play(), 180))
    assert swallowed == 2
