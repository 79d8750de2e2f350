"""SQL of requests, results, Meta's reports, and what operators read; sending has its own in `queries_sending`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from wch_whatsapp.queries_people import all_ids, holding

if TYPE_CHECKING:
    from datetime import date, datetime
    from uuid import UUID

LONG_WAIT_SECONDS: Final = 60.0
"""A batch reports a longer wait as `deferred`; a shorter one ends before the requester could act on it."""
_UPDATE_SECONDS = 2
_LEDGER_COLUMNS = (
    "id, shop, requester, send_key, sender, person, category, batch, state, due_at, attempt, failures, wamid, reason, code, "
    "detail, own_values, in_other_batches, requested_alone, correlationid, causationid"
)

# -- requests

ADD_MESSAGES = """
INSERT INTO messages (id, shop, requester, send_key, sender, phone, user_id, person, other_person, third_person, category, content,
                      fallback, own_values, batch,
                      state, due_at, expires_at, reason, detail, answered, correlationid, causationid)
SELECT new.id, %(shop)s, %(requester)s, new.send_key, %(sender)s, new.phone, new.user_id, new.person, new.other_person, new.third_person, %(category)s, new.content::jsonb,
       new.fallback::jsonb, new.own_values, %(batch)s::uuid, new.state,
       CASE WHEN new.state = 'queued' THEN greatest(now(), %(not_before)s::timestamptz) END, %(expires_at)s::timestamptz,
       new.reason, new.detail, %(batch)s::uuid IS NOT NULL AND new.state <> 'queued', %(correlationid)s, %(causationid)s
FROM unnest(%(ids)s::uuid[], %(send_keys)s::text[], %(phones)s::text[], %(user_ids)s::text[], %(persons)s::bytea[], %(other_persons)s::bytea[], %(third_persons)s::bytea[], %(contents)s::text[],
            %(fallbacks)s::text[], %(own_values)s::bool[], %(states)s::text[], %(reasons)s::text[],
            %(details)s::text[])
  AS new (id, send_key, phone, user_id, person, other_person, third_person, content, fallback, own_values, state, reason, detail)
ORDER BY new.id
ON CONFLICT (id) DO NOTHING RETURNING id, state
"""
ADD_BATCH = """
INSERT INTO batches (id, shop, requester, batch_id, open, requested, correlationid, causationid)
VALUES (%(id)s, %(shop)s, %(requester)s, %(batch_id)s, 0, true, %(correlationid)s, %(causationid)s)
ON CONFLICT (id) DO UPDATE
SET requested = true, correlationid = excluded.correlationid, causationid = excluded.causationid
WHERE NOT batches.requested RETURNING *
"""
FIND_BATCH = "SELECT * FROM batches WHERE id = %(id)s"
FIND_BATCHES = "SELECT * FROM batches WHERE id = ANY(%(ids)s) ORDER BY id"
SET_OPEN = "UPDATE batches SET open = %(open)s WHERE id = %(id)s RETURNING *"
FIND_MESSAGES = f"SELECT {_LEDGER_COLUMNS} FROM messages WHERE id = ANY(%(ids)s)"  # noqa: S608 - names of columns
# Locks the messages, so that a transaction that changes one sees the batch, or the batch sees the change.
JOIN_BATCH = f"""
WITH others AS (SELECT id FROM messages WHERE id = ANY(%(ids)s) ORDER BY id FOR UPDATE)
UPDATE messages SET in_other_batches = true WHERE id IN (SELECT id FROM others)
RETURNING id, state, reason <> '' AND (answered OR due_at > now() + interval '{LONG_WAIT_SECONDS} seconds') AS waits
"""  # noqa: S608 - a number of this module
ADD_ALSO_REQUESTED = """
INSERT INTO also_requested (batch, message, answered)
SELECT %(batch)s, new.id, new.answered FROM unnest(%(ids)s::uuid[], %(answered)s::bool[]) AS new (id, answered)
"""
REQUEST_ALONE = f"""
UPDATE messages SET requested_alone = true WHERE id = %(id)s AND batch IS NOT NULL AND NOT requested_alone
RETURNING {_LEDGER_COLUMNS}
"""  # noqa: S608 - names of columns

# -- cancellation and retry

# A cancellation that arrives before its request takes the key, so that the request finds the message cancelled.
CANCEL_IN_ADVANCE = """
INSERT INTO messages (id, shop, requester, send_key, sender, person, category, state, expires_at, reason, causationid)
VALUES (%(id)s, %(shop)s, %(requester)s, %(send_key)s, '', '', '', 'cancelled', now(), %(reason)s, %(causationid)s)
ON CONFLICT (id) DO NOTHING RETURNING id
"""
CANCEL_BATCH = """
INSERT INTO batches (id, shop, requester, batch_id, open, requested, cancelled)
VALUES (%(id)s, %(shop)s, %(requester)s, %(batch_id)s, 0, false, %(reason)s)
ON CONFLICT (id) DO UPDATE SET cancelled = coalesce(batches.cancelled, excluded.cancelled) RETURNING *
"""
# Also marks messages in a call, accepted or failed: they are not sent if the call leaves them unsent or someone retries them.
MARK_CANCELLED = """
UPDATE messages SET cancelled = %(reason)s WHERE (id = %(id)s OR batch = %(id)s) AND state IN (
  'queued', 'sending', 'in_doubt', 'accepted', 'unknown', 'failed')
