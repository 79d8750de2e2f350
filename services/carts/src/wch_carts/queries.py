"""The SQL statements of the handlers and background loops; `queries_admin.py` holds those of operators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wch_common.store.due_rows import claim_due

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

# -- carts


@dataclass(frozen=True)
class LockedCart:
    """A cart, locked until the transaction ends."""

    id: UUID
    status: str
    updated_version: int | None
    filled_version: int | None
    ordered_version: int | None
    deleted_version: int | None


# The owner of a cart with a number and an id is found by either.
_IS_PERSON = "({0}.person = ANY(%(names)s) OR {0}.user_id = ANY(%(names)s))"
LOCK_OR_ADD_CART = """
INSERT INTO carts AS c (id, shop, cart_id, version, status, expires_at)
VALUES (%(id)s, %(shop)s, %(cart_id)s, %(version)s, 'active', now())
ON CONFLICT (id) DO UPDATE SET version = greatest(c.version, excluded.version)
RETURNING id, status, updated_version, filled_version, ordered_version, deleted_version
"""
SET_VERSIONS = """
UPDATE carts SET updated_version = %(updated)s, filled_version = %(filled)s, ordered_version = %(ordered)s,
  deleted_version = %(deleted)s, status = %(status)s, remindable = remindable AND %(status)s = 'active',
  ended_at = CASE WHEN %(status)s = 'active' THEN NULL
    WHEN status = %(status)s AND ended_at IS NOT NULL THEN ended_at ELSE now() END
WHERE id = %(id)s
"""
# The idle time counts from the fact's time, as the fact may arrive late; the time to live counts from its arrival.
SET_CONTENTS = """
UPDATE carts SET phone = %(phone)s, user_id = %(user_id)s, person = %(person)s, no_phone_reason = %(no_phone_reason)s,
  order_id = CASE WHEN %(no_phone_reason)s <> 'erased' THEN order_id END,
  customer_name = %(customer_name)s, items = %(items)s, item_count = %(item_count)s, total = %(total)s,
  currency = %(currency)s, coupon = %(coupon)s, link = %(link)s, address = %(address)s, consent = %(consent)s,
  remindable = status = 'active' AND %(item_count)s > 0 AND coalesce(%(phone)s, %(user_id)s)::text IS NOT NULL, remind_after = NULL,
  reminder_sent_at = NULL, idle_since = least(now(), %(time)s::timestamptz), updated_at = now(),
  expires_at = now() + %(expiry)s * interval '1 hour'
WHERE id = %(id)s
"""
SET_ORDER = """
UPDATE carts SET order_id = CASE WHEN no_phone_reason <> 'erased' THEN %(order_id)s::bigint END, order_total = %(total)s, order_currency = %(currency)s,
  ordered_at = least(now(), %(time)s::timestamptz) WHERE id = %(id)s RETURNING *
"""
# The row of a deleted cart is kept for as long as an older fact may arrive.
CLEAR_CONTENTS = """
UPDATE carts SET phone = NULL, user_id = NULL, person = NULL, customer_name = '', items = '[]', item_count = 0, total = 0,
  coupon = '', link = '', address = NULL, consent = NULL WHERE id = %(id)s
"""
# Failed reminders are included, as a person may request a retry. One cancellation is enough: whatsapp retries nothing
# that was cancelled.
CANCEL_REMINDERS = """
UPDATE reminders SET cancel_requested = true
WHERE cart = %(id)s AND state IN ('requested', 'failed') AND NOT cancel_requested AND period <> %(period)s
RETURNING period
"""
CANCEL_REMINDERS_OF_PERSON = f"""
UPDATE reminders AS r SET cancel_requested = true FROM carts AS c
WHERE c.shop = %(shop)s AND {_IS_PERSON.format("c")} AND c.id <> %(id)s AND c.idle_since <= %(ordered_at)s
AND r.cart = c.id AND r.state IN ('requested', 'failed') AND NOT r.cancel_requested RETURNING r.cart, r.period
"""  # noqa: S608 - a condition of this module
# Only the last reminder that was sent before the order, and only once: the customer may change the cart before
# ordering it.
MARK_RECOVERED = """
UPDATE reminders SET recovered_at = now(), value = %(order_total)s, currency = %(order_currency)s
WHERE cart = %(id)s AND state = 'sent' AND recovered_at IS NULL AND period = (
  SELECT max(period) FROM reminders WHERE cart = %(id)s AND state = 'sent' AND period <= %(ordered_version)s)
RETURNING period
"""

# -- reminders


@dataclass(frozen=True)
class KnownReminder:
    """A reminder of an idle period."""

    state: str
    in_ledger: bool
    in_progress: bool


@dataclass(frozen=True)
class OtherCarts:
    """What the other carts of a cart's owner say about a reminder of this one."""

    ordered_since: bool = False
    """Whether one was ordered after this one was left."""
    not_before: datetime | None = None
    """When the owner may be reminded again, if they ever were."""


