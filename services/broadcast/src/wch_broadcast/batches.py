"""Requests to whatsapp: a batch, unanswered batches again, and retries of failures of the whole campaign."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from pydantic import TypeAdapter, ValidationError

from wch_broadcast import queries
from wch_broadcast.identity import batch_name, send_key
from wch_broadcast.reasons import OF_CAMPAIGN
from wch_common.contract.event import timestamp
from wch_common.events.failure_reasons import REFUSED
from wch_common.events.recipient import Recipient, to_field
from wch_common.events.whatsapp import BatchRequested, RetryRequested
from wch_common.events.whatsapp_content import Content, Fallback

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wch_broadcast.campaign import Campaign
    from wch_common.store.database import Row
    from wch_common.store.store import Transaction

_MOST_KEYS = 1000
_MESSAGE: TypeAdapter[Any] = TypeAdapter(Content)
_FALLBACK: TypeAdapter[Any] = TypeAdapter(Fallback)


def batch_request(campaign: Campaign, number: int, rows: Sequence[Row]) -> BatchRequested:
    """Return the request for one batch of a campaign, which says how old its list is: somebody may have been erased since."""
    recipients: list[dict[str, Any]] = [
        {
            "to": to_field(row["phone"], row["user_id"]),
            "send_key": send_key(campaign.id, row["position"]),
            **(row["own_values"] or {}),
        }
        for row in rows
    ]
    names: dict[str, Any] = {"batch_id": batch_name(campaign.campaign_id, number), "recipients": recipients}
    known_at = [timestamp(campaign.request["as_of"])] if campaign.request.get("as_of") else []
    names["as_of"] = min([*known_at, *(row["known_at"] for row in rows)]).isoformat()
    if campaign.values_required:
        names["values_required"] = True
    if campaign.stop_at is not None:
        names["expires_at"] = campaign.stop_at.isoformat()
    return BatchRequested.model_validate_json(orjson.dumps(campaign.request | names, default=Recipient.model_dump))


def is_readable(campaign: Campaign) -> bool:
    """Whether its message, which an earlier version may have stored, is one that may be requested today."""
    try:
        _MESSAGE.validate_json(orjson.dumps(campaign.request["message"]))
        _FALLBACK.validate_json(orjson.dumps(campaign.request.get("fallback")))
    except ValidationError:
        return False
    return True


async def request_again(tx: Transaction, campaign: Campaign) -> None:
    """Request everything again that has no answer; whatsapp sends nothing twice and answers from its ledger."""
    for row in await tx.rows(queries.UNANSWERED_BATCHES, {"id": campaign.id}):
        number = row["number"]
        names = {"id": campaign.id, "list": campaign.list, "number": number}
        erased = await tx.rows(queries.SKIP_ERASED, names)
        recipients = await tx.rows(queries.BATCH_RECIPIENTS, names)
        if recipients:
            request = batch_request(campaign, number, recipients)
            campaign.request_whatsapp(tx, request, f"{number}\n{campaign.now.isoformat()}")
        else:
            await tx.rows(queries.END_EMPTY_BATCH, names)
        if erased:
            await recount(tx, campaign, [number])
    await _request_retries(tx, campaign)


async def _request_retries(tx: Transaction, campaign: Campaign) -> None:
    after = 0
    while rows := await tx.rows(queries.RETRYING, {"id": campaign.id, "after": after, "limit": _MOST_KEYS}):
        keys = tuple(send_key(campaign.id, row["position"]) for row in rows)
        request = RetryRequested(send_keys=keys, expires_at=campaign.stop_at)
        campaign.request_whatsapp(tx, request, f"{after}\n{campaign.now.isoformat()}")
        after = rows[-1]["position"]


async def reopen_failed(tx: Transaction, campaign: Campaign) -> None:
    """Make `request_again` include the recipients that failed for a reason of the whole campaign."""
    names = {"id": campaign.id, "refused": REFUSED}
    reopened = [
        *await tx.rows(queries.REOPEN_REFUSED, names),
        *await tx.rows(queries.RETRY_FAILED, names | {"of_campaign": sorted(OF_CAMPAIGN)}),
    ]
    await recount(tx, campaign, sorted({row["batch"] for row in reopened}))


async def recount(tx: Transaction, campaign: Campaign, numbers: list[int]) -> None:
    """Count the outcomes of batches again."""
    if numbers:
        await tx.rows(queries.RECOUNT_BATCHES, {"id": campaign.id, "numbers": numbers})
