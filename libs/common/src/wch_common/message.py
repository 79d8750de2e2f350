"""A message as it travels: what is kept of it on every hop, and nothing that a hop must not copy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

HeaderValue: TypeAlias = "str | int | float | bool | bytes | list[HeaderValue] | dict[str, HeaderValue] | None"
Headers: TypeAlias = "dict[str, HeaderValue]"

USER = "wch-user"
# The broker's own headers; a copied x-death makes RabbitMQ 3.10 take a retry for a cycle and drop it.
_NOT_COPIED = frozenset({"CC", "BCC"})


@dataclass(slots=True)
class Message:
    """Body and the properties we keep; always sent persistent."""

    body: bytes
    content_type: str | None = None
    content_encoding: str | None = None
    message_id: str | None = None
    headers: Headers = field(default_factory=dict)
    user: str | None = None
    """Who published it first, where the broker has checked that."""

    def copied(self, extra: Headers) -> Message:
        """Return a copy for another hop: the original bytes, no header of the broker's, `extra` on top (None removes).

        Who published it first is ours to say from then on, as the copy is published by somebody else.
        """
        kept = {key: value for key, value in self.headers.items() if key not in _NOT_COPIED and key[:2].lower() != "x-"}
        kept.update(extra)
        kept[USER] = self.user
        kept = {key: value for key, value in kept.items() if value is not None}
        return Message(self.body, self.content_type, self.content_encoding, self.message_id, kept, self.user)


@dataclass(frozen=True, slots=True)
class Publication:
    """A message and where it goes; `mandatory` asks for an error where no queue takes it."""

    exchange: str
    routing_key: str
    message: Message
    mandatory: bool = True
    signed: bool = False
    """Names the publishing AMQP user, whom the broker then checks."""
