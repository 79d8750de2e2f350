"""Which shops there are: one by environment, or several by a file, keyed by the event's `shop`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    HttpUrl,
    SecretStr,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from wch_common.outcome import Reject
from wch_common.settings import ServiceSettings

if TYPE_CHECKING:
    from collections.abc import Mapping


class Shop(BaseModel):
    """One shop, its catalog and the keys to both."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: HttpUrl
    consumer_key: SecretStr
    consumer_secret: SecretStr
    graph_url: HttpUrl
    graph_version: Annotated[str, Field(pattern=r"^v\d+\.\d+$")]
    graph_token: SecretStr
    catalog_id: str
    brand: str = ""
    item_id: str = "wc_{id}"


class ShopSettings(ServiceSettings):
    """Settings of a service that talks to shops and their catalogs."""

    shops_file: Path | None = Field(
        None, description="JSON file of several shops by name, instead of the settings below"
    )
    shop_name: str = Field(
        "", description="Its name, where events name it in `shop`; without one, events must not name a shop"
    )
    shop_url: HttpUrl | None = Field(
        None, validate_default=True, description="The shop's address, like https://shop.example"
    )
    shop_consumer_key: SecretStr | None = Field(
        None, validate_default=True, description="WooCommerce REST key (ck_…), with read permission"
    )
    shop_consumer_secret: SecretStr | None = Field(None, validate_default=True, description="Its secret (cs_…)")
    graph_url: HttpUrl = Field(HttpUrl("https://graph.facebook.com"), description="Meta's Graph API")
    graph_version: Annotated[str, Field(pattern=r"^v\d+\.\d+$")] = Field("v23.0", description="Its version")
    graph_token: SecretStr | None = Field(
        None, validate_default=True, description="System-user token with catalog_management"
    )
    catalog_id: str | None = Field(
        None, validate_default=True, description="The Meta catalog the shop's products go to"
    )
    catalog_brand: str = Field("", description="Brand of products that name none; the shop's host if empty")
    catalog_item_id: str = Field(
        "wc_{id}", description="How items are named in the catalog, from {id} and {sku}; never change it later"
    )

    @field_validator("shops_file")
    @classmethod
    def _holds_shops(cls, value: Path | None) -> Path | None:
        """Name what is wrong in the file together with every other wrong setting."""
        if value is not None:
            _read(value)
        return value

    @field_validator("shop_url", "shop_consumer_key", "shop_consumer_secret", "graph_token", "catalog_id")
    @classmethod
    def _is_given(cls, value: object, info: ValidationInfo) -> object:
        """One shop needs all of its settings; a file that is wrong, and so absent here, is still what was meant."""
        if value is None and info.data.get("shops_file", ...) is None:
            description = cls.model_fields[info.field_name or ""].description
            raise ValueError(f"is missing (or WCH_SHOPS_FILE for several shops). {description}")
        return value

    @field_validator("catalog_item_id")
    @classmethod
    def _names_each_product(cls, value: str) -> str:
        try:
            named = value.format(id=1, sku="S") != value.format(id=2, sku="S")
        except (KeyError, IndexError, ValueError):
            named = False
        if not named:
            raise ValueError("must hold {id}, and no other field than {id} and {sku}")
        return value

    def shops(self) -> Shops:
        """Return the shops."""
        if self.shops_file is not None:
            return Shops(_read(self.shops_file))
        values = {
            "url": self.shop_url,
            "consumer_key": self.shop_consumer_key,
            "consumer_secret": self.shop_consumer_secret,
            "graph_url": self.graph_url,
            "graph_version": self.graph_version,
            "graph_token": self.graph_token,
            "catalog_id": self.catalog_id,
            "brand": self.catalog_brand,
            "item_id": self.catalog_item_id,
        }
        return Shops({self.shop_name: Shop.model_validate(values)})


class Shops:
    """The shops of one deployment."""

    def __init__(self, shops: Mapping[str, Shop]) -> None:
        self._shops = dict(shops)

    def named(self, name: str | None) -> Shop:
        """Return the event's shop, the only one for an event that names none; raises Reject for one not configured here."""
        if name is None and len(self._shops) == 1:
            return next(iter(self._shops.values()))
        if name is None:
            raise Reject("the event names no shop, and there are several: set its attribute `shop`")
        if name not in self._shops:
            # One shop's products must not be looked up in another, where the same ids are other things.
            known = ", ".join(sorted(filter(None, self._shops))) or "the only shop has no name (WCH_SHOP_NAME)"
            raise Reject(f"the shop {name!r} is not configured here: {known}")
        return self._shops[name]


def _read(path: Path) -> dict[str, Shop]:
    """Read a file of shops; raises ValueError naming every wrong field."""
    try:
        shops = TypeAdapter(dict[str, Shop]).validate_json(path.read_bytes())
    except OSError as error:
        raise ValueError(f"names a file that cannot be read: {error.strerror}") from None
    except ValidationError as error:
        places = [
            f"{'.'.join(map(str, item['loc'])) or 'the file'}: {item['msg']}"
            for item in error.errors(include_input=False)
        ]
        raise ValueError("is wrong: " + "; ".join(places)) from None
    if not shops:
        raise ValueError("is wrong: it holds no shop")
    return shops
