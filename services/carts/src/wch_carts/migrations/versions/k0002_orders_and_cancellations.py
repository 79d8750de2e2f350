"""When a cart was ordered, and which reminders were taken back; an index for those without an answer."""

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
            comment="by the fact, should that have come late",
        ),
    )
    op.add_column(
        "reminders",
        sa.Column(
            "taken_back",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="whatsapp was asked to cancel it",
        ),
    )
    op.create_index(
        "reminders_asked", "reminders", ["changed_at"], unique=False, postgresql_where=sa.text("state = 'asked'")
    )
