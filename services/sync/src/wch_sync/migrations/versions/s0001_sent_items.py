"""Items that were sent to a catalog, and products in flight."""

import sqlalchemy as sa
from alembic import op

revision = "s0001"
down_revision = None

TIMESTAMP = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create both tables."""
    op.create_table(
        "sent_items",
        sa.Column("catalog_id", sa.Text, primary_key=True),
        sa.Column("item_id", sa.Text, primary_key=True),
        sa.Column("product_id", sa.BigInteger, nullable=False),
        sa.Column("sent_at", TIMESTAMP, nullable=False, server_default=sa.func.now()),
        comment="Items that the catalog has from this service; an item that its product no longer has is deleted there",
    )
    op.create_index("sent_items_product", "sent_items", ["catalog_id", "product_id"])
    op.create_table(
        "in_flight",
        sa.Column("catalog_id", sa.Text, primary_key=True),
        sa.Column("product_id", sa.BigInteger, primary_key=True),
        sa.Column("token", sa.BigInteger, nullable=False, comment="of the lease under which the call began"),
        sa.Column("since", TIMESTAMP, nullable=False, server_default=sa.func.now()),
        comment="Products of calls whose result is unknown; the next holder of the lease sends them again",
    )


def downgrade() -> None:
    """Drop both tables."""
    op.drop_table("in_flight")
    op.drop_table("sent_items")
