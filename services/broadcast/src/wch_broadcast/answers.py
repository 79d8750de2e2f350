"""The handlers of whatsapp's answers: what became of recipients, in whatever order it is told."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import structlog

from wch_broadcast.asking import recount
from wch_broadcast.campaign import Campaign, locked, save
from wch_broadcast.identity import campaign_uuid, parsed_batch, position
from wch_broadcast.requests import pause
from wch_broadcast.steps import advance, note_late_answer
from wch_broadcast.totals import OF_THE_MESSAGE, REFUSED, concerns_everybody, parked_by
from wch_common.events.whatsapp import BatchCompleted, BatchUpdated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from wch_broadcast.settings import BroadcastSettings, BroadcastShop
    from wch_broadcast.steps import Pace
    from wch_common.contract.event import Event
    from wch_common.events.whatsapp import RecipientOutcome
    from wch_common.integrations.shops import Shops
    from wch_common.store.database import Row
    from wch_common.store.store import Transaction

log = structlog.get_logger(__name__)

BY_ITSELF = "broadcast"
# What a later fact told of a recipient is not undone by an earlier one that comes after it, nor by the refusal of a request
# that came twice.
_APPLY = """
UPDATE outcomes AS o SET outcome = new.outcome, reason = new.reason, code = new.code, until = new.until, version = %(version)s
FROM unnest(%(positions)s::int[], %(outcomes)s::text[], %(reasons)s::text[], %(codes)s::int[], %(untils)s::timestamptz[])
  AS new (position, outcome, reason, code, until)
WHERE o.campaign = %(id)s AND o.position = new.position AND o.batch = %(number)s AND o.version <= %(version)s
AND (o.outcome = 'asked' OR NOT starts_with(new.reason, %(refused)s))
RETURNING o.outcome, o.reason, o.reason = ANY(%(of_message)s) AND EXISTS (
  SELECT 1 FROM recipients AS r WHERE r.list = %(list)s AND r.position = o.position AND r.own IS NOT NULL) AS own_values
"""
_DEFERRED = "SELECT DISTINCT outcome, reason FROM outcomes WHERE campaign = %(id)s AND batch = %(number)s AND outcome = 'deferred'"
_ANSWERED = """
UPDATE batches SET parked_by = %(parked_by)s, answered_at = CASE WHEN %(first)s THEN coalesce(answered_at, now()) ELSE answered_at END
WHERE campaign = %(id)s AND number = %(number)s RETURNING answered_at = now() AS first
"""
# The last batches; or those up to the one of which something became known later, as most failures do, by when others follow it.
_SHARE = """
SELECT coalesce(sum(failed), 0)::int AS failed, coalesce(sum(answers), 0)::int AS answers FROM (
  SELECT failed, (SELECT sum(value::int) FROM jsonb_each_text(counts) WHERE key NOT LIKE 'asked/%%') AS answers
  FROM batches WHERE campaign = %(id)s AND number > %(share_from)s AND number <= %(number)s AND answered_at IS NOT NULL
  ORDER BY number DESC LIMIT %(batches)s
) AS last
"""
_LAST_BATCHES = 20
_TAKEN = """
SELECT 1 FROM outcomes AS o JOIN recipients AS r ON r.list = %(list)s AND r.position = o.position
WHERE o.campaign = %(id)s AND o.outcome IN ('accepted', 'delivered', 'read') AND r.own IS NULL LIMIT 1
"""


class Answers:
    """What whatsapp says of batches."""

    def __init__(
        self, shops: Shops[BroadcastShop], pace: Pace, settings: BroadcastSettings, nudge: Callable[[], None]
    ) -> None:
        self._shops = shops
        self._pace = pace
        self._nudge = nudge
        self._share = settings.broadcast_failure_share
        self._least = settings.broadcast_failure_least

    async def answer(self, event: Event[BatchCompleted] | Event[BatchUpdated], tx: Transaction) -> None:
        """Note what became of recipients, and go on with their campaign."""
        found = parsed_batch(event.data.batch_id)
        campaign = await locked(tx, campaign_uuid(self._shops.key(event.shop), found[0])) if found else None
        if found is None or campaign is None:
            log.warning("answer_to_nobody", batch=event.data.batch_id)
            return
        _, number = found
        tx.then(self._nudge)
        changed, first = await self._noted(tx, campaign, number, event.data)
        if first:  # what becomes known of answered batches does not say that the others go on
            campaign.moved_at, campaign.taken_up_at = campaign.now, None
        if campaign.is_final:
            if changed:
                note_late_answer(campaign)
            await save(tx, campaign)
            return
        upto = number if isinstance(event.data, BatchUpdated) else campaign.batches
        if campaign.state == "running" and (reason := await self._stops(tx, campaign, upto, changed)):
            log.error("campaign_paused", campaign=campaign.campaign_id, shop=campaign.shop, reason=reason)
            await pause(tx, campaign, reason, BY_ITSELF)
        await advance(tx, campaign, self._pace)

    async def _noted(
        self, tx: Transaction, campaign: Campaign, number: int, data: BatchCompleted | BatchUpdated
    ) -> tuple[list[Row], bool]:
        """Write outcomes, count the batch anew, and return what changed, and whether it is the batch's first answer."""
        names: dict[str, Any] = {"id": campaign.id, "number": number}
        of = {"version": data.version, "list": campaign.list, "of_message": sorted(OF_THE_MESSAGE), "refused": REFUSED}
        changed = await tx.rows(_APPLY, names | of | _columns(campaign, data.recipients))
        await recount(tx, campaign, [number])
        parked = parked_by(await tx.rows(_DEFERRED, names))
        answers = names | {"parked_by": parked, "first": isinstance(data, BatchCompleted)}
        return changed, any(row["first"] for row in await tx.rows(_ANSWERED, answers))

    async def _stops(self, tx: Transaction, campaign: Campaign, upto: int, changed: Iterable[Row]) -> str | None:
        """Return why a campaign must not go on by itself, or None."""
        reasons = [
            str(row["reason"])
            for row in changed
            if concerns_everybody(row["outcome"], row["reason"], own_values=row["own_values"])
        ]
        for reason in sorted(reasons, key=OF_THE_MESSAGE.__contains__)[:1]:
            # A message that others were sent is not wrong: then it is this recipient who cannot be sent it.
            if reason not in OF_THE_MESSAGE or not await tx.rows(_TAKEN, {"id": campaign.id, "list": campaign.list}):
                return reason
        if campaign.released:
            return None  # nobody is left whom a pause could spare
        batches = max(_LAST_BATCHES, math.ceil(self._least / campaign.batch_size))
        names = {"id": campaign.id, "share_from": campaign.share_from, "number": upto, "batches": batches}
        (share,) = await tx.rows(_SHARE, names)
        if share["answers"] >= self._least and share["failed"] >= self._share * share["answers"]:
            return f"{share['failed']} of the last {share['answers']} failed"
        return None


def _columns(campaign: Campaign, recipients: Iterable[RecipientOutcome]) -> dict[str, list[Any]]:
    known = [(position(campaign.id, one.send_key), one) for one in recipients]
    mine = [(place, one) for place, one in known if place is not None]
    return {
        "positions": [place for place, _ in mine],
        "outcomes": [one.outcome for _, one in mine],
        "reasons": [one.reason for _, one in mine],
        "codes": [one.code for _, one in mine],
        "untils": [one.until for _, one in mine],
    }
