"""What customers may put into a reminder. Anybody can fill in a cart form with another person's number, so a reminder must not carry their words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import regex

if TYPE_CHECKING:
    from collections.abc import Collection

_LONGEST: Final = 40
# Alphabetic characters with their marks, joiners of some scripts, spaces, apostrophes, hyphens, and full stops behind an abbreviation.
_NAME = regex.compile(r"(?:[\p{L}\p{M}\u200c\u200d '\u2019\u02bc\u00b7-]|(?<=\p{L})\.(?= |$))+")
_ALPHABETIC = regex.compile(r"\p{L}")
_CODE = regex.compile(r"[\p{L}\p{M}\p{N}_-]+")
_UNSAFE_IN_LINK = regex.compile(r"[\s\\\p{C}]")


def customer_name(text: str) -> str:
    """Return a customer's name, or an empty text for what is no name: an address, a number, lines, over 40 characters."""
    name = regex.sub(" +", " ", text.strip(" "))
    return name if len(name) <= _LONGEST and _NAME.fullmatch(name) and _ALPHABETIC.search(name) else ""


def coupon_code(text: str) -> str:
    """Return a coupon's code, or an empty text if it is more than one word of alphabetic characters, digits, hyphens and underscores."""
    return text if len(text) <= _LONGEST and _CODE.fullmatch(text) else ""


def own_link(text: str, hosts: Collection[str]) -> str:
    """Return a link to one of the shop's hosts or their subdomains, or a path, which the template completes; else an empty text."""
    if _UNSAFE_IN_LINK.search(text):
        return ""
    try:
        parts = urlsplit(text)
        host, user = parts.hostname or "", parts.username
    except ValueError:
        return ""
    if not parts.scheme and not parts.netloc:
        return "" if text.startswith("//") else text
    is_own = any(host == own or host.endswith(f".{own}") for own in hosts)
    return text if parts.scheme == "https" and user is None and is_own else ""
