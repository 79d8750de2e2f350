"""Pauses of numbers, written to the database, where every replica sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wch_common.events.failure_reasons import pauses_shop
from wch_whatsapp import queries_sending as queries

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wch_common.store.store import Transaction
    from wch_whatsapp.call_outcomes import CallOutcome, Pause


async def pause_numbers(
    tx: Transaction, pause: Pause, senders: Sequence[str], *, probe: bool = False, sender: str = ""
) -> None:
    """Pause numbers; with `probe`, the answer to a probe of `sender` is the reason."""
    parameters = {"cause": pause.cause, "seconds": pause.seconds, "senders": list(senders)}
    await tx.rows(queries.LOCK_NUMBERS, parameters)
    await tx.rows(queries.PAUSE, parameters | {"probe": probe, "sender": sender})


async def apply_pauses(tx: Transaction, outcomes: Sequence[CallOutcome], sender: str, shop: Sequence[str]) -> None:
    """Pause the numbers whose replies ask for it, and resume those whose probe succeeded; `shop` has all its numbers."""
    pauses = {(one.pause, one.probe) for one in outcomes if one.pause is not None}
    works = any(one.probe and one.shows_number_works for one in outcomes)
    if works or pauses:
        await tx.rows(queries.LOCK_NUMBERS, {"senders": list(shop)})
    if works:
        for number in await tx.rows(queries.FIND_CAUSE, {"sender": sender}):
            senders = list(shop) if pauses_shop(number["cause"]) else [sender]
            await tx.rows(queries.RESUME, {"senders": senders, "cause": number["cause"]})
    for pause, probe in pauses:
        await pause_numbers(tx, pause, shop if pause.shop else [sender], probe=probe, sender=sender)
