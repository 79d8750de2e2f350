"""What became of a campaign's recipients, a line each, however many they are."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any, TextIO

import orjson
import psycopg

from wch_broadcast.queries import REPORT

if TYPE_CHECKING:
    from uuid import UUID

_HEADINGS = ("to", "batch", "outcome", "reason", "code", "until")


def write(connection: Any, campaign: UUID, out: TextIO, *, json: bool) -> None:  # noqa: ANN401 - a psycopg connection
    """Write CSV with headings, or with `json` an object a line."""
    rows = csv.writer(out)
    if not json:
        rows.writerow(_HEADINGS)
    with connection.transaction(), psycopg.ServerCursor(connection, "report") as cursor:
        for row in cursor.execute(REPORT, {"id": campaign}):
            if json:
                out.write(orjson.dumps(row).decode() + "\n")
            else:
                rows.writerow("" if value is None else value for value in row.values())
