"""What the whatsapp service keeps: the ledger of messages, their batches, and what is known of numbers and people."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    Column,
    ForeignKey,
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
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from wch_common.store.columns import count, now, text_column, timestamp

METADATA = MetaData()


def _flag(name: str, comment: str) -> Column[bool]:
    return Column(name, Boolean, nullable=False, server_default=text("false"), comment=comment)


MESSAGES = Table(
    "messages",
    METADATA,
    Column("id", Uuid, primary_key=True, comment="derived from shop, requester and send key"),
    Column("shop", Text, nullable=False),
    Column("requester", Text, nullable=False),
    Column("send_key", Text, nullable=False),
    Column("sender", Text, nullable=False, comment="phone number id"),
    Column("phone", Text, comment="E.164; null when forgotten, or not known"),
    Column("person", LargeBinary, nullable=False, comment="keyed hash of the number"),
    Column("category", Text, nullable=False),
    Column("content", JSONB, comment="of the call to be made; null when forgotten"),
    Column("fallback", JSONB, comment="the same, for a closed window"),
    Column("as_fallback", Boolean, nullable=False, server_default=text("false")),
    _flag("own_values", "placeholders of its own"),
    Column("batch", Uuid),
    Column("state", Text, nullable=False),
    timestamp("due_at", "when it is to be looked at next; null in a final state"),
    timestamp("expires_at", needed=True),
    count("attempt", "calls begun"),
    count("failures", "counted ones since it was asked"),
    Column("wamid", Text),
    text_column("reason"),
    Column("code", Integer),
    text_column("detail"),
    Column("cancelled", Text, comment="why it is not to be sent, should it come back from a call"),
    _flag("answered", "its batch had a first answer"),
    _flag("changed", "its batch is to tell it anew"),
    _flag("asked_again", "batches of also_asked are told of it"),
    _flag("asked_alone", "who asked for it by itself is told, though it is a batch's"),
    Column("doubted", Integer, comment="the attempt that was sent again though it was in doubt"),
    Column("correlationid", Text),
    Column("causationid", Text),
    now("created_at"),
    now("updated_at"),
    Index("messages_due", "sender", "shop", "requester", "due_at", postgresql_where=text("state = 'queued'")),
    Index(
        "messages_not_told",
        "sender",
        "due_at",
        postgresql_where=text(
            "state = 'queued' AND (batch IS NOT NULL OR asked_again) AND (NOT answered OR reason = '')"
        ),
    ),
    Index("messages_expiry", "expires_at", postgresql_where=text("state = 'queued'")),
    Index("messages_open", "due_at", postgresql_where=text("state IN ('sending', 'in_doubt')")),
    Index("messages_wamid", "wamid", postgresql_where=text("wamid IS NOT NULL")),
    Index("messages_batch", "batch", postgresql_where=text("batch IS NOT NULL")),
    Index("messages_person", "person"),
    Index("messages_ended", "updated_at", postgresql_where=text("due_at IS NULL")),
    comment="The ledger: what was asked to be sent, and what became of it",
)

BATCHES = Table(
    "batches",
    METADATA,
    Column("id", Uuid, primary_key=True, comment="derived from shop, requester and the requester's name for it"),
    Column("shop", Text, nullable=False),
    Column("requester", Text, nullable=False),
    Column("batch_id", Text, nullable=False),
    Column("open", Integer, nullable=False, comment="recipients without a first answer"),
    Column("asked", Boolean, nullable=False, comment="false where only its cancellation has come so far"),
    # Written by the version before only; kept, so that both run beside each other in a rolling update.
    Column(
        "others",
        ARRAY(Uuid),
        nullable=False,
        server_default=text("'{}'"),
        comment="messages asked for elsewhere before",
    ),
    Column("cancelled", Text, comment="the reason"),
    count("bundles", "updates told"),
    timestamp("completed_at"),
    timestamp("due_at", "when the next bundle of changes is told"),
    Column("correlationid", Text),
    Column("causationid", Text),
    now("created_at"),
    Index("batches_due", "due_at", postgresql_where=text("due_at IS NOT NULL")),
    Index("batches_created", "created_at"),
    comment="Messages that were asked for together",
)

ALSO_ASKED = Table(
    "also_asked",
    METADATA,
    Column("batch", Uuid, ForeignKey("batches.id", ondelete="CASCADE"), nullable=False),
    Column("message", Uuid, nullable=False),
    Column("answered", Boolean, nullable=False, comment="the batch had a first answer of it"),
    _flag("changed", "the batch is to tell it anew"),
    PrimaryKeyConstraint("batch", "message"),
    Index("also_asked_message", "message"),
    comment="Messages of batches that another request had asked for before",
)

NUMBERS = Table(
    "numbers",
    METADATA,
    Column("sender", Text, primary_key=True, comment="phone number id"),
    timestamp("slots_from", "slots before it are taken", needed=True),
    timestamp("paused_until"),
    Column("cause", Text, comment="of the pause; kept until a call succeeds"),
    text_column("last_lane", "who was served last"),
    comment="Numbers that are sent from: their rate, and why one rests",
)

PAIRS = Table(
    "pairs",
    METADATA,
    Column("sender", Text, nullable=False),
    Column("person", LargeBinary, nullable=False),
    timestamp("slots_from", "slots before it are taken", needed=True),
    count("failures"),
    PrimaryKeyConstraint("sender", "person"),
    Index("pairs_slots_from", "slots_from"),
    comment="How often a number may write to one person",
)

WINDOWS = Table(
    "windows",
    METADATA,
    Column("sender", Text, nullable=False),
    Column("person", LargeBinary, nullable=False),
    timestamp("open_until", needed=True),
    PrimaryKeyConstraint("sender", "person"),
    Index("windows_open_until", "open_until"),
    comment="Who wrote to us within 24 hours and may be answered freely",
)

REACHED = Table(
    "reached",
    METADATA,
    Column("portfolio", Text, nullable=False),
    Column("person", LargeBinary, nullable=False),
    timestamp("at", needed=True),
    PrimaryKeyConstraint("portfolio", "person"),
    Index("reached_at", "portfolio", "at"),
    comment="People written to outside a window, which Meta limits per 24 hours",
)

SUPPRESSIONS = Table(
    "suppressions",
    METADATA,
    Column("shop", Text, nullable=False),
    Column("person", LargeBinary, nullable=False),
    Column("category", Text, nullable=False, comment="marketing, utility or all"),
    Column("phone", Text, comment="null when forgotten"),
    Column("reason", Text, nullable=False),
    Column("by", Text, nullable=False),
    now("since"),
    timestamp("lifted_at", "taken back by the person at that time: what they said before it counts no more"),
    Index("suppressions_lifted", "lifted_at", postgresql_where=text("lifted_at IS NOT NULL")),
    PrimaryKeyConstraint("shop", "person", "category"),
    comment="Who must not be written to",
)
