"""Carts, results of reminders, and runs of the cleanup."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "k0001"
down_revision = None


def upgrade() -> None:
    """Create all tables."""
    op.create_table(
        "carts",
        sa.Column("id", sa.Uuid(), nullable=False, comment="derived from shop and cart_id"),
        sa.Column("shop", sa.Text(), nullable=False),
        sa.Column("cart_id", sa.Text(), nullable=False, comment="the shop's name for the cart"),
        sa.Column("version", sa.BigInteger(), nullable=False, comment="the shop's version of the newest fact"),
        sa.Column("updated_version", sa.BigInteger(), nullable=True, comment="version of the newest change"),
        sa.Column(
            "filled_version",
            sa.BigInteger(),
            nullable=True,
            comment="version of the newest change that left items in it; the idle period begins with it",
        ),
        sa.Column("ordered_version", sa.BigInteger(), nullable=True),
        sa.Column("deleted_version", sa.BigInteger(), nullable=True),
        sa.Column(
            "status",
            sa.Text(),
            nullable=False,
            comment="active, completed, abandoned; deleted carts are kept so that late facts do not restore them",
        ),
        sa.Column("phone", sa.Text(), nullable=True, comment="E.164"),
        sa.Column(
            "person", sa.Text(), nullable=True, comment="canonical form of the number, which identifies the owner"
        ),
        sa.Column(
            "no_phone_reason", sa.Text(), server_default="", nullable=False, comment="why there is no phone number"
        ),
        sa.Column("customer_name", sa.Text(), server_default="", nullable=False),
        sa.Column("items", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'[]'"), nullable=False),
        sa.Column("item_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("total", sa.Numeric(precision=18, scale=4), server_default=sa.text("0"), nullable=False),
        sa.Column("currency", sa.Text(), server_default="", nullable=False),
        sa.Column("coupon", sa.Text(), server_default="", nullable=False),
        sa.Column("link", sa.Text(), server_default="", nullable=False),
        sa.Column("address", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("order_id", sa.BigInteger(), nullable=True),
        sa.Column("order_total", sa.Numeric(precision=18, scale=4), nullable=True),
        sa.Column("order_currency", sa.Text(), nullable=True),
        sa.Column(
            "remindable",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="it has items and a phone number, and no reminder is in progress",
        ),
        sa.Column(
            "remind_after",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="earliest time of the next attempt after a failure",
        ),
        sa.Column("reminder_sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "ended_at", sa.DateTime(timezone=True), nullable=True, comment="when it was ordered, abandoned or deleted"
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="its last change, by this database's clock",
        ),
        sa.Column(
            "idle_since",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="its last change, by the fact's time, which may be earlier than its arrival",
        ),
        sa.PrimaryKeyConstraint("id"),
        comment="Carts",
    )
    op.create_index("carts_counted", "carts", ["shop", "status"], unique=False)
    op.create_index(
        "carts_ended", "carts", ["status", "ended_at"], unique=False, postgresql_where=sa.text("ended_at IS NOT NULL")
    )
    op.create_index(
        "carts_expiring", "carts", ["shop", "expires_at"], unique=False, postgresql_where=sa.text("status = 'active'")
    )
    op.create_index(
        "carts_idle",
        "carts",
        ["shop", "idle_since"],
        unique=False,
        postgresql_where=sa.text("status = 'active' AND remindable"),
    )
    op.create_index("carts_named", "carts", ["cart_id"], unique=False)
    op.create_index("carts_person", "carts", ["person"], unique=False, postgresql_where=sa.text("person IS NOT NULL"))
    op.create_index(
        "carts_unanswered",
        "carts",
        ["reminder_sent_at"],
        unique=False,
        postgresql_where=sa.text("status = 'active' AND reminder_sent_at IS NOT NULL"),
    )
    op.create_table(
        "cleanups",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("shop", sa.Text(), nullable=False),
        sa.Column("older_than_hours", sa.Float(), nullable=True),
        sa.Column("dry_run", sa.Boolean(), nullable=False),
        sa.Column("deleted", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("kept", sa.Integer(), nullable=True),
        sa.Column("requester", sa.Text(), nullable=True),
        sa.Column("correlationid", sa.Text(), nullable=True),
        sa.Column("causationid", sa.Text(), nullable=True),
        sa.Column(
            "requested_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="carts that expired before are deleted",
        ),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "due_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="when its next chunk is due; null once it has ended",
        ),
        sa.PrimaryKeyConstraint("id"),
        comment="Runs of the cleanup",
    )
    op.create_index(
        "cleanups_due", "cleanups", ["due_at"], unique=False, postgresql_where=sa.text("due_at IS NOT NULL")
    )
    op.create_index("cleanups_ended", "cleanups", ["shop", "ended_at"], unique=False)
    op.create_table(
        "reminders",
        sa.Column("cart", sa.Uuid(), nullable=False),
        sa.Column(
            "period", sa.BigInteger(), nullable=False, comment="version of the cart with which its idle period begins"
        ),
        sa.Column("shop", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False, comment="claimed, requested, sent, skipped, failed"),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column(
            "requester",
            sa.Text(),
            server_default="",
            nullable=False,
            comment="requester of the reminder; empty for a scan",
        ),
        sa.Column(
            "tries",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="number of times that a scan claimed it again",
        ),
        sa.Column(
            "in_ledger",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="whatsapp's ledger contains its send key",
        ),
        sa.Column(
            "attempt",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="attempt of the message, of the last fact applied",
        ),
        sa.Column(
            "rank",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="rank of that fact among the facts of its attempt",
        ),
        sa.Column("changed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "recovered_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="when the cart was ordered after the reminder",
        ),
        sa.Column("value", sa.Numeric(precision=18, scale=4), nullable=True, comment="total of that order"),
        sa.Column("currency", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("cart", "period"),
        comment="Reminders: one per cart and idle period; they contain no personal data and outlive their carts",
    )
    op.create_index("reminders_changed", "reminders", ["changed_at"], unique=False)
    op.create_index("reminders_counted", "reminders", ["shop", "state"], unique=False)
    op.create_index(
        "reminders_open", "reminders", ["changed_at"], unique=False, postgresql_where=sa.text("state = 'claimed'")
    )
    op.create_index(
        "reminders_recovered",
        "reminders",
        ["shop", "currency", "value"],
        unique=False,
        postgresql_where=sa.text("recovered_at IS NOT NULL"),
    )
