"""What the carts service keeps: carts, what came of reminders, and runs of the cleanup."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from wch_common.store.columns import count, moment, now, words

METADATA = MetaData()


CARTS = Table(
    "carts",
    METADATA,
    Column("id", Uuid, primary_key=True, comment="derived from shop and cart_id"),
    Column("shop", Text, nullable=False),
    Column("cart_id", Text, nullable=False, comment="the shop's name for it"),
    Column("version", BigInteger, nullable=False, comment="the shop's; since it the cart is idle"),
    Column(
        "status",
        Text,
        nullable=False,
        comment="active, completed, abandoned; deleted: kept so that late facts are known",
    ),
    Column("phone", Text, comment="E.164"),
    Column("person", Text, comment="the one form of the number by which its owner is known"),
    words("flaw", "why there is no number"),
    words("customer_name"),
    Column("items", JSONB, nullable=False, server_default=text("'[]'")),
    count("item_count"),
    Column("total", Numeric(18, 4), nullable=False, server_default=text("0"), comment="of the cart, then of its order"),
    words("currency"),
    words("coupon"),
    words("link"),
    Column("address", JSONB),
    Column("order_id", BigInteger),
    Column(
        "remindable",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="not empty, with a number, not taken up",
    ),
    moment("remind_after", "an attempt to remind failed; the next is no earlier"),
    moment("reminder_sent_at"),
    moment("expires_at", needed=True),
    moment("ended_at", "when it was ordered, abandoned or deleted"),
    now("created_at"),
    now("updated_at", "when it changed last, by this database's clock"),
    Index("carts_idle", "shop", "updated_at", postgresql_where=text("status = 'active' AND remindable")),
    Index("carts_expiring", "shop", "expires_at", postgresql_where=text("status = 'active'")),
    Index(
        "carts_unanswered",
        "reminder_sent_at",
        postgresql_where=text("status = 'active' AND reminder_sent_at IS NOT NULL"),
    ),
    Index("carts_ended", "status", "ended_at", postgresql_where=text("ended_at IS NOT NULL")),
    Index("carts_person", "person", postgresql_where=text("person IS NOT NULL")),
    Index("carts_counted", "shop", "status"),
    comment="Carts",
)

REMINDERS = Table(
    "reminders",
    METADATA,
    Column("cart", Uuid, nullable=False),
    Column("period", BigInteger, nullable=False, comment="the version since which the cart was idle"),
    Column("shop", Text, nullable=False),
    Column("state", Text, nullable=False, comment="claimed, asked, sent, skipped, failed"),
    words("reason"),
    words("asker", "who asked for it; empty for a scan"),
    count("tries", "how often a scan took it up again"),
    Column("in_ledger", Boolean, nullable=False, server_default=text("false"), comment="whatsapp knows its send key"),
    count("attempt", "of the message, whose fact was taken last"),
    count("rank", "of that fact among those of its attempt"),
    now("changed_at"),
    moment("sent_at"),
    moment("recovered_at", "when the cart was ordered after it"),
    Column("value", Numeric(18, 4), comment="of that order"),
    Column("currency", Text),
    PrimaryKeyConstraint("cart", "period"),
    Index("reminders_open", "changed_at", postgresql_where=text("state = 'claimed'")),
    Index("reminders_counted", "shop", "state"),
    Index("reminders_recovered", "shop", "currency", "value", postgresql_where=text("recovered_at IS NOT NULL")),
    Index("reminders_changed", "changed_at"),
    comment="What came of reminders: one per cart and idle period; they name nobody and outlive their carts",
)

CLEANUPS = Table(
    "cleanups",
    METADATA,
    Column("id", Uuid, primary_key=True),
    Column("shop", Text, nullable=False),
    Column("older_than_hours", Float),
    Column("dry_run", Boolean, nullable=False),
    count("deleted"),
    Column("kept", Integer),
    Column("asker", Text),
    Column("correlationid", Text),
    Column("causationid", Text),
    now("asked_at", "what had expired by then is deleted"),
    moment("ended_at"),
    moment("due_at", "when its next chunk is to be taken up; null when it has ended"),
    Index("cleanups_due", "due_at", postgresql_where=text("due_at IS NOT NULL")),
    Index("cleanups_ended", "shop", "ended_at"),
    comment="Runs of the cleanup",
)
