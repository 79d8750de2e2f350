"""What a campaign asks of whatsapp: batches, those without an answer again, and those whose failure was everybody's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from wch_broadcast.identity import batch_name, send_key
from wch_broadcast.totals import OF_EVERYBODY, OF_THE_MESSAGE, REFUSED, SKIPPED
from wch_common.events.whatsapp import BatchRequested, RetryRequested

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wch_broadcast.campaign import Campaign
    from wch_common.store.database import Row
    from wch_common.store.store import Transaction

_MOST_KEYS = 1000
_UNANSWERED = "SELECT number FROM batches WHERE campaign = %(id)s AND answered_at IS NULL ORDER BY number"
_ASKED = """
SELECT o.position, r.phone, r.own FROM outcomes AS o JOIN recipients AS r ON r.list = %(list)s AND r.position = o.position
WHERE o.campaign = %(id)s AND o.batch = %(number)s AND r.phone IS NOT NULL ORDER BY o.position
"""
# Who was erased before whatsapp had them is nobody's to ask for.
_FORGOTTEN = """
UPDATE outcomes AS o SET outcome = 'failed', reason = 'forgotten' FROM recipients AS r
WHERE o.campaign = %(id)s AND o.batch = %(number)s AND o.outcome = 'asked'
AND r.list = %(list)s AND r.position = o.position AND r.phone IS NULL RETURNING o.position
"""
_NOBODY_LEFT = "UPDATE batches SET answered_at = now() WHERE campaign = %(id)s AND number = %(number)s"
# They count as deferred until whatsapp has answered them again; what it said of them before is old news. What is wrong with
# somebody's own values is not mended by a resume.
_TRY_AGAIN = """
WITH again AS (
  UPDATE outcomes AS o SET outcome = 'deferred', reason = 'tried_again', code = NULL, version = version + 1
  WHERE campaign = %(id)s AND outcome = 'failed' AND (reason = ANY(%(of_everybody)s) OR reason = ANY(%(of_message)s) AND NOT EXISTS (
    SELECT 1 FROM recipients AS r WHERE r.list = %(list)s AND r.position = o.position AND r.own IS NOT NULL))
  RETURNING batch
)
SELECT DISTINCT batch FROM again
"""
_TRIED_AGAIN = """
SELECT position FROM outcomes WHERE campaign = %(id)s AND outcome = 'deferred' AND reason = 'tried_again' AND position > %(after)s
ORDER BY position LIMIT %(limit)s
"""
# What was refused before whatsapp's ledger knew it is asked for again as a whole.
_ASK_ANEW = f"""
WITH again AS (
  UPDATE outcomes SET outcome = 'asked', reason = '', code = NULL
  WHERE campaign = %(id)s AND outcome = 'failed' AND reason LIKE '{REFUSED}%%' RETURNING batch
)
UPDATE batches SET answered_at = NULL WHERE campaign = %(id)s AND number IN (SELECT batch FROM again) RETURNING number AS batch
"""  # noqa: S608 - a word of this package
_RECOUNT = """
UPDATE batches AS b SET counts = coalesce(new.counts, '{}'), deferred = new.deferred, failed = new.failed
FROM (
  SELECT number, jsonb_object_agg(outcome || '/' || reason, recipients) AS counts,
         coalesce(sum(recipients) FILTER (WHERE outcome = 'deferred'), 0) AS deferred,
         coalesce(sum(recipients) FILTER (WHERE outcome = 'failed' AND NOT reason = ANY(%(skipped)s)), 0) AS failed
  FROM (SELECT batch AS number, outcome, reason, count(*) AS recipients FROM outcomes
        WHERE campaign = %(id)s AND batch = ANY(%(numbers)s) GROUP BY 1, 2, 3) AS counted GROUP BY number
) AS new WHERE b.campaign = %(id)s AND b.number = new.number
"""


def batch(campaign: Campaign, number: int, rows: Iterable[Row]) -> BatchRequested:
    """Return the request for one batch of a campaign."""
    recipients: list[dict[str, Any]] = [
        {"to": row["phone"], "send_key": send_key(campaign.id, row["position"]), **(row["own"] or {})} for row in rows
    ]
    names = {"batch_id": batch_name(campaign.campaign_id, number), "recipients": recipients}
    if campaign.stop_at is not None:
        names["expires_at"] = campaign.stop_at.isoformat()
    return BatchRequested.model_validate_json(orjson.dumps(campaign.request | names))


async def ask_again(tx: Transaction, campaign: Campaign) -> None:
    """Ask again for all that has no answer; whatsapp sends none twice, and answers from its ledger."""
    for row in await tx.rows(_UNANSWERED, {"id": campaign.id}):
        names = {"id": campaign.id, "list": campaign.list, "number": row["number"]}
        forgotten = await tx.rows(_FORGOTTEN, names)
        asked = await tx.rows(_ASKED, names)
        if asked:
            again = f"{row['number']}\n{campaign.now.isoformat()}"
            campaign.ask(tx, batch(campaign, row["number"], asked), again)
        else:
            await tx.rows(_NOBODY_LEFT, names)
        if forgotten:
            await recount(tx, campaign, [row["number"]])
    await _ask_for_those_tried_again(tx, campaign)


async def _ask_for_those_tried_again(tx: Transaction, campaign: Campaign) -> None:
    after = 0
    while rows := await tx.rows(_TRIED_AGAIN, {"id": campaign.id, "after": after, "limit": _MOST_KEYS}):
        keys = tuple(send_key(campaign.id, row["position"]) for row in rows)
        request = RetryRequested(send_keys=keys, expires_at=campaign.stop_at)
        campaign.ask(tx, request, f"{after}\n{campaign.now.isoformat()}")
        after = rows[-1]["position"]


async def try_again(tx: Transaction, campaign: Campaign) -> None:
    """Let `ask_again` ask for those, too, whose failure was everybody's, and is mended."""
    names = {"id": campaign.id, "list": campaign.list}
    reasons = {"of_everybody": sorted(OF_EVERYBODY), "of_message": sorted(OF_THE_MESSAGE)}
    again = [*await tx.rows(_TRY_AGAIN, names | reasons), *await tx.rows(_ASK_ANEW, names)]
    await recount(tx, campaign, sorted({row["batch"] for row in again}))


async def recount(tx: Transaction, campaign: Campaign, numbers: list[int]) -> None:
    """Count the outcomes of batches anew."""
    if numbers:
        await tx.rows(_RECOUNT, {"id": campaign.id, "numbers": numbers, "skipped": sorted(SKIPPED)})
