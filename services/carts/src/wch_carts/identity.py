"""Derived names of carts and of their reminders: computed again, they are the same."""

from __future__ import annotations

import re
import uuid

from wch_common.contract.identity import HEX_PATTERN, NUMBER_PATTERN, derived_id, with_digits, without_digits

_NAMESPACE = uuid.UUID("a0c2d1e4-7b55-5f0e-9c1d-2f4b8e6a3d90")
_KEY = re.compile(rf"^(?P<cart>{HEX_PATTERN})\.(?P<period>{NUMBER_PATTERN})$")


def cart_uuid(shop: str, cart_id: str) -> uuid.UUID:
    """Return the primary key of a cart, one per shop and name."""
    return derived_id(_NAMESPACE, "cart", shop, cart_id)


def send_key(cart: uuid.UUID, period: int) -> str:
    """Return the key under which a cart's owner is reminded at most once in an idle period.

    `period` is the version of the cart with which the idle period begins.
    """
    return f"{without_digits(cart)}.{without_digits(period)}"


def parsed_key(key: str) -> tuple[uuid.UUID, int] | None:
    """Return the cart and the idle period of a send key; None for a key of another form."""
    match = _KEY.match(key)
    if match is None:
        return None
    return uuid.UUID(with_digits(match["cart"])), int(with_digits(match["period"]))
