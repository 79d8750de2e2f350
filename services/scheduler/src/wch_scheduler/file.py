"""The file of schedules: read and validated as a whole, with the line of every mistake."""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import yaml
from pydantic import (
    ValidationError,
)

from wch_common.contract.envelope import data_errors
from wch_common.contract.event import EventData, Request
from wch_common.errors import UnknownType, UnknownVersion, WchError
from wch_scheduler.planned_times import planned_after
from wch_scheduler.schedule import Schedule

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from wch_common.contract.registry import Registry

SHIPPED = Path(__file__).with_name("schedules.yaml")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")
# Among so many times of a schedule, the nearest two must be further apart than its jitter.
_TIMES_CHECKED = 400


class WrongFile(WchError):
    """The file is invalid; `mistakes` names each mistake with its line, the message all of them."""

    def __init__(self, *mistakes: str) -> None:
        super().__init__("; ".join(mistakes))
        self.mistakes = mistakes


# Replaces pydantic's texts, by its name of the error.
_MESSAGES = {
    "extra_forbidden": f"unknown field; known are {', '.join(Schedule.model_fields)}",
    "model_type": "must have fields below it: event, and cron or every_seconds",
    "missing": "is missing",
}


@dataclass(frozen=True)
class ScheduleFile:
    """A valid file: its schedules by name, and the hash by which replicas recognise it."""

    hash: str
    schedules: dict[str, Schedule]


def read(text: str, registry: Registry, shops: Sequence[str]) -> ScheduleFile:
    """Read a file; raises WrongFile with every mistake and its line."""
    content, places = _parsed(text)
    lines = {place.path: place.line for place in reversed(places)}
    if not isinstance(content, dict) or "schedules" not in content:
        raise WrongFile("line 1: the file must contain `schedules:` with a schedule for each name below it")
    for other in content.keys() - {"schedules"}:
        raise WrongFile(f"line {_line(lines, (other,))}: {other}: the file must contain nothing but `schedules:`")
    if not isinstance(content["schedules"], dict):
        line = _line(lines, ("schedules",))
        raise WrongFile(f"line {line}: `schedules:` must have a schedule for each name below it; write {{}} for none")
    wrong = [(place.line, f"{'.'.join(map(str, place.path[1:]))}: {place.wrong}") for place in places if place.wrong]
    schedules = {}
    for name, entry in content["schedules"].items():
        if not isinstance(name, str):
            continue  # already reported with its line
        if not _NAME.match(name):
            wrong.append(
                (
                    _line(lines, ("schedules", name)),
                    f"{name!r}: a name must consist of at most 100 characters A-Z a-z 0-9 . _ -",
                )
            )
            continue
        try:
            schedules[name] = schedule = Schedule.model_validate(entry)
            wrong += [
                (_line(lines, ("schedules", name, *place)), f"{name}: {problem}")
                for place, problem in _problems(schedule, registry, shops)
            ]
        except ValidationError as error:
            for item in error.errors(include_url=False, include_input=False):
                place = ".".join(map(str, item["loc"]))
                problem = _MESSAGES.get(item["type"], item["msg"].removeprefix("Value error, "))
                text_of = f"{name}: {place}: {problem}" if place else f"{name}: {problem}"
                wrong.append((_line(lines, ("schedules", name, *item["loc"])), text_of))
    if wrong:
        raise WrongFile(*(f"line {line}: {problem}" for line, problem in sorted(wrong)))
    # The shops are part of it: replicas with other shops must not take turns.
    known = "\n".join((text, *shops)).encode()
    return ScheduleFile(hashlib.blake2b(known, digest_size=12).hexdigest(), schedules)


