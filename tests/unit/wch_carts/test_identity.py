"""Derived names: send keys without digits, and ids that stay the same."""

from __future__ import annotations

import re
import uuid

from wch_carts.identity import cart_uuid, parsed_key, send_key


def test_a_send_key_contains_no_digits_and_can_be_parsed() -> None:
    cart = cart_uuid("", "c1")
    for period in (0, 1, 1_764_000_000_000, 2**63 - 1):
        key = send_key(cart, period)
        assert not re.search(r"\d", key)
        assert parsed_key(key) == (cart, period)
    assert parsed_key(f"{uuid.uuid4()}.1") is None
    assert cart_uuid("a", "b") != cart_uuid("", "a\nb")


def test_derived_ids_stay_the_same() -> None:
    """Another id would make a second cart of a later fact, and remind its owner again."""
    cart = cart_uuid("shop", "c1")
    assert cart == uuid.uuid5(uuid.UUID("a0c2d1e4-7b55-5f0e-9c1d-2f4b8e6a3d90"), "cart\nshop\nc1")
    characters = str.maketrans("0123456789abcdef", "abcdefghijklmnop")
    assert send_key(cart, 12) == f"{cart.hex.translate(characters)}.bc"
