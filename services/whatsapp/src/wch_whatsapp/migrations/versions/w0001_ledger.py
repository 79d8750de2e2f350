"""The ledger of messages, their batches, and the state of numbers and recipients."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "w0001"
down_revision = None


def upgrade() -> None:
    """Create all tables."""
    op.create_table(
        "batches",
        sa.Column(
            "id", sa.Uuid(), nullable=False, comment="derived from shop, requester and the requester's name for it"
        ),
        sa.Column("shop", sa.Text(), nullable=False),
        sa.Column("requester", sa.Text(), nullable=False),
        sa.Column("batch_id", sa.Text(), nullable=False),
        sa.Column("open", sa.Integer(), nullable=False, comment="recipients without a first result"),
        sa.Column(
            "requested", sa.Boolean(), nullable=False, comment="false if only its cancellation has arrived so far"
        ),
        sa.Column(
            "others",
            postgresql.ARRAY(sa.Uuid()),
            server_default=sa.text("'{}'"),
            nullable=False,
            comment="messages that were requested before",
        ),
        sa.Column("cancelled", sa.Text(), nullable=True, comment="the reason"),
        sa.Column("updates", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="updates published"),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True, comment="when the next update is published"),
        sa.Column("correlationid", sa.Text(), nullable=True),
        sa.Column("causationid", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        comment="Messages that were requested together",
    )
    op.create_index("batches_created", "batches", ["created_at"], unique=False)
    op.create_index("batches_due", "batches", ["due_at"], unique=False, postgresql_where=sa.text("due_at IS NOT NULL"))
    op.create_table(
        "messages",
        sa.Column("id", sa.Uuid(), nullable=False, comment="derived from shop, requester and send key"),
        sa.Column("shop", sa.Text(), nullable=False),
        sa.Column("requester", sa.Text(), nullable=False),
        sa.Column("send_key", sa.Text(), nullable=False),
        sa.Column("sender", sa.Text(), nullable=False, comment="phone number id"),
        sa.Column("phone", sa.Text(), nullable=True, comment="E.164; null if erased or malformed"),
        sa.Column("person", sa.LargeBinary(), nullable=False, comment="keyed hash of the number"),
        sa.Column("category", sa.Text(), nullable=False),
        sa.Column(
            "content",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=True,
            comment="of the call; null if erased",
        ),
        sa.Column(
            "fallback",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=True,
            comment="content of the call if the window is closed; null if erased",
        ),
        sa.Column("as_fallback", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column(
            "own_values",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="the recipient has placeholder values of their own",
        ),
        sa.Column("batch", sa.Uuid(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column(
            "due_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="when it is processed next; null in a final state",
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("attempt", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="calls begun"),
        sa.Column(
            "failures",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="failed calls since it was requested, without those that use no attempt",
        ),
        sa.Column("wamid", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("code", sa.Integer(), nullable=True),
        sa.Column("detail", sa.Text(), server_default="", nullable=False),
        sa.Column(
            "cancelled",
            sa.Text(),
            nullable=True,
            comment="the reason for not sending it, if a call under way leaves it unsent",
        ),
        sa.Column(
            "answered",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="its batch has a first result",
        ),
        sa.Column(
            "changed",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="its batch has to report it again",
        ),
        sa.Column("correlationid", sa.Text(), nullable=True),
        sa.Column("causationid", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        comment="The ledger: the messages that were requested, and their state",
    )
    op.create_index(
        "messages_batch", "messages", ["batch"], unique=False, postgresql_where=sa.text("batch IS NOT NULL")
    )
    op.create_index(
        "messages_due",
        "messages",
        ["sender", "shop", "requester", "due_at"],
        unique=False,
        postgresql_where=sa.text("state = 'queued'"),
    )
    op.create_index(
        "messages_ended", "messages", ["updated_at"], unique=False, postgresql_where=sa.text("due_at IS NULL")
    )
    op.create_index(
        "messages_expiry", "messages", ["expires_at"], unique=False, postgresql_where=sa.text("state = 'queued'")
    )
    op.create_index(
        "messages_open",
        "messages",
        ["due_at"],
        unique=False,
        postgresql_where=sa.text("state IN ('sending', 'in_doubt')"),
    )
    op.create_index("messages_person", "messages", ["person"], unique=False)
    op.create_index(
        "messages_unanswered",
        "messages",
        ["sender", "due_at"],
        unique=False,
        postgresql_where=sa.text("state = 'queued' AND batch IS NOT NULL AND NOT answered"),
    )
    op.create_index(
        "messages_wamid", "messages", ["wamid"], unique=False, postgresql_where=sa.text("wamid IS NOT NULL")
    )
    op.create_table(
        "numbers",
        sa.Column("sender", sa.Text(), nullable=False, comment="phone number id"),
        sa.Column("slots_from", sa.DateTime(timezone=True), nullable=False, comment="slots before this time are used"),
        sa.Column("paused_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cause", sa.Text(), nullable=True, comment="of the pause; kept until a call succeeds"),
        sa.Column(
            "last_served",
            sa.Text(),
            server_default="",
            nullable=False,
            comment="shop and requester of the last message",
        ),
        sa.PrimaryKeyConstraint("sender"),
        comment="Numbers to send from: their rate, and why one is paused",
    )
    op.create_table(
        "pairs",
        sa.Column("sender", sa.Text(), nullable=False),
        sa.Column("person", sa.LargeBinary(), nullable=False),
        sa.Column("slots_from", sa.DateTime(timezone=True), nullable=False, comment="slots before this time are used"),
        sa.Column("failures", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("sender", "person"),
        comment="How often a number may write to one recipient",
    )
    op.create_index("pairs_slots_from", "pairs", ["slots_from"], unique=False)
    op.create_table(
        "reached",
        sa.Column("portfolio", sa.Text(), nullable=False),
        sa.Column("person", sa.LargeBinary(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("portfolio", "person"),
        comment="Recipients written to outside a window, whom Meta limits per 24 hours",
    )
    op.create_index("reached_at", "reached", ["portfolio", "at"], unique=False)
    op.create_table(
        "suppressions",
        sa.Column("shop", sa.Text(), nullable=False),
        sa.Column("person", sa.LargeBinary(), nullable=False),
        sa.Column("category", sa.Text(), nullable=False, comment="marketing, utility or all"),
        sa.Column("phone", sa.Text(), nullable=True, comment="null if erased"),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("shop", "person", "category"),
        comment="Recipients who must not be written to",
    )
    op.create_table(
        "windows",
        sa.Column("sender", sa.Text(), nullable=False),
        sa.Column("person", sa.LargeBinary(), nullable=False),
        sa.Column("open_until", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("sender", "person"),
        comment="Customers who wrote within 24 hours and may be sent free text",
    )
    op.create_index("windows_open_until", "windows", ["open_until"], unique=False)


def downgrade() -> None:
    """Drop all tables."""
    for table in ("suppressions", "reached", "windows", "pairs", "numbers", "batches", "messages"):
        op.drop_table(table)
