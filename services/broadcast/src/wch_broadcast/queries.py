"""The SQL statements of the handlers and background loops; `queries_admin.py` holds those of operators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wch_common.store.due_rows import claim_due, next_due

if TYPE_CHECKING:
    from datetime import datetime

# -- campaigns

ADD_CAMPAIGN = """
INSERT INTO campaigns (id, shop, campaign_id, requester, request, hash, list, exclusive, batch_size, pause_seconds,
                       start_at, stop_at, state, correlationid, causationid)
VALUES (%(id)s, %(shop)s, %(campaign_id)s, %(requester)s, %(request)s, %(hash)s, %(list)s, %(exclusive)s,
        %(batch_size)s, %(pause_seconds)s, %(start_at)s, %(stop_at)s, 'waiting', %(correlationid)s, %(causationid)s)
ON CONFLICT (id) DO NOTHING RETURNING id
"""
LOCK_CAMPAIGN = """
SELECT c.*, l.complete_at AS list_complete_at, l.deleted_at AS list_deleted_at, coalesce(l.submitted, 0) AS submitted,
       coalesce(l.malformed, 0) AS malformed, coalesce(l.duplicates, 0) AS duplicates,
       coalesce(l.with_values, 0) AS with_values
FROM campaigns AS c LEFT JOIN lists AS l ON l.id = c.list WHERE c.id = %(id)s FOR UPDATE OF c
"""
CLOCK = "SELECT clock_timestamp() AS now"
# The campaigns of a shop decide one after the other whether it is their turn, and whoever lets the next one have it takes
# this lock too. Otherwise a campaign could begin to wait for a change that is not visible yet, and not be woken by it.
LOCK_TURNS = "SELECT pg_advisory_xact_lock(hashtext('campaigns/' || %(shop)s))"
# These do not block others: a campaign that only waits for deferred recipients, a paused one, and one that is being
# cancelled without getting answers. None of them sends anything new.
CAMPAIGN_AHEAD = """
SELECT c.campaign_id FROM campaigns AS c LEFT JOIN lists AS l ON l.id = c.list
WHERE c.shop = %(shop)s AND c.exclusive AND c.ended_at IS NULL AND c.id <> %(id)s AND (
  (c.state IN ('running', 'cancelling') AND NOT (c.state = 'cancelling' AND c.requested_again_at IS NOT NULL)
   AND NOT (c.released AND NOT EXISTS (SELECT 1 FROM batches AS b WHERE b.campaign = c.id AND b.answered_at IS NULL)))
  OR (c.state = 'waiting' AND (c.start_at IS NULL OR c.start_at <= now()) AND l.complete_at IS NOT NULL
      AND (c.created_at, c.id) < (%(created_at)s, %(id)s)))
LIMIT 1
"""
# Whoever has locked the next campaign has yet to check its turn.
WAKE_NEXT_CAMPAIGN = """
UPDATE campaigns SET due_at = now() WHERE id = (
  SELECT id FROM campaigns WHERE shop = %(shop)s AND state = 'waiting' AND exclusive AND cause = 'another_campaign'
  ORDER BY created_at, id LIMIT 1 FOR UPDATE SKIP LOCKED)
"""
# As LOCK_TURNS, between the last part of a list and campaigns that wait for it. The list may have no row yet.
LOCK_LIST_CHECK = "SELECT pg_advisory_xact_lock(hashtextextended('list/' || %(id)s::text, 0))"
LIST_COMPLETE = "SELECT 1 FROM lists WHERE id = %(id)s AND complete_at IS NOT NULL"
WAKE_CAMPAIGNS_OF_LIST = """
UPDATE campaigns SET due_at = now() WHERE id IN (
  SELECT id FROM campaigns WHERE list = %(id)s AND state = 'waiting' AND cause = 'list_incomplete' FOR UPDATE SKIP LOCKED)
