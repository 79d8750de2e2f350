"""What a campaign does next: it waits for its turn, releases batches at its pace, and ends; any replica takes the step."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import structlog

from wch_broadcast.asking import ask_again, batch, try_again
from wch_broadcast.campaign import Campaign, save
from wch_broadcast.totals import totals
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

STUCK = "stuck"
_PROGRESS_SECONDS = 1.0
_UPDATE_SECONDS = 5.0
# Who waits is woken when it is their turn; this is for whose turn came while they began to wait.
_ASK_AGAIN = timedelta(seconds=30)
# One campaign of a shop decides at a time whether it is its turn.
_TURNS = "SELECT pg_advisory_xact_lock(hashtext('campaigns/' || %(shop)s))"
# One that only waits for what whatsapp put off does not hold the others up, nor does one that is paused, nor one that is
# being cancelled and gets no answer: it sends nothing new.
_AHEAD = """
SELECT c.campaign_id FROM campaigns AS c LEFT JOIN lists AS l ON l.id = c.list
WHERE c.shop = %(shop)s AND c.exclusive AND c.ended_at IS NULL AND c.id <> %(id)s AND (
  (c.state IN ('running', 'cancelling') AND NOT (c.state = 'cancelling' AND c.taken_up_at IS NOT NULL) AND NOT (c.released AND NOT EXISTS (
     SELECT 1 FROM batches AS b WHERE b.campaign = c.id AND b.answered_at IS NULL)))
  OR (c.state = 'waiting' AND (c.start_at IS NULL OR c.start_at <= now()) AND l.complete_at IS NOT NULL
      AND (c.created_at, c.id) < (%(created_at)s, %(id)s)))
LIMIT 1
"""
_WAKE = """
UPDATE campaigns SET due_at = now() WHERE id = (
  SELECT id FROM campaigns WHERE shop = %(shop)s AND state = 'waiting' AND exclusive AND cause = 'another_campaign'
  ORDER BY created_at, id LIMIT 1)
"""
_OPEN = """
SELECT count(*) FILTER (WHERE answered_at IS NULL) AS unanswered, coalesce(sum(deferred), 0)::int AS deferred,
       max(parked_by) AS parked_by,
       coalesce(sum((counts->>'deferred/tried_again')::int), 0)::int AS tried_again
