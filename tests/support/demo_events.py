"""Events and queues of a family `demo`, for tests only."""

from __future__ import annotations

from wch_common.broker.queue_policy import Batching, QueuePolicy
from wch_common.broker.topology import WorkQueue
from wch_common.contract.event import Fact, Request


class ThingRequested(Request):
    """Do a thing."""

    TYPE = "demo.thing.requested.v1"

    number: int
    note: str = ""

    def subject(self) -> str:
        """Name the thing."""
        return f"thing/{self.number}"


class ThingDone(Fact):
    """A thing was done."""

    TYPE = "demo.thing.finished.v1"

    number: int


class ThingFailed(Fact):
    """A thing failed permanently."""

    TYPE = "demo.thing.failed.v1"

    number: int
    reason: str


RETRY_DELAYS = (0.2, 0.4, 0.6)


def thing_queue(**policy: object) -> WorkQueue:
    """The queue of things, with short delay queues."""
    values: dict[str, object] = {
        "retry_delays": RETRY_DELAYS,
        "tries": 3,
        "concurrency": 5,
        "time_limit_seconds": 20,
    } | policy
    return WorkQueue("demo.thing", requests=(ThingRequested,), policy=QueuePolicy(**values))  # type: ignore[arg-type]


def batch_queue(size: int, window_seconds: float, **policy: object) -> WorkQueue:
    """The same queue for a batch handler."""
    return thing_queue(batching=Batching(size, window_seconds), **policy)