@dataclass(frozen=True)
class ChangedReminder:
    """A reminder whose result was applied, with its state before."""

    requester: str
    tries: int
    was: str


NOW = "SELECT now() AS now"
# By array, so that the carts are updated by primary key, however many there are. A cart must be idle by the fact's
# time and by the time of arrival: if the shop's clock is behind, customers who are still shopping would be reminded.
_IDLE = """
shop = %(shop)s AND status = 'active' AND remindable
AND idle_since <= now() - %(delay)s * interval '1 hour' AND idle_since > now() - %(oldest)s * interval '1 hour'
AND updated_at <= now() - %(delay)s * interval '1 hour' AND expires_at >= now()
AND (remind_after IS NULL OR remind_after <= now())
"""
CLAIM_IDLE_CARTS = f"""
UPDATE carts SET remindable = false WHERE id = ANY(ARRAY(
  SELECT id FROM carts WHERE {_IDLE} ORDER BY idle_since LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)) RETURNING id, cart_id, filled_version AS period
"""  # noqa: S608 - a constant
ANY_IDLE_CART = f"SELECT 1 FROM carts WHERE {_IDLE} LIMIT 1"  # noqa: S608 - a constant
ADD_CLAIMS = """
INSERT INTO reminders AS r (cart, period, shop, state)
SELECT cart, period, %(shop)s, 'claimed' FROM unnest(%(ids)s::uuid[], %(periods)s::bigint[]) AS new (cart, period)
ON CONFLICT (cart, period) DO UPDATE SET state = 'claimed', tries = r.tries + 1, changed_at = now()
WHERE r.state IN ('claimed', 'skipped', 'failed')
"""
# Until the transaction ends, as two carts of one person may be reminded of at the same time. A lock, not a row, because
# the person may have none.
LOCK_PERSON = """
SELECT pg_advisory_xact_lock(hashtextextended(%(shop)s || chr(10) || name, 0))
FROM (SELECT DISTINCT unnest(%(names)s::text[]) AS name ORDER BY 1) AS names
"""
SET_LINK = """
INSERT INTO person_links AS l (portfolio, person, user_id, linked_at)
VALUES (%(portfolio)s, %(person)s, %(user_id)s, %(linked_at)s)
ON CONFLICT (portfolio, person) DO UPDATE SET user_id = excluded.user_id, linked_at = excluded.linked_at
WHERE l.linked_at < excluded.linked_at
"""
# A number has an id in each portfolio, and an id one number at a time: the one that Meta has used last.
NAMES_OF_OWNER = """
WITH RECURSIVE names (name) AS (
  SELECT unnest(array_remove(ARRAY[%(person)s, %(user_id)s]::text[], NULL))
  UNION
  SELECT CASE WHEN l.person = n.name THEN l.user_id ELSE l.person END
  FROM names AS n JOIN person_links AS l ON n.name IN (l.person, l.user_id)
  WHERE NOT EXISTS (SELECT 1 FROM person_links AS later
                    WHERE later.user_id = l.user_id AND later.person <> l.person AND later.linked_at > l.linked_at))
SELECT name FROM names ORDER BY name
"""
# What the other carts of a person say: whether one was ordered since this one was left, and until when they were reminded
# too recently. A reminder that was requested counts, because it may be sent at any time, and one of unknown result as well.
# `now` is the start of a transaction, which may have waited for one that began later: 0 hours is no limit at all, rather
# than a limit that has just passed.
OTHERS_OF_PERSON = f"""
SELECT EXISTS (
    SELECT 1 FROM carts AS c WHERE c.shop = %(shop)s AND {_IS_PERSON.format("c")} AND c.id <> %(id)s AND c.ordered_at > %(idle_since)s
  ) AS ordered_since,
  (SELECT max(coalesce(sent_at, changed_at)) + nullif(%(hours)s, 0) * interval '1 hour' FROM reminders AS r
   WHERE r.shop = %(shop)s AND {_IS_PERSON.format("r")} AND (cart, period) <> (%(id)s, %(period)s)
   AND (state IN ('requested', 'sent') OR (state = 'failed' AND reason = 'unknown'))) AS not_before
"""  # noqa: S608 - a condition of this module
LOCK_SHOP = "SELECT pg_advisory_xact_lock(hashtextextended(%(shop)s, 1))"
# Reminders that were requested within an hour, and those that wait to be checked.
REQUESTED_THIS_HOUR = """
SELECT count(*) AS reminders FROM reminders
WHERE shop = %(shop)s AND changed_at > now() - interval '1 hour' AND state IN ('claimed', 'requested', 'sent', 'failed')
AND coalesce(sent_at, changed_at) > now() - interval '1 hour'
"""
LOCK_CART = "SELECT *, now() AS now FROM carts WHERE id = %(id)s FOR UPDATE"
# After 6 hours without an answer, the request or its answer is lost. It may be requested again: the send key prevents
# a second message.
REMINDER = """
SELECT state, in_ledger,
       state = 'sent' OR (state = 'requested' AND changed_at > now() - interval '6 hours') AS in_progress
FROM reminders WHERE cart = %(id)s AND period = %(period)s
"""
SET_REMINDER = """
INSERT INTO reminders AS r (cart, period, shop, state, reason, requester, person, user_id)
VALUES (%(id)s, %(period)s, %(shop)s, %(state)s, %(reason)s, %(requester)s, %(person)s, %(user_id)s)
ON CONFLICT (cart, period) DO UPDATE SET state = excluded.state, reason = excluded.reason, person = excluded.person,
  user_id = excluded.user_id, requester = excluded.requester, rank = 0, cancel_requested = false, changed_at = now()
"""
MARK_UNREMINDABLE = "UPDATE carts SET remindable = false WHERE id = %(id)s"
MARK_REMINDABLE = """
UPDATE carts SET remindable = true, remind_after = %(not_before)s::timestamptz WHERE id = %(id)s AND filled_version = %(period)s
"""
# A fact of an earlier attempt, or of a lower rank, is obsolete.
APPLY_RESULT = """
WITH before AS (SELECT state FROM reminders WHERE cart = %(id)s AND period = %(period)s)
UPDATE reminders AS r SET state = %(state)s, reason = %(reason)s, attempt = %(attempt)s, rank = %(rank)s,
       in_ledger = r.in_ledger OR %(in_ledger)s, changed_at = now(),
       sent_at = CASE WHEN %(state)s = 'sent' THEN coalesce(r.sent_at, now()) ELSE r.sent_at END
FROM before
WHERE r.cart = %(id)s AND r.period = %(period)s AND (r.attempt, r.rank) < (%(attempt)s, %(rank)s)
RETURNING r.requester, r.tries, before.state AS was
"""
# An emptied cart does not become abandoned: its owner has answered the reminder.
MARK_SENT = """
UPDATE carts SET reminder_sent_at = coalesce(reminder_sent_at, now())
WHERE id = %(id)s AND filled_version = %(period)s AND item_count > 0
"""
MARK_NOT_SENT = """
UPDATE carts SET reminder_sent_at = NULL,
       remindable = %(retryable)s AND status = 'active' AND item_count > 0 AND coalesce(phone, user_id) IS NOT NULL,
       remind_after = now() + %(wait)s * interval '1 second'
WHERE id = %(id)s AND filled_version = %(period)s RETURNING remindable
"""