FROM batches WHERE campaign = %(id)s AND (answered_at IS NULL OR deferred > 0)
"""
_NEXT = """
WITH next AS (
  SELECT position, phone, own FROM recipients
  WHERE list = %(list)s AND position > %(cursor)s AND flaw IS NULL ORDER BY position LIMIT %(size)s
), asked AS (
  INSERT INTO outcomes (campaign, position, batch, outcome) SELECT %(id)s, position, %(number)s, 'asked' FROM next
), batch AS (
  INSERT INTO batches (campaign, number, counts, released_at)
  SELECT %(id)s, %(number)s, jsonb_build_object('asked/', count(*)), %(now)s FROM next HAVING count(*) > 0
)
SELECT position, phone, own FROM next ORDER BY position
"""


@dataclass(frozen=True)
class Open:
    """What of a campaign has no final outcome yet."""

    unanswered: int
    deferred: int
    parked_by: str | None
    tried_again: int


@dataclass(frozen=True)
class Pace:
    """How campaigns go on, from the settings."""

    in_flight: int
    stuck: timedelta
    give_up: timedelta

    @classmethod
    def of(cls, settings: BroadcastSettings) -> Pace:
        """Read the settings."""
        stuck, give_up = settings.broadcast_stuck_seconds, settings.broadcast_give_up_seconds
        return cls(settings.broadcast_in_flight, timedelta(seconds=stuck), timedelta(seconds=give_up))


async def advance(tx: Transaction, campaign: Campaign, pace: Pace) -> None:
    """Do all that can be done for a campaign now, say when it is to be looked at next, and write it."""
    if campaign.is_final:
        await _tell_update(tx, campaign)
    elif campaign.state == "waiting":
        await _take_turn(tx, campaign, pace)
    if campaign.state in ("running", "cancelling"):
        await _go_on(tx, campaign, pace)
    elif campaign.state == "paused":
        campaign.due_at = None
    await save(tx, campaign)


# -- waiting for its turn


async def _take_turn(tx: Transaction, campaign: Campaign, pace: Pace) -> None:
    """Begin, or say what a campaign waits for."""
    if campaign.start_at is not None and campaign.start_at > campaign.now:
        campaign.cause, campaign.due_at = "start_at", campaign.start_at
    elif campaign.list_deleted_at is not None:
        await fail(tx, campaign, "list_deleted")
    elif campaign.list_complete_at is None:
        await _wait_for_list(tx, campaign, pace)
    elif campaign.exclusive and await _is_behind(tx, campaign):
        campaign.cause, campaign.due_at = "another_campaign", campaign.now + _ASK_AGAIN
    else:
        campaign.move("running")
        if campaign.started_at is None:
            campaign.started_at = campaign.now
            campaign.tell(tx, CampaignStarted(campaign_id=campaign.campaign_id, recipients=campaign.given))
        else:  # it was resumed
            if campaign.stop_at is None or campaign.stop_at > campaign.now:
                await try_again(tx, campaign)
            await ask_again(tx, campaign)


async def _wait_for_list(tx: Transaction, campaign: Campaign, pace: Pace) -> None:
    since = max(campaign.moved_at, campaign.start_at or campaign.moved_at)
    campaign.cause, campaign.due_at = "list_incomplete", campaign.now + _ASK_AGAIN
    if campaign.now >= since + pace.give_up:
        await fail(tx, campaign, "list_incomplete")


async def _is_behind(tx: Transaction, campaign: Campaign) -> bool:
    names = {"shop": campaign.shop, "id": campaign.id, "created_at": campaign.created_at}
    await tx.rows(_TURNS, names)
    return bool(await tx.rows(_AHEAD, names))


# -- running


async def _go_on(tx: Transaction, campaign: Campaign, pace: Pace) -> None:
    """Release what may be released, and end what has ended."""
    if campaign.state == "running" and campaign.stop_at is not None and campaign.stop_at <= campaign.now:
        campaign.stopped, campaign.released = campaign.stopped or not campaign.released, True
    open_ = await look(tx, campaign)
    while _may_release(campaign, pace, open_):
        await _release(tx, campaign)
        open_ = await look(tx, campaign)
    if campaign.released and not open_.unanswered:
        await wake_others(tx, campaign)
        if not open_.deferred:
            await _end(tx, campaign)
            return
    if campaign.state == "running":
        if campaign.cause not in ("", STUCK) and not open_.parked_by:
            campaign.moved_at, campaign.taken_up_at = campaign.now, None  # a limit is over; it was not stuck meanwhile
        campaign.cause = open_.parked_by or ""
        await _tell_progress(tx, campaign)
    await _look_again(tx, campaign, pace, open_)


async def look(tx: Transaction, campaign: Campaign) -> Open:
    """Return what of a campaign has no final outcome yet."""
    return Open(**(await tx.rows(_OPEN, {"id": campaign.id}))[0])


def _may_release(campaign: Campaign, pace: Pace, open_: Open) -> bool:
    allowed = 1 if campaign.pause_seconds else pace.in_flight
    return (
        campaign.state == "running"
        and not campaign.released
        and not open_.parked_by
        and open_.unanswered < allowed
        and (campaign.next_batch_at is None or campaign.next_batch_at <= campaign.now)
    )


async def _release(tx: Transaction, campaign: Campaign) -> None:
    """Ask whatsapp for the next batch, or find that there is none."""
    number = campaign.batches + 1
    names = {"id": campaign.id, "list": campaign.list, "cursor": campaign.cursor}
    rows = await tx.rows(_NEXT, names | {"size": campaign.batch_size, "number": number, "now": campaign.now})
    if len(rows) < campaign.batch_size:
        campaign.released = True
    if not rows:
        return
    campaign.batches, campaign.cursor = number, rows[-1]["position"]
    campaign.moved_at, campaign.taken_up_at = campaign.now, None
    campaign.next_batch_at = campaign.now + timedelta(seconds=campaign.pause_seconds)
    campaign.ask(tx, batch(campaign, number, rows), str(number))


async def _end(tx: Transaction, campaign: Campaign) -> None:
    """Tell, once, that every recipient has an outcome."""
    cause = campaign.cause
    if campaign.state == "cancelling":
        campaign.move("cancelled", cause, campaign.said_by)
        told = await totals(tx, campaign)
        campaign.tell(tx, CampaignCancelled(campaign_id=campaign.campaign_id, totals=told, reason=cause))
    else:
        campaign.move("completed")
        campaign.tell(tx, CampaignCompleted(campaign_id=campaign.campaign_id, totals=await totals(tx, campaign)))
    log.info("campaign_ended", campaign=campaign.campaign_id, state=campaign.state, shop=campaign.shop)


async def wake_others(tx: Transaction, campaign: Campaign) -> None:
    """Let the shop's campaigns see that it may be their turn."""
    if campaign.exclusive:
        await tx.rows(_WAKE, {"shop": campaign.shop})


