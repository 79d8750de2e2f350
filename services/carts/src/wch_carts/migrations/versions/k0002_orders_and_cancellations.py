"""When a cart was ordered, whether a reminder's cancellation was requested, and an index of unanswered reminders."""

import sqlalchemy as sa
from alembic import op

revision = "k0002"
down_revision = "k0001"


def upgrade() -> None:
    """Add two columns and an index."""
    op.add_column(
        "carts",
        sa.Column(
            "ordered_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="the fact's time, which may be earlier than its arrival",
        ),
    )
    op.add_column(
        "reminders",
        sa.Column(
            "cancel_requested",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="its cancellation was requested from whatsapp",
        ),
    )
    op.create_index(
        "reminders_requested",
        "reminders",
        ["changed_at"],
        unique=False,
        postgresql_where=sa.text("state = 'requested'"),
    )
