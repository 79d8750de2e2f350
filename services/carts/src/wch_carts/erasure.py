"""Handler of requests to erase a customer from every cart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wch_carts.tables import METADATA
from wch_carts.topology import SOURCE
from wch_common.events import published_contract
from wch_common.events.carts import CustomerErased
from wch_common.integrations.recipients import person_of, requested_person
from wch_common.store.erasure import erase_person

if TYPE_CHECKING:
    from wch_common.contract.event import Event
    from wch_common.events.carts import CustomerEraseRequested
    from wch_common.store.store import Transaction


async def erase_customer(event: Event[CustomerEraseRequested], tx: Transaction) -> None:
    """Erase a customer and report how many rows that changed; their carts are not reminded of any more."""
    person = person_of(*requested_person(event.data.phone, "data.phone").names)
    rows = await erase_person(tx, METADATA, published_contract(), person)
    tx.emit(event.derive(CustomerErased(rows=rows), SOURCE))
