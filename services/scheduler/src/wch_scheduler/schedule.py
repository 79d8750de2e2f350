"""One schedule of the file: which event is published, and the rule for its times."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import orjson
from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_FIRST, _LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
_FIVE_FIELDS = "write minute, hour, day, month and weekday, like 30 2 * * 1"
_SECONDS_OF_A_YEAR = 366 * 86_400


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
        return self

    @property
    def timing(self) -> str:
        """The part of the definition that decides when it is due, as JSON; while it stays, so does the next time."""
        names = {"cron", "time_zone", "every_seconds", "anchor", "jitter_seconds", "start_at", "end_at", "enabled"}
        return orjson.dumps(self.model_dump(mode="json", include=names), option=orjson.OPT_SORT_KEYS).decode()
