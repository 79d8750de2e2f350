"""The settings of the whatsapp service."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import NoDecode

from wch_common.errors import SettingsError
from wch_common.events.recipient import MalformedRecipient
from wch_common.integrations.recipients import resolved
from wch_common.integrations.shops import GraphSection, PhoneRegion, ShopEntry, Shops, ShopSection, ShopSettings
from wch_common.settings import CommaSeparated, DatabaseUrl, PersonHashKey
from wch_whatsapp.opt_out import StopWordPlace

PhoneNumberId = Annotated[str, Field(pattern="^[0-9]{1,20}$")]


NOBODY: Final = "nobody"


def _names(values: tuple[SecretStr, ...] | None) -> tuple[SecretStr, ...] | None:
    """Return numbers in E.164, and ids; refuses one that is malformed, without quoting it."""
    if values is None or [value.get_secret_value() for value in values] == [NOBODY]:
        return None if values is None else ()
    names = []
    for place, value in enumerate(values, start=1):
        try:
            names.append(SecretStr(resolved(value.get_secret_value()).names[0]))
        except MalformedRecipient as error:
            raise ValueError(f"entry {place} is {error}") from None
    return tuple(names)


class NumbersSection(ShopSection):
    """The numbers that a shop sends from, and their limits at Meta."""

    phone_number_ids: Annotated[tuple[PhoneNumberId, ...], CommaSeparated, Field(min_length=1)] = Field(
        description="Phone number ids to send from, separated by commas; the first is the default"
    )
    region: PhoneRegion | None = Field(None, description="Country of numbers without a country code, like DE")
    rate: Annotated[float, Field(ge=0)] = Field(
        80.0, description="Messages a second from one number; 20 if it is shared with the Business app, 0 for no limit"
    )
    messaging_limit: Annotated[int, Field(ge=-1)] = Field(
        250,
        description="Customers to whom Meta lets the business write first per 24 hours (its messaging limit), -1 for no limit",
    )
    monthly_budget: Annotated[int, Field(ge=-1)] = Field(
        -1,
        description="Messages a month (UTC) that may cost money, from each number, from which on marketing waits; -1 for no limit",
    )
    business_account_id: Annotated[str, Field(pattern="^[0-9]{1,20}$")] | None = Field(
        None,
        description="Id of the WhatsApp business account, whose message templates the service reads from Meta, so that "
        "`wch campaigns start` can check a campaign against them; the token needs whatsapp_business_management",
    )
    portfolio: str = Field(
        "",
        description="Name of the business portfolio, which shares the tier and the ids of users; the shop's own if empty. Links between "
        "numbers and ids are kept under this name: do not change it",
    )


class WhatsAppShop(ShopEntry):
    """The settings of a shop that sending needs."""

    graph: GraphSection
    whatsapp: NumbersSection


class WhatsAppSettings(ShopSettings):
    """Settings of the whatsapp service."""

    one_shop: WhatsAppShop | None = None
    database_url: DatabaseUrl = Field(description="PostgreSQL, like postgresql://user:password@host/wch")
    person_hash_key: PersonHashKey
    whatsapp_calls_in_flight: Annotated[int, Field(ge=1, le=500)] = Field(
        40, description="Concurrent calls for one number"
    )
    whatsapp_call_seconds: Annotated[float, Field(gt=0, le=120)] = Field(
        30.0, description="Time limit of a call to Meta"
    )
    whatsapp_settle_seconds: Annotated[float, Field(gt=0)] = Field(
        600.0, description="How long a call without an answer waits for a status before it is reported as unknown"
    )
    whatsapp_unknown_utility: Literal["keep", "resend"] = Field(
        "keep", description="Whether utility and service messages whose outcome stays unknown are sent again"
    )
    whatsapp_expiry_seconds: Annotated[float, Field(gt=0)] = Field(
        86400.0, description="How long after its request a message without expires_at expires"
    )
    whatsapp_most_waiting: Annotated[int, Field(ge=1)] = Field(
        100_000,
        description="Number of waiting messages of a shop at which the service accepts no more requests to send",
    )
    whatsapp_pair_seconds: Annotated[float, Field(ge=0)] = Field(
        6.0, description="Pause between messages to one recipient"
    )
    whatsapp_pair_burst: Annotated[int, Field(ge=1, le=45)] = Field(
        10, description="Most messages to one recipient without that pause"
    )
    whatsapp_lease_seconds: Annotated[float, Field(ge=1)] = Field(
        10.0, description="How long after the death of a replica another one takes over its numbers"
    )
    whatsapp_templates_seconds: Annotated[float, Field(ge=10)] = Field(
        300.0, description="How often the message templates are read from Meta"
    )
    whatsapp_only_to: Annotated[tuple[SecretStr, ...] | None, NoDecode, CommaSeparated, AfterValidator(_names)] = Field(
        None,
        description="The only recipients who are written to, by number or by Meta's id of them, like +15550100001, separated by "
        "commas, or `nobody`: for staging; "
        "everybody if it is not set or empty",
    )
    whatsapp_stop_words: Annotated[tuple[str, ...], NoDecode, CommaSeparated] = Field(
        (),
        description="More words or phrases with which a customer opts out of marketing, separated by commas; those of 57 "
        "languages are known",
    )
    whatsapp_stop_words_in: StopWordPlace = Field(
        "first_line",
        description="Where such a word counts: as the whole message, also alone on its first line, or anywhere in it",
    )

    def shops(self) -> Shops[WhatsAppShop]:
        """Return the shops; raises SettingsError if two shops have the same number."""
        shops = self.read_shops(WhatsAppShop)
        ids = Counter(id_ for _, shop in shops for id_ in set(shop.whatsapp.phone_number_ids))
        if twice := sorted(id_ for id_, times in ids.items() if times > 1):
            raise SettingsError(
                f"phone number id {', '.join(twice)} belongs to several shops; a number must belong to one"
            )
        return shops
