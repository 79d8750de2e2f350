"""The ledger: one way to change what became of messages, and to tell it, in the caller's transaction."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import orjson

from wch_common.contract.event import Event, EventData
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
    import uuid
    from collections.abc import Iterable, Sequence

    from wch_common.store.database import Row
    from wch_common.store.store import Transaction

SOURCE: Final = "/wch/whatsapp"
TOLD: Final = frozenset({"accepted", "delivered", "read", "failed", "suppressed", "cancelled", "unknown"})
"""States that are an answer. The others are queued, sending, and in_doubt."""
# A wait of which the requester of a batch is told; a shorter one is over before it could act on the news.
TOLD_WAIT_SECONDS = 60.0
_BUNDLE_SECONDS = 2
_COLUMNS = (
    "id, shop, requester, send_key, sender, person, category, batch, state, due_at, attempt, failures, wamid, reason, code, "
    "detail, asked_again, asked_alone, correlationid, causationid"
)
# Rows are locked in the order of their ids, so that two writers of the same rows wait and do not deadlock. Messages, their
# batches' counts and the plan of the next bundle are one statement, as each round trip is time in which a place for a call is
# empty; and one JSON text, as twelve arrays cost psycopg a tenth of a millisecond. A batch is locked also where its bundle is
# planned already, so that who tells it waits for this change or is waited for. Of one that was sent again in doubt a failure says
# nothing: the first may have arrived.
_APPLY = f"""
WITH new AS MATERIALIZED (
  SELECT * FROM jsonb_to_recordset(%(changes)s::jsonb) AS new (
    id uuid, attempt int, state text, wait float8, failed int, as_fallback bool, wamid text, reason text, code int, detail text,
    tells bool, anew bool, doubts bool, proven bool)
), old AS (
  SELECT id, answered AS was_answered FROM messages WHERE id = ANY(%(ids)s) ORDER BY id FOR UPDATE
), changed AS (
  UPDATE messages AS m
  SET state = CASE WHEN m.doubted IS NOT NULL AND new.state IN ('failed', 'suppressed', 'cancelled') THEN 'unknown' ELSE new.state END,
      due_at = now() + new.wait * interval '1 second', failures = m.failures + new.failed,
      doubted = CASE WHEN new.doubts THEN m.attempt ELSE m.doubted END,
      as_fallback = m.as_fallback OR new.as_fallback, attempt = m.attempt + new.anew::int,
      wamid = CASE WHEN NOT new.anew THEN coalesce(new.wamid, m.wamid) END,
      reason = new.reason, code = new.code, detail = new.detail, updated_at = now(),
      changed = m.batch IS NOT NULL AND m.answered AND (m.changed OR new.tells),
      answered = (m.batch IS NOT NULL OR m.asked_again) AND (m.answered OR new.tells)
  FROM old JOIN new USING (id)
  WHERE m.id = old.id AND (new.attempt IS NULL OR m.attempt = new.attempt)
  AND (m.state = ANY(%(before)s) OR (new.proven AND m.state IN ('unknown', 'queued')))
  RETURNING {", ".join(f"m.{name.strip()}" for name in _COLUMNS.split(","))}, old.was_answered, new.tells
), told AS (
  SELECT batch, count(*) FILTER (WHERE NOT was_answered) AS firsts, bool_or(was_answered) AS later
  FROM changed WHERE batch IS NOT NULL AND tells GROUP BY batch ORDER BY batch
), counted AS (
  UPDATE batches AS b SET open = b.open - told.firsts,
    due_at = CASE WHEN told.later THEN coalesce(b.due_at, now() + interval '{_BUNDLE_SECONDS} seconds') ELSE b.due_at END
  FROM told WHERE b.id = told.batch RETURNING b.id, b.open <= 0 AND told.firsts > 0 AS is_complete
)
SELECT changed.*, counted.is_complete FROM changed LEFT JOIN counted ON counted.id = changed.batch
"""  # noqa: S608 - names of this module
# The same for batches that ask for messages of others: few, and so not in the statement that all messages take.
_APPLY_ALSO = f"""
WITH told AS (
  UPDATE also_asked SET changed = answered, answered = true WHERE message = ANY(%(ids)s) RETURNING batch, changed AS later
), counts AS (
  SELECT batch, count(*) FILTER (WHERE NOT later) AS firsts, bool_or(later) AS later FROM told GROUP BY batch ORDER BY batch
), counted AS (
  UPDATE batches AS b SET open = b.open - counts.firsts,
    due_at = CASE WHEN counts.later THEN coalesce(b.due_at, now() + interval '{_BUNDLE_SECONDS} seconds') ELSE b.due_at END
  FROM counts WHERE b.id = counts.batch RETURNING b.id, b.open <= 0 AND counts.firsts > 0 AS is_complete
)
SELECT id FROM counted WHERE is_complete
"""  # noqa: S608 - a number of this module
# One that is asked for elsewhere is locked, so that whoever changes it sees who asks, or is seen.
_ALSO = f"""
WITH others AS (SELECT id FROM messages WHERE id = ANY(%(ids)s) ORDER BY id FOR UPDATE)
UPDATE messages SET asked_again = true WHERE id IN (SELECT id FROM others)
RETURNING id, state, reason <> '' AND (answered OR due_at > now() + interval '{TOLD_WAIT_SECONDS} seconds') AS waits
"""  # noqa: S608 - names of this module
_ADD_ALSO = """
INSERT INTO also_asked (batch, message, answered)
SELECT %(batch)s, new.id, new.answered FROM unnest(%(ids)s::uuid[], %(answered)s::bool[]) AS new (id, answered)
"""
_ALONE = f"""
UPDATE messages SET asked_alone = true WHERE id = %(id)s AND batch IS NOT NULL AND NOT asked_alone RETURNING {_COLUMNS}
"""  # noqa: S608 - names of this module
_BATCHES = "SELECT * FROM batches WHERE id = ANY(%(ids)s) ORDER BY id"
_BUNDLE = f"""
UPDATE batches SET due_at = coalesce(due_at, now() + interval '{_BUNDLE_SECONDS} seconds') WHERE id = ANY(%(ids)s)
"""  # noqa: S608 - a number of this module
_TELL_AGAIN = """
WITH own AS (
  UPDATE messages SET changed = true WHERE id = ANY(%(ids)s) AND batch IS NOT NULL RETURNING batch
), also AS (
  UPDATE also_asked SET changed = true WHERE message = ANY(%(ids)s) RETURNING batch
)
SELECT batch FROM own UNION SELECT batch FROM also ORDER BY batch
"""
_COMPLETE = (
    "UPDATE batches SET completed_at = now(), due_at = NULL WHERE id = %(id)s AND completed_at IS NULL RETURNING id"
)
_MEMBERS = f"""
SELECT {_COLUMNS} FROM messages WHERE batch = %(id)s
UNION ALL SELECT {_COLUMNS} FROM messages WHERE id IN (SELECT message FROM also_asked WHERE batch = %(id)s)
"""  # noqa: S608 - names of this module
_TOLD_ALL = """
WITH also AS (UPDATE also_asked SET changed = false WHERE batch = %(id)s AND changed)
UPDATE messages SET changed = false WHERE batch = %(id)s AND changed
"""
# One that is not complete yet tells all its changes when it is.
_NEXT_BUNDLE = """
UPDATE batches SET bundles = bundles + (completed_at IS NOT NULL)::int, due_at = NULL
WHERE id = %(id)s AND due_at IS NOT NULL RETURNING *
"""
_CHANGED = f"""
WITH own AS (
  UPDATE messages SET changed = false WHERE batch = %(id)s AND changed RETURNING {_COLUMNS}
), also AS (
  UPDATE also_asked SET changed = false WHERE batch = %(id)s AND changed RETURNING message
)
SELECT * FROM own UNION ALL SELECT {_COLUMNS} FROM messages WHERE id IN (SELECT message FROM also)
"""  # noqa: S608 - names of this module
_FIND = f"SELECT {_COLUMNS} FROM messages WHERE id = ANY(%(ids)s)"  # noqa: S608 - names of this module


@dataclass(frozen=True, slots=True)
class Why:
    """Why a message is in its state: a reason of a closed list, Meta's code and words where it gave them."""

    reason: str = ""
    code: int | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """What became of one message: its new state, and when it is looked at again (`wait` in seconds; None for never)."""

    id: uuid.UUID
    state: str
    wait: float | None = None
    attempt: int | None = None
    """Only over this attempt; None for whichever it is at."""
    failed: bool = False
    as_fallback: bool = False
    wamid: str | None = None
    why: Why = Why()
    anew: bool = False
    """What Meta still says of attempts so far is old news."""
    defers: bool = False
    """It waits so long that its batch is told so."""
    doubts: bool = False
    """It is sent again though its attempt may have been taken: from now on no failure is told of it."""
    proven: bool = False
    """Meta's id says so, however late it is known: also over what was told as unknown or is about to be sent again."""

    @property
    def tells(self) -> bool:
        """Whether it is an answer to a batch."""
        return self.state in TOLD or self.defers


