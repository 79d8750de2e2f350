"""Names that are derived, so that whoever computes them again gets the same: of messages, batches, people and facts."""

from __future__ import annotations

import hashlib
import hmac
import re
import uuid
from dataclasses import dataclass

from wch_common.integrations.phone import one_form

_NAMES = uuid.UUID("0c0e8a50-5c9b-5a5e-9d0b-3f3f1b8c2f11")
_TAG = re.compile(r"^wch1:(?P<message>[0-9a-f-]{36}):(?P<attempt>[0-9]{1,9})$")


def message_id(shop: str, requester: str, send_key: str) -> uuid.UUID:
    """Return the ledger's id of a message: one per shop, requester and send key."""
    return uuid.uuid5(_NAMES, f"message\n{shop}\n{requester}\n{send_key}")


def batch_id(shop: str, requester: str, name: str) -> uuid.UUID:
    """Return the ledger's id of a batch: one per shop, requester and name."""
    return uuid.uuid5(_NAMES, f"batch\n{shop}\n{requester}\n{name}")


def fact_id(owner: uuid.UUID, type_: str, number: int) -> str:
    """Return the id of a fact about a message (by attempt) or a batch (by bundle), the same whoever tells it."""
    return str(uuid.uuid5(owner, f"{type_}\n{number}"))


@dataclass(frozen=True)
class Tag:
    """One attempt to send a message; Meta gives it back with statuses."""

    message: uuid.UUID
    attempt: int

    def __str__(self) -> str:
        return f"wch1:{self.message}:{self.attempt}"

    @classmethod
    def parsed(cls, text: str | None) -> Tag | None:
        """Read a tag; None for one that is not ours."""
        match = _TAG.match(text or "")
        return cls(uuid.UUID(match["message"]), int(match["attempt"])) if match else None


class People:
    """Names for people that tell nobody their number: a hash under a key of this deployment."""

    def __init__(self, key: str) -> None:
        self._key = key.encode()

    def person(self, phone: str) -> bytes:
        """Return the name of whoever has a number (E.164)."""
        return hmac.digest(self._key, one_form(phone).encode(), hashlib.sha256)[:16]
