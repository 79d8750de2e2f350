"""The file of schedules: read and validated as a whole, every mistake named by its line."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import orjson
import yaml
from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from wch_common.envelope import data_errors
from wch_common.errors import UnknownType, UnknownVersion, WchError
from wch_common.event import EventData, Request

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from wch_common.registry import Registry

SHIPPED = Path(__file__).with_name("schedules.yaml")
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


class WrongFile(WchError):
    """The file cannot be used; its message names every mistake with its line."""


def _is_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"there is no time zone {name!r}: write it like Europe/Berlin") from None
    return name


def _is_cron(text: str) -> str:
    try:
        CronSim(text, EPOCH)
    except CronSimError as error:
        raise ValueError(f"{str(error)[:1].lower()}{str(error)[1:]}: write five fields, like 30 2 * * 1") from None
    return text


class Schedule(BaseModel):
    """One entry of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    event: str
    data: dict[str, Any] = {}
    shops: Literal["all"] | tuple[str, ...] | None = None
    group: Annotated[str, Field(max_length=100)] = ""
    cron: Annotated[str, AfterValidator(_is_cron)] | None = None
    time_zone: Annotated[str, AfterValidator(_is_zone)] = "UTC"
    every_seconds: Annotated[float, Field(ge=0.1)] | None = None
    anchor: AwareDatetime = EPOCH
    jitter_seconds: Annotated[float, Field(ge=0, le=3600)] = 0.0
    start_at: AwareDatetime | None = None
    end_at: AwareDatetime | None = None
    enabled: bool = True
    catch_up: Literal["skip", "one", "all"] = "one"
    catch_up_most: Annotated[int, Field(ge=1, le=1000)] = 10
    catch_up_hours: Annotated[float, Field(gt=0)] = 24.0

    @model_validator(mode="after")
    def _says_when(self) -> Self:
        if (self.cron is None) == (self.every_seconds is None):
            raise ValueError("give either cron or every_seconds")
        if self.start_at is not None and self.end_at is not None and self.end_at <= self.start_at:
            raise ValueError("end_at is not after start_at")
        return self

    @property
    def timing(self) -> str:
        """What decides when it is due: where this stays, its next time does."""
        names = {"cron", "time_zone", "every_seconds", "anchor", "jitter_seconds", "start_at", "end_at", "enabled"}
        return orjson.dumps(self.model_dump(mode="json", include=names), option=orjson.OPT_SORT_KEYS).decode()


@dataclass(frozen=True)
class ScheduleFile:
    """A file that is good: its schedules by name, and the hash by which replicas know it."""

    hash: str
    schedules: dict[str, Schedule]


def read(text: str, registry: Registry, shops: Sequence[str]) -> ScheduleFile:
    """Read a file; raises WrongFile with every mistake and its line."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise WrongFile(f"line {line}: this is not YAML: {error.problem}") from None
    lines = dict(_lines(root))
    if not isinstance(content, dict) or not isinstance(content.get("schedules"), dict) or len(content) > 1:
        raise WrongFile("line 1: the file must hold `schedules:` and below it a schedule per name")
    wrong: list[tuple[int, str]] = []
    schedules = {}
    for name, entry in content["schedules"].items():
        try:
            schedules[str(name)] = schedule = Schedule.model_validate(entry)
            wrong += [
                (_line(lines, ("schedules", name, *place)), f"{name}: {problem}")
                for place, problem in _problems(schedule, registry, shops)
            ]
        except ValidationError as error:
            for item in error.errors(include_url=False, include_input=False):
                place = ".".join(map(str, item["loc"]))
                problem = item["msg"].removeprefix("Value error, ")
                text_of = f"{name}: {place}: {problem}" if place else f"{name}: {problem}"
                wrong.append((_line(lines, ("schedules", name, *item["loc"])), text_of))
    if wrong:
        raise WrongFile("; ".join(f"line {line}: {problem}" for line, problem in sorted(wrong)))
    return ScheduleFile(hashlib.blake2b(text.encode(), digest_size=12).hexdigest(), schedules)


def _problems(schedule: Schedule, registry: Registry, shops: Sequence[str]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Return what is wrong with what a schedule publishes, each with its place."""
    try:
        model: type[EventData] | None = registry.model(schedule.event)
    except (UnknownType, UnknownVersion) as error:
        yield ("event",), str(error)
        model = None
    if model is not None and not issubclass(model, Request):
        yield ("event",), f"{schedule.event} is a fact, which tells what happened; a schedule asks for work"
    elif model is not None:
        try:
            model.__pydantic_validator__.validate_json(orjson.dumps(schedule.data), strict=True)
        except ValidationError as error:
            for problem in data_errors(error):
                yield tuple(problem.field.split(".")), str(problem)
    if schedule.shops is None and len(shops) > 1:
        yield ("event",), "there are several shops: say which with `shops: all` or a list of names"
    for name in schedule.shops if isinstance(schedule.shops, tuple) else ():
        if name not in shops:
            yield (
                ("shops",),
                f"the shop {name!r} is not configured here: {', '.join(filter(None, shops)) or 'it has no name'}",
            )


def _lines(node: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], int]]:  # noqa: ANN401 - PyYAML's nodes
    """Return the line of every place in the file."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            below = (*place, key.value)
            yield below, key.start_mark.line + 1
            yield from _lines(value, below)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            yield (*place, number), value.start_mark.line + 1
            yield from _lines(value, (*place, number))


def _line(lines: dict[tuple[Any, ...], int], place: tuple[Any, ...]) -> int:
    """Return the line of a place, or of the nearest above it that is in the file."""
    while place and place not in lines:
        place = place[:-1]
    return lines.get(place, 1)
