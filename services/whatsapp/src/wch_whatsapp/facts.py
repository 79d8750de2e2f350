"""The facts about messages and batches, from rows of the ledger. No I/O."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from wch_common.contract.event import Event, EventData
from wch_common.events.failure_reasons import failure_reason
from wch_common.events.whatsapp import (
    BatchCompleted,
    BatchUpdated,
    MessageAccepted,
    MessageCancelled,
    MessageDelivered,
    MessageFailed,
    MessageRead,
    MessageSuppressed,
    MessageUnknown,
    RecipientOutcome,
)
from wch_whatsapp.identity import fact_id

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wch_common.store.database import Row

SOURCE: Final = "/wch/whatsapp"
REPORTED: Final = frozenset({"accepted", "delivered", "read", "failed", "suppressed", "cancelled", "unknown"})
"""The states that are results and are published as facts. The others are queued, sending and in_doubt."""


def message_fact(row: Row) -> Event[EventData]:
    """Return the fact about a message; its id depends on the message, its state and its attempt only."""
    return _fact(row, fact_data(row), row["attempt"])


def fact_data(row: Row) -> EventData:
    """Return the data of the fact about a message whose state is a result."""
    names = {"send_key": row["send_key"], "message_id": str(row["id"]), "attempt": row["attempt"]}
    match row["state"]:
        case "accepted":
            return MessageAccepted(**names)
        case "delivered":
            return MessageDelivered(**names)
        case "read":
            return MessageRead(**names)
        case "suppressed":
            return MessageSuppressed(**names, reason=row["reason"])
        case "cancelled":
            return MessageCancelled(**names, reason=row["reason"])
        case "unknown":
            return MessageUnknown(**names)
        case _:
            reason = failure_reason(row["reason"])
            return MessageFailed(
                **names,
                reason=row["reason"],
                concerns=reason.concern(own_values=row["own_values"]),
                retryable=reason.retryable,
                code=row["code"],
                detail=row["detail"][:500],
            )


def batch_completed(batch: Row, rows: Iterable[Row]) -> Event[EventData]:
    """Return the fact that a batch has a first result for each of its messages, with their present results."""
    data = BatchCompleted(batch_id=batch["batch_id"], recipients=_outcomes(rows), version=batch["updates"])
    return _fact(batch, data, 0)


def batch_updated(batch: Row, rows: Iterable[Row]) -> Event[EventData]:
    """Return the fact with the changed results of a batch."""
    data = BatchUpdated(batch_id=batch["batch_id"], recipients=_outcomes(rows), version=batch["updates"])
    return _fact(batch, data, batch["updates"])


def _outcomes(rows: Iterable[Row]) -> tuple[RecipientOutcome, ...]:
    return tuple(recipient_outcome(row) for row in sorted(rows, key=lambda row: str(row["send_key"])))


def recipient_outcome(row: Row) -> RecipientOutcome:
    """Return what a batch reports about a message."""
    outcome: Any = row["state"] if row["state"] in REPORTED else "deferred"
    names = {"send_key": row["send_key"], "reason": row["reason"], "code": row["code"]}
    if outcome not in ("failed", "deferred") or not row["reason"]:
        return RecipientOutcome(**names, outcome=outcome)
    reason = failure_reason(row["reason"])
    return RecipientOutcome(
        **names,
        outcome="skipped" if outcome == "failed" and reason.skipped else outcome,
        concerns=reason.concern(own_values=row["own_values"]),
        retryable=reason.retryable,
        until=row["due_at"] if outcome == "deferred" else None,
    )


def _fact(row: Row, data: EventData, number: int) -> Event[EventData]:
    return Event(
        id=fact_id(row["id"], data.TYPE, number),
        source=SOURCE,
        type=data.TYPE,
        data=data,
        time=datetime.now(UTC),
        subject=data.subject(),
        shop=row["shop"] or None,
        requester=row["requester"] or None,
        correlationid=row["correlationid"],
        causationid=row["causationid"],
    )