"""
LOCK_QUEUED_OF_BATCH = "SELECT id FROM messages WHERE batch = %(id)s AND state = 'queued' ORDER BY id FOR UPDATE"
# A recipient's marketing limit is not retried within a day, because Meta penalises the attempts themselves. A cancelled
# message is never retried, even if its cancellation overtook this request.
RETRY = """
UPDATE messages SET state = 'queued', failures = 0, attempt = attempt + 1, wamid = NULL, has_status = false, reason = '', code = NULL,
  detail = '', as_fallback = false, content = coalesce(%(content)s::jsonb, content),
  expires_at = coalesce(%(expires_at)s::timestamptz, greatest(expires_at, now() + %(expiry)s * interval '1 second')),
  due_at = CASE WHEN reason = ANY(%(waiting_a_day)s) THEN greatest(now(), updated_at + interval '24 hours') ELSE now() END,
  updated_at = now()
WHERE id = ANY(%(ids)s) AND state = 'failed' AND coalesce(phone, user_id) IS NOT NULL AND coalesce(%(content)s::jsonb, content) IS NOT NULL
AND cancelled IS NULL RETURNING id, sender
"""
NAME_ERASED = """
UPDATE messages SET reason = 'erased', code = NULL, updated_at = now()
WHERE id = ANY(%(ids)s) AND state = 'failed' AND coalesce(phone, user_id) IS NULL AND reason <> 'malformed_number'
"""

# -- results

# Rows are locked in the order of their ids, so that two writers of the same rows wait instead of deadlocking. The messages,
# the counts of their batches and the due time of the next update are one statement, because during each round trip a slot for
# a call is unused. The changes are one JSON text, because twelve arrays cost psycopg a tenth of a millisecond. The statement
# locks a batch even if its update is already due, so that publishing the update and this change wait for each other. A message
# that was sent again while in doubt never fails: its first attempt may have arrived. Without content the recipient was erased:
# Meta's id of the message contains the number.
APPLY = f"""
WITH new AS MATERIALIZED (
  SELECT * FROM jsonb_to_recordset(%(changes)s::jsonb) AS new (
    id uuid, attempt int, state text, wait float8, failed int, as_fallback bool, wamid text, reason text, code int,
    detail text, reports bool, new_attempt bool, marks_doubt bool, proven bool)
), old AS (
  SELECT id, answered AS was_answered FROM messages WHERE id = ANY(%(ids)s) ORDER BY id FOR UPDATE
), changed AS (
  UPDATE messages AS m
  SET state = CASE WHEN m.doubted_attempt IS NOT NULL AND new.state IN ('failed', 'suppressed', 'cancelled')
                   THEN 'unknown' ELSE new.state END,
      due_at = now() + new.wait * interval '1 second', failures = m.failures + new.failed,
      doubted_attempt = CASE WHEN new.marks_doubt THEN m.attempt ELSE m.doubted_attempt END,
      has_status = m.has_status AND NOT new.new_attempt,
      as_fallback = m.as_fallback OR new.as_fallback, attempt = m.attempt + new.new_attempt::int,
      wamid = CASE WHEN NOT new.new_attempt AND m.content IS NOT NULL THEN coalesce(new.wamid, m.wamid) END,
      reason = new.reason, code = new.code, updated_at = now(),
      detail = CASE WHEN m.content IS NULL THEN '' ELSE new.detail END,
      changed = m.batch IS NOT NULL AND m.answered AND (m.changed OR new.reports),
      answered = (m.batch IS NOT NULL OR m.in_other_batches) AND (m.answered OR new.reports)
  FROM old JOIN new USING (id)
  WHERE m.id = old.id AND (new.attempt IS NULL OR m.attempt = new.attempt)
  AND (m.state = ANY(%(before)s) OR (new.proven AND m.state IN ('unknown', 'queued')))
  RETURNING {", ".join(f"m.{name.strip()}" for name in _LEDGER_COLUMNS.split(","))}, old.was_answered, new.reports
), reported AS (
  SELECT batch, count(*) FILTER (WHERE NOT was_answered) AS firsts, bool_or(was_answered) AS later
  FROM changed WHERE batch IS NOT NULL AND reports GROUP BY batch ORDER BY batch
), counted AS (
  UPDATE batches AS b SET open = b.open - reported.firsts,
    due_at = CASE WHEN reported.later THEN coalesce(b.due_at, now() + interval '{_UPDATE_SECONDS} seconds') ELSE b.due_at END
  FROM reported WHERE b.id = reported.batch RETURNING b.id, b.open <= 0 AND reported.firsts > 0 AS is_complete
)
SELECT changed.*, counted.is_complete FROM changed LEFT JOIN counted ON counted.id = changed.batch
"""  # noqa: S608 - names of columns
# The same for batches with messages of other requests. These are few, so the statement above, which every message takes,
# leaves them out.
APPLY_TO_OTHER_BATCHES = f"""
WITH reported AS (
  UPDATE also_requested SET changed = answered, answered = true WHERE message = ANY(%(ids)s) RETURNING batch, changed AS later
), counts AS (
  SELECT batch, count(*) FILTER (WHERE NOT later) AS firsts, bool_or(later) AS later
  FROM reported GROUP BY batch ORDER BY batch
), counted AS (
  UPDATE batches AS b SET open = b.open - counts.firsts,
    due_at = CASE WHEN counts.later THEN coalesce(b.due_at, now() + interval '{_UPDATE_SECONDS} seconds') ELSE b.due_at END
  FROM counts WHERE b.id = counts.batch RETURNING b.id, b.open <= 0 AND counts.firsts > 0 AS is_complete
)
SELECT id FROM counted WHERE is_complete
"""  # noqa: S608 - a number of this module
REPORT_AGAIN = """
WITH own AS (
  UPDATE messages SET changed = true WHERE id = ANY(%(ids)s) AND batch IS NOT NULL RETURNING batch
), also AS (
  UPDATE also_requested SET changed = true WHERE message = ANY(%(ids)s) RETURNING batch
)
SELECT batch FROM own UNION SELECT batch FROM also ORDER BY batch
"""
SCHEDULE_UPDATES = f"""
UPDATE batches SET due_at = coalesce(due_at, now() + interval '{_UPDATE_SECONDS} seconds') WHERE id = ANY(%(ids)s)
"""  # noqa: S608 - a number of this module
COMPLETE = (
    "UPDATE batches SET completed_at = now(), due_at = NULL WHERE id = %(id)s AND completed_at IS NULL RETURNING id"
)
MEMBERS = f"""
SELECT {_LEDGER_COLUMNS} FROM messages WHERE batch = %(id)s
UNION ALL SELECT {_LEDGER_COLUMNS} FROM messages WHERE id IN (SELECT message FROM also_requested WHERE batch = %(id)s)
"""  # noqa: S608 - names of columns
ALL_REPORTED = """
WITH also AS (UPDATE also_requested SET changed = false WHERE batch = %(id)s AND changed)
UPDATE messages SET changed = false WHERE batch = %(id)s AND changed
"""
# A batch that is not complete yet reports its changes when it completes.
NEXT_UPDATE = """
UPDATE batches SET updates = updates + (completed_at IS NOT NULL)::int, due_at = NULL
WHERE id = %(id)s AND due_at IS NOT NULL RETURNING *
"""
CHANGED = f"""
WITH own AS (
  UPDATE messages SET changed = false WHERE batch = %(id)s AND changed RETURNING {_LEDGER_COLUMNS}
), also AS (
  UPDATE also_requested SET changed = false WHERE batch = %(id)s AND changed RETURNING message
)
SELECT * FROM own UNION ALL SELECT {_LEDGER_COLUMNS} FROM messages WHERE id IN (SELECT message FROM also)
"""  # noqa: S608 - names of columns

# -- statuses

_STATUS_COLUMNS = (
    "id, shop, person, phone, user_id, sender, attempt, state, fallback, as_fallback, own_values, batch, content, failures, answered, "
    "doubted_attempt, wamid, reason, code, detail"
)
FIND_BY_TAG = f"""
SELECT {_STATUS_COLUMNS} FROM messages WHERE id = %(id)s AND (attempt = %(attempt)s OR doubted_attempt = %(attempt)s)
FOR UPDATE
"""  # noqa: S608 - names of columns
FIND_BY_WAMID = f"SELECT {_STATUS_COLUMNS} FROM messages WHERE wamid = %(wamid)s FOR UPDATE"  # noqa: S608 - names of columns
SET_HAS_STATUS = "UPDATE messages SET has_status = true WHERE id = %(id)s AND NOT has_status"
CLEAR_DOUBT = "UPDATE messages SET doubted_attempt = NULL WHERE id = %(id)s"
ANY_OPEN_CALL = "SELECT 1 FROM messages WHERE sender = %(sender)s AND state IN ('sending', 'in_doubt') LIMIT 1"

# -- suppressions and windows

# A suppression that the recipient, or Meta on their behalf, sets does not replace one that an operator or a program has set, because recipients
# may lift their own. The time of a statement decides which is the last, not the time when it is handled.
SUPPRESS = """
INSERT INTO suppressions AS s (shop, person, category, phone, reason, by, since, evidence)
VALUES (%(shop)s, %(person)s, %(category)s, %(phone)s, %(reason)s, %(by)s, coalesce(%(since)s::timestamptz, now()), %(evidence)s)
ON CONFLICT (shop, person, category) DO UPDATE
SET reason = excluded.reason, by = excluded.by, phone = coalesce(s.phone, excluded.phone), evidence = excluded.evidence,
    since = greatest(s.since, excluded.since), lifted_at = NULL
