"""Prints docs/settings.md: every setting of the library and of each installed service, from the models themselves."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from wch_common.integrations.shops import ShopSettings
from wch_common.settings import PREFIX, ServiceSettings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pydantic.fields import FieldInfo

_QUEUE = """## Per queue

For a queue `sync.product` the names begin with `WCH_SYNC_PRODUCT_`. The defaults are in the service's `topology.py`.

| setting | meaning |
|---|---|
| `…_CONCURRENCY` | handlers that run at a time |
| `…_RETRY_DELAYS` | rising waits between attempts in seconds, like `60,300,900`; each has a delay queue, which `wch topology apply` creates; set the same for `wch` |
| `…_TRIES` | retries after the first attempt |
| `…_TIME_LIMIT` | seconds a handler may take, at most 1500 |
| `…_BATCH_SIZE` | most events in one call of a batch handler |
| `…_BATCH_WINDOW` | seconds to wait for more events after the first |
| `…_PREFETCH` | unacknowledged deliveries: by default twice the handlers (at least 16), or one batch; a higher value is faster for quick handlers, but up to that many events are redelivered after a crash |
"""


_FILE = """A file of several shops (`WCH_SHOPS_FILE`) is a JSON object of shops by name; events give that name in `shop`, and an event
without it is refused if there are several shops. The file replaces all settings of the one shop, which are then ignored.
Each shop has the sections that the services need; a service ignores the sections of others and refuses misspelt fields.
The fields of a section are those of the settings below: `token` of `graph` is `WCH_GRAPH_TOKEN`.

```json
{
  "north": {
    "woocommerce": {"url": "https://north.example", "consumer_key": "ck_…", "consumer_secret": "cs_…"},
    "graph": {"token": "…", "url": "https://graph.facebook.com", "version": "v23.0"},
    "catalog": {"id": "…", "brand": "North", "item_id": "wc_{id}"},
    "whatsapp": {"phone_number_ids": ["1"], "region": "DE", "rate": 80, "messaging_limit": 250, "portfolio": "", "business_account_id": "2"},
    "carts": {"delay_hours": 4, "time_zone": "Europe/Berlin", "template": "cart_reminder"}
  }
}
```
"""

_TOOLS = """## `wch`, the demo and the tests

| setting | meaning |
|---|---|
| `WCH_AMQP_URL`, `WCH_DATABASE_URL` | as above, for `wch` |
| `WCH_MANAGEMENT_URL` | the broker's management API, for `wch`; 10,000 ports above AMQP if not set |
| `WCH_RABBITMQ_ROOT` | where the demo and the tests take RabbitMQ from: the root of a system, or a folder made by debootstrap |
| `WCH_DEMO_AMQP_URL`, `WCH_DEMO_DATABASE_URL` | servers the demo uses instead of its own |
| `WCH_TEST_AMQP_URL`, `WCH_TEST_DATABASE_URL` | servers the tests use instead of their own |
"""


def page() -> str:
    """Return the whole page."""
    services: list[tuple[str, type[ServiceSettings]]] = [
        (found.name, found.load()) for found in sorted(entry_points(group="wch.settings"), key=lambda one: one.name)
    ]
    parts = [
        "# Settings",
        "",
        "Services read their settings once at start, from the environment, and report all missing or wrong ones together. Every",
        "setting can also be a file, for secrets: `WCH_AMQP_URL_FILE` names a file that holds `WCH_AMQP_URL`.",
        "`make contracts` writes this page.",
        "",
        *_table("Every service", _own(ServiceSettings)),
        _QUEUE,
        *_table("Services that work for shops", _own(ShopSettings)),
        _FILE,
        *_sections(model for _, model in services),
    ]
    for name, model in services:
        note = _sections_note(model)
        parts += _table(name, _own(model), note)
    return "\n".join([*parts, _TOOLS]).rstrip() + "\n"


def _sections(models: Iterable[type[ServiceSettings]]) -> Iterator[str]:
    """Return each section of a shop once, with the fields of every service that reads it."""
    fields: dict[str, dict[str, FieldInfo]] = {}
    titles: dict[str, str] = {}
    for model in models:
        if not issubclass(model, ShopSettings):
            continue
        for variable, ((section, _), definition) in model.section_variables().items():
            fields.setdefault(section, {})[variable] = definition
        for section, field in model.entry().model_fields.items():
            text = (getattr(field.annotation, "__doc__", None) or "").split(",")[0].rstrip(".")
            if len(fields.get(section, ())) == len(getattr(field.annotation, "model_fields", ())):
                titles[section] = text
    for section in sorted(fields):
        yield from _table(f"`{section}`: {titles[section]}", fields[section], one_shop=True)


def _sections_note(model: type[ServiceSettings]) -> str:
    if not issubclass(model, ShopSettings):
        return ""
    names = [f"`{section}`" for section in model.entry().model_fields]
    return f"It also reads the section{'s' if len(names) > 1 else ''} {', '.join(names)}." if names else ""


def _own(model: type[ServiceSettings]) -> dict[str, FieldInfo]:
    """Return the settings that a model adds to those of its base."""
    inherited = {name for base in model.__mro__[1:] for name in getattr(base, "model_fields", {})}
    hidden = inherited | {"queues", "one_shop"}
    return {f"{PREFIX}{name.upper()}": field for name, field in model.model_fields.items() if name not in hidden}


def _table(title: str, fields: dict[str, FieldInfo], note: str = "", *, one_shop: bool = False) -> Iterator[str]:
    yield from (f"## {title}", "", *((note, "") if note else ()), "| setting | default | meaning |", "|---|---|---|")
    for variable, field in fields.items():
        yield f"| `{variable}` | {_default(field, one_shop=one_shop)} | {field.description}{_secret(field)} |"
    yield ""


def _secret(field: FieldInfo) -> str:
    return " (secret)" if "SecretStr" in str(field.annotation) else ""


def _default(field: FieldInfo, *, one_shop: bool) -> str:
    if field.is_required():
        return "**required** without `WCH_SHOPS_FILE`" if one_shop else "**required**"
    return f"`{field.default}`" if field.default not in (None, "") else ""


if __name__ == "__main__":
    print(page(), end="")
