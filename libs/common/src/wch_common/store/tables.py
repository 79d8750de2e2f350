"""The runtime's tables; every service has them in its own schema."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, DateTime, Index, LargeBinary, MetaData, Table, Text, func
from sqlalchemy.dialects.postgresql import JSONB

RUNTIME = MetaData()


def _moment(name: str, *, default: bool = False) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=False, server_default=func.now() if default else None)


INBOX = Table(
    "inbox",
    RUNTIME,
    Column("queue", Text, primary_key=True),
    Column("source", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column(
        "hash", LargeBinary, nullable=False, comment="of type and canonical data: the same id with other data is told"
    ),
    _moment("handled_at", default=True),
    Index("inbox_handled_at", "handled_at", postgresql_using="brin"),
    comment="Events whose effects are committed; one that comes again is only acknowledged",
)

OUTBOX = Table(
    "outbox",
    RUNTIME,
    Column("id", Text, primary_key=True, comment="the event's id"),
    Column("exchange", Text, nullable=False),
    Column("routing_key", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    _moment("due_at"),
    Index("outbox_due_at", "due_at"),
    comment="Events committed with the work that caused them; deleted when the broker has confirmed them",
)

PARKED = Table(
    "parked",
    RUNTIME,
    Column("queue", Text, primary_key=True),
    Column("source", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("hash", LargeBinary, primary_key=True, comment="of the body: two events under one id both wait"),
    Column("scope", Text, nullable=False, comment="what they wait for: a number, a catalog, a shop; empty for a time"),
    Column("body", LargeBinary, nullable=False),
    Column("properties", JSONB, nullable=False),
    _moment("due_at"),
    Index("parked_scope_due_at", "scope", "due_at"),
    comment="Events that wait longer than their queue's ladder",
)

SCOPES = Table(
    "scopes",
    RUNTIME,
    Column("scope", Text, primary_key=True),
    _moment("paused_until"),
    Column(
        "probing", Boolean, nullable=False, comment="the next release is one event that tries whether it goes again"
    ),
    comment="What parked events wait for",
)

LEASES = Table(
    "leases",
    RUNTIME,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column(
        "token", BigInteger, nullable=False, comment="rises with every new holder: a late one is known by its token"
    ),
    _moment("until"),
    comment="What must be one at a time",
)
