"""What the sync service remembers."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, DateTime, Index, MetaData, Table, Text, func

METADATA = MetaData()

SENT_ITEMS = Table(
    "sent_items",
    METADATA,
    Column("catalog_id", Text, primary_key=True),
    Column("item_id", Text, primary_key=True),
    Column("product_id", BigInteger, nullable=False),
    Column("sent_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Index("sent_items_product", "catalog_id", "product_id"),
    comment="Items the catalog holds by our doing; an item its product has no more is deleted there",
)

UNDER_WAY = Table(
    "under_way",
    METADATA,
    Column("catalog_id", Text, primary_key=True),
    Column("product_id", BigInteger, primary_key=True),
    Column("token", BigInteger, nullable=False, comment="of the lease under which the call was begun"),
    Column("since", DateTime(timezone=True), nullable=False, server_default=func.now()),
    comment="Products in a call whose outcome is not known; who takes the lease over sends them again",
)
