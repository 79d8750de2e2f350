"""Which shops there are: one from the environment, or several from a file, keyed by the event's `shop`.

A shop is described in sections (`woocommerce`, `graph`, `catalog`, …), each a model with its own fields and defaults. A service
declares the sections it needs in a subclass of ShopEntry. The same models read both forms: in the file a section is an
object; for the one shop, field `token` of section `graph` is the setting `WCH_GRAPH_TOKEN`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    HttpUrl,
    SecretStr,
    TypeAdapter,
    ValidationError,
    field_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from wch_common.errors import field_errors
from wch_common.outcome import Reject
from wch_common.settings import PREFIX, ServiceSettings, environment_value

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic.fields import FieldInfo

GraphVersion = Annotated[str, Field(pattern=r"^v\d+\.\d+$")]


def _has_numbers(region: str) -> str:
    # Here, as services that read no numbers must not load the numbering plans.
    from wch_common.integrations.phone import known_region

    return known_region(region)


PhoneRegion = Annotated[str, AfterValidator(_has_numbers)]


def _distinguishes_products(value: str) -> str:
    try:
        distinct = value.format(id=1, sku="S") != value.format(id=2, sku="S")
    except (KeyError, IndexError, ValueError):
        distinct = False
    if not distinct:
        raise ValueError("must contain {id}, and no other field than {id} and {sku}")
    return value


ItemIdPattern = Annotated[str, AfterValidator(_distinguishes_products)]


class ShopSection(BaseModel):
    """What one outside system needs to know about a shop; a misspelt field is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class WooCommerceSection(ShopSection):
    """The shop's REST API."""

    url: HttpUrl = Field(description="The shop's address, like https://shop.example")
    consumer_key: SecretStr = Field(description="WooCommerce REST key (ck_…), with read permission")
    consumer_secret: SecretStr = Field(description="Its secret (cs_…)")


class GraphSection(ShopSection):
    """Meta's Graph API, as the shop's system user."""

    token: SecretStr = Field(
        description="System-user token with catalog_management and whatsapp_business_messaging, as the service needs, and "
        "whatsapp_business_management to read message templates"
    )
    url: HttpUrl = Field(HttpUrl("https://graph.facebook.com"), description="Address of Meta's Graph API")
    version: GraphVersion = Field("v23.0", description="Version of the Graph API")


class CatalogSection(ShopSection):
    """The Meta catalog of the shop's products, and how its items are named."""

    id: str = Field(description="Id of the Meta catalog")
    brand: str = Field("", description="Brand of products that name none; the shop's host if empty")
    item_id: ItemIdPattern = Field(
        "wc_{id}", description="How items are named in the catalog, from {id} and {sku}; never change it later"
    )


