"""Writes the outcomes of calls: for the messages, their batches, their recipients and the number."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from wch_common.events.failure_reasons import failure_reason
from wch_common.integrations.recipients import country
from wch_whatsapp import queries_sending as queries
from wch_whatsapp.call_outcomes import pair_wait
from wch_whatsapp.changes import Change
from wch_whatsapp.cloud import Accepted, RefusedByMeta, Unsent
from wch_whatsapp.error_policy import ErrorAction
from wch_whatsapp.ledger import apply
from wch_whatsapp.pauses import apply_pauses
from wch_whatsapp.suppressions import suppress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wch_common.store.database import Row
    from wch_common.store.store import Transaction
    from wch_whatsapp.call_outcomes import CallOutcome
    from wch_whatsapp.decide import Send
    from wch_whatsapp.error_policy import ErrorPolicy
    from wch_whatsapp.limits import Limits

_OF_MANY = frozenset({ErrorAction.END_BATCH, ErrorAction.END_COUNTRY})


async def write(tx: Transaction, outcomes: Sequence[CallOutcome], limits: Limits, shop: Sequence[str]) -> list[Row]:
    """Write outcomes and return the rows that changed; neither a later attempt nor a faster status is overwritten."""
    rows = await apply(tx, [one.change for one in outcomes], before=("sending", "in_doubt"))
    for one in outcomes:
        await _apply_policy(tx, one, limits)
    accepted = [one.row for one in outcomes if isinstance(one.reply, Accepted)]
    if works := [id_ for row in accepted if row["pair_failures"] for id_ in row["ids"]]:
        await tx.rows(queries.RESET_PAIR_FAILURES, {"sender": limits.sender, "persons": works})
    refused = (RefusedByMeta, Unsent)
    await _refund(tx, limits.sender, [one.send for one in outcomes if isinstance(one.reply, refused)])
    if unreached := [one.row["owner"] for one in outcomes if one.send.reaches and isinstance(one.reply, refused)]:
        await _remove_unreached(tx, limits, unreached)
    await apply_pauses(tx, outcomes, limits.sender, shop)
    return rows


async def put_back(tx: Transaction, row: Row, attempt: int, send: Send, limits: Limits) -> None:
    """Queue a message again whose call was not begun."""
    await apply(tx, [Change(row["id"], "queued", 0.0, attempt)], before=("sending",))
    await _refund(tx, limits.sender, [send])
    if send.reaches:
        await _remove_unreached(tx, limits, [row["owner"]])


async def _refund(tx: Transaction, sender: str, unsent: Sequence[Send]) -> None:
    """Take back what was counted for calls that Meta has certainly not accepted."""
    # In one order, so that two transactions of a number wait for each other instead of deadlocking.
    for kind, messages in sorted(Counter(one.charge for one in unsent).items()):
        await tx.rows(queries.REFUND, {"sender": sender, "kind": kind, "messages": messages})


async def _remove_unreached(tx: Transaction, limits: Limits, persons: Sequence[bytes]) -> None:
    names = {"portfolio": limits.portfolio, "senders": list(limits.portfolio_senders), "persons": list(persons)}
    await tx.rows(queries.REMOVE_UNREACHED, names)


async def _apply_policy(tx: Transaction, one: CallOutcome, limits: Limits) -> None:
    """Write what an error means beyond its message."""
    policy = one.policy
    if policy is None:
        return
    if policy.action is ErrorAction.PAUSE_RECIPIENT:
        (timestamp,) = await tx.rows(queries.NOW)
        blocked = limits.pair.blocked(timestamp["now"], pair_wait(one.row))
        known = one.row["pair_failures"] or 0
        parameters = {"sender": limits.sender, "person": one.row["owner"], "blocked": blocked, "known": known}
        await tx.rows(queries.PAUSE_PAIR, parameters)
    if policy.reason == "opted_out":
        await suppress(tx, one.row, "marketing", reason="opted_out", by="meta")
    await end_batch(tx, one.row, policy)


async def end_batch(tx: Transaction, row: Row, policy: ErrorPolicy) -> None:
    """End the queued messages of a message's batch if the error holds for all of them, or for the recipient's country."""
    if policy.action not in _OF_MANY or row["batch"] is None:
        return
    others = await tx.rows(
        queries.LOCK_REST_OF_BATCH,
        {"batch": row["batch"], "caused_by_values": failure_reason(policy.reason).caused_by_values},
    )
    if policy.action is ErrorAction.END_COUNTRY:
        refused = _country(row)
        others = [other for other in others if refused is not None and _country(other) == refused]
    changes = [Change(other["id"], "failed", reason=policy.state_reason) for other in others]
    await apply(tx, changes, before=("queued",))


def _country(row: Row) -> str | None:
    name = row["phone"] or row["user_id"]
    return country(name) if name else None
