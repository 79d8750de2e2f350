"""The settings of the scheduler."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from wch_common.contract.event import REQUESTER_PATTERN, Request
from wch_common.events import published_contract
from wch_common.integrations.shops import PhoneRegionSection, ShopEntry, Shops, ShopSettings
from wch_common.settings import DatabaseUrl, PersonHashKey
from wch_scheduler.file import SHIPPED, WrongFile


class SchedulerShop(ShopEntry):
    """The settings of a shop that the scheduler uses."""

    whatsapp: PhoneRegionSection = PhoneRegionSection()


class SchedulerSettings(ShopSettings):
    """Settings of the scheduler."""

    one_shop: SchedulerShop | None = None

    database_url: DatabaseUrl = Field(description="PostgreSQL, like postgresql://user:password@host/wch")
    person_hash_key: PersonHashKey
    schedules_file: Path | None = Field(
        None, description="YAML file of the schedules; without it, the one that is shipped"
    )
    scheduler_late_seconds: Annotated[float, Field(gt=0)] = Field(
        30.0, description="How late an event may be before it raises an alert"
    )
    scheduler_outage_seconds: Annotated[float, Field(gt=0, le=120)] = Field(
        60.0, description="How late an event may be before its schedule's catch_up policy decides"
    )
    scheduler_requesters: dict[str, tuple[str, ...]] = Field(
        {},
        description="JSON of the types that each AMQP user may have published by timers: "
        '{"shop": ["sync.product.requested.v1", "carts.*"]}; other users may not use timers',
    )
    scheduler_timers_per_second: Annotated[float, Field(gt=0)] = Field(
        500.0, description="Most timers published a second, by all replicas together"
    )
    scheduler_keep_days: Annotated[float, Field(gt=0)] = Field(
        30.0, description="How long published and missed times are kept"
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

    @field_validator("scheduler_requesters")
    @classmethod
    def _are_requests(cls, value: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        for name in value:
            if not REQUESTER_PATTERN.match(name):
                raise ValueError(
                    f"{name}: the name of the AMQP user must match [a-z][a-z0-9_-]*, as answers are routed by it"
                )
        known = [model.TYPE for model in published_contract() if issubclass(model, Request)]
        for pattern in (pattern for patterns in value.values() for pattern in patterns):
            if not any(fnmatchcase(type_, pattern) for type_ in known):
                raise ValueError(f"{pattern} matches no request type: `wch events schemas` lists them")
        return value

    def shops(self) -> Shops[SchedulerShop]:
        """Return the shops."""
        return self.read_shops(SchedulerShop)

    def schedules_text(self) -> str:
        """Return the file's present content; raises WrongFile."""
        file = self.schedules_file or SHIPPED
        try:
            return file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise WrongFile(f"the file {file} cannot be read: {error}") from None