# -- cleanup

ADD_CLEANUP = """
INSERT INTO cleanups (id, shop, older_than_hours, dry_run, requester, correlationid, causationid, due_at)
VALUES (%(id)s, %(shop)s, %(older_than_hours)s, %(dry_run)s, %(requester)s, %(correlationid)s, %(causationid)s, now())
"""
CLAIM_CLEANUPS = claim_due("cleanups", returning="id")
LOCK_CLEANUP = "SELECT * FROM cleanups WHERE id = %(id)s AND ended_at IS NULL FOR UPDATE"
# By the time of the request: carts that expire during the run are left to the next run.
_EXPIRED = """
shop = %(shop)s AND status = 'active' AND expires_at < %(requested_at)s
AND (%(older_than_hours)s::float8 IS NULL OR updated_at <= %(requested_at)s - %(older_than_hours)s * interval '1 hour')
"""
COUNT_EXPIRED_OF_SHOP = f"SELECT count(*) AS carts FROM carts WHERE {_EXPIRED}"  # noqa: S608 - a constant
# Carts that another transaction is changing are skipped: after the change they are not expired.
DELETE_EXPIRED = f"""
WITH gone AS (DELETE FROM carts WHERE id = ANY(ARRAY(
  SELECT id FROM carts WHERE {_EXPIRED} ORDER BY expires_at LIMIT %(chunk)s FOR UPDATE SKIP LOCKED)) RETURNING 1)
SELECT count(*) AS carts FROM gone
"""  # noqa: S608 - a constant of this module
ADD_DELETED = """
UPDATE cleanups SET deleted = deleted + %(deleted)s, due_at = clock_timestamp() + %(lease)s * interval '1 second'
WHERE id = %(id)s
"""
END_CLEANUP = """
UPDATE cleanups SET ended_at = clock_timestamp(), due_at = NULL, kept = greatest(0, (
  SELECT count(*) FROM carts WHERE shop = %(shop)s AND status IN ('active', 'completed', 'abandoned')
) - CASE WHEN dry_run THEN deleted ELSE 0 END)
WHERE id = %(id)s RETURNING *, extract(epoch FROM ended_at - requested_at)::float8 AS seconds
"""

