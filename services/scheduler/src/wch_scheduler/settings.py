"""What the scheduler reads from its environment."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field, field_validator

from wch_common.event import ASKER_PATTERN, Request
from wch_common.registry import published_contract
from wch_common.settings import DatabaseUrl
from wch_common.shops import ShopEntry, Shops, ShopSettings
from wch_scheduler.file import SHIPPED, WrongFile


class SchedulerSettings(ShopSettings):
    """Settings of the scheduler."""

    ENTRY: ClassVar[type[ShopEntry]] = ShopEntry

    database_url: DatabaseUrl = Field(description="PostgreSQL, like postgresql://user:password@host/wch")
    schedules_file: Path | None = Field(
        None, description="YAML file of what is published when; without it, the one that is shipped"
    )
    scheduler_late_seconds: Annotated[float, Field(gt=0)] = Field(
        30.0, description="How late an event may be before that is an alert"
    )
    scheduler_outage_seconds: Annotated[float, Field(gt=0, le=120)] = Field(
        60.0, description="How late an event may be before that is an outage, and its schedule's catch_up decides"
    )
    scheduler_askers: dict[str, tuple[str, ...]] = Field(
        {},
        description="JSON of what each AMQP user may have published by timers: "
        '{"shop": ["sync.product.requested.v1", "carts.*"]}; nobody else may',
    )
    scheduler_timers_per_second: Annotated[float, Field(gt=0)] = Field(
        500.0, description="How many timers are published a second at most, by all replicas together"
    )
    scheduler_keep_days: Annotated[float, Field(gt=0)] = Field(
        30.0, description="How long it is kept what was published, and what was passed over"
    )

    @field_validator("schedules_file")
    @classmethod
    def _can_be_read(cls, value: Path | None) -> Path | None:
        if value is not None:
            try:
                value.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise ValueError(f"names a file that cannot be read: {error}") from None
        return value

    @field_validator("scheduler_askers")
    @classmethod
    def _are_requests(cls, value: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        for name in value:
            if not ASKER_PATTERN.match(name):
                raise ValueError(
                    f"{name}: the AMQP user's name must be lower-case letters, digits, - and _, as answers are routed by it"
                )
        known = [model.TYPE for model in published_contract() if issubclass(model, Request)]
        for pattern in (pattern for patterns in value.values() for pattern in patterns):
            if not any(fnmatchcase(type_, pattern) for type_ in known):
                raise ValueError(f"{pattern} is the type of no request: `wch events schemas` lists them")
        return value

    def shops(self) -> Shops[ShopEntry]:
        """Return the shops."""
        return self.read_shops(ShopEntry, {})

    def schedules_text(self) -> str:
        """Return what the file holds now; raises WrongFile."""
        file = self.schedules_file or SHIPPED
        try:
            return file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise WrongFile(f"the file {file} cannot be read: {error}") from None
