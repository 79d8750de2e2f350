"""Which number and which of Meta's ids are one person's, as `whatsapp` learns it: a cart may name its owner by either."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wch_carts import queries
from wch_common.events.recipient import is_id
from wch_common.integrations.recipients import one_form

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wch_common.contract.event import Event
    from wch_common.events.whatsapp import RecipientLinked
    from wch_common.store.store import Transaction


async def store_link(event: Event[RecipientLinked], tx: Transaction) -> None:
    """Store whose number this is; of several statements about a number, the latest holds. An erased person is not stored."""
    data = event.data
    if is_id(data.user_id):
        names = {"person": one_form(data.phone), "user_id": data.user_id, "linked_at": data.timestamp}
        await tx.rows(queries.SET_LINK, names)


async def names_of_owner(tx: Transaction, cart: Mapping[str, Any]) -> dict[str, Any]:
    """Return the owner's `person` and `user_id`, the one that the cart lacks from what is linked; both are None without an owner."""
    return (await tx.rows(queries.NAMES_OF_OWNER, {"person": cart["person"], "user_id": cart["user_id"]}))[0]
