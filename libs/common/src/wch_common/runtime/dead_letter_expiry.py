"""Removes dead letters that may name a person once they are old, and warns long before."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from wch_common.broker.aio.queue_head import QueueHead, TakenMessage, UnreadableQueue, queue_head
from wch_common.broker.dead_letter_age import DAY_SECONDS, age_seconds, is_old, is_soon_old
from wch_common.broker.headers import KIND, KINDS
from wch_common.broker.topology import UNROUTABLE_QUEUE
from wch_common.contract.envelope import peek
from wch_common.observability.redact import error_text, redact

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wch_common.broker.aio.connection import Link
    from wch_common.observability.metrics import Metrics

log = structlog.get_logger(__name__)

MOST_RETURNED: Final = 1000
"""How many young dead letters of a queue one check reads; the next one continues with those behind them."""
MOST_HELD: Final = 10_000
"""How many others that stay a check takes; as it holds them to its end, nobody else can read them meanwhile."""
NOTICE_SECONDS: Final = 6 * 3600.0
"""For so long a process knows a message whose age its publisher claims, before it removes it."""


@dataclass
class _Found:
    """What a check has left in a queue."""

    oldest_seconds: float = 0.0
    without_time: int = 0
    hides_more: bool = False
    """Whether so many stay at the head of the queue that those behind them were not reached."""


class DeadLetterExpiry:
    """Checks queues of dead letters for those that are older than so many days."""

    def __init__(self, link: Link, queues: Sequence[str], days: float, metrics: Metrics) -> None:
        self._link = link
        self._queues = queues
        self._days = days
        self._removed = {queue: metrics.dead_letters_removed.labels(queue) for queue in queues}
        self._oldest = metrics.dead_letter_oldest
        self._unreadable: set[str] = set()
        self._noticed: dict[object, float] = {}
        """When this process found messages old that it has not removed yet."""

    async def once(self) -> None:
        """Check each queue; one that cannot be checked is logged, and the next one follows."""
        for queue in self._queues:
            connection = await self._link.connected()
            try:
                async with queue_head(connection, queue) as head:
                    found = await self._check(queue, head)
            except UnreadableQueue as error:
                self._report_unreadable(queue, error)
            except ConnectionError as error:
                log.warning("dead_letters_not_checked", queue=queue, error=error_text(error))
            except Exception as error:
                # Any program's messages may be in the queue, and none of them may end the service.
                log.exception("dead_letters_not_checked", queue=queue, error=error_text(error))
            else:
                self._report(queue, found)

    async def _check(self, queue: str, head: QueueHead) -> _Found:
        """Remove what is old, until a young dead letter comes again.

        A quorum queue delivers what was returned first, in the order in which it was returned. The oldest is therefore
        not always the first, but all that were read before come before all others, which are younger.
        """
        found, returned, held = _Found(), set[object](), dict[object, float]()
        while len(held) < MOST_HELD and (taken := await head.take()) is not None:
            age = age_seconds(taken.message, taken.published)
            identity = (taken.message.message_id, hash(taken.message.body))
            if age is not None and is_old(age, self._days) and self._is_known_as_old(queue, identity):
                head.remove(taken)
                self._report_removed(queue, taken, age)
                continue
            found.oldest_seconds = max(found.oldest_seconds, age or 0.0)
            if age is None or is_old(age, self._days):
                # Returned with the end of the check: now it would come again instead of those behind it.
                held[identity] = self._noticed.get(identity, time.monotonic())
                found.without_time += age is None
            else:
                head.requeue(taken)
                if identity in returned or len(returned) == MOST_RETURNED:
                    break
                returned.add(identity)
        found.hides_more = len(held) >= MOST_HELD
        if queue == UNROUTABLE_QUEUE:
            self._noticed = held
        return found

    def _is_known_as_old(self, queue: str, identity: object) -> bool:
        """Whether the age is certain: that of a dead letter is; that of a request is its publisher's word until some hours later."""
        now = time.monotonic()
        return queue != UNROUTABLE_QUEUE or now - self._noticed.get(identity, now) >= NOTICE_SECONDS

    def _report_removed(self, queue: str, taken: TakenMessage, age: float) -> None:
        event, kind = peek(taken.message), taken.message.headers.get(KIND)
        self._removed[queue].inc()
        log.warning(
            "dead_letter_removed",
            queue=queue,
            # Nothing says what another program puts into them.
            event_id=redact(taken.message.message_id or (event.id if event else "")),
            type=redact(event.type if event else ""),
            error_kind=kind if isinstance(kind, str) and kind in KINDS else None,
            age_days=round(age / DAY_SECONDS, 1),
        )

    def _report(self, queue: str, found: _Found) -> None:
        self._unreadable.discard(queue)
        # A lower age than the true one would look like an alert that has ended.
        self._oldest.labels(queue).set(
            float("nan") if found.hides_more and not found.oldest_seconds else found.oldest_seconds
        )
        detail = f"`wch dlq list {queue}`"
        if is_soon_old(found.oldest_seconds, self._days):
            log.warning(
                "dead_letters_will_be_removed",
                queue=queue,
                oldest_days=round(found.oldest_seconds / DAY_SECONDS, 1),
                removed_after_days=self._days,
                detail=f"replay or discard them: {detail}",
            )
        if found.without_time:
            others = ", and those behind them are not reached" if found.hides_more else ""
            log.warning(
                "dead_letters_without_time",
                queue=queue,
                dead_letters=found.without_time,
                detail=f"they stay until somebody replays or discards them{others}: {detail}",
            )

    def _report_unreadable(self, queue: str, error: UnreadableQueue) -> None:
        """Log it once, and report no age, as the last one is no longer known to hold."""
        if queue not in self._unreadable:
            self._unreadable.add(queue)
            self._oldest.labels(queue).set(float("nan"))
            log.error("dead_letters_unreadable", queue=queue, error=error_text(error))
