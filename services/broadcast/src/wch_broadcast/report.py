"""The report of a campaign as text: one line per recipient, written as it is read."""

from __future__ import annotations

import csv
import sys
from contextlib import contextmanager
from dataclasses import fields
from operator import attrgetter
from typing import TYPE_CHECKING, TextIO

import orjson

from wch_broadcast.queries_admin import ReportRow

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_NAMES = [one.name for one in fields(ReportRow)]
_values = attrgetter(*_NAMES)


def write_csv(rows: Iterable[ReportRow], out: TextIO) -> None:
    """Write CSV with headings."""
    writer = csv.writer(out)
    writer.writerow(_NAMES)
    writer.writerows(["" if value is None else value for value in _values(row)] for row in rows)


def write_json_lines(rows: Iterable[ReportRow], out: TextIO) -> None:
    """Write one JSON object per line."""
    out.writelines(orjson.dumps(row).decode() + "\n" for row in rows)


@contextmanager
def opened(output: Path | None) -> Iterator[TextIO]:
    """Open a file for writing, or standard output for None; raises OSError."""
    if output is None:
        yield sys.stdout
        return
    with output.open("w", newline="") as out:
        yield out
