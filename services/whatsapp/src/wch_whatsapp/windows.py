"""The 24-hour windows in which customers who wrote may be sent free text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wch_whatsapp import queries

if TYPE_CHECKING:
    from datetime import datetime

    from wch_common.store.store import Transaction


async def open_window(tx: Transaction, sender: str, person: bytes, since: datetime) -> None:
    """Open a window for 24 hours from `since`, when the customer wrote to the number; never shortens one."""
    await tx.rows(queries.OPEN_WINDOW, {"sender": sender, "person": person, "since": since})
