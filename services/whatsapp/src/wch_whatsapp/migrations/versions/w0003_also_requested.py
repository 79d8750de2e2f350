"""Who else asked for a message is told, too; which attempt was sent again in doubt; when a person took a wish back."""

import sqlalchemy as sa
from alembic import op

revision = "w0003"
down_revision = "w0002"


def upgrade() -> None:
    """Make rows of the lists of batches, and keep what they were told.

    `batches.others` stays for replicas of the version before, which run beside this one in a rolling update.
    """
    _also_asked()
    _flag("asked_again", "batches of also_asked are told of it")
    _flag("asked_alone", "who asked for it by itself is told, though it is a batch's")
    op.execute("INSERT INTO also_asked (batch, message, answered) SELECT id, unnest(others), true FROM batches")
    op.execute("UPDATE messages SET asked_again = true WHERE id IN (SELECT message FROM also_asked)")
    op.add_column(
        "messages",
        sa.Column(
            "doubted", sa.Integer(), nullable=True, comment="the attempt that was sent again though it was in doubt"
        ),
    )
    op.execute("UPDATE messages SET doubted = attempt WHERE state = 'queued' AND reason = 'resent_after_doubt'")
    _lifted()
    op.drop_index("messages_not_told", "messages")
    op.create_index(
        "messages_not_told",
        "messages",
        ["sender", "due_at"],
        unique=False,
        postgresql_where=sa.text(
            "state = 'queued' AND (batch IS NOT NULL OR asked_again) AND (NOT answered OR reason = '')"
        ),
    )


def _also_asked() -> None:
    op.create_table(
        "also_asked",
        sa.Column("batch", sa.Uuid(), sa.ForeignKey("batches.id", ondelete="CASCADE"), nullable=False),
        sa.Column("message", sa.Uuid(), nullable=False),
        sa.Column("answered", sa.Boolean(), nullable=False, comment="the batch had a first answer of it"),
        sa.Column(
            "changed",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="the batch is to tell it anew",
        ),
        sa.PrimaryKeyConstraint("batch", "message"),
        comment="Messages of batches that another request had asked for before",
    )
    op.create_index("also_asked_message", "also_asked", ["message"], unique=False)


def _lifted() -> None:
    op.add_column(
        "suppressions",
        sa.Column(
            "lifted_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="taken back by the person at that time: what they said before it counts no more",
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