# -- background loops

# Locked rows are skipped; the next round finds them again.
ABANDON = """
UPDATE carts SET status = 'abandoned', remindable = false, ended_at = now() WHERE id = ANY(ARRAY(
  SELECT id FROM carts WHERE status = 'active' AND reminder_sent_at <= now() - %(hours)s * interval '1 hour'
  LIMIT %(chunk)s FOR UPDATE SKIP LOCKED)) RETURNING 1
"""
# Carts whose reminder request was dead-lettered, or whose answer is lost. If the answer arrives after all, the send
# key prevents a second message. One statement per state, as each has its own index.
RELEASE_STALE = tuple(
    f"""
    UPDATE carts SET remindable = true WHERE id = ANY(ARRAY(
      SELECT c.id FROM reminders AS r JOIN carts AS c ON c.id = r.cart AND c.filled_version = r.period
      WHERE r.state = '{state}' AND r.changed_at < now() - interval '{age}'
      AND c.status = 'active' AND NOT c.remindable AND c.item_count > 0 AND coalesce(c.phone, c.user_id) IS NOT NULL
      AND c.expires_at >= now()
      LIMIT %(chunk)s FOR UPDATE OF c SKIP LOCKED)) RETURNING 1
    """  # noqa: S608 - constants of this module
    for state, age in (("claimed", "1 hour"), ("requested", "6 hours"))
)
# Claims of carts that have changed, if their request never arrived.
# Who was reminded is kept for as long as it decides about another reminder.
FORGET_PERSONS = """
UPDATE reminders SET person = NULL, user_id = NULL WHERE ctid = ANY(ARRAY(SELECT ctid FROM reminders
  WHERE person IS NOT NULL AND changed_at < now() - %(person_hours)s * interval '1 hour' LIMIT %(chunk)s FOR UPDATE SKIP LOCKED))
RETURNING 1
"""
SKIP_STALE_CLAIMS = """
UPDATE reminders AS r SET state = 'skipped', reason = 'changed', changed_at = now() WHERE r.state = 'claimed'
AND r.changed_at < now() - interval '1 day'
AND NOT EXISTS (SELECT 1 FROM carts AS c WHERE c.id = r.cart AND c.filled_version = r.period AND c.status = 'active')
"""
COUNT_CARTS = "SELECT status, count(*) AS carts FROM carts GROUP BY status"
COUNT_EXPIRED = "SELECT count(*) AS carts FROM carts WHERE status = 'active' AND expires_at < now()"
COUNT_REMINDERS = "SELECT state, count(*) AS reminders FROM reminders GROUP BY state"
COUNT_RECOVERED = "SELECT count(*) AS carts FROM reminders WHERE recovered_at IS NOT NULL"
# Reminders are kept for the statistics, and do not name their recipient any more (FORGET_PERSONS); the last cleanup of each shop is kept as well.
DELETE_OLD = (
    """
    DELETE FROM carts WHERE ctid = ANY(ARRAY(SELECT ctid FROM carts WHERE
      (status IN ('completed', 'deleted') AND ended_at < now() - %(completed)s * interval '1 day')
      OR (status = 'abandoned' AND ended_at < now() - %(abandoned)s * interval '1 day')
      OR (status = 'active' AND expires_at < now() - %(expired)s * interval '1 day')
      LIMIT %(chunk)s FOR UPDATE SKIP LOCKED)) RETURNING 1
    """,
    """
    DELETE FROM reminders WHERE ctid = ANY(ARRAY(SELECT ctid FROM reminders
      WHERE changed_at < now() - %(abandoned)s * interval '1 day' LIMIT %(chunk)s FOR UPDATE SKIP LOCKED)) RETURNING 1
    """,
    """
    DELETE FROM person_links WHERE ctid = ANY(ARRAY(SELECT ctid FROM person_links
      WHERE linked_at < now() - interval '400 days' LIMIT %(chunk)s FOR UPDATE SKIP LOCKED)) RETURNING 1
    """,
    """
    DELETE FROM cleanups WHERE ctid = ANY(ARRAY(SELECT c.ctid FROM cleanups AS c
      WHERE c.ended_at < now() - %(completed)s * interval '1 day'
      AND (c.dry_run OR EXISTS (
        SELECT 1 FROM cleanups AS later
        WHERE later.shop = c.shop AND NOT later.dry_run AND later.ended_at > c.ended_at))
      LIMIT %(chunk)s FOR UPDATE SKIP LOCKED)) RETURNING 1
    """,
)
