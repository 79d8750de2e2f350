"""Handler of requests to erase a person from every list of recipients."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wch_broadcast.campaign import SOURCE
from wch_broadcast.tables import METADATA
from wch_common.events import published_contract
from wch_common.events.broadcast import CampaignRecipientErased
from wch_common.integrations.recipients import person_of, requested_person
from wch_common.store.erasure import erase_person

if TYPE_CHECKING:
    from wch_common.contract.event import Event
    from wch_common.events.broadcast import CampaignRecipientEraseRequested
    from wch_common.store.store import Transaction


async def erase_recipient(event: Event[CampaignRecipientEraseRequested], tx: Transaction) -> None:
    """Erase a person and report how many rows that changed; campaigns skip the erased recipients."""
    person = person_of(*requested_person(event.data.phone, "data.phone").names)
    rows = await erase_person(tx, METADATA, published_contract(), person)
    tx.emit(event.derive(CampaignRecipientErased(rows=rows), SOURCE))
