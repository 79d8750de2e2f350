"""The runtime's tables, which every service has in its own schema."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, DateTime, Index, LargeBinary, MetaData, Table, Text, func
from sqlalchemy.dialects.postgresql import JSONB

from wch_common.store.personal_data import personal_data

RUNTIME = MetaData()


def _timestamp(name: str, *, default: bool = False) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=False, server_default=func.now() if default else None)


INBOX = Table(
    "inbox",
    RUNTIME,
    Column("queue", Text, primary_key=True),
    Column("source", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column(
        "hash",
        LargeBinary,
        nullable=False,
        comment="of type and canonical data; another hash under the same id is refused",
    ),
    _timestamp("handled_at", default=True),
    Index("inbox_handled_at", "handled_at", postgresql_using="brin"),
    comment="Events whose effects are committed; a duplicate is only acknowledged",
    info=personal_data(impersonal=("queue", "source", "id", "hash")),
)

OUTBOX = Table(
    "outbox",
    RUNTIME,
    Column("id", Text, primary_key=True, comment="the event's id"),
    Column("exchange", Text, nullable=False),
    Column("routing_key", Text, nullable=False),
    Column("signed", Boolean, nullable=False, comment="published in the name of the AMQP user"),
    Column("body", LargeBinary, nullable=False),
    _timestamp("due_at"),
    Index("outbox_due_at", "due_at"),
    comment="Events committed with the work that caused them; deleted once the broker has confirmed them",
    info=personal_data(impersonal=("id", "exchange", "routing_key"), event="body"),
)

PARKED = Table(
    "parked",
    RUNTIME,
    Column("queue", Text, primary_key=True),
    Column("source", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("hash", LargeBinary, primary_key=True, comment="of the body, as two events may have one id"),
    Column(
        "scope",
        Text,
        nullable=False,
        comment="a phone number id, a catalog or a shop; empty for events that wait for a time",
    ),
    Column("body", LargeBinary, nullable=False),
    Column("properties", JSONB, nullable=False),
    _timestamp("due_at"),
    Index("parked_scope_due_at", "scope", "due_at"),
    comment="Events whose wait is too long for a delay queue",
    info=personal_data(
        impersonal=("queue", "source", "id", "hash", "scope"), event="body", until_deleted=("properties",)
    ),
)

SCOPES = Table(
    "scopes",
    RUNTIME,
    Column("scope", Text, primary_key=True),
    _timestamp("paused_until"),
    Column("probing", Boolean, nullable=False, comment="the next release is a single event, as a probe"),
    comment="What parked events wait for",
    info=personal_data(impersonal=("scope",)),
)

LEASES = Table(
    "leases",
    RUNTIME,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column(
        "token", BigInteger, nullable=False, comment="rises with every new holder, so that a late one is recognised"
    ),
    _timestamp("until"),
    comment="Work that one process may do at a time",
    info=personal_data(impersonal=("name", "holder")),
)

ERASED_PEOPLE = Table(
    "erased_people",
    RUNTIME,
    Column("person", LargeBinary, primary_key=True, comment="keyed hash of a number or an id"),
    _timestamp("at"),
    Index("erased_people_at", "at"),
    comment="Who was erased, and when: what is older than that is handled without them",
    info=personal_data(impersonal=("person",)),
)

ERASURES = Table(
    "erasures",
    RUNTIME,
    Column("id", Text, primary_key=True, comment="id of the request to erase"),
    _timestamp("at"),
    _timestamp("begun_at", default=True),
    Column("rows", JSONB, comment="how many rows of each table were erased; null until that is done"),
    Column("ended_at", DateTime(timezone=True)),
    Index("erasures_begun_at", "begun_at"),
    comment="Requests to erase somebody, and what this service answered",
    info=personal_data(impersonal=("id", "rows")),
)

SWITCHES = Table(
    "switches",
    RUNTIME,
    Column("setting", Text, primary_key=True),
    Column("effect", Text, nullable=False),
    _timestamp("since", default=True),
    comment="Settings of the running service by which it leaves work undone on purpose, for `wch doctor`",
    info=personal_data(impersonal=("setting", "effect")),
)
