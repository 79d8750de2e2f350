"""Prints docs/settings.md: every setting of the library and of each installed service, from the models themselves."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from wch_common.settings import PREFIX, ServiceSettings
from wch_common.shops import ShopSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

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
"""


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
        *_section("Services that talk to shops", ShopSettings, ServiceSettings.model_fields),
    ]
    for found in sorted(entry_points(group="wch.settings"), key=lambda found: found.name):
        parts += _section(found.name, found.load(), {**ShopSettings.model_fields, **ServiceSettings.model_fields})
    return "\n".join(parts).rstrip() + "\n"


def _section(title: str, model: Any, known: Any) -> Iterator[str]:  # noqa: ANN401 - any settings model
    yield from (f"## {title}", "", "| setting | default | meaning |", "|---|---|---|")
    for name, field in model.model_fields.items():
        if name not in known and name != "queues":
            yield f"| `{PREFIX}{name.upper()}` | {_default(field)} | {field.description} |"
    yield ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**needed**"
    return f"`{field.default}`" if field.default not in (None, "") else ""


if __name__ == "__main__":
    print(page(), end="")
