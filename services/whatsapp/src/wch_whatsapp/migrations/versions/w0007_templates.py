"""Message templates as Meta has them, and the limits of each number, for operators' commands."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "w0007"
down_revision = "w0006"

_NUMBERS = (
    ("shop", sa.Text(), "null if no shop has the number any more"),
    ("place", sa.Integer(), "among the shop's numbers; 0 is its default"),
    ("portfolio", sa.Text(), None),
    ("rate", sa.Float(), "messages a second; 0 for no limit"),
    ("messaging_limit", sa.Integer(), "recipients per 24 hours; -1 for no limit"),
)


def upgrade() -> None:
    """Add two tables, and columns that the previous version need not fill."""
    op.create_table(
        "template_reads",
        sa.Column("shop", sa.Text(), nullable=False),
        sa.Column(
            "account",
            sa.Text(),
            nullable=True,
            comment="id of the WhatsApp business account; null if it is not configured",
        ),
        sa.Column(
            "read_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="when its templates were last read from Meta",
        ),
        sa.Column(
            "failed_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="when they could not be read; null if the last time succeeded",
        ),
        sa.Column("failure", sa.Text(), server_default="", nullable=False, comment="why they could not be read"),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True, comment="when they are read next"),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("shop"),
        comment="When the message templates of each shop were read from Meta",
    )
    op.create_index(
        "template_reads_due",
        "template_reads",
        ["due_at"],
        unique=False,
        postgresql_where=sa.text("due_at IS NOT NULL"),
    )
    op.create_table(
        "templates",
        sa.Column("shop", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("language", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False, comment="APPROVED, PENDING, PAUSED, …; as Meta says"),
        sa.Column("category", sa.Text(), nullable=False),
        sa.Column(
            "parameter_format",
            sa.Text(),
            nullable=False,
            comment="POSITIONAL or NAMED; empty if Meta did not say",
        ),
        sa.Column(
            "components",
            postgresql.JSONB(),
            nullable=False,
            comment="as Meta says, without the examples",
        ),
        sa.PrimaryKeyConstraint("shop", "name", "language"),
        comment="Message templates as Meta had them when they were last read",
    )
    for name, kind, comment in _NUMBERS:
        op.add_column("numbers", sa.Column(name, kind, nullable=True, comment=comment))


def downgrade() -> None:
    """Remove them."""
    for name, _, _ in _NUMBERS:
        op.drop_column("numbers", name)
    op.drop_table("templates")
    op.drop_table("template_reads")
