"""Taking messages up for one number: fairly over who asked, within its rate, in one transaction that writes the intents."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from wch_common.errors import LeaseLost
from wch_whatsapp.decide import Defer, End, Known, PairLimit, Send
from wch_whatsapp.ledger import TOLD_WAIT_SECONDS, Change, Why, apply

if TYPE_CHECKING:
    from wch_common.store.database import Row
    from wch_common.store.leases import Lease
    from wch_common.store.store import Store, Transaction

PROBE_SECONDS = 30.0
# Most limits rest a number for a minute, again and again while they hold.
_TOLD_REST_SECONDS = 30.0
_MOST_TOLD = 500
_ADD_NUMBER = "INSERT INTO numbers (sender, slots_from) VALUES (%(sender)s, now()) ON CONFLICT DO NOTHING"
# The lease's token fences: who lost it claims nothing more, however late it wakes.
_NUMBER = """
SELECT now() AS now, slots_from, paused_until, cause, last_lane FROM numbers
WHERE sender = %(sender)s
AND EXISTS (SELECT 1 FROM leases WHERE name = %(lease)s AND token = %(token)s AND until > now())
FOR UPDATE
"""
# One message of each lane (shop and requester) before the second of any, beginning after the lane that was served last.
_DUE = """
WITH RECURSIVE lanes AS (
  (SELECT shop, requester FROM messages WHERE sender = %(sender)s AND state = 'queued' ORDER BY shop, requester LIMIT 1)
  UNION ALL
  SELECT next.shop, next.requester FROM lanes CROSS JOIN LATERAL (
    SELECT shop, requester FROM messages
    WHERE sender = %(sender)s AND state = 'queued' AND (shop, requester) > (lanes.shop, lanes.requester)
    ORDER BY shop, requester LIMIT 1
  ) AS next
), due AS (
  SELECT message.id, lanes.shop, lanes.requester,
         row_number() OVER (PARTITION BY lanes.shop, lanes.requester ORDER BY message.due_at) AS turn
  FROM lanes CROSS JOIN LATERAL (
    SELECT id, due_at FROM messages
    WHERE sender = %(sender)s AND state = 'queued' AND shop = lanes.shop AND requester = lanes.requester AND due_at <= now()
    ORDER BY due_at LIMIT %(limit)s
  ) AS message
), chosen AS (
  SELECT id, turn, shop || chr(10) || requester AS lane FROM due
  ORDER BY turn, shop || chr(10) || requester <= %(last_lane)s, shop, requester LIMIT %(limit)s
)
SELECT m.id, m.shop, m.person, m.phone, m.category, m.cancelled, m.content, m.fallback, m.as_fallback, m.own_values, m.expires_at, m.attempt,
       m.failures, m.batch, m.answered, chosen.lane, pairs.slots_from AS pair_slots_from, pairs.failures AS pair_failures,
       windows.open_until AS window_until, reached.at AS reached_at,
       (SELECT s.reason FROM suppressions AS s WHERE s.shop = m.shop AND s.person = m.person
        AND s.category IN (m.category, 'all') AND s.lifted_at IS NULL LIMIT 1) AS suppressed
FROM chosen JOIN messages AS m ON m.id = chosen.id
LEFT JOIN pairs ON pairs.sender = m.sender AND pairs.person = m.person
LEFT JOIN windows ON windows.sender = m.sender AND windows.person = m.person
LEFT JOIN reached ON reached.portfolio = %(portfolio)s AND reached.person = m.person
WHERE m.state = 'queued'
ORDER BY chosen.turn
FOR UPDATE OF m SKIP LOCKED
"""
_REACHED_TODAY = """
SELECT count(*) AS people, min(at) AS oldest FROM reached
WHERE portfolio = %(portfolio)s AND at > now() - interval '24 hours'
"""
# All that beginning calls takes, in one statement, because each round trip is time in which a place for a call is empty.
_BEGIN = """
WITH begun AS (
  UPDATE messages AS m SET state = 'sending', attempt = m.attempt + 1, as_fallback = new.as_fallback,
         wamid = NULL, due_at = now() + %(seconds)s * interval '1 second', updated_at = now()
  FROM unnest(%(ids)s::uuid[], %(fallbacks)s::bool[]) AS new (id, as_fallback) WHERE m.id = new.id
), paired AS (
  INSERT INTO pairs (sender, person, slots_from)
  SELECT %(sender)s, person, slots_from FROM unnest(%(people)s::bytea[], %(until)s::timestamptz[]) AS new (person, slots_from)
  ON CONFLICT (sender, person) DO UPDATE SET slots_from = greatest(pairs.slots_from, excluded.slots_from)
), reaching AS (
  INSERT INTO reached (portfolio, person, at)
  SELECT %(portfolio)s, person, now() FROM unnest(%(outside)s::bytea[]) AS new (person)
  ON CONFLICT (portfolio, person) DO UPDATE SET at = CASE
    WHEN reached.at > now() - interval '24 hours' THEN reached.at ELSE excluded.at END
)
UPDATE numbers SET slots_from = %(slots_from)s, last_lane = %(last_lane)s,
       paused_until = CASE WHEN %(probe)s THEN now() + %(probe_seconds)s * interval '1 second' ELSE paused_until END
