"""A place in which a handler runs, and how long it has been running."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from wch_common.store.database import Waits, count_waits

if TYPE_CHECKING:
    import asyncio


class Slot:
    """One place in which a handler runs."""

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.busy = False
        """Whether it has deliveries in work, settlement included."""
        self.overdue = False
        self.cancel_from = self.report_from = 0.0
        """So many seconds over its time limit the handler is cancelled, or reported, again."""
        self._waits = Waits()
        self._began: float | None = None
        self._waited = 0.0

    def count_waits(self) -> None:
        """Count what the present task waits for the database."""
        self._waits = count_waits()

    def begin(self) -> None:
        """Count the time of a handler from now on."""
        self._began, self._waited = time.monotonic(), self._waits.seconds
        self.cancel_from = self.report_from = 0.0

    def end(self) -> None:
        """Count no more: no handler is running."""
        self._began = None

    @property
    def seconds(self) -> float:
        """How long the handler has been running, without its waits for the database, which have limits of their own."""
        if self._began is None:
            return 0.0
        return time.monotonic() - self._began - (self._waits.seconds - self._waited)
