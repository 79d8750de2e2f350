"""SQL of sending: claiming messages, writing the outcomes of calls, pausing numbers, and maintenance."""

from __future__ import annotations

from typing import Final

from wch_common.store.due_rows import claim_due
from wch_whatsapp.queries_people import holding

# -- claiming

ADD_NUMBER = """
INSERT INTO numbers (sender, slots_from, shop, place, portfolio, rate, messaging_limit)
VALUES (%(sender)s, now(), %(shop)s, %(place)s, %(portfolio)s, %(rate)s, %(messaging_limit)s)
ON CONFLICT (sender) DO UPDATE SET shop = excluded.shop, place = excluded.place, portfolio = excluded.portfolio,
  rate = excluded.rate, messaging_limit = excluded.messaging_limit
"""
LEAVE_SHOP = "UPDATE numbers SET shop = NULL WHERE shop = %(shop)s AND sender <> ALL(%(senders)s)"
# The token of the lease is a fence: a process that lost the lease claims nothing more, however late it resumes.
LOCK_NUMBER = """
SELECT now() AS now, slots_from, paused_until, cause, last_served FROM numbers
WHERE sender = %(sender)s
AND EXISTS (SELECT 1 FROM leases WHERE name = %(lease)s AND token = %(token)s AND until > now())
FOR UPDATE
"""
# One message of each origin (shop and requester) before the second of any, beginning after the origin that was served last.
DUE = """
WITH RECURSIVE origins AS (
  (SELECT shop, requester FROM messages WHERE sender = %(sender)s AND state = 'queued' ORDER BY shop, requester LIMIT 1)
  UNION ALL
  SELECT next.shop, next.requester FROM origins CROSS JOIN LATERAL (
    SELECT shop, requester FROM messages
    WHERE sender = %(sender)s AND state = 'queued' AND (shop, requester) > (origins.shop, origins.requester)
    ORDER BY shop, requester LIMIT 1
  ) AS next
), due AS (
  SELECT message.id, origins.shop, origins.requester,
         row_number() OVER (PARTITION BY origins.shop, origins.requester ORDER BY message.due_at) AS turn
  FROM origins CROSS JOIN LATERAL (
    SELECT id, due_at FROM messages
    WHERE sender = %(sender)s AND state = 'queued' AND shop = origins.shop AND requester = origins.requester AND due_at <= now()
    ORDER BY due_at LIMIT %(limit)s
  ) AS message
), chosen AS (
  SELECT id, turn, shop || chr(10) || requester AS origin FROM due
  ORDER BY turn, shop || chr(10) || requester <= %(last_served)s, shop, requester LIMIT %(limit)s
)
SELECT m.id, m.shop, m.person, m.other_person, m.third_person, m.phone, m.user_id, m.category, m.cancelled, m.content, m.fallback,
       m.as_fallback, m.own_values, m.expires_at, m.attempt, m.failures, m.batch, m.answered, m.created_at, chosen.origin,
       pairs.slots_from AS pair_slots_from, pairs.failures AS pair_failures, windows.open_until AS window_until,
       reached.at AS reached_at,
       (SELECT s.reason FROM suppressions AS s WHERE s.shop = m.shop AND s.person = m.person
        AND s.category IN (m.category, 'all') AND s.lifted_at IS NULL LIMIT 1) AS suppressed
FROM chosen JOIN messages AS m ON m.id = chosen.id
LEFT JOIN pairs ON pairs.sender = m.sender AND pairs.person = m.person
LEFT JOIN windows ON windows.sender = m.sender AND windows.person = m.person
LEFT JOIN reached ON reached.portfolio = %(portfolio)s AND reached.person = m.person
WHERE m.state = 'queued'
ORDER BY chosen.turn
FOR UPDATE OF m SKIP LOCKED
"""
# Those of whom Meta has used several names. Read after the messages, so that a STOP under another name is not older than a
# link to it. As a statement of its own it keeps the plan of the one above, which every message takes.
HAVE_NAMES = "SELECT id FROM person_ids WHERE portfolio = %(portfolio)s AND id = ANY(%(ids)s)"


def _under_any(value: str, table: str, place: str) -> str:
    """Return a value of the rows of a table that are stored under any name of a person; each is found by its primary key.

    The limit keeps the plan so: while a table is thought to be small, a join would read it whole for each message.
    """
    return f"""
(SELECT max(found.value) FROM unnest(known.ids) AS its (id)
 CROSS JOIN LATERAL (SELECT {value} AS value FROM {table} WHERE {place} AND person = its.id LIMIT 1) AS found)"""  # noqa: S608 - names


