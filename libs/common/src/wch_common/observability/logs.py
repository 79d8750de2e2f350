"""Structured logs: one line for each outcome, with the event's identity, without personal data and secrets."""

from __future__ import annotations

import logging
import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import orjson
import structlog

from wch_common.observability.redact import redact, redact_trace

if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from contextvars import Token

    from wch_common.contract.event import Event, EventData

_CURRENT: ContextVar[Event[EventData] | None] = ContextVar("wch_current_event", default=None)
# Identities and names: a random id of digits is not a phone number.
_KEPT = frozenset(
    {"event_id", "correlation_id", "causation_id", "timestamp", "level", "queue", "type", "event", "logger"}
)


class bound:  # noqa: N801 - call sites read as a phrase: `with bound(event):`
    """A context manager in which every log line names the event; two cheap calls, as it is on the hot path."""

    __slots__ = ("_event", "_token")

    def __init__(self, event: Event[EventData] | None) -> None:
        self._event = event
        self._token: Token[Event[EventData] | None] | None = None

    def __enter__(self) -> None:
        self._token = _CURRENT.set(self._event)

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            _CURRENT.reset(self._token)


def _add_event(_logger: object, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    event = _CURRENT.get()
    if event is not None:
        line["event_id"], line["type"], line["attempt"] = event.id, event.type, event.attempt
        line.setdefault("queue", event.queue)
        for key, value in (("correlation_id", event.correlationid), ("shop", event.shop), ("subject", event.subject)):
            if value:
                line[key] = value
    return line


def _redacted(_logger: object, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in line.items():
        if key == "exception":
            line[key] = redact_trace(value, 8000)
        elif key not in _KEPT:
            line[key] = _clean(value)
    return line


def _clean(value: Any) -> Any:  # noqa: ANN401 - whatever a caller logs
    if isinstance(value, str):
        return redact(value, 4000)
    if isinstance(value, dict):
        return {key: _clean(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(item) for item in value]
    return value if value is None or isinstance(value, (int, float, bool)) else redact(repr(value), 4000)


def configure_logs(*, service: str, level: str = "INFO", as_json: bool = True) -> None:
    """Send this process's logs to standard error, one line each; call once, in main."""
    number = logging.getLevelNamesMapping()[level.upper()]
    renderer: Any = structlog.dev.ConsoleRenderer()
    if as_json:
        renderer = structlog.processors.JSONRenderer(
            serializer=lambda line, **_: orjson.dumps(line, default=repr).decode()
        )

    def add_service(_logger: object, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        line["service"] = service
        return line

    structlog.configure(
        processors=[
            add_service,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _add_event,
            _redacted,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    # Libraries log through the standard module: their warnings are kept, redacted.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LibraryFormatter(service))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    # pika logs a broken connection in several lines; we log it once, with the reason.
    logging.getLogger("pika").setLevel(logging.CRITICAL)


class _LibraryFormatter(logging.Formatter):
    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "service": self._service,
            "level": record.levelname.lower(),
            "timestamp": self.formatTime(record),
            "logger": record.name,
            "event": redact(super().format(record), 4000),
        }
        return orjson.dumps(line).decode()