WHERE (s.by IN ('recipient', 'meta') AND (s.lifted_at IS NULL OR s.lifted_at <= excluded.since))
OR excluded.by NOT IN ('recipient', 'meta')
"""
UNSUPPRESS = f"""
DELETE FROM suppressions
WHERE shop = %(shop)s AND category = %(category)s AND person IN ({all_ids("%(person)s::bytea", "%(portfolio)s")})
"""  # noqa: S608 - parameters
# Recipients lift only suppressions that they, or Meta on their behalf, have set before, under any of their names.
RESUME_MARKETING = f"""
INSERT INTO suppressions AS s (shop, person, category, reason, by, since, lifted_at)
SELECT %(shop)s, its.id, 'marketing', 'asked to resume', 'recipient', %(since)s, %(since)s
FROM ({all_ids("%(person)s::bytea", "%(portfolio)s")}) AS its ORDER BY its.id
ON CONFLICT (shop, person, category) DO UPDATE SET lifted_at = greatest(s.lifted_at, excluded.lifted_at), phone = NULL
WHERE s.by IN ('recipient', 'meta') AND s.since <= excluded.since
"""  # noqa: S608 - parameters
OPEN_WINDOW = """
INSERT INTO windows (sender, person, open_until) VALUES (%(sender)s, %(person)s, %(since)s + interval '24 hours')
ON CONFLICT (sender, person) DO UPDATE SET open_until = greatest(windows.open_until, excluded.open_until)
"""

# -- operators' reads


@dataclass(frozen=True)
class MessageSummary:
    """A message in a list."""

    id: UUID
    shop: str
    requester: str
    send_key: str
    phone: str | None
    user_id: str | None
    category: str
    state: str
    reason: str
    code: int | None
    attempt: int
    due_at: datetime | None
    updated_at: datetime


@dataclass(frozen=True)
class MessageRecord:
    """A message without its text and its recipient, except for the masked number."""

    id: UUID
    shop: str
    requester: str
    send_key: str
    sender: str
    phone: str | None
    user_id: str | None
    category: str
    as_fallback: bool
    own_values: bool
    batch: UUID | None
    state: str
    due_at: datetime | None
    expires_at: datetime
    attempt: int
    failures: int
    reason: str
    code: int | None
    detail: str
    cancelled: str | None
    answered: bool
    changed: bool
    in_other_batches: bool
    requested_alone: bool
    doubted_attempt: int | None
    correlationid: str | None
    causationid: str | None
    created_at: datetime
    updated_at: datetime
    suppression: str | None
    """The category in which the recipient is suppressed now, so that the message would not be sent."""
    suppressed_since: datetime | None
    suppressed_by: str | None
    suppressed_because: str | None


@dataclass(frozen=True)
class RetryCandidate:
    """A message that an operator wants to retry, and whether that is possible."""

    shop: str
    requester: str
    send_key: str
    state: str
    reason: str
    cancelled: str | None
    can_retry: bool


@dataclass(frozen=True)
class MessageCount:
    """How many messages have a state for a reason, and when the last of them changed."""

    shop: str
    requester: str
    category: str
    state: str
    reason: str
    messages: int
    last: datetime


@dataclass(frozen=True)
class NumberState:
    """A number to send from, and why it is paused."""

    sender: str
    cause: str | None
    paused_until: datetime | None


@dataclass(frozen=True)
class ChargeCount:
    """How many messages of a kind that may cost money a number has sent in a month."""

    sender: str
    month: date
    kind: str
    messages: int


@dataclass(frozen=True)
class HashedName:
    """A number or an id, and the hash that stands for its owner."""

    name: str
    person: bytes


_MATCHING = """
WHERE (%(state)s::text IS NULL OR state = %(state)s) AND (%(reason)s::text IS NULL OR reason = %(reason)s)
AND (%(requester)s::text IS NULL OR requester = %(requester)s) AND (%(shop)s::text IS NULL OR shop = %(shop)s)
AND (%(keys)s::text[] IS NULL OR send_key = ANY(%(keys)s))
"""
# In any portfolio, as only the service knows them.
_ALL_NAMES = " UNION ".join(all_ids(f"m.{column}") for column in ("person", "other_person", "third_person"))
LIST_MESSAGES = f"""
SELECT {", ".join(MessageSummary.__dataclass_fields__)} FROM messages {_MATCHING} ORDER BY updated_at DESC LIMIT %(limit)s
"""  # noqa: S608 - names of columns
_OF_SUPPRESSION = ("suppression", "suppressed_since", "suppressed_by", "suppressed_because")
SHOW_MESSAGE = f"""
SELECT {", ".join(f"m.{name}" for name in MessageRecord.__dataclass_fields__ if name not in _OF_SUPPRESSION)},
       s.category AS suppression, s.since AS suppressed_since, s.by AS suppressed_by,
       s.reason || CASE WHEN s.evidence = '' THEN '' ELSE ': ' || s.evidence END AS suppressed_because
