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


# They count as deferred until whatsapp has answered them again.
_TRY_AGAIN = """
UPDATE outcomes SET outcome = 'deferred', reason = 'tried_again', code = NULL
WHERE campaign = %(id)s AND outcome = 'failed' AND reason = ANY(%(reasons)s) RETURNING position, batch
"""
# What was refused before whatsapp's ledger knew it is asked for again as a whole.
_ASK_ANEW = f"""
WITH again AS (
  UPDATE outcomes SET outcome = 'asked', reason = '', code = NULL
  WHERE campaign = %(id)s AND outcome = 'failed' AND reason LIKE '{REFUSED}%%' RETURNING batch
)
UPDATE batches SET answered_at = NULL WHERE campaign = %(id)s AND number IN (SELECT batch FROM again) RETURNING number AS batch
"""  # noqa: S608 - a word of this package
RECOUNT = """
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
    """Ask again for batches without an answer; whatsapp sends none twice, and answers from its ledger."""
    for row in await tx.rows(_UNANSWERED, {"id": campaign.id}):
        asked = await tx.rows(_ASKED, {"id": campaign.id, "list": campaign.list, "number": row["number"]})
        if asked:
            again = f"{row['number']}\n{campaign.now.isoformat()}"
            campaign.ask(tx, batch(campaign, row["number"], asked), again)


async def try_again(tx: Transaction, campaign: Campaign) -> None:
    """Ask again for those whose failure was everybody's, and is mended."""
    names = {"id": campaign.id, "reasons": sorted(OF_EVERYBODY | OF_THE_MESSAGE)}
    again = await tx.rows(_TRY_AGAIN, names)
    positions = sorted(row["position"] for row in again)
    for start in range(0, len(positions), _MOST_KEYS):
        keys = tuple(send_key(campaign.id, position) for position in positions[start : start + _MOST_KEYS])
        request = RetryRequested(send_keys=keys, expires_at=campaign.stop_at)
        campaign.ask(tx, request, f"{campaign.told}\n{start}")
    again += await tx.rows(_ASK_ANEW, names)
    if again:
        numbers = sorted({row["batch"] for row in again})
        await tx.rows(RECOUNT, {"id": campaign.id, "numbers": numbers, "skipped": sorted(SKIPPED)})
