"""The ledger: the one way to change the state of messages and to publish their results, in the caller's transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from wch_whatsapp import queries
from wch_whatsapp.facts import REPORTED, batch_completed, batch_updated, message_fact

if TYPE_CHECKING:
    import uuid
    from collections.abc import Iterable, Sequence

    from wch_common.store.database import Row
    from wch_common.store.store import Transaction
    from wch_whatsapp.changes import Change


async def apply(tx: Transaction, changes: Sequence[Change], *, before: Iterable[str]) -> list[Row]:
    """Change the messages that are in one of the states `before`, and return those that changed.

    Results are published with the commit. For batches, first results are counted, a batch that has all of them is
    completed, and an update is scheduled for later ones.
    """
    if not changes:
        return []
    parameters = {"changes": _as_json(changes), "ids": [one.id for one in changes], "before": list(before)}
    rows = await tx.rows(queries.APPLY, parameters)
    for row in rows:
        if is_reported_alone(row) and row["state"] in REPORTED:
            tx.emit(message_fact(row))
    done = {row["batch"] for row in rows if row["is_complete"]}
    if also := [row["id"] for row in rows if row["in_other_batches"] and row["reports"]]:
        done |= {row["id"] for row in await tx.rows(queries.APPLY_TO_OTHER_BATCHES, {"ids": also})}
    if done:
        for batch in await tx.rows(queries.FIND_BATCHES, {"ids": sorted(done)}):
            await complete(tx, batch)
    return rows


def is_reported_alone(row: Row) -> bool:
    """Whether the message was requested alone, so that a fact of its own reports it."""
    return bool(row["batch"] is None or row["requested_alone"])


async def request_alone(tx: Transaction, id_: uuid.UUID) -> Row:
    """Report a message of the ledger alone from now on, and return it."""
    rows = await tx.rows(queries.REQUEST_ALONE, {"id": id_}) or await tx.rows(queries.FIND_MESSAGES, {"ids": [id_]})
    return rows[0]


async def join_batch(tx: Transaction, batch: uuid.UUID, ids: Sequence[uuid.UUID]) -> int:
    """Report messages of other requests to a batch, too; returns how many have no first result for it yet."""
    rows = await tx.rows(queries.JOIN_BATCH, {"ids": list(ids)})
    # A long wait for a known reason is a first result, as for the other batch.
    answered = [row["state"] in REPORTED or row["waits"] for row in rows]
    values = {"batch": batch, "ids": [row["id"] for row in rows], "answered": answered}
    await tx.rows(queries.ADD_ALSO_REQUESTED, values)
    return answered.count(False)


def _as_json(changes: Sequence[Change]) -> str:
    rows = [
        {
            "id": str(one.id),
            "attempt": one.attempt,
            "state": one.state,
            "wait": one.wait,
            "failed": int(one.failed),
            "as_fallback": one.as_fallback,
            "wamid": one.wamid,
            "reason": one.reason.name,
            "code": one.reason.code,
            "detail": one.reason.detail,
            "reports": one.reports,
            "new_attempt": one.new_attempt,
            "marks_doubt": one.marks_doubt,
            "proven": one.proven,
        }
        for one in changes
    ]
    return orjson.dumps(rows).decode()


async def report_again(tx: Transaction, rows: Iterable[Row]) -> None:
    """Report messages to their batches again, with the next update."""
    if ids := sorted(row["id"] for row in rows if row["batch"] is not None or row["in_other_batches"]):
        batches = await tx.rows(queries.REPORT_AGAIN, {"ids": ids})
        await tx.rows(queries.SCHEDULE_UPDATES, {"ids": [row["batch"] for row in batches]})


async def complete(tx: Transaction, batch: Row) -> None:
    """Publish, once, that every recipient of a batch has a first result."""
    if await tx.rows(queries.COMPLETE, batch):
        # In this order, so that the rows read contain every change that is marked as reported.
        await tx.rows(queries.ALL_REPORTED, batch)
        rows = await tx.rows(queries.MEMBERS, batch)
        tx.emit(batch_completed(batch, rows))


async def members(tx: Transaction, batch: Row) -> list[Row]:
    """Return the messages of a batch, including those of other requests."""
    return await tx.rows(queries.MEMBERS, batch)


async def publish_update(tx: Transaction, id_: uuid.UUID) -> None:
    """Publish the results of a batch that changed since its last report."""
    for batch in await tx.rows(queries.NEXT_UPDATE, {"id": id_}):
        if batch["completed_at"] is not None and (rows := await tx.rows(queries.CHANGED, {"id": id_})):
            tx.emit(batch_updated(batch, rows))


async def find(tx: Transaction, ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, Row]:
    """Return messages of the ledger by id."""
    return {row["id"]: row for row in await tx.rows(queries.FIND_MESSAGES, {"ids": list(ids)})}
