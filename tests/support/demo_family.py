"""A family that exists for tests only."""

from __future__ import annotations

from wch_common.event import Fact, Request
from wch_common.policy import Batching, QueuePolicy
from wch_common.topology import WorkQueue


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
    """A thing was given up."""

    TYPE = "demo.thing.failed.v1"

    number: int
    reason: str


RUNGS = (0.2, 0.4, 0.6)


def thing_queue(**policy: object) -> WorkQueue:
    """The queue of things, with short rungs."""
    values: dict[str, object] = {"rungs": RUNGS, "tries": 3, "concurrency": 5, "time_limit_seconds": 20} | policy
    return WorkQueue("demo.thing", requests=(ThingRequested,), policy=QueuePolicy(**values))  # type: ignore[arg-type]


def batch_queue(size: int, window_seconds: float, **policy: object) -> WorkQueue:
    """The same for a batch handler."""
    return thing_queue(batching=Batching(size, window_seconds), **policy)
