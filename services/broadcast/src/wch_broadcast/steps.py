"""The next step of a campaign: wait for its turn, release batches, or end. Any replica may take the step."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import structlog

from wch_broadcast import queries
from wch_broadcast.batches import batch_request, is_readable, reopen_failed, request_again
from wch_broadcast.campaign import Campaign, save, totals
from wch_common.events.broadcast import (
    CampaignCancelled,
    CampaignCompleted,
    CampaignFailed,
    CampaignProgressed,
    CampaignStarted,
    CampaignUpdated,
)

if TYPE_CHECKING:
    from datetime import datetime

    from wch_broadcast.settings import BroadcastSettings
    from wch_common.store.store import Transaction

log = structlog.get_logger(__name__)

STUCK: Final = "stuck"
"""Cause of a campaign that could proceed but gets no answers."""
_PROGRESS_SECONDS = 1.0
_UPDATE_SECONDS = 5.0
# What a campaign waits for wakes it; this is in case that it does not.
_CHECK_AGAIN = timedelta(seconds=30)


@dataclass(frozen=True)
class OpenWork:
    """What has no final outcome yet: batches without an answer, deferred recipients, and those being retried."""

    unanswered: int
    deferred: int
    limited_by: str | None
    retrying: int


@dataclass(frozen=True)
class Pace:
    """The limits of a campaign's progress, from the settings."""

    in_flight: int
    stuck: timedelta
    give_up: timedelta

    @classmethod
    def of(cls, settings: BroadcastSettings) -> Pace:
        """Read the settings."""
        stuck, give_up = settings.broadcast_stuck_seconds, settings.broadcast_give_up_seconds
        return cls(settings.broadcast_in_flight, timedelta(seconds=stuck), timedelta(seconds=give_up))


async def advance(tx: Transaction, campaign: Campaign, pace: Pace) -> None:
    """Take every step that is possible now, set when the next one is due, and save the campaign."""
    if campaign.state in ("waiting", "running") and not is_readable(campaign):
        await fail(tx, campaign, "request_refused")
    elif campaign.is_final:
        await _publish_update(tx, campaign)
    elif campaign.state == "waiting":
        await _take_turn(tx, campaign, pace)
    if campaign.state in ("running", "cancelling"):
        await _proceed(tx, campaign, pace)
    elif campaign.state == "paused":
        campaign.due_at = None
    await save(tx, campaign)


# -- waiting for its turn


async def _take_turn(tx: Transaction, campaign: Campaign, pace: Pace) -> None:
    """Start the campaign, or set the cause for which it waits."""
    if campaign.start_at is not None and campaign.start_at > campaign.now:
        campaign.cause, campaign.due_at = "start_at", campaign.start_at
    elif campaign.list_deleted_at is not None:
        await fail(tx, campaign, "list_deleted")
    elif campaign.list_complete_at is None:
        await _wait_for_list(tx, campaign, pace)
    elif campaign.exclusive and await _is_behind(tx, campaign):
        campaign.cause, campaign.due_at = "another_campaign", campaign.now + _CHECK_AGAIN
    else:
        await _start(tx, campaign)


async def _start(tx: Transaction, campaign: Campaign) -> None:
    campaign.change_state("running")
    if campaign.started_at is None:
        campaign.started_at = campaign.now
        campaign.publish(tx, CampaignStarted(campaign_id=campaign.campaign_id, recipients=campaign.submitted))
        return
    # It has been resumed.
    if campaign.stop_at is None or campaign.stop_at > campaign.now:
        await reopen_failed(tx, campaign)
    await request_again(tx, campaign)


async def _wait_for_list(tx: Transaction, campaign: Campaign, pace: Pace) -> None:
    since = max(campaign.progressed_at, campaign.start_at or campaign.progressed_at)
    await tx.rows(queries.LOCK_LIST_CHECK, {"id": campaign.list})
    completed_meanwhile = await tx.rows(queries.LIST_COMPLETE, {"id": campaign.list})
    campaign.cause, campaign.due_at = "list_incomplete", campaign.now
    if completed_meanwhile:
        return
    campaign.due_at += _CHECK_AGAIN
    if campaign.now >= since + pace.give_up:
        await fail(tx, campaign, "list_incomplete")


async def _is_behind(tx: Transaction, campaign: Campaign) -> bool:
    names = {"shop": campaign.shop, "id": campaign.id, "created_at": campaign.created_at}
    await tx.rows(queries.LOCK_TURNS, names)
    return bool(await tx.rows(queries.CAMPAIGN_AHEAD, names))


# -- running


async def _proceed(tx: Transaction, campaign: Campaign, pace: Pace) -> None:
    """Release the batches that are allowed now, and end the campaign if nothing is open."""
    if campaign.state == "running" and campaign.stop_at is not None and campaign.stop_at <= campaign.now:
        campaign.stopped, campaign.released = campaign.stopped or not campaign.released, True
    work = await open_work(tx, campaign)
    while _may_release(campaign, pace, work):
        await _release(tx, campaign)
        work = await open_work(tx, campaign)
    if campaign.released and not work.unanswered:
        await wake_next(tx, campaign)
        if not work.deferred:
            await _end(tx, campaign)
            return
    if campaign.state == "running":
        if campaign.cause not in ("", STUCK) and not work.limited_by:
            campaign.note_progress()  # a limit has ended; the campaign was not stuck while it lasted
        campaign.cause = work.limited_by or ""
        await _publish_progress(tx, campaign)
    await _set_due(tx, campaign, pace, work)


async def open_work(tx: Transaction, campaign: Campaign) -> OpenWork:
    """Return what has no final outcome yet."""
    (work,) = await tx.typed(OpenWork, queries.OPEN_WORK, {"id": campaign.id})
    return work


