"""The settings of the carts service."""

from __future__ import annotations

import re
from datetime import time
from typing import Annotated, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from wch_carts.quiet_hours import QuietHours
from wch_carts.reminder_text import ReminderText, ShortText
from wch_common.events.whatsapp_template import Language
from wch_common.integrations.shops import PhoneRegionSection, ShopEntry, Shops, ShopSection, ShopSettings
from wch_common.settings import CommaSeparated, DatabaseUrl, JsonList, PersonHashKey

Hours = Annotated[float, Field(gt=0)]
Days = Annotated[float, Field(gt=0)]


def _is_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{name!r} is not a time zone: write it like Europe/Berlin") from None
    return name


def _is_time_of_day(value: object) -> object:
    """Return a time of day; refuses a number, which pydantic reads as seconds, and an offset from UTC."""
    if isinstance(value, str) and _TIME_OF_DAY.match(value):
        return value
    if isinstance(value, time) and value.tzinfo is None:
        return value
    raise ValueError("must be a time of day like 21:00 (as text), in the shop's time zone")


_TIME_OF_DAY = re.compile(r"^\d\d:\d\d(:\d\d)?$")
TimeOfDay = Annotated[time, BeforeValidator(_is_time_of_day)]
Zone = Annotated[str, AfterValidator(_is_zone)]
Host = Annotated[str, Field(pattern=r"^[a-z0-9-]+(\.[a-z0-9-]+)*$")]
TemplateName = Annotated[str, Field(pattern="^[a-z0-9_]{1,512}$")]


class ReminderSection(ShopSection):
    """When and how a shop's customers are reminded of their carts."""

    delay_hours: Annotated[float, Field(ge=0)] = Field(
        4.0, description="Hours without a change after which a cart's owner is reminded"
    )
    oldest_hours: Hours = Field(48.0, description="Hours without a change after which a cart is too old for a reminder")
    quiet_from: TimeOfDay = Field(
        time(21), description="Start of the quiet hours, in which no reminders are sent; equal to the end for none"
    )
    quiet_until: TimeOfDay = Field(time(9), description="End of the quiet hours")
    time_zone: Zone = Field("UTC", description="The shop's time zone, like Europe/Berlin")
    template: TemplateName = Field("cart_reminder", description="Name of the approved template of reminders")
    language: Language = Field("en_US", description="Language of the template, also used to format amounts")
    body: Annotated[tuple[ShortText, ...], JsonList] = Field(
        ("{name|there}", "{items}", "{total}"),
        description="JSON list of values for the template's placeholders, with {name}, {items}, {total}, {coupon}, {link}; "
        "{name|there} is `there` if the name is empty",
    )
    button: ShortText | None = Field(
        None, description="The same for the template's first button, if that opens an address"
    )
    most_items: Annotated[int, Field(ge=1, le=20)] = Field(
        3, description="Maximum number of items that a reminder names"
    )
    link_hosts: Annotated[tuple[Host, ...], CommaSeparated] = Field(
        (),
        description="The shop's hosts, like shop.example, separated by commas: a reminder has no link to any other host",
    )
    person_hours: Annotated[float, Field(ge=0)] = Field(
        24.0,
        description="Least hours between two reminders of one person, whichever carts they are about; 0 for no limit",
    )
    most_per_hour: Annotated[int, Field(ge=1)] = Field(
        500, description="Most reminders of a shop within an hour; those beyond it wait, with an alert"
    )
    consent_required: bool = Field(
        default=False, description="Whether only those are reminded whose cart says that they agreed to it"
    )

    @model_validator(mode="after")
    def _leaves_time(self) -> Self:
        if self.oldest_hours <= self.delay_hours:
            raise ValueError("oldest_hours must be greater than delay_hours, or no reminder is ever sent")
        return self

    @property
    def quiet(self) -> QuietHours:
        """The hours in which no reminders are sent."""
        return QuietHours(self.quiet_from, self.quiet_until, ZoneInfo(self.time_zone))

    @property
    def reminder_text(self) -> ReminderText:
        """The text of a reminder."""
        return ReminderText(self.template, self.language, self.body, self.button, self.most_items, self.link_hosts)


class CartsShop(ShopEntry):
    """The settings of a shop that carts use."""

    carts: ReminderSection = ReminderSection()
    whatsapp: PhoneRegionSection = PhoneRegionSection()


class CartsSettings(ShopSettings):
    """Settings of the carts service."""

    one_shop: CartsShop | None = None
    database_url: DatabaseUrl = Field(description="PostgreSQL, like postgresql://user:password@host/wch")
    person_hash_key: PersonHashKey
    carts_expiry_hours: Hours = Field(72.0, description="Hours after its last change at which a cart expires")
    carts_abandoned_hours: Hours = Field(
        24.0, description="Hours after an unanswered reminder at which a cart counts as abandoned"
    )
    carts_keep_completed_days: Days = Field(30.0, description="Days for which ordered carts are kept")
    carts_keep_abandoned_days: Days = Field(90.0, description="Days for which abandoned carts and reminders are kept")

    carts_keep_expired_days: Days = Field(
        30.0, description="Days for which expired carts are kept if no cleanup deletes them"
    )

    def shops(self) -> Shops[CartsShop]:
        """Return the shops."""
        return self.read_shops(CartsShop)