class PhoneRegionSection(ShopSection):
    """How a shop's phone numbers are read, for services that use nothing else of the section `whatsapp`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    region: PhoneRegion | None = Field(None, description="Country of numbers without a country code, like DE")


class ShopEntry(BaseModel):
    """One shop as a service sees it: a subclass has the sections it needs as fields, and ignores all others."""

    model_config = ConfigDict(frozen=True, extra="ignore")


E = TypeVar("E", bound=ShopEntry)


class ShopSettings(ServiceSettings):
    """Settings of a service that works for shops; a subclass declares `one_shop: ItsEntry | None = None`."""

    shops_file: Path | None = Field(
        None, description="JSON file of several shops by name, instead of the settings of one shop"
    )
    shop_name: str = Field(
        "", description="Name of the one shop, if events give it in `shop`; without it, events must not name a shop"
    )
    one_shop: ShopEntry | None = None

    @classmethod
    def entry(cls) -> type[ShopEntry]:
        """Return the model of a shop, from the annotation of `one_shop`."""
        models: list[type[ShopEntry]] = [
            one for one in get_args(cls.model_fields["one_shop"].annotation) if one is not type(None)
        ]
        return models[0]

    @classmethod
    def section_variables(cls) -> dict[str, tuple[tuple[str, str], FieldInfo]]:
        """Return the settings of the one shop: the section and field each belongs to, and its definition."""
        found = {}
        for section, field in cls.entry().model_fields.items():
            model = field.annotation
            if isinstance(model, type) and issubclass(model, BaseModel):
                for name, definition in model.model_fields.items():
                    found[f"{PREFIX}{section}_{name}".upper()] = ((section, name), definition)
        return found

    @classmethod
    def variables(cls) -> dict[str, FieldInfo]:
        """Return every setting with its definition."""
        own = {name: field for name, field in super().variables().items() if name != f"{PREFIX}ONE_SHOP"}
        return own | {name: definition for name, (_, definition) in cls.section_variables().items()}

    @classmethod
    def variable_at(cls, place: tuple[str, ...]) -> str:
        """Return the setting that an error at a place of this model is about."""
        if place[:1] == ("one_shop",):
            return PREFIX + "_".join(place[1:3]).upper() + ("_…" if len(place) == 2 else "")
        return super().variable_at(place)

    @classmethod
    def missing_hint(cls, place: tuple[str, ...]) -> str:
        """Return what else may be set instead of a missing setting."""
        return " (or WCH_SHOPS_FILE for several shops)" if place[:1] == ("one_shop",) else ""

    @classmethod
    def extra_sources(cls, settings_cls: type[BaseSettings]) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the settings of the one shop."""
        return (_OneShopValues(settings_cls),)

    @field_validator("shops_file")
    @classmethod
    def _contains_shops(cls, value: Path | None) -> Path | None:
        """Report what is wrong in the file together with every other wrong setting."""
        if value is not None:
            _read(value, cls.entry())
        return value

    def unused(self) -> list[str]:
        """Return which settings of one shop are set although a file of several shops is."""
        if self.shops_file is None:
            return []
        names = [*self.section_variables(), f"{PREFIX}SHOP_NAME"]
        return [f"{name} is ignored, as WCH_SHOPS_FILE is set" for name in sorted(names) if environment_value(name)]

    def read_shops(self, entry: type[E]) -> Shops[E]:
        """Return the shops of the file, or the one shop."""
        if self.shops_file is not None:
            return Shops(_read(self.shops_file, entry))
        return Shops({self.shop_name: entry.model_validate(self.one_shop)})


class _OneShopValues(PydanticBaseSettingsSource):
    """The one shop from its settings; nothing where a file of several shops is set."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002 - its signature
        """Not used: the one shop is a single field."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return the field `one_shop`."""
        settings = self.settings_cls
        if not issubclass(settings, ShopSettings) or environment_value(f"{PREFIX}SHOPS_FILE"):
            return {}
        # Every section is there, so that an absent required field is reported by its own name.
        shop: dict[str, dict[str, Any]] = {section: {} for section in settings.entry().model_fields}
        for variable, ((section, name), _) in settings.section_variables().items():
            if value := environment_value(variable):
                shop[section][name] = value
        return {"one_shop": shop}


class Shops(Generic[E]):
    """The shops of one deployment."""

    def __init__(self, shops: Mapping[str, E]) -> None:
        self._shops = dict(shops)

    def __iter__(self) -> Iterator[tuple[str, E]]:
        return iter(self._shops.items())

    def named(self, name: str | None) -> E:
        """Return the event's shop, or the only one for an event without a shop; raises Reject for an unknown one."""
        return self._shops[self.key(name)]

    def key(self, name: str | None) -> str:
        """Return the configured name of the event's shop; raises Reject for an unknown one."""
        if name is None and len(self._shops) == 1:
            return next(iter(self._shops))
        if name is None:
            raise Reject("the event names no shop, and several are configured: set its `shop`")
        if name not in self._shops or not name:
            # One shop's products must not be looked up in another, where the same ids are other products.
            known = ", ".join(sorted(filter(None, self._shops))) or "the only shop has no name (WCH_SHOP_NAME)"
            raise Reject(f"the shop {name!r} is not configured here: {known}")
        return name


def _read(path: Path, entry: type[E]) -> dict[str, E]:
    """Read a file of shops; raises ValueError that names every wrong field."""
    try:
        shops = TypeAdapter(dict[str, entry]).validate_json(path.read_bytes())  # type: ignore[valid-type]
    except OSError as error:
        raise ValueError(f"names a file that cannot be read: {error.strerror}") from None
    except ValidationError as error:
        places = [f"{one.field or 'the file'}: {one.problem}" for one in field_errors(error)]
        raise ValueError("is invalid: " + "; ".join(places)) from None
    if not shops or "" in shops:
        raise ValueError("is invalid: it contains no shop, or one without a name")
    return shops
