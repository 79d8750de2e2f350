"""Handlers of whatsapp's answers: the outcomes of recipients, which may arrive in any order."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import structlog

from wch_broadcast import queries
from wch_broadcast.batches import recount
from wch_broadcast.campaign import SERVICE, Campaign, locked, save
from wch_broadcast.identity import campaign_uuid, parsed_batch, position
from wch_broadcast.queries import AppliedOutcome
from wch_broadcast.reasons import MESSAGE_REASONS, REFUSED, concerns_campaign, number_limit
from wch_broadcast.requests import pause
from wch_broadcast.steps import advance, schedule_update
from wch_common.events.whatsapp import BatchCompleted, BatchUpdated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from wch_broadcast.settings import BroadcastSettings, BroadcastShop
    from wch_broadcast.steps import Pace
    from wch_common.contract.event import Event
    from wch_common.events.whatsapp import RecipientOutcome
    from wch_common.integrations.shops import Shops
    from wch_common.store.store import Transaction

log = structlog.get_logger(__name__)

_LAST_BATCHES = 20


class Answers:
    """The handler of `whatsapp.batch.completed` and `whatsapp.batch.updated`."""

    def __init__(
        self, shops: Shops[BroadcastShop], pace: Pace, settings: BroadcastSettings, nudge: Callable[[], None]
    ) -> None:
        self._shops = shops
        self._pace = pace
        self._nudge = nudge
        self._share = settings.broadcast_failure_share
        self._min_answers = settings.broadcast_failure_min_answers

    async def answer(self, event: Event[BatchCompleted] | Event[BatchUpdated], tx: Transaction) -> None:
        """Store outcomes of recipients, and advance their campaign or pause it."""
        found = parsed_batch(event.data.batch_id)
        campaign = await locked(tx, campaign_uuid(self._shops.key(event.shop), found[0])) if found else None
        if found is None or campaign is None:
            log.warning("answer_without_campaign", batch=event.data.batch_id)
            return
        _, number = found
        tx.then(self._nudge)
        changed, first = await self._store(tx, campaign, number, event.data)
        if first:  # later news of an answered batch does not mean that the other batches progress
            campaign.note_progress()
        if campaign.is_final:
            if changed:
                schedule_update(campaign)
            await save(tx, campaign)
            return
        upto = number if isinstance(event.data, BatchUpdated) else campaign.batches
        if campaign.state == "running" and (reason := await self._pause_reason(tx, campaign, upto, changed)):
            log.error("campaign_paused", campaign=campaign.campaign_id, shop=campaign.shop, reason=reason)
            await pause(tx, campaign, reason, SERVICE)
        await advance(tx, campaign, self._pace)

    async def _store(
        self, tx: Transaction, campaign: Campaign, number: int, data: BatchCompleted | BatchUpdated
    ) -> tuple[list[AppliedOutcome], bool]:
        """Write outcomes and count the batch again; returns the changes, and whether it is the batch's first answer."""
        names: dict[str, Any] = {"id": campaign.id, "number": number}
        values = names | {"version": data.version, "list": campaign.list, "refused": REFUSED}
        values |= {"of_message": sorted(MESSAGE_REASONS)} | _columns(campaign, data.recipients)
        changed = await tx.typed(AppliedOutcome, queries.APPLY_OUTCOMES, values)
        await recount(tx, campaign, [number])
        limit = number_limit(row["reason"] for row in await tx.rows(queries.DEFERRED_REASONS, names))
        answered = names | {"limited_by": limit, "first": isinstance(data, BatchCompleted)}
        return changed, any(row["first"] for row in await tx.rows(queries.MARK_ANSWERED, answered))

    async def _pause_reason(
        self, tx: Transaction, campaign: Campaign, upto: int, changed: Iterable[AppliedOutcome]
    ) -> str | None:
        """Return why a campaign must pause itself, or None."""
        reasons = [
            one.reason for one in changed if concerns_campaign(one.outcome, one.reason, own_values=one.own_values)
        ]
        for reason in sorted(reasons, key=MESSAGE_REASONS.__contains__)[:1]:
            # If others were sent the message, it is right, and only this recipient cannot be sent it.
            own = {"id": campaign.id, "list": campaign.list}
            if reason not in MESSAGE_REASONS or not await tx.rows(queries.ANY_SENT_WITHOUT_OWN_VALUES, own):
                return reason
        if campaign.released:
            return None  # every batch is released, so a pause would spare no recipient
        batches = max(_LAST_BATCHES, math.ceil(self._min_answers / campaign.batch_size))
        names = {"id": campaign.id, "share_from_batch": campaign.share_from_batch, "number": upto, "batches": batches}
        (share,) = await tx.rows(queries.FAILURE_SHARE, names)
        if share["answers"] >= self._min_answers and share["failed"] >= self._share * share["answers"]:
            return f"{share['failed']} of the last {share['answers']} failed"
        return None


def _columns(campaign: Campaign, recipients: Iterable[RecipientOutcome]) -> dict[str, list[Any]]:
    """Return the outcomes of the campaign's own recipients as arrays."""
    found = [(position(campaign.id, one.send_key), one) for one in recipients]
    own = [(place, one) for place, one in found if place is not None]
    return {
        "positions": [place for place, _ in own],
        "outcomes": [one.outcome for _, one in own],
        "reasons": [one.reason for _, one in own],
        "codes": [one.code for _, one in own],
        "untils": [one.until for _, one in own],
    }