async def apply(tx: Transaction, changes: Sequence[Change], *, before: Iterable[str]) -> list[Row]:
    """Change messages that are in one of the states `before`, tell it with the commit, and return those changed.

    First answers are counted for batches, those that are complete are told, and a bundle is planned for later changes.
    """
    if not changes:
        return []
    parameters = {"changes": _written(changes), "ids": [one.id for one in changes], "before": list(before)}
    rows = await tx.rows(_APPLY, parameters)
    for row in rows:
        if is_told_alone(row) and row["state"] in TOLD:
            tx.emit(message_fact(row))
    done = {row["batch"] for row in rows if row["is_complete"]}
    if also := [row["id"] for row in rows if row["asked_again"] and row["tells"]]:
        done |= {row["id"] for row in await tx.rows(_APPLY_ALSO, {"ids": also})}
    if done:
        for batch in await tx.rows(_BATCHES, {"ids": sorted(done)}):
            await complete(tx, batch)
    return rows


def is_told_alone(row: Row) -> bool:
    """Tell whether somebody asked for a message by itself, and so is told of it by itself."""
    return bool(row["batch"] is None or row["asked_alone"])


async def ask_alone(tx: Transaction, id_: uuid.UUID) -> Row:
    """Have a message of the ledger told by itself from now on, and return it."""
    rows = await tx.rows(_ALONE, {"id": id_}) or await tx.rows(_FIND, {"ids": [id_]})
    return rows[0]


