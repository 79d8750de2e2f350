"""The handlers of requests: to run a campaign, and to pause, resume and cancel it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from psycopg.types.json import Jsonb

from wch_broadcast.campaign import SOURCE, Campaign, as_json, locked, save
from wch_broadcast.identity import batch_name, campaign_uuid, list_uuid
from wch_broadcast.steps import advance, progress, wake_others
from wch_broadcast.totals import totals
from wch_common.events.broadcast import (
    CampaignPaused,
    CampaignRefused,
    CampaignRequested,
    CampaignResumed,
)
from wch_common.events.whatsapp import BatchCancelRequested
from wch_common.outcome import Reject, Retry

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

_ADD = """
INSERT INTO campaigns (id, shop, campaign_id, requester, request, hash, list, exclusive, batch_size, pause_seconds, start_at,
                       stop_at, state, correlationid, causationid)
VALUES (%(id)s, %(shop)s, %(campaign_id)s, %(requester)s, %(request)s, %(hash)s, %(list)s, %(exclusive)s, %(batch_size)s,
        %(pause_seconds)s, %(start_at)s, %(stop_at)s, 'waiting', %(correlationid)s, %(causationid)s)
ON CONFLICT (id) DO NOTHING RETURNING id
"""
_OPEN_BATCHES = """
SELECT number FROM batches WHERE campaign = %(id)s AND (answered_at IS NULL OR deferred > 0) ORDER BY number
"""


class Requests:
    """What other programs and operators ask for."""

    def __init__(self, shops: Shops[BroadcastShop], lists: Lists, pace: Pace, nudge: Callable[[], None]) -> None:
        self._shops = shops
        self._lists = lists
        self._pace = pace
        self._nudge = nudge

    async def campaign(self, event: Event[CampaignRequested], tx: Transaction) -> None:
        """Take a campaign on; one that was asked for before is answered with how far it is."""
        data, shop = event.data, self._shops.key(event.shop)
        id_ = campaign_uuid(shop, data.campaign_id)
        hash_ = _hash(data)
        tx.then(self._nudge)
        added = await tx.rows(_ADD, self._values(event, shop, hash_))
        if added and data.recipients is not None:
            await self._lists.with_campaign(tx, id_, event.shop, data.recipients)
        campaign = await locked(tx, id_)
        if campaign is None:
            raise Retry("the campaign is being deleted")
        if added:
            await advance(tx, campaign, self._pace)
        elif bytes(campaign.hash) != hash_:
            raise Reject(f"data.campaign_id: the shop has another campaign {data.campaign_id}; choose another name")
        else:
            tx.emit(event.derive(await progress(tx, campaign), SOURCE, key="known"))

    async def pause(self, event: Event[CampaignPauseRequested], tx: Transaction) -> None:
        """Begin no further batch."""
        campaign = await self._named(event, tx)
        if campaign.state not in ("waiting", "running"):
            return await _answer(event, tx, campaign)
        await pause(tx, campaign, event.data.reason, event.data.by)
        return await save(tx, campaign)

    async def resume(self, event: Event[CampaignResumeRequested], tx: Transaction) -> None:
        """Go on when its turn comes, and then try again those whose failure was everybody's."""
        campaign = await self._named(event, tx)
        if campaign.state not in ("paused", "failed"):
            return await _answer(event, tx, campaign)
        campaign.move("waiting")
        campaign.ended_at, campaign.share_from = None, campaign.batches
        told = await totals(tx, campaign)
        campaign.tell(tx, CampaignResumed(campaign_id=campaign.campaign_id, totals=told, by=event.data.by))
        return await advance(tx, campaign, self._pace)

    async def cancel(self, event: Event[CampaignCancelRequested], tx: Transaction) -> None:
        """Take back what is not under way, and end when all that is has its answer."""
        campaign, data = await self._named(event, tx), event.data
        if campaign.state in ("completed", "cancelled", "cancelling"):
            return await _answer(event, tx, campaign)
        campaign.move("cancelling", data.reason or "cancelled", data.by)
        campaign.released, campaign.ended_at = True, None
        for row in await tx.rows(_OPEN_BATCHES, {"id": campaign.id}):
            name = batch_name(campaign.campaign_id, row["number"])
            campaign.ask(tx, BatchCancelRequested(batch_id=name, reason=data.reason or "cancelled"), name)
        return await advance(tx, campaign, self._pace)

    async def _named(
        self,
        event: Event[CampaignPauseRequested] | Event[CampaignResumeRequested] | Event[CampaignCancelRequested],
        tx: Transaction,
    ) -> Campaign:
        """Return the campaign a request is about, which may be on its way still; raises Retry."""
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


async def _answer(event: Event[Any], tx: Transaction, campaign: Campaign) -> None:
    """Answer what cannot be done in the campaign's state with how far it is."""
    tx.emit(event.derive(await progress(tx, campaign), SOURCE, key="state"))


async def pause(tx: Transaction, campaign: Campaign, reason: str, by: str) -> None:
    """Begin no further batch of a campaign, and tell it."""
    campaign.move("paused", reason, by)
    await wake_others(tx, campaign)
    told = await totals(tx, campaign)
    campaign.tell(tx, CampaignPaused(campaign_id=campaign.campaign_id, totals=told, reason=reason, by=by))


def _hash(data: CampaignRequested) -> bytes:
    return hashlib.blake2b(as_json(data.model_dump(mode="json")), digest_size=16).digest()


def request_dead_lettered(event: Event[Any], reason: str) -> CampaignRefused | None:
    """Tell that a request about a campaign was refused."""
    return CampaignRefused(campaign_id=event.data.campaign_id, reason=reason[:500])
