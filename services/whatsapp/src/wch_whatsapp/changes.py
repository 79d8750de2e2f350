"""A change of a message's state, and the reason for it. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wch_whatsapp.facts import REPORTED

if TYPE_CHECKING:
    import uuid


@dataclass(frozen=True, slots=True)
class StateReason:
    """Why a message is in its state: a name of a closed list, and Meta's code and text if it gave them."""

    name: str = ""
    code: int | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """A new state of a message, processed next after `wait` seconds; None for a final state."""

    id: uuid.UUID
    state: str
    wait: float | None = None
    attempt: int | None = None
    """Apply the change only if the message is at this attempt; None for any."""
    failed: bool = False
    """Count a failed call."""
    as_fallback: bool = False
    wamid: str | None = None
    reason: StateReason = StateReason()
    new_attempt: bool = False
    """Ignore later statuses of the attempts so far."""
    defers: bool = False
    """The wait is so long that batches report the message as deferred."""
    marks_doubt: bool = False
    """Send the message again although Meta may have accepted this attempt; from now on it never fails."""
    proven: bool = False
    """Meta's id proves the state, so the change also replaces `unknown` and a queued retry."""

    @property
    def reports(self) -> bool:
        """Whether batches report the change."""
        return self.state in REPORTED or self.defers
