"""A message: what is kept of it on every hop, and nothing that a hop must not copy."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeAlias

HeaderValue: TypeAlias = "str | int | float | bool | bytes | list[HeaderValue] | dict[str, HeaderValue] | None"
Headers: TypeAlias = "dict[str, HeaderValue]"

USER = "wch-user"
# Headers of the broker; a copied x-death makes RabbitMQ 3.10 take a retry for a cycle and drop it.
_NOT_COPIED = frozenset({"CC", "BCC"})


@dataclass(slots=True)
class Message:
    """A body and the properties we keep; always published persistent."""

    body: bytes
    content_type: str | None = None
    content_encoding: str | None = None
    message_id: str | None = None
    headers: Headers = field(default_factory=dict)
    user: str | None = None
    """The AMQP user who first published it, if the broker has checked that."""

    def copied(self, extra: Headers) -> Message:
        """Return a copy for another hop: the original bytes, no headers of the broker, `extra` added (None removes one).

        The first publisher moves to a header of ours, as the copy is published by another user.
        """
        kept = {key: value for key, value in self.headers.items() if key not in _NOT_COPIED and key[:2].lower() != "x-"}
        kept.update(extra)
        kept[USER] = self.user
        kept = {key: value for key, value in kept.items() if value is not None}
        return Message(self.body, self.content_type, self.content_encoding, self.message_id, kept, self.user)


@dataclass(frozen=True, slots=True)
class Publication:
    """A message and where it goes; with `mandatory`, publishing fails if no queue receives it."""

    exchange: str
    routing_key: str
    message: Message
    mandatory: bool = True
    signed: bool = False
    """Whether it names the publishing AMQP user, whom the broker then checks."""


Publish: TypeAlias = Callable[[Publication], Awaitable[None]]
"""Publishes one message and returns once the broker has confirmed it; raises PublishError."""
