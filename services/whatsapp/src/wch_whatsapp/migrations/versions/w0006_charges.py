"""Messages that may cost money, and messages of which Meta has reported nothing."""

import sqlalchemy as sa
from alembic import op

revision = "w0006"
down_revision = "w0005"


def upgrade() -> None:
    """Add a table, and a column that the previous version need not fill."""
    op.create_table(
        "charges",
        sa.Column("sender", sa.Text(), nullable=False, comment="phone number id"),
        sa.Column("month", sa.Date(), nullable=False, comment="its first day, UTC"),
        sa.Column("kind", sa.Text(), nullable=False, comment="marketing, utility or free_form"),
        sa.Column("messages", sa.Integer(), nullable=False, comment="calls begun, without those that Meta refused"),
        sa.PrimaryKeyConstraint("sender", "month", "kind"),
        comment="Messages that may cost money, by number and month",
    )
    op.add_column(
        "messages",
        sa.Column(
            "has_status",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="Meta has reported a status of the accepted message",
        ),
    )
    op.execute("UPDATE messages SET has_status = true WHERE state = 'accepted'")
    op.create_index(
        "messages_without_status",
        "messages",
        ["updated_at"],
        unique=False,
        postgresql_where=sa.text("state = 'accepted' AND NOT has_status"),
    )
