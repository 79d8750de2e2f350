"""The event types a program knows, registered explicitly; a type registered twice is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wch_common.contract.event import TYPE_PATTERN, EventData, naming_problem
from wch_common.errors import DuplicateRegistration, UnknownType, UnknownVersion

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Registry:
    """The event models of one program, by type."""

    def __init__(self, models: Iterable[type[EventData]] = ()) -> None:
        self._models: dict[str, type[EventData]] = {}
        for model in models:
            self.add(model)

    def add(self, model: type[EventData]) -> None:
        """Register a model; raises DuplicateRegistration, or ValueError if its type breaks the naming rule."""
        if problem := naming_problem(model):
            raise ValueError(f"{model.__name__}: {model.TYPE!r} cannot be registered: {problem}")
        if model.TYPE in self._models:
            other = self._models[model.TYPE]
            raise DuplicateRegistration(f"{model.TYPE} is registered by {other.__qualname__} and {model.__qualname__}")
        self._models[model.TYPE] = model

    def model(self, type_: str) -> type[EventData]:
        """Return the model of a type; raises UnknownVersion if only other versions are known, otherwise UnknownType."""
        if found := self._models.get(type_):
            return found
        match = TYPE_PATTERN.match(type_)
        if match and any(known.startswith(match["name"] + ".v") for known in self._models):
            raise UnknownVersion(f"this program does not know this version of the type: {type_}")
        raise UnknownType(f"this program does not know the type {type_}")

    def __contains__(self, type_: str) -> bool:
        return type_ in self._models

    def __iter__(self) -> Iterator[type[EventData]]:
        return iter(sorted(self._models.values(), key=lambda model: model.TYPE))
