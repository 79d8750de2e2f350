"""Settings from the environment: one frozen object per service, read once in main, with all errors reported together."""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import orjson
import psycopg
from psycopg.conninfo import conninfo_to_dict
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings import SettingsError as UnreadableSetting

from wch_common.broker.address import amqp_problem
from wch_common.broker.queue_policy import Batching, QueuePolicy
from wch_common.errors import FieldError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic.fields import FieldInfo


PREFIX = "WCH_"
DEAD_LETTER_DAYS = 90.0
_QUEUE_SETTING = re.compile(
    r"^WCH_(?P<queue>[A-Z0-9_]+)_(?P<name>CONCURRENCY|RETRY_DELAYS|TRIES|TIME_LIMIT|BATCH_SIZE|BATCH_WINDOW|PREFETCH)$"
)


def _is_amqp(value: SecretStr) -> SecretStr:
    if problem := amqp_problem(value.get_secret_value()):
        raise ValueError(problem)
    return value


def _is_postgres(value: SecretStr) -> SecretStr:
    try:
        conninfo_to_dict(value.get_secret_value())
    except psycopg.ProgrammingError:
        raise ValueError("must have the form postgresql://user:password@host:5432/database") from None
    return value


def _split(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _read_list(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        found = orjson.loads(value)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, list):
        raise ValueError(  # noqa: TRY004 - pydantic reports a ValueError as a wrong setting
            'is not a JSON list, like ["one", "two"]'
        )
    return found


AmqpUrl = Annotated[SecretStr, AfterValidator(_is_amqp)]
CommaSeparated = BeforeValidator(_split)
"""Of a tuple: as text, its values are separated by commas."""
JsonList = BeforeValidator(_read_list)
"""Of a tuple: as text, it is a JSON list."""
DatabaseUrl = Annotated[SecretStr, AfterValidator(_is_postgres)]
PersonHashKey = Annotated[
    SecretStr,
    Field(
        min_length=16,
        description="Secret of at least 16 characters for the hashes that stand for people, the same in every service; never change it",
    ),
]


DeadLetterDays = Annotated[
    float,
    Field(
        ge=0,
        description="Days after which a service removes dead letters from queues whose events may name a person; 0 keeps them until somebody replays or discards them",
    ),
]


class QueueSettings(BaseModel):
    """The settings of one queue, like `WCH_SYNC_PRODUCT_RETRY_DELAYS=60,300,900`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    concurrency: Annotated[int, Field(ge=1)] | None = None
    retry_delays: tuple[float, ...] | None = None
    tries: Annotated[int, Field(ge=0)] | None = None
    time_limit: Annotated[float, Field(gt=0, le=1500)] | None = None
    batch_size: Annotated[int, Field(ge=1, le=5000)] | None = None
    batch_window: Annotated[float, Field(ge=0)] | None = None
    prefetch: Annotated[int, Field(ge=1, le=5000)] | None = None

    @field_validator("retry_delays")
    @classmethod
    def _rising(cls, retry_delays: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if retry_delays is not None:
            QueuePolicy(retry_delays=retry_delays)
        return retry_delays


def environment_value(variable: str) -> str | None:
    """Return a setting's value from the environment, or from the file that its `…_FILE` names; None if it is not set."""
    file = os.environ.get(f"{variable}_FILE")
    if file and not _read_problem(Path(file)):
        return Path(file).read_text(encoding="utf-8").strip()
    return os.environ.get(variable) or None


class ServiceSettings(BaseSettings):
    """The settings of every service; a service's own settings are a subclass."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", env_ignore_empty=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic-settings' own signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read files of secrets and the settings per queue in addition to the plain environment."""
        more = cls.extra_sources(settings_cls)
        return init_settings, *more, _FileValues(settings_cls), _QueueValues(settings_cls), env_settings

    amqp_url: AmqpUrl = Field(description="Broker, like amqp://user:password@host:5672/wch (several separated by ;)")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least severe level to log")
    log_format: Literal["json", "console"] = Field("json", description="`console` for reading in a terminal")
    health_host: str = Field("0.0.0.0", description="Address of /healthz, /readyz and /metrics")  # noqa: S104 - a pod's probes come from outside
    health_port: Annotated[int, Field(ge=0, le=65535)] = Field(8080, description="Its port; 0 takes any free one")
    declare_topology: bool = Field(
        default=True,
        description="Declare exchanges and queues at start; false only checks that they exist (production)",
    )
    grace_seconds: Annotated[float, Field(gt=0)] = Field(
        25.0, description="How long running handlers may take to finish at stop"
    )
    recovery_limit_seconds: Annotated[float, Field(gt=0)] = Field(
        300.0, description="Seconds after which the process exits while the broker or the database is unreachable"
    )
    confirm_timeout_seconds: Annotated[float, Field(gt=0)] = Field(
        30.0, description="Longest wait for the confirm of a publish"
    )
    dead_letter_days: DeadLetterDays = DEAD_LETTER_DAYS
    queues: dict[str, QueueSettings] = Field(default_factory=dict, description="Per queue, see WCH_<QUEUE>_…")

    @classmethod
    def extra_sources(cls, settings_cls: type[BaseSettings]) -> tuple[PydanticBaseSettingsSource, ...]:  # noqa: ARG003 - for subclasses
        """Return further sources of values, which come before the environment."""
        return ()

    @classmethod
    def variables(cls) -> dict[str, FieldInfo]:
        """Return every setting with its definition, those per queue excepted."""
        return {PREFIX + name.upper(): field for name, field in cls.model_fields.items() if name != "queues"}

    @classmethod
    def variable_at(cls, place: tuple[str, ...]) -> str:
        """Return the setting that an error at a place of this model is about."""
        return PREFIX + "_".join(place[1:] if place[:1] == ("queues",) else place[:1]).upper()

    @classmethod
    def missing_hint(cls, place: tuple[str, ...]) -> str:  # noqa: ARG003 - for subclasses
        """Return what else may be set instead of a missing setting."""
        return ""

    def unused(self) -> list[str]:
        """Return, as sentences, which settings are set but ignored."""
        return []

    def policy(self, queue: str, default: QueuePolicy) -> QueuePolicy:
        """Return the queue's policy with what the settings change; raises SettingsError if the result is invalid."""
        return changed_policy(queue, default, self.queues)


def changed_policy(queue: str, default: QueuePolicy, queues: Mapping[str, QueueSettings]) -> QueuePolicy:
    """Return a queue's policy with what the settings per queue change; raises SettingsError if the result is invalid."""
    name = queue.upper().replace(".", "_")
    own = queues.get(name)
    if own is None:
        return default
    changes: dict[str, Any] = {
        "concurrency": own.concurrency,
        "retry_delays": own.retry_delays,
        "tries": own.tries,
        "time_limit_seconds": own.time_limit,
        "prefetch_limit": own.prefetch,
    }
    if default.batching is not None:
        size = own.batch_size or default.batching.size
        window = default.batching.window_seconds if own.batch_window is None else own.batch_window
        changes["batching"] = Batching(size, window)
    try:
        return replace(default, **{key: value for key, value in changes.items() if value is not None})
    except ValueError as error:
        raise SettingsError(f"the settings WCH_{name}_… are invalid: {error}") from None


S = TypeVar("S", bound=BaseSettings)


def load_settings(model: type[S]) -> S:
    """Read a settings object from the environment; raises one SettingsError that names every wrong setting."""
    unreadable = _unreadable_files(model)
    try:
        settings = model()
    except ValidationError as error:
        found = [str(problem) for problem in _problems(model, error) if f"{problem.field}_FILE" not in unreadable]
    except UnreadableSetting as error:  # raised before any other setting is checked
        name = str(error).partition('"')[2].partition('"')[0]
        found = [f"{PREFIX}{name.upper()}: is not JSON. {model.model_fields[name].description or ''}"]
    else:
        found = []
    if not unreadable and not found:
        return settings
    lines = [*(f"{name}: {why}" for name, why in unreadable.items()), *found, *unknown_settings(model, near_only=True)]
    raise SettingsError(
        "these settings are missing or wrong:" + "".join(f"\n  {line}" for line in dict.fromkeys(lines))
    )


def _variables(model: type[BaseSettings]) -> dict[str, FieldInfo]:
    return model.variables() if issubclass(model, ServiceSettings) else {}


def _unreadable_files(model: type[BaseSettings]) -> dict[str, str]:
    """Return which `_FILE` variables name files that cannot be read, and why."""
    found = {}
    for name in _variables(model):
        variable = f"{name}_FILE"
        if (file := os.environ.get(variable)) and (problem := _read_problem(Path(file))):
            found[variable] = f"names a file that cannot be read: {problem}"
    return found


def _read_problem(file: Path) -> str | None:
    try:
        file.read_bytes()
    except OSError as error:
        return error.strerror
    return None


# Read by `wch`, the demo and the tests, which may share an environment with a service.
_OTHERS = frozenset({"WCH_MANAGEMENT_URL", "WCH_RABBITMQ_ROOT"})
_OTHERS_PREFIXES = ("WCH_DEMO_", "WCH_TEST_", "WCH_LOCAL_")
# What Kubernetes sets in every pod for a Service whose name begins with `wch-`.
_SERVICE_LINK = re.compile(r"_(SERVICE_HOST|SERVICE_PORT|PORT)(_|$)")


def unknown_settings(model: type[BaseSettings], queues: Iterable[str] = (), *, near_only: bool = False) -> list[str]:
    """Return, as sentences, which WCH_ variables this service does not read; with `near_only`, likely misspellings."""
    known = set(_variables(model))
    known |= {f"{name}_FILE" for name in known}
    own = {queue.upper().replace(".", "_") for queue in queues}
    of_queues = [f"{PREFIX}{queue}_{name.upper()}" for queue in own for name in QueueSettings.model_fields]
    found = []
    for variable in sorted(os.environ):
        if not variable.startswith(PREFIX) or variable in known | _OTHERS or variable.startswith(_OTHERS_PREFIXES):
            continue
        match = _QUEUE_SETTING.match(variable)
        if _SERVICE_LINK.search(variable) or (match and (near_only or match["queue"] in own)):
            continue
        near = difflib.get_close_matches(variable, [*known, *of_queues], 1, 0.85)
        if near or not near_only:
            found.append(
                f"{variable} is not a setting of this service" + (f"; did you mean {near[0]}?" if near else "")
            )
    return found


class _FileValues(PydanticBaseSettingsSource):
    """Values of secrets mounted as files: `WCH_NAME_FILE` names a file that holds the value of `WCH_NAME`."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002 - its signature
        """Read the file that the setting's `_FILE` variable names; `load_settings` reports one that cannot be read."""
        variable = f"{PREFIX}{field_name.upper()}"
        return environment_value(variable) if os.environ.get(f"{variable}_FILE") else None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return every value found in a file."""
        found = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in found.items() if value is not None}


class _QueueValues(PydanticBaseSettingsSource):
    """Values of the settings per queue, whose names contain the queue's name."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002 - its signature
        """Not used: all queues are one field."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return the field `queues`."""
        return {"queues": _queue_values()}


def _queue_values() -> dict[str, dict[str, Any]]:
    queues: dict[str, dict[str, Any]] = {}
    for variable, value in os.environ.items():
        if (match := _QUEUE_SETTING.match(variable)) and value:
            name = match["name"].lower()
            parsed: Any = [part.strip() for part in value.split(",")] if name == "retry_delays" else value
            queues.setdefault(match["queue"], {})[name] = parsed
    return queues


class ToolSettings(BaseSettings):
    """Settings of services that `wch` reads as well: those per queue, for the delay queues, and the age of dead letters."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", env_ignore_empty=True)

    queues: dict[str, QueueSettings] = Field(default_factory=dict)
    dead_letter_days: DeadLetterDays = DEAD_LETTER_DAYS

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic-settings' own signature
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the settings per queue in addition to the plain environment."""
        return _QueueValues(settings_cls), env_settings


def _problems(model: type[BaseSettings], error: ValidationError) -> list[FieldError]:
    """Return each wrong setting by its variable, with the place inside it where its value is structured."""
    found = []
    for item in error.errors(include_url=False, include_input=False):
        place = tuple(str(part) for part in item["loc"])
        names = tuple(part for part in place if not part.isdigit())
        variable, problem, hint, depth = PREFIX + "_".join(names).upper(), item["msg"], "", len(names)
        if issubclass(model, ServiceSettings):
            variable, hint = model.variable_at(names), model.missing_hint(names)
            depth = {"queues": len(names), "one_shop": 3}.get(names[0] if names else "", 1)
        problem = ": ".join((*names[depth:], problem.removeprefix("Value error, ")))
        if item["type"] == "missing":
            definition = _variables(model).get(variable)
            problem = f"is missing{hint}. {(definition.description if definition else '') or ''}".strip()
        found.append(FieldError(variable, problem))
    return found


def masked(settings: BaseModel) -> dict[str, Any]:
    """Return the settings as they may be logged: secrets hidden, unset ones left out."""
    return {name: value for name, value in settings.model_dump(mode="json").items() if value not in (None, {}, [])}
