"""Claims due messages of one number, fairly among requesters and within its limits, and commits the intents to send."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from wch_common.errors import LeaseLost
from wch_common.events.failure_reasons import failure_reason, pauses_shop
from wch_whatsapp import queries_sending as queries
from wch_whatsapp.call_outcomes import PROBE_SECONDS
from wch_whatsapp.changes import Change, StateReason
from wch_whatsapp.decide import ClaimState, Defer, End, Send, with_one_name
from wch_whatsapp.ledger import apply
from wch_whatsapp.queries import LONG_WAIT_SECONDS

if TYPE_CHECKING:
    from wch_common.store.database import Row
    from wch_common.store.leases import Lease
    from wch_common.store.store import Store, Transaction
    from wch_whatsapp.limits import Limits

# Most limits pause a number for a minute, and repeatedly while they hold.
_REPORTED_PAUSE_SECONDS = 30.0
_MOST_REPORTED = 500


@dataclass
class Claim:
    """Messages in state `sending`, each with the content of its call, and when to claim again."""

    sends: list[tuple[Row, Send]] = field(default_factory=list)
    probe: bool = False
    next_claim_seconds: float = 0.5
    examined: int = 0


async def add_number(store: Store, limits: Limits) -> None:
    """Write the number and its limits to the table of numbers, and that numbers which the shop has no more are not its own."""
    number = {
        "sender": limits.sender,
        "shop": limits.shop,
        "place": limits.senders.index(limits.sender),
        "portfolio": limits.portfolio,
        "rate": limits.rate,
        "messaging_limit": limits.recipients_a_day,
    }
    await store.database.rows(queries.ADD_NUMBER, number)
    await store.database.rows(queries.LEAVE_SHOP, {"shop": limits.shop, "senders": list(limits.senders)})


async def claim(tx: Transaction, limits: Limits, lease: Lease, wanted: int) -> Claim:
    """Claim up to `wanted` messages, and end or defer those that must not be sent; raises LeaseLost."""
    parameters = {"sender": limits.sender, "lease": lease.name, "token": lease.token}
    rows = await tx.rows(queries.LOCK_NUMBER, parameters)
    if not rows:
        raise LeaseLost(f"another process holds the lease {lease.name}")
    (number,) = rows
    now, paused_until = number["now"], number["paused_until"]
    if paused_until is not None and paused_until > now:
        return await _report_pause(tx, limits, number)
    free, start, seconds = limits.slots(number["slots_from"], now, wanted)
    probe = number["cause"] is not None
    free = min(free, 1) if probe else free
    if not free or (probe and pauses_shop(number["cause"]) and not await _may_probe(tx, limits, number["cause"])):
        return Claim(next_claim_seconds=(start - now).total_seconds() + seconds)
    due = {"sender": limits.sender, "portfolio": limits.portfolio, "limit": free, "last_served": number["last_served"]}
    found = await _with_names(tx, limits, await tx.rows(queries.DUE, due))
    claimed = Claim(probe=probe, examined=len(found))
    if found:
        state = await _state(tx, limits, now)
        await _decide(tx, state, found, claimed)
        if probe and claimed.sends and pauses_shop(number["cause"]):
            names = {"senders": list(limits.senders), "sender": limits.sender, "cause": number["cause"]}
            await tx.rows(queries.EXTEND_OTHER_PAUSES, names | {"seconds": PROBE_SECONDS})
        slots_from = start + timedelta(seconds=seconds * len(claimed.sends))
        await _begin(tx, limits, state, claimed, {"slots_from": slots_from, "last_served": found[-1]["origin"]})
    return claimed


async def _with_names(tx: Transaction, limits: Limits, rows: list[Row]) -> list[Row]:
    """Add what is known of each recipient under all names of theirs; most have only the one that the message gives."""
    ids = [id_ for row in rows for id_ in (row["person"], row["other_person"], row["third_person"]) if id_ is not None]
    names = {"portfolio": limits.portfolio, "ids": ids}
    linked = {row["id"] for row in await tx.rows(queries.HAVE_NAMES, names)} if ids else set()
    several = [row["id"] for row in rows if row["other_person"] is not None or row["person"] in linked]
    found: dict[Any, Row] = {}
    if several:
        names["ids"] = several
        found = {row["id"]: row for row in await tx.rows(queries.UNDER_ALL_NAMES, names)}
    return [row | (found.get(row["id"]) or with_one_name(row)) for row in rows]


async def _may_probe(tx: Transaction, limits: Limits, cause: str) -> bool:
    """Whether no other number of the shop is probing the cause; does not wait for it, because that would deadlock."""
    (lock,) = await tx.rows(queries.TRY_LOCK_PROBE, {"shop": f"probe/{limits.senders[0]}"})
    names = {"senders": list(limits.senders), "sender": limits.sender, "cause": cause}
    return bool(lock["acquired"]) and not await tx.rows(queries.PROBED_BY_OTHER, names)


async def _state(tx: Transaction, limits: Limits, now: datetime) -> ClaimState:
    left, oldest = None, now
    if limits.recipients_a_day >= 0:
        await tx.rows(queries.LOCK_PORTFOLIO, {"portfolio": f"recipients/{limits.portfolio}"})
        (today,) = await tx.rows(queries.REACHED_TODAY, {"portfolio": limits.portfolio})
        left = max(0, limits.recipients_a_day - today["recipients"])
        oldest = today["oldest"] or now
    state = ClaimState(now, limits.pair, left, oldest + timedelta(hours=24), limits.only_to)
    if limits.monthly_budget >= 0:
        (charged,) = await tx.rows(queries.CHARGED_THIS_MONTH, {"sender": limits.sender})
        state.budget_left = max(0, limits.monthly_budget - charged["messages"])
        state.budget_until = charged["until"]
    return state


async def _decide(tx: Transaction, state: ClaimState, found: list[Row], claimed: Claim) -> None:
    """Decide about each message, and end or defer those that must not be sent."""
    changes = []
    for row in found:
        decision = state.decide(row)
        match decision:
            case Send():
                state.count(row, decision)
                claimed.sends.append((row, decision))
            case Defer(until=until, reason=reason):
                wait = (until - state.now).total_seconds()
                defers = wait > LONG_WAIT_SECONDS
                changes.append(Change(row["id"], "queued", wait, reason=StateReason(reason), defers=defers))
            case End(state=end, reason=reason):
                changes.append(Change(row["id"], end, reason=StateReason(reason)))
    await apply(tx, changes, before=("queued",))


async def _begin(tx: Transaction, limits: Limits, state: ClaimState, claimed: Claim, number: dict[str, Any]) -> None:
    """Commit the intents, the slots and recipients that they use, and which origin was served last."""
    persons = sorted(state.pairs)
    charges = sorted(Counter(decision.charge for _, decision in claimed.sends).items())
    await tx.rows(
        queries.BEGIN,
        number
        | {
            "ids": [row["id"] for row, _ in claimed.sends],
            "fallbacks": [decision.as_fallback for _, decision in claimed.sends],
            "seconds": limits.call_deadline_seconds,
            "sender": limits.sender,
            "persons": persons,
            "until": [state.pairs[person] for person in persons],
            "kinds": [kind for kind, _ in charges],
            "counts": [messages for _, messages in charges],
            "portfolio": limits.portfolio,
            "outside": sorted({row["owner"] for row, decision in claimed.sends if decision.outside}),
            "probe": claimed.probe and bool(claimed.sends),
            "probe_seconds": PROBE_SECONDS,
        },
    )


async def _report_pause(tx: Transaction, limits: Limits, number: Row) -> Claim:
    """Report the waiting messages to their batches as deferred, if the number is paused for long."""
    left = (number["paused_until"] - number["now"]).total_seconds()
    reported = 0
    known = failure_reason(number["cause"] or "")
    if left > _REPORTED_PAUSE_SECONDS or known.parks or known.outage:
        waiting = await tx.rows(queries.WAITING_IN_BATCHES, {"sender": limits.sender, "limit": _MOST_REPORTED})
        reason = StateReason(number["cause"] or "")
        changes = [Change(row["id"], "queued", left, reason=reason, defers=True) for row in waiting]
        reported = len(await apply(tx, changes, before=("queued",)))
    return Claim(next_claim_seconds=0.0 if reported == _MOST_REPORTED else min(left, 1.0))
