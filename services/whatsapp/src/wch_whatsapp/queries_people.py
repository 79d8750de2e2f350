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
    portfolio: str
    stated_at: datetime
    replaced: bool


def all_ids(id_: str) -> str:
    """Return the query of every id of the person whom an SQL expression, a column of another table, names."""
    return (
        f"SELECT {id_} AS id UNION SELECT name.id FROM person_ids AS own JOIN person_ids AS name "  # noqa: S608 - a column
        f"ON name.person = own.person WHERE own.id = {id_}"
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
WHERE id = ANY(%(ids)s) AND NOT replaced AND value IS NOT NULL AND stated_at >= %(at)s::timestamptz - interval '1 day'
HAVING count(*) = cardinality(%(ids)s) AND count(DISTINCT person) = 1
"""
ARE_KNOWN_AS_ONE = """
SELECT 1 FROM person_ids WHERE id = ANY(%(ids)s)
HAVING count(*) = cardinality(%(ids)s) AND count(DISTINCT person) = 1
"""
ADD = """
INSERT INTO person_ids (id, person, kind, portfolio, value, stated_at)
SELECT new.id, new.id, new.kind, new.portfolio, new.value, %(at)s
FROM unnest(%(ids)s::bytea[], %(kinds)s::text[], %(portfolios)s::text[], %(values)s::text[])
  AS new (id, kind, portfolio, value)
ORDER BY new.id ON CONFLICT (id) DO NOTHING
"""
OF_PEOPLE = """
SELECT id, person, kind, portfolio, stated_at, replaced FROM person_ids
WHERE person IN (SELECT person FROM person_ids WHERE id = ANY(%(ids)s)) ORDER BY id
"""
LOCK = "SELECT 1 FROM person_ids WHERE id = ANY(%(ids)s) ORDER BY id FOR UPDATE"
MERGE = "UPDATE person_ids SET person = %(person)s WHERE person = ANY(%(persons)s) AND person <> %(person)s"
LEAVE = """
UPDATE person_ids SET person = CASE WHEN id = %(id)s THEN %(id)s ELSE %(rest)s END WHERE id = %(id)s OR person = %(person)s
"""
STATE = """
UPDATE person_ids AS known SET stated_at = greatest(known.stated_at, %(at)s), replaced = false, value = new.value
FROM unnest(%(ids)s::bytea[], %(values)s::text[]) AS new (id, value) WHERE known.id = new.id
"""
REPLACE = "UPDATE person_ids SET replaced = true WHERE id = ANY(%(ids)s) AND stated_at <= %(at)s"
# A number that changes hands keeps what holds for it: whoever has it now can lift it.
KEEP_SUPPRESSIONS = """
INSERT INTO suppressions AS kept (shop, person, category, reason, by, since, evidence)
SELECT DISTINCT ON (s.shop, s.category) s.shop, %(id)s::bytea, s.category, s.reason, s.by, s.since, s.evidence
FROM suppressions AS s WHERE s.person = ANY(%(ids)s) AND s.lifted_at IS NULL
AND NOT (s.by IN ('recipient', 'meta') AND EXISTS (
  SELECT 1 FROM suppressions AS lifted WHERE lifted.shop = s.shop AND lifted.person = ANY(%(ids)s)
  AND lifted.category = s.category AND lifted.lifted_at >= s.since))
ORDER BY s.shop, s.category, s.since DESC
ON CONFLICT (shop, person, category) DO UPDATE
SET reason = excluded.reason, by = excluded.by, since = excluded.since, evidence = excluded.evidence, lifted_at = NULL
WHERE kept.lifted_at IS NOT NULL
"""
NAMES = """
SELECT id, value FROM person_ids WHERE person IN (SELECT person FROM person_ids WHERE id = ANY(%(ids)s)) ORDER BY id
"""
