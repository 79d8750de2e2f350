"""The outcomes a handler may raise: a closed set. A handler that returns has done its work."""

from __future__ import annotations


class Outcome(Exception):
    """Base of the closed set; raise one of its subclasses."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Retry(Outcome):
    """Try again later, which uses an attempt; `after` (seconds) replaces the queue's next retry delay."""

    def __init__(self, reason: str, *, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


class Throttled(Outcome):
    """Park the event without using an attempt: its `scope` (a phone number id, a catalog, a shop) is paused for `after` seconds."""

    def __init__(self, reason: str, *, scope: str, after: float) -> None:
        super().__init__(reason)
        self.scope = scope
        self.after = after


class Reject(Outcome):
    """Dead-letter the event at once, as no later attempt can succeed."""