FROM messages AS m LEFT JOIN LATERAL (
  SELECT s.* {holding("m.shop", "m.category", f"ARRAY({_ALL_NAMES})")} ORDER BY s.since LIMIT 1
) AS s ON true
WHERE m.send_key = %(key)s OR m.id::text = %(key)s
"""  # noqa: S608 - names of columns
RETRY_CANDIDATES = f"""
SELECT shop, requester, send_key, state, reason, cancelled,
       state = 'failed' AND content IS NOT NULL AND coalesce(phone, user_id) IS NOT NULL AND cancelled IS NULL AS can_retry
FROM messages {_MATCHING} ORDER BY can_retry DESC, shop, requester LIMIT %(limit)s
"""  # noqa: S608 - names of columns
COUNT_MESSAGES = """
SELECT shop, requester, category, state, reason, count(*) AS messages, max(updated_at) AS last FROM messages
WHERE updated_at > now() - %(hours)s * interval '1 hour' GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, messages DESC
"""
LIST_CHARGES = "SELECT sender, month, kind, messages FROM charges ORDER BY month DESC, sender, kind LIMIT 100"
LIST_NUMBERS = "SELECT sender, cause, paused_until FROM numbers ORDER BY sender"
ANY_HASHED_NAME = """
SELECT coalesce(phone, user_id) AS name, person FROM messages WHERE coalesce(phone, user_id) IS NOT NULL LIMIT 1
"""
