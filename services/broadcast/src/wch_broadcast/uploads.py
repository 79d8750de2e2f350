"""Reading a CSV file of recipients line by line: usable recipients, and the reason for each line that is refused."""

from __future__ import annotations

import csv
import re
import sys
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import TextIOWrapper
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from wch_broadcast.columns import check_columns
from wch_broadcast.csv_rows import RefusedLine, Row, Rows
from wch_broadcast.lists import PART_SIZE
from wch_common.errors import field_errors
from wch_common.events.broadcast import CampaignRecipient, RecipientsRequested
from wch_common.events.recipient import MalformedRecipient
from wch_common.events.whatsapp_content import Media, Parameter, TemplateButton
from wch_common.events.whatsapp_media import refuse_unreachable
from wch_common.events.whatsapp_template import button_problem
from wch_common.integrations.recipients import resolved
from wch_common.integrations.templates import is_changed, texts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

_SHOWN_REFUSALS = 20


class MissingValue(ValueError):
    """A line leaves out a value beside one that it gives; the message names the column."""


@dataclass
class NotedLines:
    """Lines that are used and deserve a remark: how many, and the first of them."""

    count: int = 0
    first: list[int] = field(default_factory=list)

    def add(self, line: int) -> None:
        """Add a line."""
        self.count += 1
        if len(self.first) < _SHOWN_REFUSALS:
            self.first.append(line)


@dataclass
class Notes:
    """What was noticed about lines that are used."""

    changed: NotedLines = field(default_factory=NotedLines)
    """Lines with line breaks, tabs or long runs of spaces in a value, which become one space."""
    without_values: NotedLines = field(default_factory=NotedLines)
    """Lines that leave every body column empty, and so get the campaign's values."""


def read(
    lines: Iterator[str], region: str | None = None, notes: Notes | None = None
) -> Iterator[CampaignRecipient | RefusedLine]:
    """Yield a recipient or a refusal for every line after the headings, and add to the notes; raises WrongHeadings."""
    notes = notes or Notes()
    rows = Rows(lines, region)
    check_columns(rows.headings)
    has_body = any(heading.startswith("body") for heading in rows.headings)
    for row in rows:
        recipient = row if isinstance(row, RefusedLine) else _usable(row, region)
        if isinstance(row, Row) and isinstance(recipient, CampaignRecipient):
            _note(recipient, row.line, notes, has_body=has_body)
        yield recipient


def _note(recipient: CampaignRecipient, line: int, notes: Notes, *, has_body: bool) -> None:
    if any(is_changed(text) for _, text in texts(recipient)):
        notes.changed.add(line)
    if has_body and recipient.body is None:
        notes.without_values.add(line)


# A spreadsheet shows 12 digits and more with six of them, 4.47911E+11; formatted as a number later, the others are zeros.
_ROUNDED: Final = re.compile(r"\+[0-9]{6,}0{6}")


def _usable(row: Row, region: str | None) -> CampaignRecipient | RefusedLine:
    try:
        return _recipient(row.values, region)
    except MalformedRecipient as error:
        return RefusedLine(row.line, f"to: {error}")
    except ValidationError as error:
        place, problem = field_errors(error)[0].field, field_errors(error)[0].problem
        return RefusedLine(row.line, f"{place}: {problem}" if place else problem)
    except ValueError as error:  # a missing value, or a link that Meta cannot fetch
        return RefusedLine(row.line, str(error))