WHERE sender = %(sender)s
"""
# One probe for a shop whose token is refused, whichever of its numbers makes it.
_PROBES_ALONE = "SELECT pg_try_advisory_xact_lock(hashtext(%(shop)s)) AS alone"
# Of another that has probed meanwhile, though it could not tell this one.
_RESTS = """
SELECT 1 FROM numbers WHERE sender = ANY(%(senders)s) AND sender <> %(sender)s AND cause = %(cause)s AND paused_until > now() LIMIT 1
"""
# A number that is locked comes to rest, or ends its rest, in this moment: to wait for it here would be a deadlock.
_OTHERS_WAIT = """
UPDATE numbers SET paused_until = now() + %(seconds)s * interval '1 second'
WHERE sender IN (SELECT sender FROM numbers WHERE sender = ANY(%(senders)s) AND sender <> %(sender)s AND cause = %(cause)s
                 FOR UPDATE SKIP LOCKED)
"""
# Two numbers of one portfolio must not both give its last place away.
_ALONE = "SELECT pg_advisory_xact_lock(hashtext(%(portfolio)s))"
# Also those that are tried again, of which nothing was told since.
_WAITING_IN_BATCHES = """
SELECT id FROM messages WHERE sender = %(sender)s AND state = 'queued'
AND (batch IS NOT NULL OR asked_again) AND (NOT answered OR reason = '')
AND due_at <= now() LIMIT %(limit)s FOR UPDATE SKIP LOCKED
"""


@dataclass(frozen=True)
class Limits:
    """What one number may do."""

    sender: str
    senders: tuple[str, ...]
    """All numbers of the shop, which share its token."""
    portfolio: str
    portfolio_senders: tuple[str, ...]
    """All numbers of the portfolio, which share its people a day."""
    rate: float
    """Messages a second; 0 for any number."""
    people_a_day: int
    """Outside windows; -1 for any number."""
    pair: PairLimit
    call_deadline_seconds: float
    """After it a call that left no outcome is in doubt."""

    def slots(self, slots_from: datetime, now: datetime, wanted: int) -> tuple[int, datetime, float]:
        """Return how many may go now, the moment before which slots are taken, and the seconds of one.

        A twentieth of the rate is kept for a burst, so that no second sees more than the rate.
        """
        if not self.rate:
            return wanted, now, 0.0
        burst = max(1.0, self.rate / 20)
        seconds = 1 / (self.rate - burst if self.rate >= 20 else self.rate)
        start = max(slots_from, now - timedelta(seconds=burst * seconds))
        free = math.floor((now - start).total_seconds() / seconds + 1e-6)
        # The clock of a database may step back at a failover; then nothing is free until it is there again.
        return min(wanted, max(0, free)), start, seconds


@dataclass
class Claim:
    """What was taken up: messages in state `sending`, each with the content of its call, and when to look again."""

    sends: list[tuple[Row, Send]] = field(default_factory=list)
    probe: bool = False
    again_seconds: float = 0.5
    looked: int = 0


async def add_number(store: Store, sender: str) -> None:
    """Make the number known."""
    await store.database.rows(_ADD_NUMBER, {"sender": sender})


async def claim(tx: Transaction, limits: Limits, lease: Lease, wanted: int) -> Claim:
    """Take up to `wanted` messages up for their calls, and end or put off those that must not go; raises LeaseLost."""
    parameters = {"sender": limits.sender, "lease": lease.name, "token": lease.token}
    rows = await tx.rows(_NUMBER, parameters)
    if not rows:
        raise LeaseLost(f"the lease {lease.name} is somebody else's")
    (number,) = rows
    now, paused_until = number["now"], number["paused_until"]
    if paused_until is not None and paused_until > now:
        return await _while_paused(tx, limits, number)
    free, start, seconds = limits.slots(number["slots_from"], now, wanted)
    probe = number["cause"] is not None
    free = min(free, 1) if probe else free
    if not free or (probe and number["cause"] in OF_THE_SHOP and not await _may_probe(tx, limits, number["cause"])):
        return Claim(again_seconds=(start - now).total_seconds() + seconds)
    due = {"sender": limits.sender, "portfolio": limits.portfolio, "limit": free, "last_lane": number["last_lane"]}
    found = await tx.rows(_DUE, due)
    taken = Claim(probe=probe, looked=len(found))
    if found:
        known = await _known(tx, limits, now)
        await _decide(tx, known, found, taken)
        if probe and taken.sends and number["cause"] in OF_THE_SHOP:
            names = {"senders": list(limits.senders), "sender": limits.sender, "cause": number["cause"]}
            await tx.rows(_OTHERS_WAIT, names | {"seconds": PROBE_SECONDS})
        slots_from = start + timedelta(seconds=seconds * len(taken.sends))
        await _begin(tx, limits, known, taken, {"slots_from": slots_from, "last_lane": found[-1]["lane"]})
    return taken


async def _may_probe(tx: Transaction, limits: Limits, cause: str) -> bool:
    """Tell whether no other number of the shop probes at this moment; one that waited here would be a deadlock."""
    (lock,) = await tx.rows(_PROBES_ALONE, {"shop": f"probe/{limits.senders[0]}"})
    names = {"senders": list(limits.senders), "sender": limits.sender, "cause": cause}
    return bool(lock["alone"]) and not await tx.rows(_RESTS, names)


async def _known(tx: Transaction, limits: Limits, now: datetime) -> Known:
    left, oldest = None, now
    if limits.people_a_day >= 0:
        await tx.rows(_ALONE, {"portfolio": f"people/{limits.portfolio}"})
        (today,) = await tx.rows(_REACHED_TODAY, {"portfolio": limits.portfolio})
        left = max(0, limits.people_a_day - today["people"])
        oldest = today["oldest"] or now
    return Known(now, limits.pair, left, oldest + timedelta(hours=24))


async def _decide(tx: Transaction, known: Known, found: list[Row], taken: Claim) -> None:
    """Decide on each message, and end or put off those that must not go."""
    changes = []
    for row in found:
        decision = known.decide(row)
        match decision:
            case Send():
                known.note(row, decision)
                taken.sends.append((row, decision))
            case Defer(until=until, reason=reason):
                wait = (until - known.now).total_seconds()
                changes.append(Change(row["id"], "queued", wait, why=Why(reason), defers=wait > TOLD_WAIT_SECONDS))
            case End(state=state, reason=reason):
                changes.append(Change(row["id"], state, why=Why(reason)))
    await apply(tx, changes, before=("queued",))


async def _begin(tx: Transaction, limits: Limits, known: Known, taken: Claim, number: dict[str, Any]) -> None:
    """Write the intents, what they take of the limits, and the number's place in its turns."""
    people = sorted(known.pairs)
    await tx.rows(
        _BEGIN,
        number
        | {
            "ids": [row["id"] for row, _ in taken.sends],
            "fallbacks": [decision.as_fallback for _, decision in taken.sends],
            "seconds": limits.call_deadline_seconds,
            "sender": limits.sender,
            "people": people,
            "until": [known.pairs[person] for person in people],
            "portfolio": limits.portfolio,
            "outside": sorted({row["person"] for row, decision in taken.sends if decision.outside}),
            "probe": taken.probe and bool(taken.sends),
            "probe_seconds": PROBE_SECONDS,
        },
    )


async def _while_paused(tx: Transaction, limits: Limits, number: Row) -> Claim:
    """Tell the batches that wait for the number that they do, where it is for long."""
    left = (number["paused_until"] - number["now"]).total_seconds()
    told = 0
    if left > _TOLD_REST_SECONDS or number["cause"] in PARKING or number["cause"] == "meta_unreachable":
        waiting = await tx.rows(_WAITING_IN_BATCHES, {"sender": limits.sender, "limit": _MOST_TOLD})
        changes = [Change(row["id"], "queued", left, why=Why(number["cause"] or ""), defers=True) for row in waiting]
        told = len(await apply(tx, changes, before=("queued",)))
    return Claim(again_seconds=0.0 if told == _MOST_TOLD else min(left, 1.0))


PARKING: frozenset[Any] = frozenset({
    "token_refused", "permission_missing", "account_restricted", "billing", "number_not_usable"
})  # fmt: skip
"""Causes that only a person can end."""
OF_THE_SHOP: frozenset[Any] = PARKING - {"number_not_usable"} | {"app_throttled", "usage_near_limit"}
"""Causes that rest all numbers of a shop, which share its token, its account and its app."""
