"""Handlers of whatsapp's answers: the outcomes of recipients, which may arrive in any order."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import structlog

from wch_broadcast import queries
from wch_broadcast.batches import recount
from wch_broadcast.campaign import SERVICE, Campaign, locked, save
from wch_broadcast.identity import campaign_uuid, parsed_batch, position
from wch_broadcast.reasons import LIMITS, concerns_campaign, concerns_content, pause_cause
from wch_broadcast.requests import pause
from wch_broadcast.steps import advance, schedule_update
from wch_common.events.failure_reasons import REFUSED
from wch_common.events.whatsapp import BatchCompleted, BatchUpdated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

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
    ) -> tuple[list[RecipientOutcome], bool]:
        """Write outcomes and count the batch again; returns the changes, and whether it is the batch's first answer."""
        names: dict[str, Any] = {"id": campaign.id, "number": number}
        own = {place: one for one in data.recipients if (place := position(campaign.id, one.send_key)) is not None}
        values = names | {"version": data.version, "refused": REFUSED} | _columns(own)
        changed = [own[row["position"]] for row in await tx.rows(queries.APPLY_OUTCOMES, values)]
        await recount(tx, campaign, [number])
        answered = names | {"limits": sorted(LIMITS), "first": isinstance(data, BatchCompleted)}
        return changed, any(row["first"] for row in await tx.rows(queries.MARK_ANSWERED, answered))

    async def _pause_reason(
        self, tx: Transaction, campaign: Campaign, upto: int, changed: Iterable[RecipientOutcome]
    ) -> str | None:
        """Return why a campaign must pause itself, or None."""
        for one in sorted(filter(concerns_campaign, changed), key=concerns_content)[:1]:
            # If others were sent the message, it is right, and only this recipient cannot be sent it.
            own = {"id": campaign.id, "list": campaign.list}
            if not concerns_content(one) or not await tx.rows(queries.ANY_SENT_WITHOUT_OWN_VALUES, own):
                return pause_cause(one)
        if campaign.released:
            return None  # every batch is released, so a pause would spare no recipient
        batches = max(_LAST_BATCHES, math.ceil(self._min_answers / campaign.batch_size))
        names = {"id": campaign.id, "share_from_batch": campaign.share_from_batch, "number": upto, "batches": batches}
        (share,) = await tx.rows(queries.FAILURE_SHARE, names)
        if share["answers"] >= self._min_answers and share["failed"] >= self._share * share["answers"]:
            return f"{share['failed']} of the last {share['answers']} failed"
        return None


def _columns(outcomes: Mapping[int, RecipientOutcome]) -> dict[str, list[Any]]:
    """Return outcomes by the recipient's position as arrays."""
    return {
        "positions": list(outcomes),
        "outcomes": [one.outcome for one in outcomes.values()],
        "reasons": [one.reason for one in outcomes.values()],
        "concerns": [one.concerns for one in outcomes.values()],
        "retryable": [one.retryable for one in outcomes.values()],
        "codes": [one.code for one in outcomes.values()],
        "untils": [one.until for one in outcomes.values()],
    }
