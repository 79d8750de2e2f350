"""SQL of the message templates, and of what a campaign may send: for the service, and for operators' commands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wch_common.store.due_rows import claim_due

if TYPE_CHECKING:
    from datetime import datetime

# -- reading from Meta

FORGET_OTHER_SHOPS = """
WITH reads AS (DELETE FROM template_reads WHERE shop <> ALL(%(shops)s))
DELETE FROM templates WHERE shop <> ALL(%(shops)s)
"""
FORGET_OTHER_ACCOUNT = """
WITH reads AS (DELETE FROM template_reads WHERE shop = %(shop)s AND account IS DISTINCT FROM %(account)s RETURNING shop)
DELETE FROM templates WHERE shop IN (SELECT shop FROM reads)
"""
ADD_READ = """
INSERT INTO template_reads (shop, account, due_at)
VALUES (%(shop)s, %(account)s, CASE WHEN %(account)s::text IS NOT NULL THEN now() END)
ON CONFLICT (shop) DO UPDATE SET due_at = excluded.due_at
"""
CLAIM_READS = claim_due("template_reads", key="shop", returning="shop, failure")
NOTE_FAILURE = """
UPDATE template_reads SET failed_at = now(), failure = %(failure)s, due_at = now() + %(seconds)s * interval '1 second'
WHERE shop = %(shop)s
"""
# Not if another replica has been started with another account meanwhile.
NOTE_READ = """
UPDATE template_reads SET read_at = now(), failed_at = NULL, failure = '', due_at = now() + %(seconds)s * interval '1 second'
WHERE shop = %(shop)s AND account = %(account)s RETURNING shop
"""
DELETE_TEMPLATES = "DELETE FROM templates WHERE shop = %(shop)s"
ADD_TEMPLATES = """
INSERT INTO templates (shop, name, language, status, category, parameter_format, components)
SELECT %(shop)s, new.* FROM jsonb_to_recordset(%(templates)s::jsonb) AS new (
  name text, language text, status text, category text, parameter_format text, components jsonb)
"""
OLDEST_COPY = """
SELECT extract(epoch FROM max(now() - coalesce(read_at, created_at)))::float8 AS seconds
FROM template_reads WHERE account IS NOT NULL
"""

# -- operators' reads


@dataclass(frozen=True)
class TemplateRead:
    """When the templates of a shop were read from Meta, and why not since."""

    account: str | None
    """The id of the WhatsApp business account; None if the service does not know it."""
    read_at: datetime | None
    failed_at: datetime | None
    failure: str
    due_at: datetime | None
    now: datetime


TEMPLATE_READ = """
SELECT account, read_at, failed_at, failure, due_at, now() AS now FROM template_reads WHERE shop = %(shop)s
"""
TEMPLATES = """
SELECT name, language, status, category, parameter_format, components FROM templates
WHERE shop = %(shop)s ORDER BY name, language
"""


@dataclass(frozen=True)
class SendingNumber:
    """A number of a shop, and what it may still send."""

    sender: str
    rate: float
    """Messages a second; 0 for no limit."""
    messaging_limit: int
    """Recipients per 24 hours outside windows, for the whole portfolio; -1 for no limit."""
    reached: int
    """Recipients whom the portfolio reached within 24 hours."""
    frees_at: datetime | None
    """When the first of them no longer counts."""
    cause: str | None
    paused_until: datetime | None


SENDING_NUMBERS = """
SELECT n.sender, n.rate, n.messaging_limit, coalesce(today.recipients, 0) AS reached,
       today.oldest + interval '24 hours' AS frees_at, n.cause, n.paused_until
FROM numbers AS n CROSS JOIN LATERAL (
  SELECT count(*) AS recipients, min(at) AS oldest FROM reached
  WHERE reached.portfolio = n.portfolio AND reached.at > now() - interval '24 hours'
) AS today
WHERE n.shop = %(shop)s ORDER BY n.place
"""
