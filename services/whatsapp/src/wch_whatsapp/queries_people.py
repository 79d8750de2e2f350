"""SQL of the names of people: which numbers and ids of Meta's name one person, and what is stored under any of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime


@dataclass(frozen=True)
class KnownName:
    """A number or an id of a person."""

    id: bytes
    person: bytes
    kind: str
    erased: bool
    stated_at: datetime
    replaced_at: datetime | None


def all_ids(id_: str, portfolio: str | None = None) -> str:
    """Return the query of everything that stands for the person whom an SQL expression names, in a portfolio or in any.

    A number that the person gave up names only itself, as it may soon be somebody else's.
    """
    in_portfolio = " AND own.replaced_at IS NULL" + ("" if portfolio is None else f" AND own.portfolio = {portfolio}")
    return (
        f"SELECT {id_} AS id UNION SELECT name.id FROM person_ids AS own JOIN person_ids AS name "  # noqa: S608 - columns
        f"ON name.person = own.person WHERE own.id = {id_}{in_portfolio}"
    )


def holding(shop: str, category: str, ids: str) -> str:
    """Return the FROM clause of the suppressions `s` that hold for a person, who has these ids, in a category.

    A person lifts what they, or Meta on their behalf, have set before, whichever of their names it was set under.
    """
    return f"""
FROM suppressions AS s WHERE s.shop = {shop} AND s.person = ANY({ids}) AND s.category IN ({category}, 'all')
AND s.lifted_at IS NULL AND NOT (s.by IN ('recipient', 'meta') AND EXISTS (
  SELECT 1 FROM suppressions AS lifted WHERE lifted.shop = s.shop AND lifted.person = ANY({ids})
  AND lifted.category = s.category AND lifted.lifted_at >= s.since))
"""  # noqa: S608 - columns


# A statement that is repeated within a day changes nothing, so that most statuses of a message cost one read.
ARE_LINKED = """
SELECT 1 FROM person_ids
WHERE portfolio = %(portfolio)s AND id = ANY(%(ids)s) AND replaced_at IS NULL AND (value IS NOT NULL OR (erased AND NOT %(restores)s))
AND stated_at >= %(at)s::timestamptz - interval '1 day'
HAVING count(*) = cardinality(%(ids)s) AND count(DISTINCT person) = 1
"""
ADD = """
INSERT INTO person_ids (portfolio, id, person, kind, stated_at)
SELECT %(portfolio)s, new.id, uuid_send(gen_random_uuid()), new.kind, %(at)s
FROM unnest(%(ids)s::bytea[], %(kinds)s::text[]) AS new (id, kind)
ORDER BY new.id ON CONFLICT (portfolio, id) DO NOTHING
"""
OF_PEOPLE = """
SELECT id, person, kind, erased, stated_at, replaced_at FROM person_ids
WHERE person IN (SELECT person FROM person_ids WHERE portfolio = %(portfolio)s AND id = ANY(%(ids)s)) ORDER BY id
"""
LOCK = "SELECT 1 FROM person_ids WHERE portfolio = %(portfolio)s AND id = ANY(%(ids)s) ORDER BY id FOR UPDATE"
MERGE = "UPDATE person_ids SET person = %(person)s WHERE person = ANY(%(persons)s) AND person <> %(person)s"
LEAVE = """
UPDATE person_ids SET person = uuid_send(gen_random_uuid()), taken_at = %(at)s, replaced_at = NULL
WHERE portfolio = %(portfolio)s AND id = %(id)s
"""
# An erased person is known again only if they write again.
STATE = """
UPDATE person_ids AS known SET stated_at = greatest(known.stated_at, %(at)s),
  replaced_at = CASE WHEN known.replaced_at >= %(at)s THEN known.replaced_at END,
  value = CASE WHEN %(is_erased)s THEN NULL ELSE new.value END, erased = %(is_erased)s
