"""The file of schedules: read and validated as a whole, with the line of every mistake."""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import orjson
import yaml
from cronsim import CronSim, CronSimError
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from wch_common.contract.envelope import data_errors
from wch_common.contract.event import EventData, Request
from wch_common.errors import UnknownType, UnknownVersion, WchError
from wch_scheduler.planned_times import planned_after

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from wch_common.contract.registry import Registry

SHIPPED = Path(__file__).with_name("schedules.yaml")
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_FIRST, _LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")
_FIVE_FIELDS = "write minute, hour, day, month and weekday, like 30 2 * * 1"
_SECONDS_OF_A_YEAR = 366 * 86_400
# Among so many times of a schedule, the nearest two must be further apart than its jitter.
_TIMES_CHECKED = 400


class WrongFile(WchError):
    """The file is invalid; `mistakes` names each mistake with its line, the message all of them."""

    def __init__(self, *mistakes: str) -> None:
        super().__init__("; ".join(mistakes))
        self.mistakes = mistakes


def _is_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{name!r} is not a time zone: write it like Europe/Berlin") from None
    return name


def _is_cron(text: str) -> str:
    try:
        CronSim(text, EPOCH)
    except CronSimError as error:
        raise ValueError(f"{str(error)[:1].lower()}{str(error)[1:]} in {text!r}: {_FIVE_FIELDS}") from None
    if len(text.split()) != 5:
        raise ValueError(f"a field for seconds is not supported: {_FIVE_FIELDS}, or use every_seconds")
    return text


def _are_shops(value: object) -> object:
    if isinstance(value, list) and value and all(isinstance(name, str) for name in value):
        return tuple(value)
    if value is None or value == "all" or isinstance(value, tuple):
        return value
    raise ValueError("write `shops: all` or a list of their names, like [north, south]")


def _is_in_calendar(value: datetime) -> datetime:
    if not _FIRST <= value < _LAST:
        raise ValueError(f"must be between {_FIRST.year} and {_LAST.year}")
    return value


Timestamp = Annotated[AwareDatetime, AfterValidator(_is_in_calendar)]


class Schedule(BaseModel):
    """One entry of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    event: str
    data: dict[str, Any] = {}
    shops: Annotated[Literal["all"] | tuple[str, ...] | None, BeforeValidator(_are_shops)] = None
    group: Annotated[str, Field(max_length=100)] = ""
    cron: Annotated[str, AfterValidator(_is_cron)] | None = None
    time_zone: Annotated[str, AfterValidator(_is_zone)] = "UTC"
    every_seconds: Annotated[float, Field(ge=0.1, le=_SECONDS_OF_A_YEAR)] | None = None
    anchor: Timestamp = EPOCH
    jitter_seconds: Annotated[float, Field(ge=0, le=3600)] = 0.0
    start_at: Timestamp | None = None
    end_at: Timestamp | None = None
    enabled: bool = True
    catch_up: Literal["skip", "one", "all"] = "one"
    catch_up_most: Annotated[int, Field(ge=1, le=1000)] = 10
    catch_up_hours: Annotated[float, Field(gt=0, le=8784)] = 24.0

    @model_validator(mode="after")
    def _says_when(self) -> Self:
        if (self.cron is None) == (self.every_seconds is None):
            raise ValueError("give exactly one of cron and every_seconds")
        if self.start_at is not None and self.end_at is not None and self.end_at <= self.start_at:
            raise ValueError("end_at must be after start_at")
        if self.jitter_seconds and self._nearest() <= timedelta(seconds=self.jitter_seconds):
            raise ValueError("jitter_seconds must be less than the time between two runs")
        return self

    def _nearest(self) -> timedelta:
        some = islice(planned_after(self, self.anchor), _TIMES_CHECKED)
        return min((later - one for one, later in pairwise(some)), default=timedelta.max)

    @property
    def timing(self) -> str:
        """The part of the definition that decides when it is due, as JSON; while it stays, so does the next time."""
        names = {"cron", "time_zone", "every_seconds", "anchor", "jitter_seconds", "start_at", "end_at", "enabled"}
        return orjson.dumps(self.model_dump(mode="json", include=names), option=orjson.OPT_SORT_KEYS).decode()


# Our words for pydantic's own errors, by its name of the error.
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
    """Return what is wrong with the event of a schedule, with the place of each mistake."""
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
    if schedule.shops is None and len(shops) > 1:
        yield ("event",), "several shops are configured: add `shops: all` or a list of names"
    for name in schedule.shops if isinstance(schedule.shops, tuple) else ():
        if name not in shops:
            yield (
                ("shops",),
                f"the shop {name!r} is not configured here: {', '.join(filter(None, shops)) or 'it has no name'}",
            )


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
