"""Tables of the broadcast service: lists of recipients, campaigns, their batches, and the outcome of each recipient."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from wch_common.store.columns import count, now, text_column, timestamp
from wch_common.store.personal_data import personal_data

METADATA = MetaData()
_EXPORT_RECIPIENT = """
SELECT l.shop, l.list_id, r.phone, r.user_id, r.own_values, r.skip_reason, c.campaign_id, o.outcome, o.reason
FROM recipients AS r JOIN lists AS l ON l.id = r.list
LEFT JOIN campaigns AS c ON c.list = r.list
LEFT JOIN outcomes AS o ON o.campaign = c.id AND o.position = r.position
WHERE r.person = ANY(%(person)s) OR r.user_id = ANY(%(person)s) ORDER BY l.created_at, c.created_at
"""

LISTS = Table(
    "lists",
    METADATA,
    Column("id", Uuid, primary_key=True, comment="derived from shop and name; the campaign's id if it came with one"),
    Column("shop", Text, nullable=False),
    Column("list_id", Text, nullable=False, comment="empty if it came with its campaign"),
    Column("parts", Integer, comment="number of parts, once a part has given it"),
    count("submitted", "recipients received, usable or not"),
    count("malformed"),
    count("duplicates"),
    count("with_values", "recipients with values of their own for the message's body"),
    timestamp("complete_at"),
    timestamp("deleted_at", "from then on its recipients are deleted"),
    now("created_at"),
    Index("lists_created", "created_at"),
    info=personal_data(impersonal=("shop", "list_id")),
    comment="Lists of recipients",
)

LIST_PARTS = Table(
    "list_parts",
    METADATA,
    Column("list", Uuid, nullable=False),
    Column("part", Integer, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    PrimaryKeyConstraint("list", "part"),
    info=personal_data(impersonal=("hash",)),
    comment="Parts of lists that have been added",
)

RECIPIENTS = Table(
    "recipients",
    METADATA,
    Column("list", Uuid, nullable=False),
    Column("position", Integer, nullable=False),
    Column("phone", Text, comment="E.164; null if malformed or erased"),
    Column("user_id", Text, comment="Meta's id, if it was given"),
    Column(
        "person", Text, comment="canonical form of the number or, without one, the id, which identifies the recipient"
    ),
    Column("own_values", JSONB, comment="the recipient's own values for the message"),
    Column(
        "skip_reason",
        Text,
        comment="why the recipient is not sent a message: malformed_number, duplicate_number, erased",
    ),
    PrimaryKeyConstraint("list", "position"),
    Index("recipients_once", "list", "person", unique=True, postgresql_where=text("skip_reason IS NULL")),
    Index(
        "recipients_once_by_id",
        "list",
        "user_id",
        unique=True,
        postgresql_where=text("skip_reason IS NULL AND user_id IS NOT NULL"),
    ),
    Index("recipients_person", "person", postgresql_where=text("person IS NOT NULL")),
    Index("recipients_user_id", "user_id", postgresql_where=text("user_id IS NOT NULL")),
    info=personal_data(
        person=("person", "user_id"),
        erased={"person": None, "phone": None, "user_id": None, "own_values": None},
        impersonal=("skip_reason",),
        # An outcome that is already known is kept, as it contains no personal data.
        also="skip_reason = coalesce(skip_reason, 'erased')",
        export=_EXPORT_RECIPIENT,
    ),
    comment="Recipients of lists",
)

CAMPAIGNS = Table(
    "campaigns",
    METADATA,
    Column("id", Uuid, primary_key=True, comment="derived from shop and name"),
    Column("shop", Text, nullable=False),
    Column("campaign_id", Text, nullable=False),
    Column("requester", Text, nullable=False),
    Column("request", JSONB, nullable=False, comment="as requested, without its recipients"),
    Column("hash", LargeBinary, nullable=False, comment="of the whole request"),
    Column("list", Uuid, nullable=False),
    Column("exclusive", Boolean, nullable=False),
    Column("batch_size", Integer, nullable=False),
    Column("pause_seconds", Float, nullable=False),
    timestamp("start_at"),
    timestamp("stop_at"),
    Column("state", Text, nullable=False, comment="waiting, running, paused, cancelling, completed, cancelled, failed"),
    text_column("cause", "why it does not proceed, or why it ended"),
    text_column("changed_by", "who paused or cancelled it"),
    count("cursor", "position of the last recipient in a batch"),
    count("batches", "number of batches released"),
    Column("released", Boolean, nullable=False, server_default=text("false"), comment="no further batch follows"),
    Column(
        "stopped", Boolean, nullable=False, server_default=text("false"), comment="stop_at came before its last batch"
    ),
    count("share_from_batch", "failures in later batches count towards pausing"),
    count("facts", "number of facts published"),
    timestamp("next_batch_at"),
    timestamp("due_at", "when its next step is due"),
    now("progressed_at", "when it changed state, released a batch or got a first answer"),
    timestamp("requested_again_at", "when its unanswered batches were requested again"),
    timestamp("reported_at", "when its progress was last published"),
    timestamp("started_at"),
    timestamp("ended_at"),
    Column("correlationid", Text),
    Column("causationid", Text),
    now("created_at"),
    Index("campaigns_due", "due_at", postgresql_where=text("due_at IS NOT NULL")),
    Index("campaigns_open", "shop", "created_at", postgresql_where=text("ended_at IS NULL")),
    Index("campaigns_list", "list"),
    Index("campaigns_ended", "ended_at"),
    info=personal_data(
        impersonal=(
            "shop",
            "campaign_id",
            "requester",
            "request",
            "hash",
            "state",
            "cause",
            "changed_by",
            "correlationid",
            "causationid",
        )
    ),
    comment="Campaigns",
)

BATCHES = Table(
    "batches",
    METADATA,
    Column("campaign", Uuid, nullable=False),
    Column("number", Integer, nullable=False),
    now("released_at"),
    timestamp("answered_at", "when its first answers arrived"),
    Column("counts", JSONB, nullable=False, server_default=text("'{}'"), comment="recipients by outcome/reason"),
    count("deferred"),
    count("failed"),
    text_column("limited_by", "limit for which its recipients wait"),
    PrimaryKeyConstraint("campaign", "number"),
    Index("batches_open", "campaign", postgresql_where=text("answered_at IS NULL OR deferred > 0")),
    info=personal_data(impersonal=("counts", "limited_by")),
    comment="Batches of campaigns; their counts outlive the recipients",
)

OUTCOMES = Table(
    "outcomes",
    METADATA,
    Column("campaign", Uuid, nullable=False),
    Column("position", Integer, nullable=False),
    Column("batch", Integer, nullable=False),
    Column("outcome", Text, nullable=False, comment="requested, or an outcome of the whatsapp service"),
    text_column("reason"),
    Column("concerns", Text, comment="what the reason concerns; null if it is not about a failure or a limit"),
    Column("retryable", Boolean, nullable=False, server_default=text("false"), comment="the reason passes by itself"),
    Column("code", Integer),
    timestamp("until"),
    count("version", "of the fact that reported it"),
    PrimaryKeyConstraint("campaign", "position"),
    Index("outcomes_batch", "campaign", "batch"),
    info=personal_data(impersonal=("outcome", "reason", "concerns")),
    comment="Outcomes of recipients whose batch was requested",
)
