"""The outcomes a handler may raise: a closed set. A handler that returns has done its work."""

from __future__ import annotations


class Outcome(Exception):
    """Base of the closed set; raise one of its subclasses."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Retry(Outcome):
    """Handle the event again later, which uses an attempt; `after` (seconds) replaces the queue's next retry delay."""

    def __init__(self, reason: str, *, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


class Throttled(Outcome):
    """Wait `after` seconds without using an attempt.

    A short wait is spent in a delay queue. A longer one parks the event in the database, if the service has one, and pauses
    its `scope` (a shop, a catalog): other events of the scope that are parked wait, too. An empty scope pauses nothing.
    """

    def __init__(self, reason: str, *, scope: str, after: float) -> None:
        super().__init__(reason)
        self.scope = scope
        self.after = after


class Reject(Outcome):
    """Dead-letter the event at once, as no later attempt can succeed."""
