"""What customers may put into a reminder. Anybody can fill in a cart form with another person's number, so a reminder must not carry their words."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import regex

if TYPE_CHECKING:
    from collections.abc import Collection

_LONGEST: Final = 40
_MOST_WORDS: Final = 4
_LONGEST_CODE: Final = 20
# Alphabetic characters with their marks, joiners of some scripts, spaces, apostrophes, hyphens, and full stops behind an abbreviation.
_NAME = regex.compile(r"(?:[\p{L}\p{M}\u200c\u200d '\u2019\u02bc\u00b7-]|(?<=\b\p{L}{1,4})\.(?= [^\p{Ll}]|$))+")
_ADDRESS = regex.compile(r"\. ?(?:com|net|org|info|shop|app|co|me)\b", regex.IGNORECASE)
_STACKED_MARKS = regex.compile(r"\p{M}{4}")
_ALPHABETIC = regex.compile(r"\p{L}")
_PARTICLE = regex.compile(
    "af|al|av|bin|bint|da|das|de|del|della|den|der|des|di|do|dos|e|el|ibn|la|las|le|los|ten|ter|und|van|vd|von|y|zu|zum|zur",
    regex.IGNORECASE,
)
_MOST_PARTICLES: Final = 4
_CODE = regex.compile(r"[\p{L}\p{M}\p{N}_-]+")
_NUMBER_IN_CODE = regex.compile(r"(?:\p{N}[_-]*){7}")
_UNSAFE_IN_LINK = regex.compile(r"[\s\\\p{C}]")


def customer_name(text: str) -> str:
    """Return a customer's name, or an empty text for what is no name: an address, a number, lines, over 40 characters or four words.

    Particles (`de`, `von`) are no words.
    """
    name = regex.sub(r"\p{Zs}+", " ", text).strip(" ")
    words = name.split(" ")
    particles = sum(_PARTICLE.fullmatch(word) is not None for word in words)
    is_short = len(name) <= _LONGEST and particles <= _MOST_PARTICLES and len(words) - particles <= _MOST_WORDS
    is_name = (
        _NAME.fullmatch(name)
        and _ALPHABETIC.search(name)
        and not (_ADDRESS.search(name) or _STACKED_MARKS.search(name))
    )
    return name if is_short and is_name else ""


def coupon_code(text: str) -> str:
    """Return a coupon's code, or an empty text for more than one word, over 20 characters, or what may be a telephone number."""
    is_code = len(text) <= _LONGEST_CODE and _CODE.fullmatch(text) and not _NUMBER_IN_CODE.search(text)
    return text if is_code else ""


def own_link(text: str, hosts: Collection[str]) -> str:
    """Return an https link to one of the shop's hosts or their subdomains; else an empty text."""
    if _UNSAFE_IN_LINK.search(text):
        return ""
    try:
        parts = urlsplit(text)
        host, user = parts.hostname or "", parts.username
    except ValueError:
        return ""
    host, owns = _ascii(host), filter(None, map(_ascii, hosts))
    is_own = any(host == own or host.endswith(f".{own}") for own in owns)
    return text if parts.scheme == "https" and user is None and is_own else ""


def _ascii(host: str) -> str:
    """Return a host as it is in DNS, in ASCII; empty if it cannot be one."""
    try:
        return host.encode("idna").decode()
    except UnicodeError:
        return ""


def own_path(text: str, hosts: Collection[str]) -> str:
    """Return what may follow the address of a template's button: a path that cannot change its host, or a link of `own_link`."""
    if _UNSAFE_IN_LINK.search(text) or text.startswith("//"):
        return ""
    # In the form in which a browser reads a host, where the full stops of other scripts are full stops.
    first = regex.split(r"[/?#]", unicodedata.normalize("NFKC", text).replace("\u3002", "."), maxsplit=1)[0]
    is_path = not any(one in first for one in ".@:%")
    return text if is_path else own_link(text, hosts)
