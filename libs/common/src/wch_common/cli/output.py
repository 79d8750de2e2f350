"""What all commands share: addresses, tables, JSON for programs, errors of one sentence."""

from __future__ import annotations

import getpass
import os
import sys
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Column, Table

from wch_common.errors import WchError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_WIDEST = 1000

AmqpUrl = Annotated[
    str,
    typer.Option(
        "--amqp-url", envvar="WCH_AMQP_URL", help="Broker, like amqp://user:password@host:5672/wch.", show_default=False
    ),
]
ManagementUrl = Annotated[
    str | None,
    typer.Option(
        "--management-url", envvar="WCH_MANAGEMENT_URL", help="Management API; by default, 10,000 ports above AMQP."
    ),
]
DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        "--database-url",
        envvar="WCH_DATABASE_URL",
        help="PostgreSQL, like postgresql://user:password@host/wch.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, without doing it.")]


class CommandError(WchError):
    """The command cannot do what was requested; the message says why, and what to do."""


def print_json(value: Any) -> None:  # noqa: ANN401 - anything JSON holds
    """Print a value as JSON."""
    text = orjson.dumps(value, option=orjson.OPT_INDENT_2 if sys.stdout.isatty() else 0, default=_plain)
    sys.stdout.write(text.decode() + "\n")


def _plain(value: object) -> object:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


@cache
def console() -> Console:
    """Return the console of this process, with the width that COLUMNS or the terminal has when it is first used."""
    return Console(highlight=False, soft_wrap=False)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """Print rows as a table, or the sentence `empty` if there are none."""
    first, *others = columns
    # The first column names the row and stays whole, to be copied; the others are folded rather than cut.
    heads = (Column(first, no_wrap=True), *(Column(other, overflow="fold") for other in others))
    table = Table(*heads, box=None, pad_edge=False, show_header=any(columns), header_style="bold", row_styles=None)
    filled = False
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
        filled = True
    if filled:
        pipe_wide().print(table)
    else:
        console().print(empty)


def pipe_wide() -> Console:
    """Return the console; in a pipe it is so wide that every row is one line and nothing is cut."""
    wide = not console().is_terminal and not os.environ.get("COLUMNS")
    return Console(highlight=False, width=_WIDEST) if wide else console()


def say(text: str) -> None:
    """Print one sentence without line breaks, so that names in it can be copied."""
    console().print(text, soft_wrap=True, markup=False)


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural where that is right: `1 cart`, `2 carts`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def whoami() -> str:
    """Return who runs the command, for records: the user, or the user's number where it has no name, and the host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{os.uname().nodename}"