FROM unnest(%(ids)s::bytea[], %(values)s::text[]) AS new (id, value)
WHERE known.portfolio = %(portfolio)s AND known.id = new.id
"""
REPLACE = """
UPDATE person_ids SET replaced_at = greatest(replaced_at, %(at)s)
WHERE portfolio = %(portfolio)s AND id = ANY(%(ids)s)
AND (stated_at < %(at)s OR (stated_at = %(at)s AND id = ANY(%(previous)s)))
"""
# Once a day, so that a person with one name is not forgotten while they write.
STILL_USED = """
UPDATE person_ids SET stated_at = %(at)s, value = %(value)s, erased = false
WHERE portfolio = %(portfolio)s AND id = %(id)s AND (value IS NULL OR stated_at < %(at)s::timestamptz - interval '1 day')
AND stated_at <= %(at)s AND replaced_at IS NULL
"""
# When names part, what holds for a person under all of them is kept under each side: who has the number then can lift
# the other's STOP as their own.
COPY_SUPPRESSIONS = """
INSERT INTO suppressions AS kept (shop, person, category, reason, by, since, evidence)
SELECT DISTINCT ON (s.shop, s.category, target) s.shop, target, s.category, s.reason, s.by, s.since, s.evidence
FROM suppressions AS s CROSS JOIN unnest(%(targets)s::bytea[]) AS target
WHERE s.person = ANY(%(ids)s) AND s.lifted_at IS NULL
AND NOT (s.by IN ('recipient', 'meta') AND EXISTS (
  SELECT 1 FROM suppressions AS lifted WHERE lifted.shop = s.shop AND lifted.person = ANY(%(ids)s)
  AND lifted.category = s.category AND lifted.lifted_at >= s.since))
ORDER BY s.shop, s.category, target, s.since DESC
ON CONFLICT (shop, person, category) DO UPDATE
SET reason = excluded.reason, by = excluded.by, since = excluded.since, evidence = excluded.evidence, lifted_at = NULL
WHERE kept.lifted_at IS NOT NULL
"""
# Also the hash that stands for the person, under which limits are counted.
NAMES = """
SELECT id, person, kind, value, replaced_at FROM person_ids
WHERE person IN (SELECT person FROM person_ids WHERE id = ANY(%(ids)s)) ORDER BY id
"""
USER_IDS = """
SELECT portfolio, value FROM person_ids WHERE id = ANY(%(ids)s) AND kind = 'user_id' AND value IS NOT NULL
"""
LOCK_NAMES = "SELECT 1 FROM person_ids WHERE id = ANY(%(ids)s) ORDER BY id FOR UPDATE"
# By now the operator may have given the number to somebody else.
LONG_REPLACED = """
SELECT portfolio, id FROM person_ids WHERE kind = 'phone' AND replaced_at < now() - %(days)s * interval '1 day'
LIMIT %(limit)s
"""
# So that a late status of a message does not bring an erased person back.
ADD_ERASED = """
INSERT INTO person_ids (portfolio, id, person, kind, stated_at, erased)
SELECT portfolio, new.id, uuid_send(gen_random_uuid()), new.kind, now(), true
FROM unnest(%(portfolios)s::text[]) AS portfolio CROSS JOIN unnest(%(ids)s::bytea[], %(kinds)s::text[]) AS new (id, kind)
ORDER BY portfolio, new.id ON CONFLICT (portfolio, id) DO NOTHING
"""
# What Meta calls an erased person later is theirs, too.
ALSO_ERASED = """
INSERT INTO erased_people AS known (person, at)
SELECT new.id, max(erased.at) FROM unnest(%(ids)s::bytea[]) AS new (id) CROSS JOIN erased_people AS erased
WHERE erased.person = ANY(%(known)s) GROUP BY new.id ORDER BY new.id
ON CONFLICT (person) DO UPDATE SET at = greatest(known.at, excluded.at) WHERE known.at < excluded.at
"""
ADD_CONTACT_BOOK = """
INSERT INTO contact_book_answers (erasure, portfolio, deleted, refused, failed)
VALUES (%(erasure)s, %(portfolio)s, %(deleted)s, %(refused)s, %(failed)s)
ON CONFLICT (erasure, portfolio) DO UPDATE
SET deleted = excluded.deleted, refused = excluded.refused, failed = excluded.failed
"""
CONTACT_BOOKS = """
SELECT portfolio, deleted, refused, failed FROM contact_book_answers WHERE erasure = %(erasure)s ORDER BY portfolio
"""
