"""Our own headers, with which retries and dead letters say why they failed; readable in the management UI."""

from __future__ import annotations

import hashlib
import re
import socket
import traceback
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import orjson

from wch_common.errors import ContractError
from wch_common.observability.redact import error_text, redact
from wch_common.outcome import Outcome

if TYPE_CHECKING:
    from wch_common.contract.event import Event, EventData
    from wch_common.contract.message import Headers, HeaderValue, Message

PREFIX: Final = "wch-"
QUEUE: Final = "wch-queue"
KIND: Final = "wch-error-kind"
ERROR_TYPE: Final = "wch-error-type"
ERROR_MESSAGE: Final = "wch-error-message"
ERROR_TRACE: Final = "wch-error-trace"
ERROR_FIELDS: Final = "wch-error-fields"
ATTEMPT: Final = "wch-attempt"
ATTEMPTS: Final = "wch-attempts"
FIRST_FAILED: Final = "wch-first-failed-at"
LAST_FAILED: Final = "wch-last-failed-at"
FINGERPRINT: Final = "wch-fingerprint"
EXCHANGE: Final = "wch-exchange"
ROUTING_KEY: Final = "wch-routing-key"
WAITING_SINCE: Final = "wch-waiting-since"
REPLAY: Final = "wch-replay"

# Closed list of `wch-error-kind`.
KINDS: Final = frozenset(
    {
        "undecodable",
        "unknown_type",
        "unknown_version",
        "invalid_data",
        "rejected",
        "retries_exhausted",
        "expired_waiting",
        "killed_process",
        "id_reused",
    }
)

_KEPT_ATTEMPTS = 10
_MESSAGE_BYTES, _TRACE_BYTES, _FIELDS_BYTES, _BRIEF_BYTES = 1024, 4096, 3072, 200
# A header frame cannot be split, and the brokers' frame limit is 131,072 bytes.
_FRAME_BYTES, _OURS_BYTES = 131_072, 16_384


@dataclass(frozen=True, slots=True)
class DeliveryState:
    """What a retry decision needs to know: the attempt (from 1), since when the event waits, and when it expires."""

    attempt: int
    waiting_since: datetime | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    """The program that handled a failed delivery: its version and its host."""

    version: str
    host: str = socket.gethostname()


def delivery_state(message: Message, event: Event[EventData] | None) -> DeliveryState:
    """Return a delivery's attempt, waiting time and expiry; a header that cannot be read counts as absent."""
    return DeliveryState(
        attempt=attempts_made(message) + 1,
        waiting_since=_timestamp(message.headers.get(WAITING_SINCE)),
        expires_at=event.expirytime if event else None,
    )


def attempts_made(message: Message) -> int:
    """Return how many counted attempts the message has had."""
    return _number(message.headers.get(ATTEMPT))


def replay_count(message: Message) -> int:
    """Return how often the message was replayed."""
    return _number(message.headers.get(REPLAY))


def origin(message: Message, exchange: str, routing_key: str) -> tuple[str, str]:
    """Return the exchange and the routing key with which the message was first published."""
    first, key = message.headers.get(EXCHANGE), message.headers.get(ROUTING_KEY)
    return (first, key) if isinstance(first, str) and isinstance(key, str) else (exchange, routing_key)


def has_room(message: Message) -> bool:
    """Whether the message's headers leave room for ours in one frame."""
    size = sum(len(key) + len(str(value)) * 2 + 16 for key, value in message.headers.items())
    return size + _OURS_BYTES < _FRAME_BYTES


def failure_headers(
    message: Message, error: BaseException, *, queue: str, kind: str | None, counted: bool, worker: WorkerIdentity
) -> Headers:
    """Return the headers of a failed delivery: why, where and how often it failed. Any exception is safe."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    made = attempts_made(message) + int(counted)
    headers: Headers = {
        QUEUE: queue,
        ERROR_TYPE: _cut(type(error).__qualname__, _BRIEF_BYTES),
        ERROR_MESSAGE: _cut(error_text(error), _MESSAGE_BYTES),
        ERROR_TRACE: _cut(_trace(error), _TRACE_BYTES),
        ATTEMPT: made,
        ATTEMPTS: _attempts(message, error, now, worker),
        FIRST_FAILED: message.headers.get(FIRST_FAILED) or now,
        LAST_FAILED: now,
        FINGERPRINT: _fingerprint(queue, kind or "", error),
    }
    if kind is not None:
        headers[KIND] = kind
    if isinstance(error, ContractError) and error.fields:
        fields = [{"field": redact(field.field), "problem": redact(field.problem)} for field in error.fields[:20]]
        while fields and len(text := orjson.dumps(fields).decode()) > _FIELDS_BYTES:
            fields.pop()
        headers[ERROR_FIELDS] = text if fields else ""
    return headers


def _attempts(message: Message, error: BaseException, now: str, worker: WorkerIdentity) -> list[HeaderValue]:
    earlier = message.headers.get(ATTEMPTS)
    brief = _cut(f"{type(error).__qualname__}: {error_text(error, 150)}", _BRIEF_BYTES)
    this: HeaderValue = {"time": now, "host": _cut(worker.host, 100), "version": worker.version, "error": brief}
    return [*(earlier if isinstance(earlier, list) else []), this][-_KEPT_ATTEMPTS:]


def _trace(error: BaseException) -> str:
    """Return the end of the traceback, which says most; a foreign exception may break even formatting it."""
    try:
        text = "".join(traceback.format_exception(error, limit=-8))
    except Exception:  # noqa: BLE001 - any error may hide in a foreign exception
        return f"{type(error).__qualname__}: (its traceback cannot be read)"
    return redact(text[-4 * _TRACE_BYTES :])[-_TRACE_BYTES:]


def _fingerprint(queue: str, kind: str, error: BaseException) -> str:
    """Return a short name for failures with the same cause: queue, kind, error class, place and text.

    Only the text of our own outcomes counts, without names and numbers: the texts of other errors differ each time.
    """
    frames = traceback.extract_tb(error.__traceback__, limit=-1)
    place = f"{frames[-1].filename.rpartition('/')[2]}:{frames[-1].name}" if frames else ""
    words = ""
    if isinstance(error, Outcome):
        plain = re.sub(r"'[^']*'|\"[^\"]*\"|\S*\d\S*", "…", error_text(error, _MESSAGE_BYTES))
        words = ";".join(sorted({part.strip(" …:,.") for part in plain.split(";")}))
    return hashlib.sha256(f"{queue}|{kind}|{type(error).__qualname__}|{place}|{words}".encode()).hexdigest()[:12]


def _cut(text: str, limit: int) -> str:
    return text.encode("utf-8", "replace")[:limit].decode("utf-8", "ignore")


def _number(value: HeaderValue) -> int:
    return max(0, int(value)) if isinstance(value, int) else 0


def _timestamp(value: HeaderValue) -> datetime | None:
    try:
        timestamp = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return timestamp if timestamp is None or timestamp.tzinfo else None