# -- when it is looked at next


async def _look_again(tx: Transaction, campaign: Campaign, pace: Pace, open_: Open) -> None:
    """Say when time alone makes a difference; answers are looked at when they come."""
    timestamps: list[datetime] = []
    if campaign.state == "running" and not campaign.released:
        if campaign.stop_at is not None:
            timestamps.append(campaign.stop_at)
        if campaign.next_batch_at is not None and campaign.next_batch_at > campaign.now:
            timestamps.append(campaign.next_batch_at)
    if (open_.unanswered or open_.tried_again) and not open_.parked_by:
        if campaign.state == "running" and campaign.now - campaign.moved_at >= pace.give_up:
            await fail(tx, campaign, STUCK)
            return
        timestamps.append(await _until_stuck(tx, campaign, pace))
    campaign.due_at = min(timestamps, default=None)


async def _until_stuck(tx: Transaction, campaign: Campaign, pace: Pace) -> datetime:
    """Ask again where no answer came for long, and return when that is to be looked at next."""
    if campaign.now - campaign.moved_at < pace.stuck:
        return campaign.moved_at + pace.stuck
    if campaign.taken_up_at is None or (
        campaign.state == "cancelling" and campaign.now - campaign.taken_up_at >= pace.stuck
    ):
        log.error("campaign_stuck", campaign=campaign.campaign_id, shop=campaign.shop)
        campaign.taken_up_at = campaign.now
        await ask_again(tx, campaign)
        if campaign.state == "cancelling":
            await wake_others(tx, campaign)
        if not (await look(tx, campaign)).unanswered:
            return campaign.now  # who was asked for is nobody any more
    if campaign.state == "cancelling":
        # It ends when all that is under way has its answer, however long that takes.
        return campaign.taken_up_at + pace.stuck
    campaign.cause = STUCK
    return campaign.moved_at + pace.give_up


async def fail(tx: Transaction, campaign: Campaign, reason: str) -> None:
    """End a campaign that could not go on; what is asked for may still be answered, and it can be resumed."""
    campaign.move("failed", reason)
    told = await totals(tx, campaign)
    campaign.tell(tx, CampaignFailed(campaign_id=campaign.campaign_id, totals=told, reason=reason))
    await wake_others(tx, campaign)
    log.error("campaign_failed", campaign=campaign.campaign_id, shop=campaign.shop, reason=reason)


# -- telling


async def _tell_progress(tx: Transaction, campaign: Campaign) -> None:
    if campaign.told_at is not None and campaign.now - campaign.told_at < timedelta(seconds=_PROGRESS_SECONDS):
        return
    campaign.told_at = campaign.now
    campaign.tell(tx, await progress(tx, campaign))


async def progress(tx: Transaction, campaign: Campaign) -> CampaignProgressed:
    """Return how far a campaign is."""
    told = await totals(tx, campaign)
    state: Any = campaign.state
    return CampaignProgressed(campaign_id=campaign.campaign_id, totals=told, state=state)


def note_late_answer(campaign: Campaign) -> None:
    """Plan to tell what became known after a campaign's end."""
    campaign.due_at = campaign.due_at or campaign.now + timedelta(seconds=_UPDATE_SECONDS)


async def _tell_update(tx: Transaction, campaign: Campaign) -> None:
    told = await totals(tx, campaign)
    campaign.due_at = None
    campaign.tell(tx, CampaignUpdated(campaign_id=campaign.campaign_id, totals=told))
