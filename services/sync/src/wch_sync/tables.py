"""Tables of the sync service."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, DateTime, Index, MetaData, Table, Text, func

from wch_common.store.personal_data import personal_data

METADATA = MetaData()

SENT_ITEMS = Table(
    "sent_items",
    METADATA,
    Column("catalog_id", Text, primary_key=True),
    Column("item_id", Text, primary_key=True),
    Column("product_id", BigInteger, nullable=False),
    Column("sent_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Index("sent_items_product", "catalog_id", "product_id"),
    comment="Items that the catalog has from this service; an item that its product no longer has is deleted there",
    info=personal_data(impersonal=("catalog_id", "item_id")),
)

IN_FLIGHT = Table(
    "in_flight",
    METADATA,
    Column("catalog_id", Text, primary_key=True),
    Column("product_id", BigInteger, primary_key=True),
    Column("token", BigInteger, nullable=False, comment="of the lease under which the call began"),
    Column("since", DateTime(timezone=True), nullable=False, server_default=func.now()),
    comment="Products of calls whose result is unknown; the next holder of the lease sends them again",
    info=personal_data(impersonal=("catalog_id",)),
)
