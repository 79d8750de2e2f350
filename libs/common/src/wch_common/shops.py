"""Which shops there are: one by environment, or several by a file, keyed by the event's `shop`.

What belongs to a shop is told in sections (`woocommerce`, `graph`, `catalog`, …); each service reads those it needs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, TypeVar

from pydantic import (
    AfterValidator,
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
from wch_common.redact import problems
from wch_common.settings import PREFIX, ServiceSettings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_GRAPH = HttpUrl("https://graph.facebook.com")
_VERSION = "v23.0"
Version = Annotated[str, Field(pattern=r"^v\d+\.\d+$")]


def _names_each_product(value: str) -> str:
    try:
        named = value.format(id=1, sku="S") != value.format(id=2, sku="S")
    except (KeyError, IndexError, ValueError):
        named = False
    if not named:
        raise ValueError("must hold {id}, and no other field than {id} and {sku}")
    return value


ItemId = Annotated[str, AfterValidator(_names_each_product)]


class Section(BaseModel):
    """What one outside system needs of a shop; a misspelt field is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class WooCommerce(Section):
    """The shop's REST API."""

    url: HttpUrl
    consumer_key: SecretStr
    consumer_secret: SecretStr


class Graph(Section):
    """Meta's Graph API, as the shop's system user."""

    token: SecretStr
    url: HttpUrl = _GRAPH
    version: Version = _VERSION


class Catalog(Section):
    """The Meta catalog the shop's products go to, and how its items are named."""

    id: str
    brand: str = ""
    item_id: ItemId = "wc_{id}"


class ShopEntry(BaseModel):
    """One shop as a service sees it: the sections it needs, as fields of a subclass; other services' are not looked at."""

    model_config = ConfigDict(frozen=True, extra="ignore")


E = TypeVar("E", bound=ShopEntry)


def of_one_shop(default: Any, description: str) -> Any:  # noqa: ANN401 - a field's default, of any type
    """Return a setting of the one shop, for which several shops' file stands."""
    return Field(default, description=description, json_schema_extra={"one_shop": True})


def needed_without_file(description: str) -> Any:  # noqa: ANN401 - a field's default, of any type
    """Return a setting that the one shop needs."""
    return Field(None, validate_default=True, description=description, json_schema_extra={"one_shop": True})


def is_needed_without_file(field: Any) -> bool:  # noqa: ANN401 - pydantic's FieldInfo
    """Tell whether a setting was made by `needed_without_file`."""
    return bool(field.validate_default) and field.default is None


class ShopSettings(ServiceSettings):
    """Settings of a service that works for shops; what it needs of each is its ENTRY."""

    ENTRY: ClassVar[type[ShopEntry]] = ShopEntry

    shops_file: Path | None = Field(
        None, description="JSON file of several shops by name, instead of one shop's settings"
    )
    shop_name: str = of_one_shop(
        "", "The one shop's name, where events give it in `shop`; without one, events must not name a shop"
    )

    @field_validator("shops_file")
    @classmethod
    def _holds_shops(cls, value: Path | None) -> Path | None:
        """Name what is wrong in the file together with every other wrong setting."""
        if value is not None:
            _read(value, cls.ENTRY)
        return value

    @field_validator("*")
    @classmethod
    def _is_given(cls, value: object, info: ValidationInfo) -> object:
        """One shop needs all of its settings; a file that is wrong, and so absent here, is still what was meant."""
        field = cls.model_fields[info.field_name or ""]
        if value is None and is_needed_without_file(field) and info.data.get("shops_file", ...) is None:
            raise ValueError(f"is missing (or WCH_SHOPS_FILE for several shops). {field.description}")
        return value

    def unused(self) -> list[str]:
        """Return which settings of one shop are given beside a file of several."""
        if self.shops_file is None:
            return []
        fields = {name: type(self).model_fields[name].json_schema_extra for name in sorted(self.model_fields_set)}
        given = [name for name, extra in fields.items() if isinstance(extra, dict) and extra.get("one_shop")]
        return [f"{PREFIX}{name.upper()}: not looked at, as WCH_SHOPS_FILE is given" for name in given]

    def read_shops(self, entry: type[E], sections: Mapping[str, Mapping[str, Any]]) -> Shops[E]:
        """Return the shops of the file, or the one whose sections, by name, are given."""
        if self.shops_file is not None:
            return Shops(_read(self.shops_file, entry))
        return Shops({self.shop_name: entry.model_validate(dict(sections))})