# What is known of a recipient by the name that stands for them, and by the id that was given beside a number (`other`). What
# limits count is kept under `owner`; everything stored under any of `ids` holds.
_IS_CURRENT = "own.id = m.person AND name.replaced_at IS NULL AND name.value IS NOT NULL AND name.kind"
UNDER_ALL_NAMES = f"""
SELECT m.id, known.*, {_under_any("slots_from", "pairs", "sender = m.sender")} AS pair_slots_from,
       {_under_any("failures", "pairs", "sender = m.sender")} AS pair_failures,
       {_under_any("open_until", "windows", "sender = m.sender")} AS window_until,
       {_under_any("at", "reached", "portfolio = %(portfolio)s")} AS reached_at,
       (SELECT s.reason {holding("m.shop", "m.category", "known.ids")} LIMIT 1) AS suppressed
FROM messages AS m CROSS JOIN LATERAL (
  SELECT coalesce((array_agg(own.person) FILTER (WHERE own.id = m.person))[1], m.person) AS owner,
         coalesce(array_agg(name.id), '{{}}') || coalesce(array_agg(name.person), '{{}}')
           || array_remove(ARRAY[m.person, m.other_person, m.third_person], NULL) AS ids,
         coalesce(array_agg(name.id) FILTER (WHERE own.id = m.person), '{{}}') || m.person AS own_ids,
         max(name.replaced_at) FILTER (WHERE name.id = m.person AND own.id = m.person) AS replaced_at,
         max(name.taken_at) FILTER (WHERE name.id = m.person AND own.id = m.person) AS taken_at,
         (array_agg(name.value ORDER BY name.stated_at DESC) FILTER (WHERE {_IS_CURRENT} = 'phone'))[1] AS current_phone,
         (array_agg(name.value ORDER BY name.stated_at DESC) FILTER (WHERE {_IS_CURRENT} = 'user_id'))[1] AS current_user_id,
         coalesce(bool_or(own.id = m.person AND name.id = m.other_person), false) AS is_one_person,
         m.phone IS NOT NULL AND m.user_id NOT LIKE '__.ENT.%%' AND coalesce(bool_or(name.replaced_at IS NULL AND (
           (own.id = m.person AND name.kind = 'user_id' AND name.id <> m.other_person)
           OR (own.id = m.other_person AND name.kind = 'phone' AND name.id <> m.person))), false) AS has_other_names
  FROM unnest(ARRAY[m.person, m.other_person, m.third_person]) AS given (id)
  CROSS JOIN LATERAL (
    SELECT id, person FROM person_ids WHERE portfolio = %(portfolio)s AND person_ids.id = given.id LIMIT 1
  ) AS own
  JOIN person_ids AS name ON name.person = own.person
) AS known
WHERE m.id = ANY(%(ids)s)
"""  # noqa: S608 - columns
REACHED_TODAY = """
SELECT count(*) AS recipients, min(at) AS oldest FROM reached
WHERE portfolio = %(portfolio)s AND at > now() - interval '24 hours'
"""
# A month begins when it does in UTC.
THIS_MONTH: Final = "date_trunc('month', now() AT TIME ZONE 'UTC')::date"
CHARGED_THIS_MONTH = f"""
SELECT coalesce(sum(messages), 0)::int AS messages, (({THIS_MONTH} + interval '1 month') AT TIME ZONE 'UTC') AS until
FROM charges WHERE sender = %(sender)s AND month = {THIS_MONTH}
"""  # noqa: S608 - a constant
REFUND = f"""
UPDATE charges SET messages = greatest(0, messages - %(messages)s)
WHERE sender = %(sender)s AND month = {THIS_MONTH} AND kind = %(kind)s
"""  # noqa: S608 - a constant
# Beginning the calls is one statement, because during each round trip a slot for a call is unused.
BEGIN = f"""
WITH begun AS (
  UPDATE messages AS m SET state = 'sending', attempt = m.attempt + 1, as_fallback = new.as_fallback,
         wamid = NULL, due_at = now() + %(seconds)s * interval '1 second', updated_at = now()
  FROM unnest(%(ids)s::uuid[], %(fallbacks)s::bool[]) AS new (id, as_fallback) WHERE m.id = new.id
), paired AS (
  INSERT INTO pairs (sender, person, slots_from)
  SELECT %(sender)s, person, slots_from FROM unnest(%(persons)s::bytea[], %(until)s::timestamptz[]) AS new (person, slots_from)
  ON CONFLICT (sender, person) DO UPDATE SET slots_from = greatest(pairs.slots_from, excluded.slots_from)
), charged AS (
  INSERT INTO charges (sender, month, kind, messages)
  SELECT %(sender)s, {THIS_MONTH}, kind, messages FROM unnest(%(kinds)s::text[], %(counts)s::int[]) AS new (kind, messages)
  ORDER BY kind ON CONFLICT (sender, month, kind) DO UPDATE SET messages = charges.messages + excluded.messages
), reaching AS (
  INSERT INTO reached (portfolio, person, at)
  SELECT %(portfolio)s, person, now() FROM unnest(%(outside)s::bytea[]) AS new (person)
  ON CONFLICT (portfolio, person) DO UPDATE SET at = CASE
    WHEN reached.at > now() - interval '24 hours' THEN reached.at ELSE excluded.at END
)
UPDATE numbers SET slots_from = %(slots_from)s, last_served = %(last_served)s,
       paused_until = CASE WHEN %(probe)s THEN now() + %(probe_seconds)s * interval '1 second' ELSE paused_until END
WHERE sender = %(sender)s
"""  # noqa: S608 - a constant
# Only one number of a shop probes a cause that they share.
TRY_LOCK_PROBE = "SELECT pg_try_advisory_xact_lock(hashtext(%(shop)s)) AS acquired"
# Finds another number of the shop that has probed, or is probing, the same cause.
PROBED_BY_OTHER = """
SELECT 1 FROM numbers
WHERE sender = ANY(%(senders)s) AND sender <> %(sender)s AND cause = %(cause)s AND paused_until > now() LIMIT 1
"""
# Skips a number that is locked, because it is just being paused or resumed; waiting for it would deadlock.
EXTEND_OTHER_PAUSES = """
UPDATE numbers SET paused_until = now() + %(seconds)s * interval '1 second'
WHERE sender IN (SELECT sender FROM numbers WHERE sender = ANY(%(senders)s) AND sender <> %(sender)s AND cause = %(cause)s
                 FOR UPDATE SKIP LOCKED)
"""
# Without it, two numbers of a portfolio could both use its last place of the day.
LOCK_PORTFOLIO = "SELECT pg_advisory_xact_lock(hashtext(%(portfolio)s))"
# Includes retried messages about which nothing was reported since.
WAITING_IN_BATCHES = """
SELECT id FROM messages WHERE sender = %(sender)s AND state = 'queued'
AND (batch IS NOT NULL OR in_other_batches) AND (NOT answered OR reason = '')
AND due_at <= now() LIMIT %(limit)s FOR UPDATE SKIP LOCKED
"""

