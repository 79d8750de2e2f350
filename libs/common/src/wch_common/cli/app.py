"""`wch`: the commands of the library and those of every installed service."""

from __future__ import annotations

import errno
import os
import sys
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from wch_common.cli import dlq, doctor, events, queues, topology
from wch_common.errors import WchError, field_errors

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
app = typer.Typer(
    name="wch",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(events.app, name="events")
app.add_typer(topology.app, name="topology")
app.add_typer(dlq.app, name="dlq")
app.add_typer(queues.app, name="queues")
app.command(name="doctor")(doctor.doctor)


def _print_version(wanted: bool) -> None:
    if wanted:
        installed = ["wch-common", *sorted(f"wch-{one.name}" for one in entry_points(group="wch.topology"))]
        print("\n".join(f"{name} {version(name)}" for name in installed))
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the versions of the installed packages."
        ),
    ] = False,
) -> None:
    """Operate WCH Jobs. Every command has --help; most have --json."""


for found in entry_points(group="wch.cli"):
    app.add_typer(found.load(), name=found.name)


def main() -> None:
    """Run the command; an expected failure is one sentence on standard error with exit code 1."""
    try:
        for name in ("WCH_AMQP_URL", "WCH_DATABASE_URL"):
            # In a pod, secrets are files.
            if (file := os.environ.get(f"{name}_FILE")) and name not in os.environ:
                os.environ[name] = Path(file).read_text().strip()
        app()
    except WchError as error:
        print(f"wch: {error}", file=sys.stderr)
        sys.exit(1)
    except ValidationError as error:
        print(f"wch: {'; '.join(map(str, field_errors(error)))}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        # What fails while a file is written does not name it.
        where = error.filename or ("the output could not be written" if error.errno in _NO_SPACE else None)
        if where is None:
            raise
        print(f"wch: {where}: {error.strerror}", file=sys.stderr)
        sys.exit(1)
