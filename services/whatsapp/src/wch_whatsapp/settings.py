"""What the whatsapp service reads from its environment."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import NoDecode

from wch_common.errors import SettingsError
from wch_common.settings import DatabaseUrl
from wch_common.shops import Graph, GraphSettings, Section, ShopEntry, Shops, needed_without_file, of_one_shop

PhoneNumberId = Annotated[str, Field(pattern="^[0-9]{1,20}$")]
Ids = Annotated[tuple[PhoneNumberId, ...], Field(min_length=1)]
Region = Annotated[str, Field(pattern="^[A-Z]{2}$")]
Rate = Annotated[float, Field(ge=0)]
Limit = Annotated[int, Field(ge=-1)]


class Numbers(Section):
    """The numbers a shop sends from, and what Meta allows them."""

    phone_number_ids: Annotated[tuple[PhoneNumberId, ...], Field(min_length=1)]
    region: Region | None = None
    rate: Rate = 80.0
    messaging_limit: Limit = 250
    portfolio: str = ""


class WhatsAppShop(ShopEntry):
    """What sending needs of a shop."""

    graph: Graph
    whatsapp: Numbers


class WhatsAppSettings(GraphSettings):
    """Settings of the whatsapp service."""

    ENTRY: ClassVar[type[ShopEntry]] = WhatsAppShop

    database_url: DatabaseUrl = Field(description="PostgreSQL, like postgresql://user:password@host/wch")
    whatsapp_hash_key: Annotated[SecretStr, Field(min_length=16)] = Field(
        description="Secret of 16 characters or more by which people are known when forgotten; never change it"
    )
    whatsapp_phone_number_id: Annotated[Ids | None, NoDecode] = needed_without_file(
        "Phone number id to send from; several with commas, the first is the default"
    )
    whatsapp_region: Region | None = of_one_shop(None, "Country of numbers written without one, like DE")
    whatsapp_rate: Rate = of_one_shop(
        80.0, "Messages a second from one number; 20 where it is shared with the Business app, 0 for any"
    )
    whatsapp_messaging_limit: Limit = of_one_shop(
        250, "People a day the business may write to outside windows (Meta's tier), -1 for any"
    )
    whatsapp_calls_in_flight: Annotated[int, Field(ge=1, le=500)] = Field(40, description="Calls per number at a time")
    whatsapp_call_seconds: Annotated[float, Field(gt=0, le=120)] = Field(30.0, description="Longest wait for an answer")
    whatsapp_settle_seconds: Annotated[float, Field(gt=0)] = Field(
        600.0, description="How long a call without an answer waits for a status before it is told as unknown"
    )
    whatsapp_unknown_utility: Literal["keep", "resend"] = Field(
        "keep", description="What becomes of utility and service messages whose outcome stays unknown"
    )
    whatsapp_expiry_seconds: Annotated[float, Field(gt=0)] = Field(
        86400.0, description="How long a message that names no expiry is worth sending"
    )
    whatsapp_most_waiting: Annotated[int, Field(ge=1)] = Field(
        100_000, description="Messages that wait to be sent before no more are accepted"
    )
    whatsapp_pair_seconds: Annotated[float, Field(ge=0)] = Field(
        6.0, description="Pause between messages to one person"
    )
    whatsapp_pair_burst: Annotated[int, Field(ge=1, le=45)] = Field(10, description="Messages to one person at once")
    whatsapp_lease_seconds: Annotated[float, Field(ge=1)] = Field(
        10.0, description="How soon another replica goes on where one died"
    )
    whatsapp_stop_words: Annotated[tuple[str, ...], NoDecode] = Field(
        ("stop", "stopp", "unsubscribe", "abmelden", "baja", "stopper", "arrêt", "parar", "sair"),
        description="Answers after which nobody is sent marketing, with commas",
    )

    @field_validator("whatsapp_phone_number_id", "whatsapp_stop_words", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:  # noqa: ANN401 - whatever the environment holds
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    def shops(self) -> Shops[WhatsAppShop]:
        """Return the shops."""
        numbers = {
            "phone_number_ids": self.whatsapp_phone_number_id,
            "region": self.whatsapp_region,
            "rate": self.whatsapp_rate,
            "messaging_limit": self.whatsapp_messaging_limit,
        }
        shops = self.read_shops(WhatsAppShop, {"graph": self.graph, "whatsapp": numbers})
        ids = Counter(id_ for _, shop in shops for id_ in set(shop.whatsapp.phone_number_ids))
        if twice := sorted(id_ for id_, times in ids.items() if times > 1):
            raise SettingsError(f"phone number id {', '.join(twice)}: several shops have it; a number belongs to one")
        return shops