def _may_release(campaign: Campaign, pace: Pace, work: OpenWork) -> bool:
    allowed = 1 if campaign.pause_seconds else pace.in_flight
    return (
        campaign.state == "running"
        and not campaign.released
        and not work.limited_by
        and work.unanswered < allowed
        and (campaign.next_batch_at is None or campaign.next_batch_at <= campaign.now)
    )


async def _release(tx: Transaction, campaign: Campaign) -> None:
    """Request the next batch; a batch that is not full, or empty, is the last."""
    number = campaign.batches + 1
    names = {"id": campaign.id, "list": campaign.list, "cursor": campaign.cursor}
    names |= {"size": campaign.batch_size, "number": number, "now": campaign.now}
    rows = await tx.rows(queries.RELEASE_BATCH, names)
    if len(rows) < campaign.batch_size:
        campaign.released = True
    if not rows:
        return
    campaign.batches, campaign.cursor = number, rows[-1]["position"]
    campaign.note_progress()
    campaign.next_batch_at = campaign.now + timedelta(seconds=campaign.pause_seconds)
    campaign.request_whatsapp(tx, batch_request(campaign, number, rows), number)


async def _end(tx: Transaction, campaign: Campaign) -> None:
    """Publish, once, that every recipient has a result."""
    cause = campaign.cause
    if campaign.state == "cancelling":
        campaign.change_state("cancelled", cause, campaign.changed_by)
        result = await totals(tx, campaign)
        campaign.publish(tx, CampaignCancelled(campaign_id=campaign.campaign_id, totals=result, reason=cause))
    else:
        campaign.change_state("completed")
        campaign.publish(tx, CampaignCompleted(campaign_id=campaign.campaign_id, totals=await totals(tx, campaign)))
    log.info("campaign_ended", campaign=campaign.campaign_id, state=campaign.state, shop=campaign.shop)


async def wake_next(tx: Transaction, campaign: Campaign) -> None:
    """Make the shop's next exclusive campaign check whether it is its turn."""
    if campaign.exclusive:
        await tx.rows(queries.LOCK_TURNS, {"shop": campaign.shop})
        await tx.rows(queries.WAKE_NEXT_CAMPAIGN, {"shop": campaign.shop})


# -- when the next step is due


async def _set_due(tx: Transaction, campaign: Campaign, pace: Pace, work: OpenWork) -> None:
    """Set when time alone makes a step possible; answers cause their own steps."""
    times: list[datetime] = []
    if campaign.state == "running" and not campaign.released:
        if campaign.stop_at is not None:
            times.append(campaign.stop_at)
        if campaign.next_batch_at is not None and campaign.next_batch_at > campaign.now:
            times.append(campaign.next_batch_at)
    if (work.unanswered or work.retrying) and not work.limited_by:
        if campaign.state == "running" and campaign.now - campaign.progressed_at >= pace.give_up:
            await fail(tx, campaign, STUCK)
            return
        times.append(await _check_stuck(tx, campaign, pace))
    campaign.due_at = min(times, default=None)


async def _check_stuck(tx: Transaction, campaign: Campaign, pace: Pace) -> datetime:
    """Request unanswered batches again if the campaign is stuck, and return when to check next."""
    if campaign.now - campaign.progressed_at < pace.stuck:
        return campaign.progressed_at + pace.stuck
    if campaign.requested_again_at is None or (
        campaign.state == "cancelling" and campaign.now - campaign.requested_again_at >= pace.stuck
    ):
        log.error("campaign_stuck", campaign=campaign.campaign_id, shop=campaign.shop)
        campaign.requested_again_at = campaign.now
        await request_again(tx, campaign)
        if campaign.state == "cancelling":
            await wake_next(tx, campaign)
        if not (await open_work(tx, campaign)).unanswered:
            return campaign.now  # every recipient without an answer has been erased
    if campaign.state == "cancelling":
        # It ends when everything in progress has its answer, however long that takes.
        return campaign.requested_again_at + pace.stuck
    campaign.cause = STUCK
    return campaign.progressed_at + pace.give_up


async def fail(tx: Transaction, campaign: Campaign, reason: str) -> None:
    """End a campaign that cannot continue; it accepts answers to open batches, and it can be resumed."""
    campaign.change_state("failed", reason)
    result = await totals(tx, campaign)
    campaign.publish(tx, CampaignFailed(campaign_id=campaign.campaign_id, totals=result, reason=reason))
    await wake_next(tx, campaign)
    log.error("campaign_failed", campaign=campaign.campaign_id, shop=campaign.shop, reason=reason)


# -- reporting


async def _publish_progress(tx: Transaction, campaign: Campaign) -> None:
    if campaign.reported_at is not None and campaign.now - campaign.reported_at < timedelta(seconds=_PROGRESS_SECONDS):
        return
    campaign.reported_at = campaign.now
    campaign.publish(tx, await progress(tx, campaign))


async def progress(tx: Transaction, campaign: Campaign) -> CampaignProgressed:
    """Return the fact that reports the progress of a campaign."""
    result = await totals(tx, campaign)
    state: Any = campaign.state
    return CampaignProgressed(campaign_id=campaign.campaign_id, totals=result, state=state)


def schedule_update(campaign: Campaign) -> None:
    """Make an ended campaign publish its late outcomes together."""
    campaign.due_at = campaign.due_at or campaign.now + timedelta(seconds=_UPDATE_SECONDS)


async def _publish_update(tx: Transaction, campaign: Campaign) -> None:
    result = await totals(tx, campaign)
    campaign.due_at = None
    campaign.publish(tx, CampaignUpdated(campaign_id=campaign.campaign_id, totals=result))
