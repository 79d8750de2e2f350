"""What a call's reply makes of its message, its number and its person, and the transaction that writes it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from wch_common.integrations.phone import country
from wch_whatsapp.bodies import is_free_form
from wch_whatsapp.claims import OF_THE_SHOP, PROBE_SECONDS
from wch_whatsapp.cloud import Accepted, InDoubt, Refused, Reply, Unsent
from wch_whatsapp.error_policy import Action, ErrorPolicy, classify
from wch_whatsapp.ledger import TOLD_WAIT_SECONDS, Change, Why, apply
from wch_whatsapp.people import suppress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wch_common.store.database import Row
    from wch_common.store.store import Transaction
    from wch_whatsapp.claims import Limits
    from wch_whatsapp.decide import Send

BACK_OFF_SECONDS = (2.0, 8.0, 30.0, 120.0, 600.0)
_USAGE_PERCENT = 90.0
_USAGE_PAUSE_SECONDS = 60.0
_OUTAGE_PAUSE_SECONDS = 60.0
_LONGEST_PAIR_WAIT = 3600.0
# What a probe was answered replaces the half minute in which it was the only call.
_PAUSE = """
UPDATE numbers SET
  cause = CASE WHEN paused_until > now() + %(seconds)s * interval '1 second' AND NOT (%(probe)s AND sender = %(sender)s)
               THEN coalesce(cause, %(cause)s) ELSE %(cause)s END,
  paused_until = greatest(
  CASE WHEN %(probe)s AND sender = %(sender)s THEN now() ELSE coalesce(paused_until, now()) END,
  now() + %(seconds)s * interval '1 second')
WHERE sender = ANY(%(senders)s)
"""
# In one order, so that two numbers of a shop that rest at once wait for each other and do not deadlock.
_LOCK = "SELECT 1 FROM numbers WHERE sender = ANY(%(senders)s) ORDER BY sender FOR UPDATE"
_RESUME = "UPDATE numbers SET paused_until = NULL, cause = NULL WHERE sender = ANY(%(senders)s) AND cause = %(cause)s"
_CAUSE = "SELECT cause FROM numbers WHERE sender = %(sender)s"
_REST_PAIR = """
INSERT INTO pairs (sender, person, slots_from, failures) VALUES (%(sender)s, %(person)s, %(blocked)s, 1)
ON CONFLICT (sender, person) DO UPDATE
SET slots_from = excluded.slots_from, failures = CASE WHEN pairs.failures = %(known)s THEN %(known)s + 1 ELSE pairs.failures END
"""
# Who was not written to after all does not count.
_NOT_REACHED = """
DELETE FROM reached WHERE portfolio = %(portfolio)s AND person = ANY(%(people)s) AND NOT EXISTS (
  SELECT 1 FROM messages AS m WHERE m.person = reached.person AND m.sender = ANY(%(senders)s) AND m.updated_at >= reached.at
  AND m.state IN ('sending', 'in_doubt', 'accepted', 'delivered', 'read', 'unknown'))
"""
_PAIR_WORKS = "UPDATE pairs SET failures = 0 WHERE sender = %(sender)s AND person = ANY(%(people)s) AND failures > 0"
# Values that do not fit a template are nobody's who has values of their own.
_OF_BATCH = """
SELECT id, phone FROM messages WHERE batch = %(batch)s AND state = 'queued' AND NOT (own_values AND %(reason)s = 'template_values_wrong')
ORDER BY id FOR UPDATE
"""


@dataclass(frozen=True, slots=True)
class Pause:
    """A number rests, for a cause; with `shop` all numbers of the shop do."""

    cause: str
    seconds: float
    shop: bool = False


@dataclass(frozen=True)
class Outcome:
    """One call that is over: whose it was, the reply, and what it means."""

    row: Row
    attempt: int
    send: Send
    reply: Reply
    policy: ErrorPolicy | None
    change: Change
    pause: Pause | None
    probe: bool


def judged(row: Row, attempt: int, send: Send, *, probe: bool, reply: Reply, settle_seconds: float) -> Outcome:
    """Decide what a reply makes of its message: a pure function."""
    policy = None
    match reply:
        case Accepted(wamid=wamid):
            fallback = send.as_fallback
            change = Change(row["id"], "accepted", attempt=attempt, wamid=wamid, as_fallback=fallback, proven=True)
        case InDoubt(detail=detail):
            defers = settle_seconds > TOLD_WAIT_SECONDS  # its batch is not held up for so long
            why = Why("no_answer", detail=detail)
            change = Change(row["id"], "in_doubt", settle_seconds, attempt, defers=defers, why=why)
        case Unsent(detail=detail):
            policy = ErrorPolicy(Action.BACK_OFF, "meta_unreachable", detail=detail)
            change = refused(row, attempt, policy)
        case Refused(error=error):
            policy = classify(
                error.code,
                status=error.status,
                subcode=error.subcode,
                message=error.message,
                details=error.details,
                own_values=row["own_values"],
            )
            policy = for_whom_it_is(policy, row["content"], as_fallback=send.as_fallback)
            change = refused(row, attempt, policy)
    return Outcome(row, attempt, send, reply, policy, untold(row, change), _pause(reply, policy), probe)


def for_whom_it_is(policy: ErrorPolicy, content: dict[str, Any] | None, *, as_fallback: bool) -> ErrorPolicy:
    """Return the verdict as its own recipient's where others of the batch have an open window and need no template."""
    if policy.action is Action.CAMPAIGN and as_fallback and content is not None and is_free_form(content):
        return replace(policy, action=Action.RECIPIENT)
    return policy