# -- outcomes of calls

# A probe pauses its number for half a minute, so that it is the only call; the answer to the probe replaces that pause.
PAUSE = """
UPDATE numbers SET
  cause = CASE WHEN paused_until > now() + %(seconds)s * interval '1 second' AND NOT (%(probe)s AND sender = %(sender)s)
               THEN coalesce(cause, %(cause)s) ELSE %(cause)s END,
  paused_until = greatest(
  CASE WHEN %(probe)s AND sender = %(sender)s THEN now() ELSE coalesce(paused_until, now()) END,
  now() + %(seconds)s * interval '1 second')
WHERE sender = ANY(%(senders)s)
"""
# Locks in one order, so that two numbers of a shop that pause at the same time wait instead of deadlocking.
LOCK_NUMBERS = "SELECT 1 FROM numbers WHERE sender = ANY(%(senders)s) ORDER BY sender FOR UPDATE"
RESUME = "UPDATE numbers SET paused_until = NULL, cause = NULL WHERE sender = ANY(%(senders)s) AND cause = %(cause)s"
FIND_CAUSE = "SELECT cause FROM numbers WHERE sender = %(sender)s"
NOW = "SELECT now() AS now"
PAUSE_PAIR = """
INSERT INTO pairs (sender, person, slots_from, failures) VALUES (%(sender)s, %(person)s, %(blocked)s, 1)
ON CONFLICT (sender, person) DO UPDATE
SET slots_from = excluded.slots_from,
    failures = CASE WHEN pairs.failures = %(known)s THEN %(known)s + 1 ELSE pairs.failures END
"""
RESET_PAIR_FAILURES = """
UPDATE pairs SET failures = 0 WHERE sender = %(sender)s AND person = ANY(%(persons)s) AND failures > 0
"""
# A recipient counts only if a message may have reached them.
REMOVE_UNREACHED = """
DELETE FROM reached WHERE portfolio = %(portfolio)s AND person = ANY(%(persons)s) AND NOT EXISTS (
  SELECT 1 FROM messages AS m
  WHERE (m.person = reached.person OR m.person IN (SELECT id FROM person_ids AS p WHERE p.person = reached.person))
  AND m.sender = ANY(%(senders)s) AND m.updated_at >= reached.at
  AND m.state IN ('sending', 'in_doubt', 'accepted', 'delivered', 'read', 'unknown'))
"""
# Leaves out recipients with values of their own if the values may be the cause.
LOCK_REST_OF_BATCH = """
SELECT id, phone, user_id FROM messages
WHERE batch = %(batch)s AND state = 'queued' AND NOT (own_values AND %(caused_by_values)s)
ORDER BY id FOR UPDATE
"""

