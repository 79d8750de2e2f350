"""Handler of requests to set the level of a product."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wch_common.events.stock import LevelUpdated
from wch_stock import queries
from wch_stock.topology import SOURCE

if TYPE_CHECKING:
    from wch_common.contract.event import Event
    from wch_common.events.stock import LevelRequested
    from wch_common.store.store import Transaction


async def set_level(event: Event[LevelRequested], tx: Transaction) -> None:
    """Store the level and report it."""
    level = event.data
    await tx.rows(queries.SET_LEVEL, level.model_dump())
    tx.emit(event.derive(LevelUpdated(product_id=level.product_id, quantity=level.quantity), SOURCE))
