"""Prints docs/settings.md: every setting of the library and of each installed service, from the models themselves."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from wch_common.settings import PREFIX, ServiceSettings
from wch_common.shops import (
    CatalogSettings,
    GraphSettings,
    ShopSettings,
    WooCommerceSettings,
    is_needed_without_file,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from pydantic.fields import FieldInfo

_QUEUE = """## Per queue

For a queue `sync.product` the names begin with `WCH_SYNC_PRODUCT_`. Defaults are the family's, in its `topology.py`.

| setting | meaning |
|---|---|
| `…_CONCURRENCY` | handlers at a time |
| `…_RUNGS` | waits between tries in seconds, like `60,300,900`; each is a queue of its own |
| `…_TRIES` | tries after the first |
| `…_TIME_LIMIT` | seconds a handler may take, at most 1500 |
| `…_BATCH_SIZE` | events collected for a batch handler |
| `…_BATCH_WINDOW` | seconds it waits for them after the first |
| `…_PREFETCH` | events handed out unsettled: twice the handlers (at least 16), or one batch; more is faster for quick handlers, and so many are delivered again after a crash |
"""


_FILE = """A file of several shops (`WCH_SHOPS_FILE`) holds an object of them by name, which events give in `shop`; an event
without one is refused where there are several. The file stands for all settings of one shop, which are not looked at
beside it: what it leaves out has the defaults below. Each shop has the sections that the services need; a service
ignores sections of others and refuses misspelt fields:

```json
{
  "north": {
    "woocommerce": {"url": "https://north.example", "consumer_key": "ck_…", "consumer_secret": "cs_…"},
    "graph": {"token": "…", "url": "https://graph.facebook.com", "version": "v23.0"},
    "catalog": {"id": "…", "brand": "North", "item_id": "wc_{id}"},
    "whatsapp": {"phone_number_ids": ["1"], "region": "DE", "rate": 80, "messaging_limit": 250, "portfolio": ""}
  }
}
```
"""

_TOOLS = """## `wch`, the demo and the tests

| setting | meaning |
|---|---|
| `WCH_AMQP_URL`, `WCH_DATABASE_URL` | as above, for `wch` |
| `WCH_MANAGEMENT_URL` | the broker's management API, for `wch`; 10,000 ports above AMQP if not set |
| `WCH_RABBITMQ_ROOT` | where the demo and the tests take RabbitMQ from: a system's root, or a folder made by debootstrap |
| `WCH_DEMO_AMQP_URL`, `WCH_DEMO_DATABASE_URL` | servers the demo uses instead of its own |
| `WCH_TEST_AMQP_URL`, `WCH_TEST_DATABASE_URL` | servers the tests use instead of their own |
"""


_GROUPS: dict[str, type[ShopSettings]] = {
    "Services that work for shops": ShopSettings,
    "The shop's REST API": WooCommerceSettings,
    "Meta's Graph API": GraphSettings,
    "The catalog": CatalogSettings,
}


def page() -> str:
    """Return the whole page."""
    parts = [
        "# Settings",
        "",
        "Read once at start from the environment; what is missing or wrong is named at once. Every setting can be given as a",
        "file, for secrets: `WCH_AMQP_URL_FILE` names a file that holds `WCH_AMQP_URL`. `make contracts` writes this page.",
        "",
        *_section("Every service", ServiceSettings, ()),
        _QUEUE,
    ]
    for title, group in _GROUPS.items():
        parts += _section(title, group, _known(group))
        if group is ShopSettings:
            parts.append(_FILE)
    for found in sorted(entry_points(group="wch.settings"), key=lambda found: found.name):
        service = found.load()
        also = [title for title, group in _GROUPS.items() if issubclass(service, group)]
        parts += _section(found.name, service, _known(service), note=f"And those above under: {', '.join(also)}.")
    return "\n".join([*parts, _TOOLS]).rstrip() + "\n"


def _known(model: type[ServiceSettings]) -> set[str]:
    """Return the settings a model has from others, which stand elsewhere on the page."""
    return {name for base in model.__mro__[1:] for name in getattr(base, "model_fields", {})}


def _section(title: str, model: type[ServiceSettings], known: Collection[str], note: str = "") -> Iterator[str]:
    yield from (f"## {title}", "", *((note, "") if note else ()), "| setting | default | meaning |", "|---|---|---|")
    for name, field in model.model_fields.items():
        if name not in known and name != "queues":
            yield f"| `{PREFIX}{name.upper()}` | {_default(field)} | {field.description}{_secret(field)} |"
    yield ""


def _secret(field: FieldInfo) -> str:
    return " (secret)" if "SecretStr" in str(field.annotation) else ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**needed**"
    if is_needed_without_file(field):
        return "**needed** without `WCH_SHOPS_FILE`"
    return f"`{field.default}`" if field.default not in (None, "") else ""


if __name__ == "__main__":
    print(page(), end="")
