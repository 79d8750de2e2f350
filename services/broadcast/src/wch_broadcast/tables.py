"""What the broadcast service keeps: lists of recipients, campaigns, their batches, and what became of each recipient."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    Column,
    DateTime,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from wch_common.store.columns import count, now, text_column, timestamp

METADATA = MetaData()


LISTS = Table(
    "lists",
    METADATA,
    Column("id", Uuid, primary_key=True, comment="derived from shop and name, or the campaign's own"),
    Column("shop", Text, nullable=False),
    Column("list_id", Text, nullable=False, comment="empty for one that came with its campaign"),
    Column("parts", Integer, comment="how many there will be, once a part has said so"),
    count("given"),
    count("malformed"),
    count("duplicates"),
    timestamp("complete_at"),
    timestamp("deleted_at", "when its recipients were deleted"),
    now("created_at"),
    Index("lists_created", "created_at"),
    comment="Lists of recipients",
)

LIST_PARTS = Table(
    "list_parts",
    METADATA,
    Column("list", Uuid, nullable=False),
    Column("part", Integer, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    PrimaryKeyConstraint("list", "part"),
    comment="Parts that were added to lists",
)

RECIPIENTS = Table(
    "recipients",
    METADATA,
    Column("list", Uuid, nullable=False),
    Column("position", Integer, nullable=False),
    Column("phone", Text, comment="E.164; null when malformed or forgotten"),
    Column("person", Text, comment="the one form of the number by which its owner is known"),
    Column("own", JSONB, comment="values of their own for the message"),
    Column("flaw", Text, comment="why they are not written to: malformed_number, duplicate_number, forgotten"),
    PrimaryKeyConstraint("list", "position"),
    Index("recipients_once", "list", "person", unique=True, postgresql_where=text("flaw IS NULL")),
    Index("recipients_person", "person", postgresql_where=text("person IS NOT NULL")),
    comment="People of lists",
)

CAMPAIGNS = Table(
    "campaigns",
    METADATA,
    Column("id", Uuid, primary_key=True, comment="derived from shop and name"),
    Column("shop", Text, nullable=False),
    Column("campaign_id", Text, nullable=False),
    Column("requester", Text, nullable=False),
    Column("request", JSONB, nullable=False, comment="as it was asked for, without its recipients"),
    Column("hash", LargeBinary, nullable=False, comment="of all that was asked for"),
    Column("list", Uuid, nullable=False),
    Column("exclusive", Boolean, nullable=False),
    Column("batch_size", Integer, nullable=False),
    Column("pause_seconds", Float, nullable=False),
    timestamp("start_at"),
    timestamp("stop_at"),
    Column("state", Text, nullable=False, comment="waiting, running, paused, cancelling, completed, cancelled, failed"),
    text_column("cause", "why it does not go on, or how it ended"),
    text_column("said_by", "who paused or cancelled it"),
    count("cursor", "position of the recipient asked for last"),
    count("batches", "released so far"),
    Column("released", Boolean, nullable=False, server_default=text("false"), comment="no further batch follows"),
    Column("stopped", Boolean, nullable=False, server_default=text("false"), comment="its time to stop came first"),
    count("share_from", "batch from which on failures count towards pausing"),
    count("told", "facts told"),
    timestamp("next_batch_at"),
    timestamp("due_at", "when it is to be looked at next"),
    Column("moved_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    timestamp("taken_up_at", "when its unanswered batches were asked for again"),
    timestamp("told_at", "when its totals were told last"),
    timestamp("started_at"),
    timestamp("ended_at"),
    Column("correlationid", Text),
    Column("causationid", Text),
    now("created_at"),
    Index("campaigns_due", "due_at", postgresql_where=text("due_at IS NOT NULL")),
    Index("campaigns_open", "shop", "created_at", postgresql_where=text("ended_at IS NULL")),
    Index("campaigns_list", "list"),
    Index("campaigns_ended", "ended_at"),
    comment="Campaigns",
)

BATCHES = Table(
    "batches",
    METADATA,
    Column("campaign", Uuid, nullable=False),
    Column("number", Integer, nullable=False),
    now("released_at"),
    timestamp("answered_at", "when it had its first answers"),
    Column("counts", JSONB, nullable=False, server_default=text("'{}'"), comment="recipients by outcome/reason"),
    count("deferred"),
    count("failed"),
    text_column("parked_by", "the limit of the whole number for which recipients wait"),
    PrimaryKeyConstraint("campaign", "number"),
    Index("batches_open", "campaign", postgresql_where=text("answered_at IS NULL OR deferred > 0")),
    comment="Batches of campaigns; their counts outlive the recipients",
)

OUTCOMES = Table(
    "outcomes",
    METADATA,
    Column("campaign", Uuid, nullable=False),
    Column("position", Integer, nullable=False),
    Column("batch", Integer, nullable=False),
    Column("outcome", Text, nullable=False),
    text_column("reason"),
    Column("code", Integer),
    timestamp("until"),
    count("version", "of the fact that told it"),
    PrimaryKeyConstraint("campaign", "position"),
    Index("outcomes_batch", "campaign", "batch"),
    comment="What became of recipients that were asked for",
)