async def ask_also(tx: Transaction, batch: uuid.UUID, ids: Sequence[uuid.UUID]) -> int:
    """Have a batch told of messages that were asked for elsewhere before; returns of how many it has no answer yet."""
    rows = await tx.rows(_ALSO, {"ids": list(ids)})
    # One that waits for long, with a reason: that is an answer for this batch, too.
    answered = [row["state"] in TOLD or row["waits"] for row in rows]
    await tx.rows(_ADD_ALSO, {"batch": batch, "ids": [row["id"] for row in rows], "answered": answered})
    return answered.count(False)


def _written(changes: Sequence[Change]) -> str:
    rows = [
        {
            "id": str(one.id),
            "attempt": one.attempt,
            "state": one.state,
            "wait": one.wait,
            "failed": int(one.failed),
            "as_fallback": one.as_fallback,
            "wamid": one.wamid,
            "reason": one.why.reason,
            "code": one.why.code,
            "detail": one.why.detail,
            "tells": one.tells,
            "anew": one.anew,
            "doubts": one.doubts,
            "proven": one.proven,
        }
        for one in changes
    ]
    return orjson.dumps(rows).decode()


async def tell_batches_again(tx: Transaction, rows: Iterable[Row]) -> None:
    """Tell batches anew what became of some of their messages, in the next bundle."""
    if ids := sorted(row["id"] for row in rows if row["batch"] is not None or row["asked_again"]):
        batches = await tx.rows(_TELL_AGAIN, {"ids": ids})
        await tx.rows(_BUNDLE, {"ids": [row["batch"] for row in batches]})


async def complete(tx: Transaction, batch: Row) -> None:
    """Tell, once, that every recipient of a batch has a first answer."""
    if await tx.rows(_COMPLETE, batch):
        # In this order: what is marked as told is in what is read after it.
        await tx.rows(_TOLD_ALL, batch)
        members = await tx.rows(_MEMBERS, batch)
        tx.emit(batch_completed(batch, members))


async def members(tx: Transaction, batch: Row) -> list[Row]:
    """Return the messages of a batch, those asked for elsewhere before included."""
    return await tx.rows(_MEMBERS, batch)


async def bundle(tx: Transaction, id_: uuid.UUID) -> None:
    """Tell what changed in a batch since it was last told."""
    for batch in await tx.rows(_NEXT_BUNDLE, {"id": id_}):
        if batch["completed_at"] is not None and (rows := await tx.rows(_CHANGED, {"id": id_})):
            data = BatchUpdated(batch_id=batch["batch_id"], recipients=_outcomes(rows), version=batch["bundles"])
            tx.emit(_fact(batch, data, batch["bundles"]))


async def find(tx: Transaction, ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, Row]:
    """Return messages of the ledger by id."""
    return {row["id"]: row for row in await tx.rows(_FIND, {"ids": list(ids)})}


def message_fact(row: Row) -> Event[EventData]:
    """Return the fact that tells what became of a message."""
    return _fact(row, fact_data(row), row["attempt"])


def fact_data(row: Row) -> EventData:
    """Return what is told of a message in a state that is an answer."""
    names = {"send_key": row["send_key"], "message_id": str(row["id"]), "attempt": row["attempt"]}
    match row["state"]:
        case "accepted":
            return MessageAccepted(**names, wamid=row["wamid"] or "")
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
            return MessageFailed(**names, reason=row["reason"], code=row["code"], detail=row["detail"][:500])


def batch_completed(batch: Row, rows: Iterable[Row]) -> Event[EventData]:
    """Return the fact that tells the first answers of a batch, or what became of them since."""
    data = BatchCompleted(batch_id=batch["batch_id"], recipients=_outcomes(rows), version=batch["bundles"])
    return _fact(batch, data, 0)


def _outcomes(rows: Iterable[Row]) -> tuple[RecipientOutcome, ...]:
    return tuple(
        RecipientOutcome(
            send_key=row["send_key"],
            outcome=row["state"] if row["state"] in TOLD else "deferred",
            reason=row["reason"],
            code=row["code"],
            until=None if row["state"] in TOLD else row["due_at"],
        )
        for row in sorted(rows, key=lambda row: str(row["send_key"]))
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
