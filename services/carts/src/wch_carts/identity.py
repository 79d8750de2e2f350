"""Names that are derived, so that whoever computes them again gets the same: of carts, and of their reminders."""

from __future__ import annotations

import re
import uuid

_NAMES = uuid.UUID("a0c2d1e4-7b55-5f0e-9c1d-2f4b8e6a3d90")
# A key must not hold a telephone number, and eight digits of an id or of a version could happen to be one.
_LETTERS = str.maketrans("0123456789abcdef", "abcdefghijklmnop")
_DIGITS = str.maketrans("abcdefghijklmnop", "0123456789abcdef")
_KEY = re.compile(r"^(?P<cart>[a-p]{32})\.(?P<period>[a-j]{1,19})$")


def cart_uuid(shop: str, cart_id: str) -> uuid.UUID:
    """Return the key of a cart: one per shop and name."""
    return uuid.uuid5(_NAMES, f"cart\n{shop}\n{cart_id}")


def send_key(cart: uuid.UUID, period: int) -> str:
    """Return the key under which a cart's owner is reminded at most once in an idle period: since that version of the cart."""
    return f"{cart.hex.translate(_LETTERS)}.{str(period).translate(_LETTERS)}"


def parsed_key(key: str) -> tuple[uuid.UUID, int] | None:
    """Return which cart and period a key means; None for a key that is not ours."""
    match = _KEY.match(key)
    if match is None:
        return None
    return uuid.UUID(match["cart"].translate(_DIGITS)), int(match["period"].translate(_DIGITS))
