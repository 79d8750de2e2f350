"""Tables of the stock service."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, DateTime, Integer, MetaData, Table, func

from wch_common.store.personal_data import personal_data

METADATA = MetaData()

LEVELS = Table(
    "levels",
    METADATA,
    Column("product_id", BigInteger, primary_key=True, autoincrement=False),
    Column("quantity", Integer, nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    comment="Levels of products",
    info=personal_data(),
)
