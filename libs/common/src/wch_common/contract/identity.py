"""Derived ids: whoever computes one again gets the same, so that repeated work finds what it made."""

from __future__ import annotations

import uuid

_DIGITS, _WITHOUT_DIGITS = "0123456789abcdef", "abcdefghijklmnop"
_TO_TEXT = str.maketrans(_DIGITS, _WITHOUT_DIGITS)
_FROM_TEXT = str.maketrans(_WITHOUT_DIGITS, _DIGITS)
HEX_PATTERN, NUMBER_PATTERN = "[a-p]{32}", "[a-j]{1,19}"
"""What `without_digits` makes of a UUID and of a number."""


def derived_id(namespace: uuid.UUID, *parts: object) -> uuid.UUID:
    """Return the id that a namespace and the parts of a key always give."""
    return uuid.uuid5(namespace, "\n".join(map(str, parts)))


def without_digits(value: uuid.UUID | int) -> str:
    """Return an id or a number in the characters a to p.

    Keys must not contain a phone number, and eight digits of a random id could happen to be one.
    """
    return (value.hex if isinstance(value, uuid.UUID) else str(value)).translate(_TO_TEXT)


def with_digits(text: str) -> str:
    """Return the hexadecimal or decimal form of what `without_digits` returned."""
    return text.translate(_FROM_TEXT)
