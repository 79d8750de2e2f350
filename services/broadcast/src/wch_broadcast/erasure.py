"""Handler of requests to erase a person from every list of recipients."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wch_broadcast.campaign import SOURCE
from wch_broadcast.tables import METADATA
from wch_common.contract.operations import TableRows
from wch_common.events.broadcast import CampaignRecipientErased
from wch_common.integrations.phone import one_form, requested
from wch_common.store.personal_data import erase

if TYPE_CHECKING:
    from wch_common.contract.event import Event
    from wch_common.events.broadcast import CampaignRecipientEraseRequested
    from wch_common.store.store import Transaction


async def erase_recipient(event: Event[CampaignRecipientEraseRequested], tx: Transaction) -> None:
    """Erase a person and report how many rows that changed; campaigns skip the erased recipients."""
    changed = await erase(tx, METADATA, one_form(requested(event.data.phone, "data.phone")))
    rows = tuple(TableRows(table=table, rows=count) for table, count in changed.items())
    tx.emit(event.derive(CampaignRecipientErased(rows=rows), SOURCE))
