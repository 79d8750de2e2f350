"""Levels of products."""

import sqlalchemy as sa
from alembic import op

revision = "stock0001"
down_revision = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "levels",
        sa.Column("product_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("quantity", sa.Integer, nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        comment="Levels of products",
    )


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("levels")