"""
CLAIM_CAMPAIGNS = claim_due("campaigns", returning="id")
NEXT_CAMPAIGN_DUE = next_due("campaigns")

# -- batches

RELEASE_BATCH = """
WITH next AS (
  SELECT position, phone, user_id, own_values FROM recipients
  WHERE list = %(list)s AND position > %(cursor)s AND skip_reason IS NULL ORDER BY position LIMIT %(size)s
), requested AS (
  INSERT INTO outcomes (campaign, position, batch, outcome) SELECT %(id)s, position, %(number)s, 'requested' FROM next
), batch AS (
  INSERT INTO batches (campaign, number, counts, released_at)
  SELECT %(id)s, %(number)s, jsonb_build_object('requested/', count(*)), %(now)s FROM next HAVING count(*) > 0
)
SELECT position, phone, user_id, own_values, (SELECT created_at FROM lists WHERE id = %(list)s) AS known_at FROM next ORDER BY position
"""
RECOUNT_BATCHES = """
UPDATE batches AS b SET counts = coalesce(new.counts, '{}'), deferred = new.deferred, failed = new.failed
FROM (
  SELECT number, jsonb_object_agg(outcome || '/' || reason, recipients) AS counts,
         coalesce(sum(recipients) FILTER (WHERE outcome = 'deferred'), 0) AS deferred,
         coalesce(sum(recipients) FILTER (WHERE outcome = 'failed'), 0) AS failed
  FROM (SELECT batch AS number, outcome, reason, count(*) AS recipients FROM outcomes
        WHERE campaign = %(id)s AND batch = ANY(%(numbers)s) GROUP BY 1, 2, 3) AS counted GROUP BY number
) AS new WHERE b.campaign = %(id)s AND b.number = new.number
"""
COUNTS = """
SELECT key, sum(value::int)::int AS recipients FROM batches, jsonb_each_text(counts)
WHERE campaign = %(id)s GROUP BY key
"""
OPEN_WORK = """
SELECT count(*) FILTER (WHERE answered_at IS NULL) AS unanswered, coalesce(sum(deferred), 0)::int AS deferred,
       max(limited_by) AS limited_by,
       coalesce(sum((counts->>'deferred/retry_requested')::int), 0)::int AS retrying
FROM batches WHERE campaign = %(id)s AND (answered_at IS NULL OR deferred > 0)
"""
OPEN_BATCHES = """
SELECT number FROM batches WHERE campaign = %(id)s AND (answered_at IS NULL OR deferred > 0) ORDER BY number
"""
UNANSWERED_BATCHES = "SELECT number FROM batches WHERE campaign = %(id)s AND answered_at IS NULL ORDER BY number"
BATCH_RECIPIENTS = """
SELECT o.position, r.phone, r.user_id, r.own_values, (SELECT created_at FROM lists WHERE id = %(list)s) AS known_at
FROM outcomes AS o JOIN recipients AS r ON r.list = %(list)s AND r.position = o.position
WHERE o.campaign = %(id)s AND o.batch = %(number)s AND coalesce(r.phone, r.user_id) IS NOT NULL ORDER BY o.position
"""
# A recipient may have been erased before whatsapp received the batch.
SKIP_ERASED = """
UPDATE outcomes AS o SET outcome = 'skipped', reason = 'erased' FROM recipients AS r
WHERE o.campaign = %(id)s AND o.batch = %(number)s AND o.outcome = 'requested'
AND r.list = %(list)s AND r.position = o.position AND coalesce(r.phone, r.user_id) IS NULL RETURNING o.position
"""
END_EMPTY_BATCH = "UPDATE batches SET answered_at = now() WHERE campaign = %(id)s AND number = %(number)s"
# They count as deferred until whatsapp answers the retry; the higher version makes its earlier facts about them
# obsolete. Recipients that failed for their own values are left out: resuming does not correct those.
RETRY_FAILED = """
WITH retried AS (
  UPDATE outcomes SET outcome = 'deferred', reason = 'retry_requested', concerns = NULL, code = NULL, version = version + 1
  WHERE campaign = %(id)s AND outcome = 'failed' AND concerns = ANY(%(of_campaign)s) AND NOT retryable
  AND reason <> %(refused)s RETURNING batch
)
SELECT DISTINCT batch FROM retried
"""
RETRYING = """
SELECT position FROM outcomes
WHERE campaign = %(id)s AND outcome = 'deferred' AND reason = 'retry_requested' AND position > %(after)s
ORDER BY position LIMIT %(limit)s
"""
# Whatsapp's ledger does not know a refused batch, so the whole batch is requested again.
REOPEN_REFUSED = """
WITH reopened AS (
  UPDATE outcomes SET outcome = 'requested', reason = '', concerns = NULL, code = NULL
  WHERE campaign = %(id)s AND outcome = 'failed' AND reason = %(refused)s RETURNING batch
)
UPDATE batches SET answered_at = NULL
WHERE campaign = %(id)s AND number IN (SELECT batch FROM reopened) RETURNING number AS batch
"""

# -- answers

# Neither an earlier fact that arrives late nor the refusal of a duplicate request overwrites an outcome.
APPLY_OUTCOMES = """
UPDATE outcomes AS o
SET outcome = new.outcome, reason = new.reason, concerns = new.concerns, retryable = new.retryable, code = new.code,
    until = new.until, version = %(version)s
