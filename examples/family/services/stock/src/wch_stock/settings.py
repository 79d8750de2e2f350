"""The settings of the stock service."""

from __future__ import annotations

from pydantic import Field

from wch_common.settings import DatabaseUrl, ServiceSettings


class StockSettings(ServiceSettings):
    """Settings of the stock service."""

    database_url: DatabaseUrl = Field(description="PostgreSQL, like postgresql://user:password@host/wch")
