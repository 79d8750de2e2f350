"""What the scheduler reads from its environment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field, field_validator

from wch_common.registry import published_contract
from wch_common.settings import DatabaseUrl
from wch_common.shops import ShopEntry, Shops, ShopSettings
from wch_scheduler.file import SHIPPED, ScheduleFile, WrongFile, read


class SchedulerSettings(ShopSettings):
    """Settings of the scheduler."""

    ENTRY: ClassVar[type[ShopEntry]] = ShopEntry

    database_url: DatabaseUrl = Field(description="PostgreSQL, like postgresql://user:password@host/wch")
    schedules_file: Path | None = Field(
        None, description="YAML file of what is published when; without it, the one that is shipped"
    )
    scheduler_late_seconds: Annotated[float, Field(gt=0)] = Field(
        30.0, description="How late an event may be before that is an alert, and its schedule's catch_up decides"
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

    def shops(self) -> Shops[ShopEntry]:
        """Return the shops."""
        return self.read_shops(ShopEntry, {})

    def schedules(self) -> ScheduleFile:
        """Read the file as it is now; raises WrongFile."""
        file = self.schedules_file or SHIPPED
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise WrongFile(f"the file {file} cannot be read: {error}") from None
        return read(text, published_contract(), [name for name, _ in self.shops()])
