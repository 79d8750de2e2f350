"""Lists of recipients, campaigns, their batches, and what became of each recipient."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "b0001"
down_revision = None


def upgrade() -> None:
    """Create all tables."""
    op.create_table(
        "batches",
        sa.Column("campaign", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("released_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=True, comment="when it had its first answers"),
        sa.Column(
            "counts",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
            comment="recipients by outcome/reason",
        ),
        sa.Column("deferred", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("failed", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "parked_by",
            sa.Text(),
            server_default="",
            nullable=False,
            comment="the limit of the whole number for which recipients wait",
        ),
        sa.PrimaryKeyConstraint("campaign", "number"),
        comment="Batches of campaigns; their counts outlive the recipients",
    )
    op.create_index(
        "batches_open",
        "batches",
        ["campaign"],
        unique=False,
        postgresql_where=sa.text("answered_at IS NULL OR deferred > 0"),
    )
    op.create_table(
        "campaigns",
        sa.Column("id", sa.Uuid(), nullable=False, comment="derived from shop and name"),
        sa.Column("shop", sa.Text(), nullable=False),
        sa.Column("campaign_id", sa.Text(), nullable=False),
        sa.Column("requester", sa.Text(), nullable=False),
        sa.Column(
            "request",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="as it was asked for, without its recipients",
        ),
        sa.Column("hash", sa.LargeBinary(), nullable=False, comment="of all that was asked for"),
        sa.Column("list", sa.Uuid(), nullable=False),
        sa.Column("exclusive", sa.Boolean(), nullable=False),
        sa.Column("batch_size", sa.Integer(), nullable=False),
        sa.Column("pause_seconds", sa.Float(), nullable=False),
        sa.Column("start_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("stop_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "state",
            sa.Text(),
            nullable=False,
            comment="waiting, running, paused, cancelling, completed, cancelled, failed",
        ),
        sa.Column(
            "cause", sa.Text(), server_default="", nullable=False, comment="why it does not go on, or how it ended"
        ),
        sa.Column("said_by", sa.Text(), server_default="", nullable=False, comment="who paused or cancelled it"),
        sa.Column(
            "cursor",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="position of the recipient asked for last",
        ),
        sa.Column("batches", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="released so far"),
        sa.Column(
            "released",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="no further batch follows",
        ),
        sa.Column(
            "stopped",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="its time to stop came first",
        ),
        sa.Column(
            "share_from",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="batch from which on failures count towards pausing",
        ),
        sa.Column("told", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="facts told"),
        sa.Column("next_batch_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True, comment="when it is to be looked at next"),
        sa.Column("moved_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column(
            "taken_up_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="when its unanswered batches were asked for again",
        ),
        sa.Column("told_at", sa.DateTime(timezone=True), nullable=True, comment="when its totals were told last"),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("correlationid", sa.Text(), nullable=True),
        sa.Column("causationid", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        comment="Campaigns",
    )
    op.create_index(
        "campaigns_due", "campaigns", ["due_at"], unique=False, postgresql_where=sa.text("due_at IS NOT NULL")
    )
    op.create_index("campaigns_ended", "campaigns", ["ended_at"], unique=False)
    op.create_index("campaigns_list", "campaigns", ["list"], unique=False)
    op.create_index(
        "campaigns_open",
        "campaigns",
        ["shop", "created_at"],
        unique=False,
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.create_table(
        "list_parts",
        sa.Column("list", sa.Uuid(), nullable=False),
        sa.Column("part", sa.Integer(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("list", "part"),
        comment="Parts that were added to lists",
    )
    op.create_table(
        "lists",
        sa.Column("id", sa.Uuid(), nullable=False, comment="derived from shop and name, or the campaign's own"),
        sa.Column("shop", sa.Text(), nullable=False),
        sa.Column("list_id", sa.Text(), nullable=False, comment="empty for one that came with its campaign"),
        sa.Column("parts", sa.Integer(), nullable=True, comment="how many there will be, once a part has said so"),
        sa.Column("given", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("malformed", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("duplicates", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("complete_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True, comment="when its recipients were deleted"),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        comment="Lists of recipients",
    )
    op.create_index("lists_created", "lists", ["created_at"], unique=False)
    op.create_table(
        "outcomes",
        sa.Column("campaign", sa.Uuid(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("batch", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("code", sa.Integer(), nullable=True),
        sa.Column("until", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "version", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="of the fact that told it"
        ),
        sa.PrimaryKeyConstraint("campaign", "position"),
        comment="What became of recipients that were asked for",
    )
    op.create_index("outcomes_batch", "outcomes", ["campaign", "batch"], unique=False)
    op.create_table(
        "recipients",
        sa.Column("list", sa.Uuid(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("phone", sa.Text(), nullable=True, comment="E.164; null when malformed or forgotten"),
        sa.Column("person", sa.Text(), nullable=True, comment="the one form of the number by which its owner is known"),
        sa.Column(
            "own", postgresql.JSONB(astext_type=sa.Text()), nullable=True, comment="values of their own for the message"
        ),
        sa.Column(
            "flaw",
            sa.Text(),
            nullable=True,
            comment="why they are not written to: malformed_number, duplicate_number, forgotten",
        ),
        sa.PrimaryKeyConstraint("list", "position"),
        comment="People of lists",
    )
    op.create_index(
        "recipients_once", "recipients", ["list", "person"], unique=True, postgresql_where=sa.text("flaw IS NULL")
    )
    op.create_index(
        "recipients_person", "recipients", ["person"], unique=False, postgresql_where=sa.text("person IS NOT NULL")
    )


def downgrade() -> None:
    """Drop them."""
    for table in ("outcomes", "batches", "campaigns", "recipients", "list_parts", "lists"):
        op.drop_table(table)