FROM unnest(%(positions)s::int[], %(outcomes)s::text[], %(reasons)s::text[], %(concerns)s::text[], %(retryable)s::bool[],
            %(codes)s::int[], %(untils)s::timestamptz[])
  AS new (position, outcome, reason, concerns, retryable, code, until)
WHERE o.campaign = %(id)s AND o.position = new.position AND o.batch = %(number)s AND o.version <= %(version)s
AND (o.outcome = 'requested' OR new.reason <> %(refused)s) RETURNING o.position
"""
MARK_ANSWERED = """
UPDATE batches SET limited_by = coalesce((
         SELECT min(reason) FROM outcomes WHERE campaign = %(id)s AND batch = %(number)s AND outcome = 'deferred'
         AND concerns = ANY(%(limits)s)), ''),
       answered_at = CASE WHEN %(first)s THEN coalesce(answered_at, now()) ELSE answered_at END
WHERE campaign = %(id)s AND number = %(number)s RETURNING answered_at = now() AS first
"""
# The last batches up to one, which may be followed by others: most failures become known later.
FAILURE_SHARE = """
SELECT coalesce(sum(failed), 0)::int AS failed, coalesce(sum(answers), 0)::int AS answers FROM (
  SELECT failed, (SELECT sum(value::int) FROM jsonb_each_text(counts) WHERE key NOT LIKE 'requested/%%') AS answers
  FROM batches
  WHERE campaign = %(id)s AND number > %(share_from_batch)s AND number <= %(number)s AND answered_at IS NOT NULL
  ORDER BY number DESC LIMIT %(batches)s
) AS last
"""
ANY_SENT_WITHOUT_OWN_VALUES = """
SELECT 1 FROM outcomes AS o JOIN recipients AS r ON r.list = %(list)s AND r.position = o.position
WHERE o.campaign = %(id)s AND o.outcome IN ('accepted', 'delivered', 'read') AND r.own_values IS NULL LIMIT 1
"""

# -- lists


@dataclass(frozen=True)
class ListState:
    """A list, and the highest part that has been added."""

    parts: int | None
    complete_at: datetime | None
    last: int | None


ADD_LIST = "INSERT INTO lists (id, shop, list_id) VALUES (%(id)s, %(shop)s, %(list_id)s) ON CONFLICT DO NOTHING"
# The lock makes the parts of one list wait for each other.
LOCK_LIST = """
SELECT parts, complete_at, (SELECT max(part) FROM list_parts WHERE list = lists.id) AS last
FROM lists WHERE id = %(id)s FOR UPDATE
"""
PART_HASH = "SELECT hash FROM list_parts WHERE list = %(id)s AND part = %(part)s"
ADD_PART = "INSERT INTO list_parts (list, part, hash) VALUES (%(id)s, %(part)s, %(hash)s)"
# Inserted in the order of `person`, so that two transactions do not deadlock on the unique index.
ADD_RECIPIENTS = """
INSERT INTO recipients (list, position, phone, user_id, person, own_values)
SELECT DISTINCT ON (new.person) %(id)s, new.position, new.phone, new.user_id, new.person, new.own_values::jsonb
FROM unnest(%(positions)s::int[], %(phones)s::text[], %(user_ids)s::text[], %(persons)s::text[], %(own_values)s::text[])
  AS new (position, phone, user_id, person, own_values)