def untold(row: Row, change: Change) -> Change:
    """Return a change as one of which a batch that was told something before is not told; should its number rest, it is."""
    if row["answered"] and change.state == "queued" and not change.defers:
        return replace(change, why=replace(change.why, reason=""))
    return change


def refused(row: Row, attempt: int, policy: ErrorPolicy) -> Change:
    """Return what becomes of a message that surely was not accepted."""
    id_, why = row["id"], policy.why
    match policy.action:
        case Action.BACK_OFF:
            made = row["failures"] + 1
            if made > (policy.most_failures or len(BACK_OFF_SECONDS)):
                return Change(id_, "failed", attempt=attempt, failed=True, why=why)
            wait = max(BACK_OFF_SECONDS[made - 1], policy.wait_seconds or 0.0)
            return Change(id_, "queued", wait, attempt, failed=True, defers=wait > TOLD_WAIT_SECONDS, why=why)
        case Action.THROTTLE | Action.PARK:
            return Change(id_, "queued", 0.0, attempt, why=why)
        case Action.PAIR:
            wait = pair_wait(row)
            return Change(id_, "queued", wait, attempt, defers=wait > TOLD_WAIT_SECONDS, why=why)
    if policy.reason == "window_closed" and row["fallback"] is not None and not row["as_fallback"]:
        # Meta's clock is the one that counts; the template may go at any time.
        return Change(id_, "queued", 0.0, attempt, as_fallback=True, why=why)
    return Change(id_, "failed", attempt=attempt, why=why)


def pair_wait(row: Row) -> float:
    """Return how long a person rests after Meta said it was too much: 1, 4, 16, 64 … seconds."""
    return min(_LONGEST_PAIR_WAIT, 4.0 ** min(row["pair_failures"] or 0, 10))


def pause_for(policy: ErrorPolicy, seconds: float = 0.0) -> Pause | None:
    """Return the rest that an error asks for, which lasts as long as Meta says, or None."""
    if policy.action is Action.PARK:
        return Pause(policy.reason, PROBE_SECONDS, shop=policy.reason in OF_THE_SHOP)
    if policy.action is Action.THROTTLE:
        return Pause(policy.reason, max(seconds, policy.wait_seconds or 2.0), shop=policy.reason in OF_THE_SHOP)
    return None


def _pause(reply: Reply, policy: ErrorPolicy | None) -> Pause | None:
    """Return the rest that a reply asks for its number."""
    usage = getattr(reply, "usage", None)
    told = usage.regain_seconds if usage is not None else 0.0
    asked = reply.error.regain_seconds if isinstance(reply, Refused) else None
    if policy is not None and (pause := pause_for(policy, max(told, asked or 0.0))) is not None:
        return pause
    if usage is not None and usage.percent >= _USAGE_PERCENT:
        return Pause("usage_near_limit", usage.regain_seconds or _USAGE_PAUSE_SECONDS, shop=True)
    return None


_OF_MANY = frozenset({Action.CAMPAIGN, Action.COUNTRY})
_OF_ITS_OWN = _OF_MANY | {Action.RECIPIENT, Action.REFUSE, Action.PAIR}
OUTAGE = Pause("meta_unreachable", _OUTAGE_PAUSE_SECONDS)