# -- maintenance

# A call whose process died is in doubt from its deadline on; a call that stays in doubt becomes unknown.
CLAIM_OPEN = claim_due(
    "messages",
    returning="id, state, attempt, category, doubted_attempt, "
    "cancelled IS NULL AND expires_at > now() AND coalesce(phone, user_id) IS NOT NULL AS is_wanted",
    where="state IN ('sending', 'in_doubt')",
)
# Not a claim: the process that expires a message first changes its state, and the others find nothing to change.
FIND_EXPIRED = """
SELECT id FROM messages WHERE state = 'queued' AND expires_at <= now()
ORDER BY expires_at LIMIT %(limit)s
"""
CLAIM_UPDATES = claim_due("batches", returning="id")
# Two counts, because each has an index of its own.
COUNT_OPEN = """
SELECT state, '' AS shop, count(*) AS rows FROM messages WHERE state IN ('sending', 'in_doubt') GROUP BY state
UNION ALL SELECT 'queued', shop, count(*) FROM messages WHERE state = 'queued' AND due_at <= now() GROUP BY shop
"""
# Not by the hour of day: a message may be accepted at any time, and an offline recipient delays no status but the later ones.
COUNT_WITHOUT_STATUS = """
SELECT count(*) AS messages FROM messages
WHERE state = 'accepted' AND NOT has_status AND updated_at < now() - %(seconds)s * interval '1 second'
"""
COUNT_CHARGES = f"SELECT sender, kind, messages FROM charges WHERE month = {THIS_MONTH}"  # noqa: S608 - a constant
# A pause that has ended keeps its cause until a call succeeds. The count includes such numbers only if an operator must act.
COUNT_PAUSED = """
SELECT cause, count(*) AS rows FROM numbers
WHERE cause IS NOT NULL AND (paused_until > now() OR cause = ANY(%(causes)s)) GROUP BY cause
"""
LEDGER_DAYS: Final = 40
"""Longer than the inbox keeps its rows, and so than any replay: within it, a key is never sent twice."""
_OLD = (
    ("messages", f"due_at IS NULL AND updated_at < now() - interval '{LEDGER_DAYS} days'"),
    (
        "batches",
        f"due_at IS NULL AND (completed_at IS NOT NULL OR NOT requested) AND created_at < now() - interval '{LEDGER_DAYS} days'",
    ),
    ("windows", "open_until < now()"),
    ("charges", "month < now() - interval '400 days'"),
    ("pairs", "slots_from < now() - interval '1 day'"),
    ("reached", "at < now() - interval '1 day'"),
    ("suppressions", f"lifted_at < now() - interval '{LEDGER_DAYS} days'"),
)
# What Meta has not called somebody for so long is forgotten; that it is theirs is not, for the sake of suppressions. Other
# services may keep rows under it for as long, and need it to erase them.
_NAME_DAYS: Final = 400
_FORGET_NAMES = f"""
UPDATE person_ids SET value = NULL WHERE ctid = ANY(ARRAY(
  SELECT ctid FROM person_ids WHERE value IS NOT NULL AND stated_at < now() - interval '{_NAME_DAYS} days'
  LIMIT %(chunk)s FOR UPDATE SKIP LOCKED)) RETURNING 1
"""  # noqa: S608 - a number of this module
DELETE_OLD = (
    _FORGET_NAMES,
    *(
        f"DELETE FROM {table} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {table} WHERE {old} LIMIT %(chunk)s)) RETURNING 1"  # noqa: S608 - names of this module
        for table, old in _OLD
    ),
)
