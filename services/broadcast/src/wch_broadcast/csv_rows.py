"""Reading the rows of a CSV file; what an unclosed quotation mark may have put together is refused."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wch_common.contract.envelope import NO_NUL
from wch_common.events.recipient import MalformedRecipient
from wch_common.integrations.recipients import resolved

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_UNCLOSED = "is a quotation mark not closed?"


class WrongHeadings(ValueError):
    """The file's first line is wrong; the message says why."""


@dataclass(frozen=True)
class RefusedLine:
    """A line that cannot be used; of several lines with one row, the first."""

    line: int
    reason: str


@dataclass(frozen=True)
class Row:
    """The values of a row by their headings, and its first line."""

    line: int
    values: dict[str, str]


class Rows:
    """The headings of a file, and its rows; raises WrongHeadings if the first line cannot be read."""

    def __init__(self, lines: Iterator[str], region: str | None = None) -> None:
        self._reader = csv.reader(lines, strict=True)
        self._region = region
        try:
            self.headings = [heading.strip() for heading in next(self._reader, ())]
        except csv.Error as error:
            raise WrongHeadings(f"the first line cannot be read ({error}): {_UNCLOSED}") from None
        self._most = len(self.headings)
        while self.headings and not self.headings[-1]:  # a spreadsheet writes them for columns that are empty
            self.headings.pop()

    def __iter__(self) -> Iterator[Row | RefusedLine]:
        """Yield every row that is not empty, and a refusal for each that cannot be read; the rest of a file may be one."""
        first = self._reader.line_num + 1
        try:
            for cells in self._reader:
                if cells:
                    yield self._row(first, cells)
                first = self._reader.line_num + 1
        except csv.Error as error:
            yield RefusedLine(first, f"cannot be read, nor can the lines after it ({error}): {_UNCLOSED}")

    def _row(self, line: int, cells: Sequence[str]) -> Row | RefusedLine:
        if len(cells) > self._most or any(cell.strip() for cell in cells[len(self.headings) :]):
            return RefusedLine(line, "has more values than there are headings")
        values = dict.fromkeys(self.headings, "") | dict(zip(self.headings, cells, strict=False))
        for heading, value in values.items():
            if "\0" in value:
                return RefusedLine(line, f"{heading}: {NO_NUL}")
            if _has_row(value, self._region):
                return RefusedLine(
                    line,
                    f"{heading}: has several lines, and one of them has a recipient like a line of its own: {_UNCLOSED}",
                )
        return Row(line, values)


def _has_row(value: str, region: str | None) -> bool:
    """Whether a value of several lines has one that reads as a row with a recipient."""
    lines = [line.split(",") for line in value.splitlines()]
    return len(lines) > 1 and any(_is_recipient(cell, region) for cells in lines if len(cells) > 1 for cell in cells)


def _is_recipient(cell: str, region: str | None) -> bool:
    try:
        resolved(cell, region)
    except MalformedRecipient:
        return False
    return True