async def write(tx: Transaction, outcomes: Sequence[Outcome], limits: Limits, shop: Sequence[str]) -> list[Row]:
    """Write what calls came to; each only over its own attempt, and over no status that was faster. Returns the rows changed."""
    rows = await apply(tx, [one.change for one in outcomes], before=("sending", "in_doubt"))
    for one in outcomes:
        await _beside(tx, one, limits)
    if works := [one.row["person"] for one in outcomes if isinstance(one.reply, Accepted) and one.row["pair_failures"]]:
        await tx.rows(_PAIR_WORKS, {"sender": limits.sender, "people": works})
    unreached = [one.row["person"] for one in outcomes if one.send.reaches and isinstance(one.reply, (Refused, Unsent))]
    if unreached:
        await _not_reached(tx, limits, unreached)
    await _pace(tx, outcomes, limits, shop)
    return rows


async def put_back(tx: Transaction, row: Row, attempt: int, send: Send, limits: Limits) -> None:
    """Put a message back whose call was not begun after all."""
    await apply(tx, [Change(row["id"], "queued", 0.0, attempt)], before=("sending",))
    if send.reaches:
        await _not_reached(tx, limits, [row["person"]])


async def _not_reached(tx: Transaction, limits: Limits, people: Sequence[bytes]) -> None:
    """Count people no more whom no message reached after all."""
    names = {"portfolio": limits.portfolio, "senders": list(limits.portfolio_senders), "people": list(people)}
    await tx.rows(_NOT_REACHED, names)


async def _beside(tx: Transaction, one: Outcome, limits: Limits) -> None:
    """Write what an outcome means for others than its message."""
    policy = one.policy
    if policy is None:
        return
    if policy.action is Action.PAIR:
        (timestamp,) = await tx.rows("SELECT now() AS now")
        blocked = limits.pair.blocked(timestamp["now"], pair_wait(one.row))
        known = one.row["pair_failures"] or 0
        parameters = {"sender": limits.sender, "person": one.row["person"], "blocked": blocked, "known": known}
        await tx.rows(_REST_PAIR, parameters)
    if policy.reason == "opted_out":
        await suppress(tx, one.row, "marketing", reason="opted_out", by="meta")
    await end_batch(tx, one.row, policy)


async def end_batch(tx: Transaction, row: Row, policy: ErrorPolicy) -> None:
    """End what is not under way of a message's batch, where nobody of it, or of the recipient's country, can be reached."""
    if policy.action not in _OF_MANY or row["batch"] is None:
        return
    others = await tx.rows(_OF_BATCH, {"batch": row["batch"], "reason": policy.reason})
    if policy.action is Action.COUNTRY:
        there = country(row["phone"] or "")
        others = [other for other in others if there is not None and country(other["phone"] or "") == there]
    await apply(tx, [Change(other["id"], "failed", why=policy.why) for other in others], before=("queued",))


async def rest(tx: Transaction, pause: Pause, senders: Sequence[str], *, probe: bool = False, sender: str = "") -> None:
    """Let numbers rest; `probe` says that it was a probe of `sender` which brought this."""
    parameters = {"cause": pause.cause, "seconds": pause.seconds, "senders": list(senders)}
    await tx.rows(_LOCK, parameters)
    await tx.rows(_PAUSE, parameters | {"probe": probe, "sender": sender})


def _is_through(one: Outcome) -> bool:
    """Whether a call shows that its number works: it was accepted, or refused for a reason of its message or its recipient."""
    return isinstance(one.reply, Accepted) or (one.policy is not None and one.policy.action in _OF_ITS_OWN)


async def _pace(tx: Transaction, outcomes: Sequence[Outcome], limits: Limits, shop: Sequence[str]) -> None:
    """Let the number rest where a reply asked for it, and work again where a probe succeeded."""
    pauses = {(one.pause, one.probe) for one in outcomes if one.pause is not None}
    works = any(one.probe and _is_through(one) for one in outcomes)
    if works or pauses:
        await tx.rows(_LOCK, {"senders": list(shop)})
    if works:
        for number in await tx.rows(_CAUSE, {"sender": limits.sender}):
            senders = list(shop) if number["cause"] in OF_THE_SHOP else [limits.sender]
            await tx.rows(_RESUME, {"senders": senders, "cause": number["cause"]})
    for pause, probe in pauses:
        await rest(tx, pause, shop if pause.shop else [limits.sender], probe=probe, sender=limits.sender)
