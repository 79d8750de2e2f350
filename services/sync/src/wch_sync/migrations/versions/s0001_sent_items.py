"""What was sent to a catalog, and what is under way."""

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
        comment="Items the catalog holds by our doing; an item its product has no more is deleted there",
    )
    op.create_index("sent_items_product", "sent_items", ["catalog_id", "product_id"])
    op.create_table(
        "under_way",
        sa.Column("catalog_id", sa.Text, primary_key=True),
        sa.Column("product_id", sa.BigInteger, primary_key=True),
        sa.Column("token", sa.BigInteger, nullable=False, comment="of the lease under which the call was begun"),
        sa.Column("since", TIMESTAMP, nullable=False, server_default=sa.func.now()),
        comment="Products in a call whose outcome is not known; who takes the lease over sends them again",
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_table("under_way")
    op.drop_table("sent_items")
