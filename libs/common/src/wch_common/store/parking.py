"""Parking: events whose wait is too long for a delay queue, as rows with a due time, released at their scope's rate."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import orjson
import structlog
from psycopg.types.json import Jsonb

from wch_common.broker.topology import RETRY_EXCHANGE
from wch_common.contract.envelope import peek
from wch_common.contract.message import Message, Publication
from wch_common.errors import PublishError
from wch_common.observability.redact import error_text
from wch_common.store.due_rows import DueRows
from wch_common.store.erased_people import LAST_ERASURE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wch_common.contract.event import Event
    from wch_common.contract.message import Headers, Publish
    from wch_common.store.database import Database, Row
    from wch_common.store.erased_people import ErasedPeople

log = structlog.get_logger(__name__)

_LAST_ERASURE = f"SELECT {LAST_ERASURE}"
_PROBE_SECONDS = 30
_RELEASED_AT_ONCE = 50
_PARK = """
WITH paused AS (
  INSERT INTO scopes (scope, paused_until, probing)
  VALUES (%(scope)s, now() + %(pause)s * interval '1 second', %(scope)s <> '')
  ON CONFLICT (scope) DO UPDATE
  SET paused_until = greatest(scopes.paused_until, excluded.paused_until), probing = excluded.probing
)
INSERT INTO parked (queue, source, id, hash, scope, body, properties, due_at)
VALUES (%(queue)s, %(source)s, %(id)s, %(hash)s, %(scope)s, %(body)s, %(properties)s,
        now() + %(seconds)s * interval '1 second')
ON CONFLICT (queue, source, id, hash) DO UPDATE
SET scope = excluded.scope, properties = excluded.properties, due_at = excluded.due_at
"""
# A paused scope first releases one event; unless that is parked again within 30 s, the rest follow.
_CLAIM = f"""
WITH open AS (
  SELECT scope, probing FROM scopes WHERE paused_until <= now() ORDER BY paused_until FOR UPDATE SKIP LOCKED
), due AS (
  SELECT parked.queue, parked.source, parked.id, parked.hash, open.scope, open.probing
  FROM open CROSS JOIN LATERAL (
    SELECT queue, source, id, hash FROM parked
    WHERE parked.scope = open.scope AND parked.due_at <= now()
    ORDER BY parked.due_at LIMIT CASE WHEN open.probing THEN 1 ELSE {_RELEASED_AT_ONCE} END
    FOR UPDATE SKIP LOCKED
  ) AS parked
  LIMIT %(limit)s
), probed AS (
  UPDATE scopes SET probing = false, paused_until = now() + interval '{_PROBE_SECONDS} seconds'
  WHERE scope IN (SELECT scope FROM due WHERE probing)
)
UPDATE parked SET due_at = now() + %(lease)s * interval '1 second'
FROM due
WHERE (parked.queue, parked.source, parked.id, parked.hash) = (due.queue, due.source, due.id, due.hash)
RETURNING parked.queue, parked.source, parked.id, parked.hash, parked.due_at, parked.body, parked.properties
"""  # noqa: S608 - two numbers of this module
# An event that was parked again before this delete has a new due time: its row must stay.
_DELETE = """
DELETE FROM parked
WHERE queue = %(queue)s AND source = %(source)s AND id = %(id)s AND hash = %(hash)s AND due_at = %(due_at)s
"""


@dataclass
class _Reading:
    database: Database
    last_erasure: datetime | None

    async def rows(self, statement: str, parameters: Any = None) -> list[Row]:  # noqa: ANN401 - psycopg's own
        return await self.database.rows(statement, parameters)


class ParkingLot:
    """Parks messages and publishes each to its queue again when it is due."""

    def __init__(
        self,
        database: Database,
        publish: Publish,
        *,
        confirm_timeout_seconds: float,
        erased_people: ErasedPeople | None = None,
    ) -> None:
        self._database = database
        self._publish = publish
        self._erased_people = erased_people
        # Longer than any publish may take, so that no other replica releases what is in flight here.
        lease = 2 * confirm_timeout_seconds + 30
        self.release = DueRows(database, _CLAIM, self._release, lease=lease, limit=500)

    async def park(self, queue: str, message: Message, *, seconds: float, scope: str) -> None:
        """Return once the message is committed, without erased people; parking it again moves its due time."""
        event = peek(message)
        message = await self._without_erased(message, event)
        await self._database.rows(
            _PARK,
            {
                "queue": queue,
                "source": event.source if event else "",
                "id": event.id if event else message.message_id or "",
                "hash": hashlib.sha256(message.body).digest(),
                "scope": scope,
                "body": message.body,
                "properties": Jsonb(_properties(message)),
                "seconds": seconds,
                "pause": seconds if scope else 0,
            },
        )

    async def _without_erased(self, message: Message, event: Event[Any] | None) -> Message:
        """Return a message without people who were erased after it was published, as it would be if it had been parked before."""
        if self._erased_people is None or event is None or message.content_encoding is not None:
            return message
        (row,) = await self._database.rows(_LAST_ERASURE)
        reading = _Reading(self._database, row["last_erasure"])
        left = await self._erased_people.left_of(reading, event.type, event.data, event.time)
        return message if left is None else replace(message, body=with_data(message.body, left))

    async def _release(self, rows: Sequence[Row]) -> None:
        await asyncio.gather(*map(self._release_one, rows))

    async def _release_one(self, row: Row) -> None:
        message = unpacked(row["body"], row["properties"])
        try:
            await self._publish(Publication(RETRY_EXCHANGE, row["queue"], message))
        except PublishError as error:
            log.warning("parked_event_not_released", queue=row["queue"], error=error_text(error))
        else:
            await self._database.rows(_DELETE, row)


def with_data(body: bytes, data: Any) -> bytes:  # noqa: ANN401 - JSON
    """Return the body of a message with other data, in the mode it has: the whole event, or only its data."""
    written = orjson.loads(body)
    if "specversion" not in written:
        return orjson.dumps(data)
    written.pop("data_base64", None)
    return orjson.dumps({**written, "data": data})


def _properties(message: Message) -> dict[str, Any]:
    return {
        "content_type": message.content_type,
        "content_encoding": message.content_encoding,
        "message_id": message.message_id,
        "headers": _packed(message.headers),
    }


def unpacked(body: bytes, properties: dict[str, Any]) -> Message:
    """Return a parked message as it was received."""
    headers: Headers = _unpacked(properties["headers"])
    return Message(body, properties["content_type"], properties["content_encoding"], properties["message_id"], headers)


def _packed(value: Any) -> Any:  # noqa: ANN401 - a tree of header values
    """Write header values as JSON; kinds that JSON lacks become a tagged list."""
    if isinstance(value, dict):
        return {key: _packed(item) for key, item in value.items()}
    if isinstance(value, list):
        return ["list", *map(_packed, value)]
    if isinstance(value, (bytes, bytearray)):
        return ["bytes", base64.b64encode(value).decode()]
    if isinstance(value, datetime):
        return ["time", value.isoformat()]
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)


def _unpacked(value: Any) -> Any:  # noqa: ANN401 - a tree of header values
    if isinstance(value, dict):
        return {key: _unpacked(item) for key, item in value.items()}
    if not isinstance(value, list):
        return value
    kind, *rest = value
    if kind == "bytes":
        return base64.b64decode(rest[0])
    if kind == "time":
        return datetime.fromisoformat(rest[0])
    return [_unpacked(item) for item in rest]
