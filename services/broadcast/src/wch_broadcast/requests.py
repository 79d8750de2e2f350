"""Handlers of requests: run, pause, resume and cancel a campaign."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg.types.json import Jsonb

from wch_broadcast import queries
from wch_broadcast.campaign import SOURCE, Campaign, locked, save, totals
from wch_broadcast.identity import batch_name, campaign_uuid, content_hash, list_uuid
from wch_broadcast.steps import advance, progress, wake_next
from wch_common.events.broadcast import (
    CampaignPaused,
    CampaignRefused,
    CampaignRequested,
    CampaignResumed,
)
from wch_common.events.whatsapp import BatchCancelRequested
from wch_common.outcome import Reject, Retry
from wch_common.store.erased_people import as_published

if TYPE_CHECKING:
    from collections.abc import Callable

    from wch_broadcast.lists import Lists
    from wch_broadcast.settings import BroadcastShop
    from wch_broadcast.steps import Pace
    from wch_common.contract.event import Event
    from wch_common.events.broadcast import (
        CampaignCancelRequested,
        CampaignPauseRequested,
        CampaignResumeRequested,
    )
    from wch_common.integrations.shops import Shops
    from wch_common.store.store import Transaction


class Requests:
    """Handlers of the requests of other programs and operators."""

    def __init__(self, shops: Shops[BroadcastShop], lists: Lists, pace: Pace, nudge: Callable[[], None]) -> None:
        self._shops = shops
        self._lists = lists
        self._pace = pace
        self._nudge = nudge

    async def campaign(self, event: Event[CampaignRequested], tx: Transaction) -> None:
        """Add a campaign and advance it; a repeated request is answered with the campaign's progress."""
        data, shop = event.data, self._shops.key(event.shop)
        id_ = campaign_uuid(shop, data.campaign_id)
        hash_ = _hash(as_published(event))
        tx.then(self._nudge)
        added = await tx.rows(queries.ADD_CAMPAIGN, self._values(event, shop, hash_))
        if added and data.recipients is not None:
            await self._lists.with_campaign(tx, id_, event.shop, data.recipients)
        campaign = await locked(tx, id_)
        if campaign is None:
            raise Retry("the campaign is being deleted")
        if added:
            await advance(tx, campaign, self._pace)
        elif bytes(campaign.hash) != hash_:
            raise Reject(
                f"data.campaign_id: the shop has another campaign {data.campaign_id} with other content; "
                "choose another name"
            )
        else:
            await self._check_turn(tx, campaign)
            tx.emit(event.derive(await progress(tx, campaign), SOURCE, key="known"))

    async def pause(self, event: Event[CampaignPauseRequested], tx: Transaction) -> None:
        """Release no further batches."""
        campaign = await self._named(event, tx)
        if campaign.state not in ("waiting", "running"):
            return await _answer_with_progress(event, tx, campaign)
        await pause(tx, campaign, event.data.reason, event.data.by)
        return await save(tx, campaign)

    async def resume(self, event: Event[CampaignResumeRequested], tx: Transaction) -> None:
        """Continue when it is the campaign's turn, and then retry failures of the whole campaign."""
        campaign = await self._named(event, tx)
        if campaign.state not in ("paused", "failed"):
            await self._check_turn(tx, campaign)
            return await _answer_with_progress(event, tx, campaign)
        campaign.change_state("waiting")
        campaign.ended_at, campaign.share_from_batch = None, campaign.batches
        result = await totals(tx, campaign)
        campaign.publish(tx, CampaignResumed(campaign_id=campaign.campaign_id, totals=result, by=event.data.by))
        return await advance(tx, campaign, self._pace)

    async def cancel(self, event: Event[CampaignCancelRequested], tx: Transaction) -> None:
        """Cancel every open batch; the campaign ends when everything in progress has its answer."""
        campaign, data = await self._named(event, tx), event.data
        if campaign.state in ("completed", "cancelled", "cancelling"):
            return await _answer_with_progress(event, tx, campaign)
        reason = data.reason or "cancelled"
        campaign.change_state("cancelling", reason, data.by)
        campaign.released, campaign.ended_at = True, None
        for row in await tx.rows(queries.OPEN_BATCHES, {"id": campaign.id}):
            name = batch_name(campaign.campaign_id, row["number"])
            campaign.request_whatsapp(tx, BatchCancelRequested(batch_id=name, reason=reason), name)
        return await advance(tx, campaign, self._pace)

    async def _check_turn(self, tx: Transaction, campaign: Campaign) -> None:
        """Let a campaign that waits check its turn, because nobody wakes it while it is locked."""
        if campaign.state == "waiting":
            await advance(tx, campaign, self._pace)

    async def _named(
        self,
        event: Event[CampaignPauseRequested] | Event[CampaignResumeRequested] | Event[CampaignCancelRequested],
        tx: Transaction,
    ) -> Campaign:
        """Return the campaign of a request; raises Retry if it does not exist, as its own request may still arrive."""
        tx.then(self._nudge)
        campaign = await locked(tx, campaign_uuid(self._shops.key(event.shop), event.data.campaign_id))
        if campaign is None:
            raise Retry(f"data.campaign_id: the shop has no campaign {event.data.campaign_id}")
        return campaign

    def _values(self, event: Event[CampaignRequested], shop: str, hash_: bytes) -> dict[str, Any]:
        data = event.data
        id_ = campaign_uuid(shop, data.campaign_id)
        request = data.model_dump(mode="json", include={"message", "category", "fallback", "sender"}, exclude_none=True)
        return {
            "id": id_,
            "shop": shop,
            "campaign_id": data.campaign_id,
            "requester": event.requester or "",
            "request": Jsonb(request),
            "hash": hash_,
            "list": id_ if data.list_id is None else list_uuid(shop, data.list_id),
            "exclusive": data.exclusive,
            "batch_size": data.batch_size,
            "pause_seconds": data.pause_seconds,
            "start_at": data.start_at,
            "stop_at": data.stop_at,
            "correlationid": event.correlationid or event.id,
            "causationid": event.id,
        }


async def _answer_with_progress(event: Event[Any], tx: Transaction, campaign: Campaign) -> None:
    """Answer a request that is impossible in the campaign's state."""
    tx.emit(event.derive(await progress(tx, campaign), SOURCE, key="state"))


async def pause(tx: Transaction, campaign: Campaign, reason: str, by: str) -> None:
    """Pause a campaign and publish it; the caller saves the campaign."""
    campaign.change_state("paused", reason, by)
    await wake_next(tx, campaign)
    result = await totals(tx, campaign)
    campaign.publish(tx, CampaignPaused(campaign_id=campaign.campaign_id, totals=result, reason=reason, by=by))


def _hash(data: CampaignRequested) -> bytes:
    return content_hash(data.model_dump(mode="json"))


def request_dead_lettered(event: Event[Any], reason: str) -> CampaignRefused | None:
    """Return the fact about a dead-lettered request; None for one that names no campaign."""
    campaign_id = getattr(event.data, "campaign_id", None)
    return None if campaign_id is None else CampaignRefused(campaign_id=campaign_id, reason=reason[:500])
