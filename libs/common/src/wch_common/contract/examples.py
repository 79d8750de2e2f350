"""Examples of every event: its data in a file beside its family's module, and the complete event around them."""

from __future__ import annotations

import importlib
import importlib.resources
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import ValidationError

from wch_common.contract.envelope import data_errors, encode
from wch_common.contract.event import Event, EventData, Request

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.resources.abc import Traversable

FOLDER = "examples"
_IDS = uuid.UUID("0f9b2a52-6f43-5d0e-8a35-5c1f0a7d7e11")
_TIME = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


def load_examples(model: type[EventData]) -> list[dict[str, Any]]:
    """Return the data of every example of an event; raises FileNotFoundError or ValueError, which name the file."""
    file = _file(model)
    try:
        found = orjson.loads(file.read_bytes())
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{model.TYPE} has no examples: write a JSON list with the data of at least one event to {file}"
        ) from None
    except orjson.JSONDecodeError as error:
        raise ValueError(f"{file} is not JSON: {error}") from None
    if not (isinstance(found, list) and found and all(isinstance(data, dict) for data in found)):
        raise ValueError(f"{file} must be a JSON list of at least one object")
    return found


def _file(model: type[EventData]) -> Traversable:
    package = importlib.import_module(model.__module__).__package__ or ""
    return importlib.resources.files(package) / FOLDER / f"{model.TYPE}.json"


def example_events(model: type[EventData], examples: Sequence[dict[str, Any]] | None = None) -> list[dict[str, Any]]:
    """Return every example as a complete event in structured mode, with the same ids and times each time."""
    given = load_examples(model) if examples is None else examples
    return [_event(model, number, data) for number, data in enumerate(given, 1)]


def _event(model: type[EventData], number: int, data: dict[str, Any]) -> dict[str, Any]:
    family = model.TYPE.partition(".")[0]
    event = Event(
        id=str(uuid.uuid5(_IDS, f"{model.TYPE}/{number}")),
        source="/shop/admin" if issubclass(model, Request) else f"/wch/{family}",
        type=model.TYPE,
        data=(typed := _typed(model, number, data)),
        time=_TIME,
        subject=typed.subject(),
        requester="shop-admin" if issubclass(model, Request) else None,
    )
    # The data as it was written, without the defaults that a serializer adds.
    return {**orjson.loads(encode(event).message.body), "data": data}


def _typed(model: type[EventData], number: int, data: dict[str, Any]) -> EventData:
    try:
        return model.model_validate_json(orjson.dumps(data), strict=True, extra="forbid")
    except ValidationError as error:
        wrong = "".join(f"\n  {field}" for field in data_errors(error))
        raise ValueError(f"example {number} in {_file(model)} does not match the model:{wrong}") from None
