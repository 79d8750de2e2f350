"""Ending tasks of the event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable


async def ended(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks and return once they have ended, whatever they ended with.

    Again every second: a library may swallow a cancellation, as psycopg_pool does when a connection comes at that moment.
    """
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=1.0)
