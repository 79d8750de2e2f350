"""What the carts service reads from its environment."""

from __future__ import annotations

import re
from datetime import time
from typing import Annotated, ClassVar, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from wch_carts.quiet import QuietHours
from wch_carts.wording import SmallText, Wording
from wch_common.settings import DatabaseUrl
from wch_common.shops import Section, ShopEntry, Shops, ShopSettings, of_one_shop

Region = Annotated[str, Field(pattern="^[A-Z]{2}$")]
Hours = Annotated[float, Field(gt=0)]
Days = Annotated[float, Field(gt=0)]


def _is_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"there is no time zone {name!r}: write it like Europe/Berlin") from None
    return name


def _is_time_of_day(value: object) -> object:
    """Refuse what would be read as a time of another kind: a number as seconds, an offset beside the shop's time zone."""
    if isinstance(value, str) and _TIME_OF_DAY.match(value):
        return value
    if isinstance(value, time) and value.tzinfo is None:
        return value
    raise ValueError("a time of day is written like 21:00 (a text), in the shop's time zone")


_TIME_OF_DAY = re.compile(r"^\d\d:\d\d(:\d\d)?$")
TimeOfDay = Annotated[time, BeforeValidator(_is_time_of_day)]
Zone = Annotated[str, AfterValidator(_is_zone)]
TemplateName = Annotated[str, Field(pattern="^[a-z0-9_]{1,512}$")]
Language = Annotated[str, Field(pattern="^[a-z]{2,3}(_[A-Z]{2})?$")]
_BODY = ("{name|there}", "{items}", "{total}")
_QUIET_FROM, _QUIET_UNTIL = time(21), time(9)


def _refuse_empty_span(delay: float, oldest: float, name: str) -> None:
    if oldest <= delay:
        raise ValueError(f"{name} must be longer than the delay, or nobody is ever reminded")


class Reminding(Section):
    """When and how a shop's customers are reminded."""

    delay_hours: Annotated[float, Field(ge=0)] = 4.0
    oldest_hours: Hours = 48.0
    quiet_from: TimeOfDay = _QUIET_FROM
    quiet_until: TimeOfDay = _QUIET_UNTIL
    time_zone: Zone = "UTC"
    template: TemplateName = "cart_reminder"
    language: Language = "en_US"
    body: tuple[SmallText, ...] = _BODY
    button: SmallText | None = None
    most_items: Annotated[int, Field(ge=1, le=20)] = 3

    @model_validator(mode="after")
    def _leaves_time(self) -> Self:
        _refuse_empty_span(self.delay_hours, self.oldest_hours, "oldest_hours")
        return self

    @property
    def quiet(self) -> QuietHours:
        """When nobody is to be written to."""
        return QuietHours(self.quiet_from, self.quiet_until, ZoneInfo(self.time_zone))

    @property
    def wording(self) -> Wording:
        """What a reminder says."""
        return Wording(self.template, self.language, self.body, self.button, self.most_items)


class Numbers(Section):
    """How a shop's numbers are read; the rest of the section is the whatsapp service's."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    region: Region | None = None


class CartsShop(ShopEntry):
    """What carts need of a shop."""

    carts: Reminding = Reminding()
    whatsapp: Numbers = Numbers()


class CartsSettings(ShopSettings):
    """Settings of the carts service."""

    ENTRY: ClassVar[type[ShopEntry]] = CartsShop

    database_url: DatabaseUrl = Field(description="PostgreSQL, like postgresql://user:password@host/wch")
    whatsapp_region: Region | None = of_one_shop(None, "Country of numbers written without one, like DE")
    carts_expiry_hours: Hours = Field(72.0, description="How long a cart lives after its last change")
    carts_abandoned_hours: Hours = Field(
        24.0, description="How long after an unanswered reminder a cart counts as abandoned"
    )
    carts_keep_completed_days: Days = Field(30.0, description="How long ordered carts are kept")
    carts_keep_abandoned_days: Days = Field(
        90.0, description="How long abandoned carts are kept, and what came of reminders"
    )
    carts_delay_hours: Annotated[float, Field(ge=0)] = of_one_shop(
        4.0, "How long a cart is idle before its owner is reminded"
    )
    carts_oldest_hours: Hours = of_one_shop(48.0, "How long it is idle at most to be reminded of")
    carts_quiet_from: TimeOfDay = of_one_shop(
        _QUIET_FROM, "From when on nobody is reminded; equal to the end for never"
    )
    carts_quiet_until: TimeOfDay = of_one_shop(_QUIET_UNTIL, "Until when nobody is reminded")
    carts_time_zone: Zone = of_one_shop("UTC", "The shop's time zone, like Europe/Berlin")
    carts_template: TemplateName = of_one_shop("cart_reminder", "Name of the approved template of reminders")
    carts_language: Language = of_one_shop("en_US", "Its language; amounts are written as in it")
    carts_body: tuple[SmallText, ...] = of_one_shop(
        _BODY,
        "JSON list of the values of its placeholders, made of {name}, {items}, {total}, {coupon}, {link}; "
        "{name|there} says there where there is no name",
    )
    carts_button: SmallText | None = of_one_shop(None, "The same for its first button, where that is an address")
    carts_most_items: Annotated[int, Field(ge=1, le=20)] = of_one_shop(3, "How many items are named")

    @model_validator(mode="after")
    def _leaves_time(self) -> Self:
        _refuse_empty_span(self.carts_delay_hours, self.carts_oldest_hours, "WCH_CARTS_OLDEST_HOURS")
        return self

    def shops(self) -> Shops[CartsShop]:
        """Return the shops."""
        reminding = {name: getattr(self, f"carts_{name}") for name in Reminding.model_fields}
        return self.read_shops(CartsShop, {"carts": reminding, "whatsapp": {"region": self.whatsapp_region}})
