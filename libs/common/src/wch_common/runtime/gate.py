"""The gate before the handlers of a process: closed while the database does not answer."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING

import structlog

from wch_common.engine.connection import backoff_seconds
from wch_common.errors import DatabaseAway
from wch_common.redact import error_text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

log = structlog.get_logger(__name__)


class Gate:
    """Open while handlers may start; an interruption closes it until `probe` succeeds."""

    def __init__(
        self, probe: Callable[[], Awaitable[None]] | None = None, overfull: Callable[[], bool] = lambda: False
    ) -> None:
        self._probe = probe
        # Too many committed events wait for the broker: more work would only add to them.
        self._overfull = overfull
        self._probing: asyncio.Task[None] | None = None
        self.closed_since: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether handlers may start."""
        return self.closed_since is None and not self._overfull()

    async def wait_open(self, why: BaseException) -> None:
        """Close the gate and return when the probe has succeeded; all who wait share one probe.

        What is no outage (a deadlock, a lost lease) only waits a moment, so that two rivals do not meet again.
        """
        if not isinstance(why, DatabaseAway):
            await asyncio.sleep(random.uniform(0.01, 0.1))  # noqa: S311 - a pause, not a secret
            return
        if self._probing is None:
            self.closed_since = time.monotonic()
            log.warning("consumption_paused", reason=error_text(why))
            self._probing = asyncio.create_task(self._until_answered())
        await asyncio.shield(self._probing)

    async def _until_answered(self) -> None:
        failures = 0
        try:
            while True:
                try:
                    if self._probe is not None:
                        await self._probe()
                except Exception as error:  # noqa: BLE001 - however the probe fails, the answer is to ask again
                    failures += 1
                    log.warning("still_paused", failures=failures, error=error_text(error))
                    await asyncio.sleep(backoff_seconds(failures))
                else:
                    break
            self.closed_since = None
            log.info("consumption_resumed", failures=failures)
        finally:
            self._probing = None
