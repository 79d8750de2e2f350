"""The settings of the carts service."""

from __future__ import annotations

import re
from datetime import time
from typing import Annotated, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from wch_carts.quiet import QuietHours
from wch_carts.reminder_text import ReminderText, SmallText
from wch_common.integrations.shops import PhoneRegionSection, ShopEntry, Shops, ShopSection, ShopSettings
from wch_common.settings import DatabaseUrl

Hours = Annotated[float, Field(gt=0)]
Days = Annotated[float, Field(gt=0)]


def _is_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{name!r} is not a time zone: write it like Europe/Berlin") from None
    return name


def _is_time_of_day(value: object) -> object:
    """Refuse a number, which would be read as seconds, and an offset, which would contradict the shop's time zone."""
    if isinstance(value, str) and _TIME_OF_DAY.match(value):
        return value
    if isinstance(value, time) and value.tzinfo is None:
        return value
    raise ValueError("must be a time of day like 21:00 (as text), in the shop's time zone")


_TIME_OF_DAY = re.compile(r"^\d\d:\d\d(:\d\d)?$")
TimeOfDay = Annotated[time, BeforeValidator(_is_time_of_day)]
Zone = Annotated[str, AfterValidator(_is_zone)]
TemplateName = Annotated[str, Field(pattern="^[a-z0-9_]{1,512}$")]
Language = Annotated[str, Field(pattern="^[a-z]{2,3}(_[A-Z]{2})?$")]


class ReminderSection(ShopSection):
    """When and how a shop's customers are reminded of their carts."""

    delay_hours: Annotated[float, Field(ge=0)] = Field(
        4.0, description="How long a cart is idle before its owner is reminded"
    )
    oldest_hours: Hours = Field(48.0, description="How long it may be idle at most to be reminded of")
    quiet_from: TimeOfDay = Field(
        time(21), description="Start of the quiet hours, in which nobody is reminded; equal to the end for none"
    )
    quiet_until: TimeOfDay = Field(time(9), description="End of the quiet hours")
    time_zone: Zone = Field("UTC", description="The shop's time zone, like Europe/Berlin")
    template: TemplateName = Field("cart_reminder", description="Name of the approved template of reminders")
    language: Language = Field("en_US", description="Its language, in which amounts are written, too")
    body: tuple[SmallText, ...] = Field(
        ("{name|there}", "{items}", "{total}"),
        description="JSON list of the values of its placeholders, made of {name}, {items}, {total}, {coupon}, {link}; "
        "{name|there} means `there` if there is no name",
    )
    button: SmallText | None = Field(None, description="The same for its first button, if that is an address")
    most_items: Annotated[int, Field(ge=1, le=20)] = Field(3, description="Most items a reminder names")

    @model_validator(mode="after")
    def _leaves_time(self) -> Self:
        if self.oldest_hours <= self.delay_hours:
            raise ValueError("oldest_hours must be greater than delay_hours, or nobody is ever reminded")
        return self

    @property
    def quiet(self) -> QuietHours:
        """When nobody is reminded."""
        return QuietHours(self.quiet_from, self.quiet_until, ZoneInfo(self.time_zone))

    @property
    def reminder_text(self) -> ReminderText:
        """The text of a reminder."""
        return ReminderText(self.template, self.language, self.body, self.button, self.most_items)


class CartsShop(ShopEntry):
    """What carts need to know about a shop."""

    carts: ReminderSection = ReminderSection()
    whatsapp: PhoneRegionSection = PhoneRegionSection()


class CartsSettings(ShopSettings):
    """Settings of the carts service."""

    one_shop: CartsShop | None = Field(None, exclude=True)
    database_url: DatabaseUrl = Field(description="PostgreSQL, like postgresql://user:password@host/wch")
    carts_expiry_hours: Hours = Field(72.0, description="How long a cart lives after its last change")
    carts_abandoned_hours: Hours = Field(
        24.0, description="How long after an unanswered reminder a cart counts as abandoned"
    )
    carts_keep_completed_days: Days = Field(30.0, description="How long ordered carts are kept")
    carts_keep_abandoned_days: Days = Field(
        90.0, description="How long abandoned carts and the outcomes of reminders are kept"
    )

    def shops(self) -> Shops[CartsShop]:
        """Return the shops."""
        return self.read_shops(CartsShop)