def _recipient(row: dict[str, str], region: str | None) -> CampaignRecipient:
    to = resolved(row["to"], region).names[0]
    if _ROUNDED.fullmatch(to):
        raise ValueError(
            "to: ends with six zeros, as a number does that a spreadsheet has shortened; format the column as text and export "
            "it again"
        )
    values = {name: value for name, value in row.items() if value.strip() and name != "to"}
    _refuse_gaps([name for name in row if name.startswith("body")], values)
    own = defaultdict[str, list[Parameter]](list)
    buttons: list[TemplateButton] = []
    header: Parameter | Media | None = None
    for name in sorted(values, key=lambda name: (len(name), name)):
        part, _, kind = name.partition(":")
        with _in_column(name):
            if part == "header":
                header = _file(kind, values[name]) if kind else Parameter(text=values[name])
            elif part.startswith("button"):
                field = "flow_token" if kind == "flow" else "value"
                button = TemplateButton(index=int(part[6:]), kind=kind, **{field: values[name]})  # type: ignore[arg-type]
                if problem := button_problem(button):
                    raise ValueError(f"{name}: {problem}")
                buttons.append(button)
            else:
                own["body"].append(Parameter(text=values[name], name=kind or None))
    return CampaignRecipient(to=to, header=header, body=tuple(own["body"]) or None, buttons=tuple(buttons) or None)


@contextmanager
def _in_column(name: str) -> Iterator[None]:
    """Name the column of a value that is refused."""
    try:
        yield
    except ValidationError as error:
        raise ValueError(f"{name}: {field_errors(error)[0].problem.removeprefix('value: ')}") from None


def _file(kind: str, link: str) -> Media:
    file = Media(kind=kind, link=link)  # type: ignore[arg-type]
    refuse_unreachable(file, f"header:{kind}")
    return file


def _refuse_gaps(columns: list[str], values: dict[str, str]) -> None:
    """Raise MissingValue if a line gives some of its body's values: those of the campaign replace all of them or none."""
    missing = [name for name in columns if name not in values]
    if missing and len(missing) < len(columns):
        raise MissingValue(f"{', '.join(missing)}: has no value; fill it, or leave every body column of the line empty")


class Refusals:
    """Counts used and refused lines; keeps the first refusals, and passes all of them to a CSV writer if given."""

    def __init__(self, out: Any = None) -> None:  # noqa: ANN401 - a csv writer
        self.count, self.kept = 0, 0
        self.first: list[RefusedLine] = []
        self._out = out

    def add(self, one: RefusedLine) -> None:
        """Add a refused line."""
        self.count += 1
        if len(self.first) < _SHOWN_REFUSALS:
            self.first.append(one)
        if self._out is not None:
            self._out.writerow((one.line, one.reason))


def usable(
    found: Iterable[CampaignRecipient | RefusedLine], refusals: Refusals, on_line: Callable[[], None]
) -> Iterator[CampaignRecipient]:
    """Yield the recipients and add the refused lines to `refusals`; `on_line` is called for each line."""
    for one in found:
        on_line()
        if isinstance(one, RefusedLine):
            refusals.add(one)
        else:
            refusals.kept += 1
            yield one


def upload(
    recipients: Iterator[CampaignRecipient], list_id: str, publish: Callable[[RecipientsRequested], object]
) -> int:
    """Publish a list part by part, and return the number of parts.

    A part is published once the next one has been read, so that the last part can give their number.
    """
    number, current = 0, _part(recipients)
    while True:
        number, following = number + 1, _part(recipients)
        parts = None if following else number
        publish(RecipientsRequested(list_id=list_id, part=number, parts=parts, recipients=current))
        if not following:
            return number
        current = following


def _part(recipients: Iterator[CampaignRecipient]) -> tuple[CampaignRecipient, ...]:
    return tuple(islice(recipients, PART_SIZE))


@contextmanager
def lines_of(file: Path) -> Iterator[Iterator[str]]:
    """Open a file, or standard input for `-`; raises OSError."""
    if str(file) == "-":
        text = TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig", newline="")
        try:
            yield text
        finally:
            text.detach()  # closing it would close the input of the process
        return
    with file.open(encoding="utf-8-sig", newline="") as opened:
        yield opened


@contextmanager
def refusals_in(file: Path | None) -> Iterator[Refusals]:
    """Provide Refusals that write to a CSV file, if one is given."""
    if file is None:
        yield Refusals()
        return
    with file.open("w", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(("line", "reason"))
        yield Refusals(rows)
