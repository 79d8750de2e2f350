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
    """Store whose number this is in a portfolio; of several statements, the latest holds. An erased person is not stored."""
    data = event.data
    if is_id(data.user_id):
        names = {"portfolio": data.portfolio, "person": one_form(data.phone), "user_id": data.user_id}
        await tx.rows(queries.SET_LINK, names | {"linked_at": data.timestamp})


async def names_of_owner(tx: Transaction, cart: Mapping[str, Any]) -> dict[str, Any]:
    """Return all `names` of the owner, and their `person` and `user_id`, which may be linked ones; None without an owner."""
    rows = await tx.rows(queries.NAMES_OF_OWNER, {"person": cart["person"], "user_id": cart["user_id"]})
    names = [row["name"] for row in rows]
    numbers, ids = [name for name in names if not is_id(name)], [name for name in names if is_id(name)]
    # The `person` of a cart without a number is the id.
    person = next(iter(numbers), cart["person"]) if cart["person"] in ids else cart["person"]
    return {"names": names, "person": person, "user_id": cart["user_id"] or next(iter(ids), None)}
