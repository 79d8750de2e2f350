"""The consent of a cart's owner."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "k0003"
down_revision = "k0002"


def upgrade() -> None:
    """Add a column that the previous version need not fill."""
    op.add_column(
        "carts",
        sa.Column(
            "consent",
            postgresql.JSONB(),
            nullable=True,
            comment="where, when and to which words the owner agreed to messages",
        ),
    )
