"""Lists of recipients, campaigns, their batches, and the outcome of each recipient."""

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
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=True, comment="when its first answers arrived"),
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
            "limited_by",
            sa.Text(),
            server_default="",
            nullable=False,
            comment="limit for which its recipients wait",
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
            comment="as requested, without its recipients",
        ),
        sa.Column("hash", sa.LargeBinary(), nullable=False, comment="of the whole request"),
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
            "cause", sa.Text(), server_default="", nullable=False, comment="why it does not proceed, or why it ended"
        ),
        sa.Column("changed_by", sa.Text(), server_default="", nullable=False, comment="who paused or cancelled it"),
        sa.Column(
            "cursor",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="position of the last recipient in a batch",
        ),
        sa.Column(
            "batches", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="number of batches released"
        ),
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
            comment="stop_at came before its last batch",
        ),
        sa.Column(
            "share_from_batch",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="failures in later batches count towards pausing",
        ),
        sa.Column(
            "facts", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="number of facts published"
        ),
        sa.Column("next_batch_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True, comment="when its next step is due"),
        sa.Column(
            "progressed_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="when it changed state, released a batch or got a first answer",
        ),
        sa.Column(
            "requested_again_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="when its unanswered batches were requested again",
        ),
        sa.Column(
            "reported_at", sa.DateTime(timezone=True), nullable=True, comment="when its progress was last published"
        ),
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
        comment="Parts of lists that have been added",
    )
    op.create_table(
        "lists",
        sa.Column(
            "id", sa.Uuid(), nullable=False, comment="derived from shop and name; the campaign's id if it came with one"
        ),
        sa.Column("shop", sa.Text(), nullable=False),
        sa.Column("list_id", sa.Text(), nullable=False, comment="empty if it came with its campaign"),
        sa.Column("parts", sa.Integer(), nullable=True, comment="number of parts, once a part has given it"),
        sa.Column(
            "submitted",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="recipients received, usable or not",
        ),
        sa.Column("malformed", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("duplicates", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("complete_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "deleted_at", sa.DateTime(timezone=True), nullable=True, comment="from then on its recipients are deleted"
        ),
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
        sa.Column("outcome", sa.Text(), nullable=False, comment="requested, or an outcome of the whatsapp service"),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column(
            "concerns",
            sa.Text(),
            nullable=True,
            comment="what the reason concerns; null if it is not about a failure or a limit",
        ),
        sa.Column(
            "retryable",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="the reason passes by itself",
        ),
        sa.Column("code", sa.Integer(), nullable=True),
        sa.Column("until", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "version", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="of the fact that reported it"
        ),
        sa.PrimaryKeyConstraint("campaign", "position"),
        comment="Outcomes of recipients whose batch was requested",
    )
    op.create_index("outcomes_batch", "outcomes", ["campaign", "batch"], unique=False)
    op.create_table(
        "recipients",
        sa.Column("list", sa.Uuid(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("phone", sa.Text(), nullable=True, comment="E.164; null if malformed or erased"),
        sa.Column(
            "person", sa.Text(), nullable=True, comment="canonical form of the number, which identifies its owner"
        ),
        sa.Column(
            "own_values",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=True,
            comment="the recipient's own values for the message",
        ),
        sa.Column(
            "skip_reason",
            sa.Text(),
            nullable=True,
            comment="why the recipient is not sent a message: malformed_number, duplicate_number, erased",
        ),
        sa.PrimaryKeyConstraint("list", "position"),
        comment="Recipients of lists",
    )
    op.create_index(
        "recipients_once",
        "recipients",
        ["list", "person"],
        unique=True,
        postgresql_where=sa.text("skip_reason IS NULL"),
    )
    op.create_index(
        "recipients_person", "recipients", ["person"], unique=False, postgresql_where=sa.text("person IS NOT NULL")
    )


def downgrade() -> None:
    """Drop all tables."""
    for table in ("outcomes", "batches", "campaigns", "recipients", "list_parts", "lists"):
        op.drop_table(table)
