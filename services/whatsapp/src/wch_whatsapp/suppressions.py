"""Suppressions: recipients who must not be written to, in a category or at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wch_common.store.erased_people import erased_since
from wch_whatsapp import queries
from wch_whatsapp.people import PHONE

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from wch_common.store.database import Row
    from wch_common.store.store import Transaction
    from wch_whatsapp.people import Name


def suppressible(shop: str, names: Iterable[Name]) -> list[dict[str, Any]]:
    """Return what a suppression of a person is stored under: each of the names."""
    return [{"shop": shop, "person": one.id, "phone": one.value if one.kind == PHONE else None} for one in names]


async def without_erased(
    tx: Transaction, recipients: Iterable[dict[str, Any]], said: datetime | None
) -> list[dict[str, Any]]:
    """Return what a suppression is stored under, without the numbers of people who were erased after it was asked for."""
    wanted = list(recipients)
    erased = await erased_since(tx, [one["person"] for one in wanted], said)
    return [one | {"phone": None} if one["person"] in erased else one for one in wanted]


async def suppress(
    tx: Transaction,
    recipient: Row | dict[str, Any],
    category: str,
    *,
    reason: str,
    by: str,
    since: datetime | None = None,
    evidence: str = "",
) -> None:
    """Suppress a recipient (`shop`, `person` and `phone`) in a category or in `all`, from `since` on or from now."""
    names = {"shop": recipient["shop"], "person": recipient["person"], "phone": recipient["phone"], "since": since}
    await tx.rows(queries.SUPPRESS, names | {"category": category, "reason": reason, "by": by, "evidence": evidence})


async def unsuppress(tx: Transaction, recipient: dict[str, Any], category: str, portfolio: str | None) -> None:
    """Remove the suppression in exactly this category, under every name of the person; other categories stay."""
    names = {"shop": recipient["shop"], "person": recipient["person"], "portfolio": portfolio}
    await tx.rows(queries.UNSUPPRESS, names | {"category": category})


async def resume_marketing(tx: Transaction, recipient: dict[str, Any], portfolio: str, since: datetime) -> None:
    """Lift the suppressions that a person set, under any of their names, before they asked to resume marketing (`since`)."""
    names = {"shop": recipient["shop"], "person": recipient["person"], "portfolio": portfolio}
    await tx.rows(queries.RESUME_MARKETING, names | {"since": since})
