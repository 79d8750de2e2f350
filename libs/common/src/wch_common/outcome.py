"""What a handler may raise to steer its event: a closed set. Returning means done."""

from __future__ import annotations


class Outcome(Exception):
    """Base of the closed set; raise one of the three below."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Retry(Outcome):
    """Try again later, spending a try; `after` (seconds) replaces the ladder's next delay queue."""

    def __init__(self, reason: str, *, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


class Throttled(Outcome):
    """Park the event uncounted: `scope` (a phone number's id, a catalog, a shop) takes nothing for `after` seconds."""

    def __init__(self, reason: str, *, scope: str, after: float) -> None:
        super().__init__(reason)
        self.scope = scope
        self.after = after


class Reject(Outcome):
    """Dead-letter the event at once: no later try can succeed."""
