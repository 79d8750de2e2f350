"""Which event types a program knows. Filled explicitly; a type registered twice stops the start."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

from wch_common import events
from wch_common.errors import DuplicateRegistration, UnknownType, UnknownVersion
from wch_common.event import TYPE_PATTERN, EventData, naming_problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Registry:
    """The event models of one program, by type."""

    def __init__(self, models: Iterable[type[EventData]] = ()) -> None:
        self._models: dict[str, type[EventData]] = {}
        for model in models:
            self.add(model)

    def add(self, model: type[EventData]) -> None:
        """Register a model; raises DuplicateRegistration, or ValueError where its name breaks the rule."""
        if problem := naming_problem(model):
            raise ValueError(f"{model.__name__}: {model.TYPE!r} cannot be registered: {problem}")
        if model.TYPE in self._models:
            other = self._models[model.TYPE]
            raise DuplicateRegistration(f"{model.TYPE} is registered by {other.__qualname__} and {model.__qualname__}")
        self._models[model.TYPE] = model

    def model(self, type_: str) -> type[EventData]:
        """Return the model of a type; raises UnknownVersion where only other versions are known, else UnknownType."""
        if found := self._models.get(type_):
            return found
        match = TYPE_PATTERN.match(type_)
        if match and any(known.startswith(match["name"] + ".v") for known in self._models):
            raise UnknownVersion(f"{type_} is a version this program does not know yet")
        raise UnknownType(f"{type_} is not a type this program knows")

    def __contains__(self, type_: str) -> bool:
        return type_ in self._models

    def __iter__(self) -> Iterator[type[EventData]]:
        return iter(sorted(self._models.values(), key=lambda model: model.TYPE))


def published_contract() -> Registry:
    """Return every event of every family, for tools that span them; services name their own models instead.

    A family joins by its module in `wch_common.events` with a tuple EVENTS, so that no list has to be edited.
    """
    registry = Registry()
    for module in sorted(pkgutil.iter_modules(events.__path__), key=lambda found: found.name):
        for model in importlib.import_module(f"{events.__name__}.{module.name}").EVENTS:
            registry.add(model)
    return registry
