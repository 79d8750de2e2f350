"""Results for every requester of a message, the attempt that was in doubt, and when a suppression was lifted."""

import sqlalchemy as sa
from alembic import op

revision = "w0003"
down_revision = "w0002"


def upgrade() -> None:
    """Turn the lists of batches into rows, and keep their contents.

    `batches.others` stays for replicas of the previous version, which run beside this one during a rolling update.
    """
    _also_requested()
    _flag("in_other_batches", "batches of also_requested get its results, too")
    _flag("requested_alone", "it belongs to a batch, and was requested alone, too")
    op.execute("INSERT INTO also_requested (batch, message, answered) SELECT id, unnest(others), true FROM batches")
    op.execute("UPDATE messages SET in_other_batches = true WHERE id IN (SELECT message FROM also_requested)")
    op.add_column(
        "messages",
        sa.Column(
            "doubted_attempt",
            sa.Integer(),
            nullable=True,
            comment="the attempt that was in doubt when it was sent again",
        ),
    )
    op.execute("UPDATE messages SET doubted_attempt = attempt WHERE state = 'queued' AND reason = 'resent_after_doubt'")
    _lifted()
    op.drop_index("messages_unreported", "messages")
    op.create_index(
        "messages_unreported",
        "messages",
        ["sender", "due_at"],
        unique=False,
        postgresql_where=sa.text(
            "state = 'queued' AND (batch IS NOT NULL OR in_other_batches) AND (NOT answered OR reason = '')"
        ),
    )


def _also_requested() -> None:
    op.create_table(
        "also_requested",
        sa.Column("batch", sa.Uuid(), sa.ForeignKey("batches.id", ondelete="CASCADE"), nullable=False),
        sa.Column("message", sa.Uuid(), nullable=False),
        sa.Column("answered", sa.Boolean(), nullable=False, comment="the batch has a first result of it"),
        sa.Column(
            "changed",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="the batch has to report it again",
        ),
        sa.PrimaryKeyConstraint("batch", "message"),
        comment="Messages of batches that were requested before",
    )
    op.create_index("also_requested_message", "also_requested", ["message"], unique=False)


def _lifted() -> None:
    op.add_column(
        "suppressions",
        sa.Column(
            "lifted_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="when the recipient resumed marketing: their earlier opt-outs no longer hold",
        ),
    )
    op.create_index(
        "suppressions_lifted",
        "suppressions",
        ["lifted_at"],
        unique=False,
        postgresql_where=sa.text("lifted_at IS NOT NULL"),
    )


def _flag(name: str, comment: str) -> None:
    column = sa.Column(name, sa.Boolean(), server_default=sa.text("false"), nullable=False, comment=comment)
    op.add_column("messages", column)
