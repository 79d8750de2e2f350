"""Handler of requests to erase a person: here under every name that is known of them, and by the fact about it everywhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from wch_common.contract.personal import HashedPerson
from wch_common.events.whatsapp import RecipientErased
from wch_common.integrations.recipients import requested_person
from wch_common.observability.redact import redact

if TYPE_CHECKING:
    from datetime import datetime

    from wch_common.contract.event import Event
    from wch_common.contract.operations import TableRows
    from wch_common.events.whatsapp import RecipientEraseRequested
    from wch_common.integrations.shops import Shops
    from wch_common.store.erasure import Erasures
    from wch_common.store.store import Transaction
    from wch_whatsapp.contact_books import ContactBooks
    from wch_whatsapp.people import People
    from wch_whatsapp.settings import WhatsAppShop

log = structlog.get_logger(__name__)


class RecipientErasure:
    """Erases whom a request names, and tells the other services every name of theirs."""

    def __init__(
        self, shops: Shops[WhatsAppShop], people: People, erasures: Erasures, contact_books: ContactBooks
    ) -> None:
        self._shops = shops
        self._people = people
        self._erasures = erasures
        self._contact_books = contact_books

    async def erase(self, event: Event[RecipientEraseRequested]) -> None:
        """Erase a person from all shops and publish who was erased; raises Reject if the number or id is malformed.

        If that is requested, Meta is asked first to delete them from its contact books, as nobody knows their ids afterwards;
        raises Retry while it cannot be asked, but not at the last attempt.
        """
        # Without a shop, the number must have its country code, unless there is only one shop.
        names_shop = event.shop is not None or len(list(self._shops)) == 1
        region = self._shops.named(event.shop).whatsapp.region if names_shop else None
        about = requested_person(event.data.phone, "data.phone", region)
        deletion = self._contact_books.deletion(event)

        async def whom(tx: Transaction) -> HashedPerson:
            person = await self._people.person(tx, about)
            if event.data.contact_book:
                deletion.add(await self._people.user_ids(tx, person, about))
            return HashedPerson(person, frozenset(key for key in person.keys if isinstance(key, bytes)))

        async def answer(
            tx: Transaction, erased: HashedPerson, at: datetime, rows: tuple[TableRows, ...]
        ) -> RecipientErased:
            await deletion.keep_answers(tx)
            details = {"by": event.data.by, "reason": redact(event.data.reason, 200)}
            log.info("recipient_erased", erasure=event.id, rows=sum(one.rows for one in rows), **details)
            hashes = tuple(sorted(one.hex() for one in erased.hashes))
            return RecipientErased(
                rows=rows,
                erasure=event.id,
                at=at,
                names=erased.person.names,
                hashes=hashes,
                contact_books=deletion.answers,
            )

        await self._erasures.erase(event, event.id, None, whom, answer, elsewhere=deletion.run)
