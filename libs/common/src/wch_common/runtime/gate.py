"""The gate in front of a process's handlers: closed while the database does not answer."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING

import structlog

from wch_common.backoff import backoff_seconds, until_success
from wch_common.errors import DatabaseAway
from wch_common.observability.redact import error_text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

log = structlog.get_logger(__name__)


# A gate that stays open for so long was opened by the end of the outage.
_SAME_OUTAGE_SECONDS = 60.0


class Gate:
    """Open while handlers may start; an outage closes it until `probe` succeeds.

    A database may answer the probe and still refuse the work, as with a full disk. Until something is committed, that is
    one outage, in which the gate opens less and less often.
    """

    def __init__(
        self,
        probe: Callable[[], Awaitable[None]] | None = None,
        last_commit: Callable[[], float] = lambda: 0.0,
        overfull: Callable[[], bool] = lambda: False,
    ) -> None:
        self._probe = probe
        self._last_commit = last_commit
        # Too many committed events wait for the broker: more work would only add to them.
        self._overfull = overfull
        self._probing: asyncio.Task[None] | None = None
        self._closings = 0
        self._began = self._opened = 0.0
        self.closed_since: float | None = None
        """When the present outage began, by the monotonic clock; None while handlers may start."""

    @property
    def is_open(self) -> bool:
        """Whether handlers may start."""
        return self.closed_since is None and not self._overfull()

    async def wait_open(self, why: BaseException) -> None:
        """Close the gate and return when the probe has succeeded; all waiters share one probe.

        An interruption that is no outage (a deadlock, a lost lease) only waits up to 0.1 s, so that two rivals do not
        collide again.
        """
        if not isinstance(why, DatabaseAway):
            await asyncio.sleep(random.uniform(0.01, 0.1))  # noqa: S311 - a pause, not a secret
            return
        if self._probing is None:
            self._close()
            log.warning("consumption_paused", reason=error_text(why))
            self._probing = asyncio.create_task(self._reopen())
        await asyncio.shield(self._probing)

    def _close(self) -> None:
        now = time.monotonic()
        if self._last_commit() > self._began or now - self._opened > _SAME_OUTAGE_SECONDS:
            self._began, self._closings = now, 0
        self._closings += 1
        self.closed_since = self._began

    async def _reopen(self) -> None:
        try:
            await asyncio.sleep(backoff_seconds(self._closings))
            if self._probe is not None:
                # However the probe fails, the answer is to probe again.
                await until_success(self._probe, Exception, _report_closed)
            self.closed_since, self._opened = None, time.monotonic()
            log.info("consumption_resumed")
        finally:
            self._probing = None


def _report_closed(failures: int, error: BaseException) -> None:
    log.warning("consumption_still_paused", failures=failures, error=error_text(error))
