"""What the sync service reads from its environment."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr

from wch_common.shops import ShopSettings


class SyncSettings(ShopSettings):
    """Settings of the sync service."""

    database_url: SecretStr = Field(description="PostgreSQL, like postgresql://user:password@host/wch")
    shop_concurrency: Annotated[int, Field(ge=1, le=20)] = Field(4, description="Calls to one shop at a time")
    catalog_poll_seconds: Annotated[float, Field(gt=0)] = Field(2.0, description="Pause between two looks at a batch")
    catalog_wait_seconds: Annotated[float, Field(gt=0)] = Field(
        120.0, description="How long a batch may take at Meta before its events are retried"
    )
