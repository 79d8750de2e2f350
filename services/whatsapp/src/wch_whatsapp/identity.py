"""Derived ids of messages, batches and facts, and the tag of an attempt. No I/O."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass

from wch_common.contract.identity import derived_id

_NAMESPACE = uuid.UUID("0c0e8a50-5c9b-5a5e-9d0b-3f3f1b8c2f11")
_TAG = re.compile(r"^wch1:(?P<message>[0-9a-f-]{36}):(?P<attempt>[0-9]{1,9})$")


def message_id(shop: str, requester: str, send_key: str) -> uuid.UUID:
    """Return the ledger's id of a message: one for each shop, requester and send key."""
    return derived_id(_NAMESPACE, "message", shop, requester, send_key)


def batch_id(shop: str, requester: str, name: str) -> uuid.UUID:
    """Return the ledger's id of a batch: one for each shop, requester and name."""
    return derived_id(_NAMESPACE, "batch", shop, requester, name)


def fact_id(owner: uuid.UUID, type_: str, number: int) -> str:
    """Return the id of a fact about a message (`number` is the attempt) or a batch (the number of the update)."""
    return str(derived_id(owner, type_, number))


@dataclass(frozen=True)
class Tag:
    """One attempt to send a message; Meta returns the tag with each status."""

    message: uuid.UUID
    attempt: int

    def __str__(self) -> str:
        return f"wch1:{self.message}:{self.attempt}"

    @classmethod
    def parsed(cls, text: str | None) -> Tag | None:
        """Parse a tag; returns None if this service did not make it."""
        match = _TAG.match(text or "")
        return cls(uuid.UUID(match["message"]), int(match["attempt"])) if match else None