ORDER BY new.person, new.position
ON CONFLICT DO NOTHING RETURNING position
"""
ADD_SKIPPED_RECIPIENTS = """
INSERT INTO recipients (list, position, phone, user_id, person, skip_reason)
SELECT %(id)s, position, phone, user_id, person, skip_reason
FROM unnest(%(positions)s::int[], %(phones)s::text[], %(user_ids)s::text[], %(persons)s::text[], %(skip_reasons)s::text[])
  AS new (position, phone, user_id, person, skip_reason)
"""
COUNT_PART = """
UPDATE lists SET submitted = submitted + %(submitted)s, malformed = malformed + %(malformed)s,
       duplicates = duplicates + %(duplicates)s, with_values = with_values + %(with_values)s, parts = coalesce(parts, %(parts)s),
       complete_at = CASE
         WHEN (SELECT count(*) FROM list_parts WHERE list = %(id)s) = coalesce(parts, %(parts)s) THEN now() END
WHERE id = %(id)s RETURNING *
"""

# -- metrics and retention

# A reason given by an operator is not a label.
COUNT_CAMPAIGNS = """
SELECT state, CASE WHEN state IN ('waiting', 'running') THEN cause ELSE '' END AS cause, count(*) AS campaigns
FROM campaigns WHERE ended_at IS NULL GROUP BY 1, 2
"""
# A campaign that is being cancelled waits for answers; it is stuck if they do not come.
COUNT_STUCK_CANCELLING = """
SELECT count(*) AS campaigns FROM campaigns WHERE state = 'cancelling' AND requested_again_at IS NOT NULL
"""
COUNT_STOPPED = """
SELECT count(*) AS campaigns FROM campaigns WHERE (state = 'paused' AND changed_by = %(service)s)
OR (state = 'failed' AND ended_at > now() - interval '1 day')
"""
COUNT_UNANSWERED = "SELECT count(*) AS batches FROM batches WHERE answered_at IS NULL"
# A list is marked before its recipients are deleted, so that no campaign uses a part of it. The counts of batches are
# kept for ever, and with them every summary.
DELETE_OLD = (
    """
    DELETE FROM outcomes WHERE ctid = ANY(ARRAY(
      SELECT o.ctid FROM campaigns AS c JOIN outcomes AS o ON o.campaign = c.id
      WHERE c.ended_at < now() - %(days)s * interval '1 day' LIMIT %(chunk)s)) RETURNING 1
    """,
    """
    UPDATE lists SET deleted_at = now() WHERE id = ANY(ARRAY(SELECT l.id FROM lists AS l
    WHERE l.deleted_at IS NULL AND l.created_at < now() - %(days)s * interval '1 day' AND NOT EXISTS (
      SELECT 1 FROM campaigns AS c WHERE c.list = l.id
      AND (c.ended_at IS NULL OR c.ended_at >= now() - %(days)s * interval '1 day'))
    LIMIT %(chunk)s)) RETURNING 1
    """,
    """
    DELETE FROM recipients WHERE ctid = ANY(ARRAY(SELECT r.ctid FROM lists AS l JOIN recipients AS r ON r.list = l.id
    WHERE l.deleted_at IS NOT NULL LIMIT %(chunk)s)) RETURNING 1
    """,
)