class WooCommerceSettings(ShopSettings):
    """The one shop's REST API."""

    shop_url: HttpUrl | None = needed_without_file("The shop's address, like https://shop.example")
    shop_consumer_key: SecretStr | None = needed_without_file("WooCommerce REST key (ck_…), with read permission")
    shop_consumer_secret: SecretStr | None = needed_without_file("Its secret (cs_…)")

    @property
    def woocommerce(self) -> dict[str, Any]:
        """Its section."""
        return {
            "url": self.shop_url,
            "consumer_key": self.shop_consumer_key,
            "consumer_secret": self.shop_consumer_secret,
        }


class GraphSettings(ShopSettings):
    """The one shop's access to Meta's Graph API."""

    graph_url: HttpUrl = of_one_shop(_GRAPH, "Meta's Graph API")
    graph_version: Version = of_one_shop(_VERSION, "Its version")
    graph_token: SecretStr | None = needed_without_file(
        "System-user token with catalog_management and whatsapp_business_messaging, as the service needs"
    )

    @property
    def graph(self) -> dict[str, Any]:
        """Its section."""
        return {"url": self.graph_url, "version": self.graph_version, "token": self.graph_token}


class CatalogSettings(ShopSettings):
    """The one shop's catalog."""

    catalog_id: str | None = needed_without_file("The Meta catalog the shop's products go to")
    catalog_brand: str = of_one_shop("", "Brand of products that name none; the shop's host if empty")
    catalog_item_id: ItemId = of_one_shop(
        "wc_{id}", "How items are named in the catalog, from {id} and {sku}; never change it later"
    )

    @property
    def catalog(self) -> dict[str, Any]:
        """Its section."""
        return {"id": self.catalog_id, "brand": self.catalog_brand, "item_id": self.catalog_item_id}


class Shops(Generic[E]):
    """The shops of one deployment."""

    def __init__(self, shops: Mapping[str, E]) -> None:
        self._shops = dict(shops)

    def __iter__(self) -> Iterator[tuple[str, E]]:
        return iter(self._shops.items())

    def named(self, name: str | None) -> E:
        """Return the event's shop, the only one for an event that names none; raises Reject for one not configured here."""
        return self._shops[self.key(name)]

    def key(self, name: str | None) -> str:
        """Return the configured name that an event's `shop` means; raises Reject for one not configured here."""
        if name is None and len(self._shops) == 1:
            return next(iter(self._shops))
        if name is None:
            raise Reject("no shop is named, and there are several: set the event's `shop`")
        if name not in self._shops or not name:
            # One shop's products must not be looked up in another, where the same ids are other things.
            known = ", ".join(sorted(filter(None, self._shops))) or "the only shop has no name (WCH_SHOP_NAME)"
            raise Reject(f"the shop {name!r} is not configured here: {known}")
        return name


def _read(path: Path, entry: type[E]) -> dict[str, E]:
    """Read a file of shops; raises ValueError naming every wrong field."""
    try:
        shops = TypeAdapter(dict[str, entry]).validate_json(path.read_bytes())  # type: ignore[valid-type]
    except OSError as error:
        raise ValueError(f"names a file that cannot be read: {error.strerror}") from None
    except ValidationError as error:
        places = [f"{place or 'the file'}: {problem}" for place, problem in problems(error)]
        raise ValueError("is wrong: " + "; ".join(places)) from None
    if not shops or "" in shops:
        raise ValueError("is wrong: it holds no shop, or one without a name")
    return shops
