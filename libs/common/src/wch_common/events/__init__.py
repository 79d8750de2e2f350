"""The published contract: one module for each family, with its models and a tuple EVENTS."""

from __future__ import annotations

import importlib
import pkgutil

from wch_common.contract.registry import Registry


def published_contract() -> Registry:
    """Return every event of every family, for what spans them: tools, and erasing a person from stored events.

    Queues name their own models.
    A family joins with its module and the tuple EVENTS in it, so no list has to be edited.
    """
    registry = Registry()
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda found: found.name):
        for model in getattr(importlib.import_module(f"{__name__}.{module.name}"), "EVENTS", ()):
            registry.add(model)
    return registry