def _problems(schedule: Schedule, registry: Registry, shops: Sequence[str]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Return what is wrong with a schedule besides its single fields, with the place of each mistake."""
    if schedule.jitter_seconds and _nearest(schedule) <= timedelta(seconds=schedule.jitter_seconds):
        yield (), "jitter_seconds must be less than the time between two runs"
    yield from _event_problems(schedule, registry)
    if schedule.shops is None and len(shops) > 1:
        yield ("event",), "several shops are configured: add `shops: all` or a list of names"
    for name in schedule.shops if isinstance(schedule.shops, tuple) else ():
        if name not in shops:
            yield (
                ("shops",),
                f"the shop {name!r} is not configured here: {', '.join(filter(None, shops)) or 'it has no name'}",
            )


def _event_problems(schedule: Schedule, registry: Registry) -> Iterator[tuple[tuple[str, ...], str]]:
    try:
        model: type[EventData] | None = registry.model(schedule.event)
    except (UnknownType, UnknownVersion) as error:
        yield ("event",), str(error)
        model = None
    if model is not None and not issubclass(model, Request):
        yield ("event",), f"{schedule.event} is a fact; only requests can be scheduled"
    elif model is not None:
        try:
            data = model.__pydantic_validator__.validate_json(orjson.dumps(schedule.data), strict=True)
            yield from _unread(schedule.data, data.model_dump(mode="json"), ("data",))
        except TypeError as error:
            yield ("data",), f"data: is not JSON: {error}"
        except ValidationError as error:
            for problem in data_errors(error):
                yield tuple(problem.field.split(".")), str(problem)


def _nearest(schedule: Schedule) -> timedelta:
    """Return the shortest time between two runs, among the first few hundred."""
    some = islice(planned_after(schedule, schedule.anchor), _TIMES_CHECKED)
    return min((later - one for one, later in pairwise(some)), default=timedelta.max)


def _unread(given: Any, kept: Any, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:  # noqa: ANN401 - JSON
    """Return what the event would lose: misspelt fields, which readers ignore, and numbers that JSON cannot express."""
    if isinstance(given, float) and not math.isfinite(given):
        yield place, f"{'.'.join(place)}: JSON cannot express {given}"
    elif isinstance(given, dict) and isinstance(kept, dict):
        for name, value in given.items():
            if name in kept:
                yield from _unread(value, kept[name], (*place, name))
            else:
                fields = ", ".join(sorted(kept)) or "none"
                yield (*place, name), f"{'.'.join((*place, name))}: unknown field of the event; it has {fields}"
    elif isinstance(given, list) and isinstance(kept, list):
        for number, (value, read_) in enumerate(zip(given, kept, strict=False)):
            yield from _unread(value, read_, (*place, str(number)))


class _Loader(yaml.SafeLoader):
    """Leaves dates as text, for pydantic to read and to report what is wrong with them."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own way
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


@dataclass(frozen=True)
class _Place:
    """A place in the file, its line, and what is wrong with it as YAML."""

    path: tuple[Any, ...]
    line: int
    wrong: str = ""


def _parsed(text: str) -> tuple[Any, list[_Place]]:
    """Return the content of the file and every place in it; raises WrongFile."""
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        return (loader.construct_document(root), list(_places(root))) if root is not None else (None, [])
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        quoted = "; put text that begins with * in quotes" if "alias" in str(error.context) else ""
        raise WrongFile(f"line {line}: invalid YAML: {error.problem}{quoted}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise WrongFile(f"line {line}: invalid YAML: {error.reason} (#x{error.character:04x})") from None
    except (ValueError, TypeError, OverflowError, RecursionError) as error:  # a tag whose value cannot be built
        raise WrongFile(f"line 1: cannot be read: {error}") from None


def _places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[_Place]:  # noqa: ANN401 - PyYAML's nodes
    if isinstance(node, yaml.MappingNode):
        known: set[Any] = set()
        for key, value in node.value:
            below, line = (*path, key.value), key.start_mark.line + 1
            # Such as `on`, which YAML reads as true.
            unquoted = "" if key.tag.endswith((":str", ":merge")) else "is not text: put it in quotes"
            yield _Place(below, line, "is given twice" if key.value in known else unquoted)
            known.add(key.value)
            yield from _places(value, below)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            yield _Place((*path, number), value.start_mark.line + 1)
            yield from _places(value, (*path, number))
    elif "\0" in node.value:
        yield _Place(path, node.start_mark.line + 1, "contains the character U+0000, which cannot be stored")


def _line(lines: dict[tuple[Any, ...], int], place: tuple[Any, ...]) -> int:
    """Return the line of a place, or of the nearest place above it that is in the file."""
    while place and place not in lines:
        place = place[:-1]
    return lines.get(place, 1)
