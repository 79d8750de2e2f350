"""`wch schedules`: what is published when, and what was; run, pause, resume, preview."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo

import orjson
import typer
from rich.table import Table

from wch_common.cli.output import AsJson, DatabaseUrl, DryRun, Wrong, console, print_json, print_table, say, whoami
from wch_common.cli.service import service_schema
from wch_common.events import published_contract
from wch_scheduler.file import Schedule, WrongFile, read
from wch_scheduler.planned_times import planned_after

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

app = typer.Typer(help="Schedules: list, show, run, pause, resume, preview, missed, check.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The schedule's name in the file.", metavar="SCHEDULE")]
Why = Annotated[str, typer.Option("--reason", help="Why; it is kept.")]
_ALL = """
SELECT name, definition, next_planned, next_due, manual_at, paused_at, said_by, reason, last_planned, last_fired_at, fired, missed
FROM schedules ORDER BY name
"""
_ONE = "SELECT * FROM schedules WHERE name = %(name)s"
_TICKS = "SELECT planned, kind, by, fired_at FROM ticks WHERE schedule = %(name)s ORDER BY fired_at DESC LIMIT 10"
_GAPS = """
SELECT schedule, first, last, ticks, why, noticed_at FROM gaps
WHERE %(name)s::text IS NULL OR schedule = %(name)s ORDER BY noticed_at DESC LIMIT %(limit)s
"""
# One that could not be published, as the log says, may be asked for again.
_UNASKED = "(manual_at IS NULL OR manual_at < now() - interval '1 minute')"
_RUN = f"""
UPDATE schedules SET manual_at = clock_timestamp(), manual_by = %(by)s WHERE name = %(name)s AND {_UNASKED} RETURNING name
"""  # noqa: S608 - words of this module
_PAUSE = """
UPDATE schedules SET paused_at = now(), said_by = %(by)s, reason = %(reason)s WHERE name = %(name)s AND paused_at IS NULL RETURNING name
"""
# Its next time is found by the service, from when it goes on.
_RESUME = """
UPDATE schedules SET paused_at = NULL, said_by = '', reason = '', next_planned = NULL,
  next_due = CASE WHEN next_due IS NOT NULL THEN now() END
WHERE name = %(name)s AND paused_at IS NOT NULL RETURNING name
"""


@app.command(name="list")
def list_(database_url: DatabaseUrl = None, json: AsJson = False) -> None:
    """List schedules with their next and last run, what was missed, and which are paused."""
    with _database(database_url) as connection:
        rows = connection.execute(_ALL).fetchall()
    if json:
        print_json(rows)
        return
    columns = ("SCHEDULE", "GROUP", "WHEN", "NEXT", "LAST", "FIRED", "MISSED", "")
    cells = [
        (row["name"], row["definition"]["group"], _when(row), _timestamp(row["next_due"]), _timestamp(row["last_fired_at"]),
         row["fired"], row["missed"], _state(row)) for row in rows
    ]  # fmt: skip
    print_table(columns, cells, empty="the file in use has no schedule")


@app.command()
def show(name: Name, database_url: DatabaseUrl = None, json: AsJson = False) -> None:
    """Show a schedule as it is in use, and its last runs."""
    with _database(database_url) as connection:
        row = _found(connection, name)
        ticks = connection.execute(_TICKS, {"name": name}).fetchall()
    if json:
        print_json(row | {"ticks": ticks})
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    for key, value in (row.pop("definition") | row).items():
        if value not in (None, "", {}, []) and key != "timing":
            table.add_row(key, _plain(value))
    for tick in ticks:
        by = f" by {tick['by']}" if tick["by"] else ""
        table.add_row(
            "run", f"{_timestamp(tick['planned'])}, {tick['kind']}{by}, published {_timestamp(tick['fired_at'])}"
        )
    console.print(table)


@app.command()
def run(name: Name, database_url: DatabaseUrl = None, dry_run: DryRun = False, json: AsJson = False) -> None:
    """Publish a schedule's events now, once; the times of its plan stay as they are."""
    _changed(
        database_url,
        name,
        _RUN,
        "run",
        "asked a running scheduler to publish",
        "is asked for already",
        {},
        dry_run=dry_run,
        json=json,
    )


@app.command()
def pause(
    name: Name, database_url: DatabaseUrl = None, reason: Why = "", dry_run: DryRun = False, json: AsJson = False
) -> None:
    """Publish nothing of a schedule until it is resumed; what passes meanwhile is not caught up."""
    _changed(
        database_url,
        name,
        _PAUSE,
        "pause",
        "paused",
        "is paused already",
        {"reason": reason},
        dry_run=dry_run,
        json=json,
    )


@app.command()
def resume(name: Name, database_url: DatabaseUrl = None, dry_run: DryRun = False, json: AsJson = False) -> None:
    """Go on with a paused schedule, from its next time on."""
    _changed(database_url, name, _RESUME, "resume", "resumed", "is not paused", {}, dry_run=dry_run, json=json)


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="The file of schedules.", exists=True, dir_okay=False)],
    shop: Annotated[
        list[str] | None, typer.Option(help="A shop's name; once for each, where there are several.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Say what is wrong with a file before it is rolled out, every mistake by its line; fails where there is one."""
    mistakes: tuple[str, ...] = ()
    try:
        found = read(file.read_text(encoding="utf-8"), published_contract(), tuple(shop or [""]))
    except UnicodeDecodeError as error:
        mistakes = (f"this is not UTF-8: {error}",)
    except WrongFile as error:
        mistakes = error.mistakes
    if json:
        print_json({"file": str(file), "mistakes": mistakes})
    else:
        say("\n".join(mistakes) or f"{file} is good: {', '.join(found.schedules) or 'no schedule'}")
    if mistakes:
        raise typer.Exit(1)


@app.command()
def preview(
    name: Name,
    database_url: DatabaseUrl = None,
    count: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 10,
    json: AsJson = False,
) -> None:
    """Show a schedule's next times, in its time zone and in UTC, its jitter left out."""
    with _database(database_url) as connection:
        schedule = Schedule.model_validate(_found(connection, name)["definition"])
    if not schedule.enabled:
        raise Wrong(f"{name} is not enabled in the file, so it has no next time")
    times = list(islice(planned_after(schedule, datetime.now(UTC)), count))
    if json:
        print_json(times)
        return
    zone = ZoneInfo(schedule.time_zone)
    cells = [(f"{one.astimezone(zone):%a %Y-%m-%d %H:%M:%S %Z}", f"{one:%Y-%m-%d %H:%M:%S} UTC") for one in times]
    print_table((schedule.time_zone, "UTC"), cells, empty="it has no next time")


@app.command()
def missed(
    name: Annotated[str | None, typer.Argument(help="Only this schedule's.", metavar="[SCHEDULE]")] = None,
    database_url: DatabaseUrl = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest first.")] = 50,
    json: AsJson = False,
) -> None:
    """List times that were passed over after an outage, and the policy that says so."""
    with _database(database_url) as connection:
        if name is not None:
            _found(connection, name)
        rows = connection.execute(_GAPS, {"name": name, "limit": limit}).fetchall()
    if json:
        print_json(rows)
        return
    cells = [
        (row["schedule"], row["ticks"], _timestamp(row["first"]), _timestamp(row["last"]), row["why"]) for row in rows
    ]
    print_table(("SCHEDULE", "TIMES", "FIRST", "LAST", "CATCH-UP"), cells, empty="nothing was passed over")


def _database(database_url: str | None) -> AbstractContextManager[Any]:
    return service_schema(database_url, "scheduler", "schedules")


def _found(connection: Any, name: str) -> dict[str, Any]:  # noqa: ANN401 - psycopg's
    row: dict[str, Any] | None = connection.execute(_ONE, {"name": name}).fetchone()
    if row is None:
        raise Wrong(f"there is no schedule {name}; see `wch schedules list`")
    return row


def _changed(
    database_url: str | None, name: str, statement: str, verb: str, done: str, otherwise: str, names: dict[str, Any],
    *, dry_run: bool, json: bool,
) -> None:  # fmt: skip
    with _database(database_url) as connection:
        _found(connection, name)
        if not dry_run and not connection.execute(statement, names | {"name": name, "by": whoami()}).fetchall():
            raise Wrong(f"{name} {otherwise}")
    if json:
        print_json({"action": verb, "schedule": name, "dry_run": dry_run, "by": whoami()})
    else:
        say(f"{'would ' if dry_run else ''}{verb if dry_run else done} {name}")


def _when(row: dict[str, Any]) -> str:
    definition = row["definition"]
    if definition["cron"]:
        return f"{definition['cron']} {definition['time_zone']}"
    return f"every {definition['every_seconds']:g} s"


def _plain(value: object) -> str:
    return orjson.dumps(value).decode() if isinstance(value, (dict, list)) else str(value)


def _state(row: dict[str, Any]) -> str:
    if row["manual_at"]:
        return "asked for, not published yet"
    if row["paused_at"]:
        return f"paused by {row['said_by']}" + (f": {row['reason']}" if row["reason"] else "")
    if not row["definition"]["enabled"]:
        return "not enabled"
    return "" if row["next_due"] else "no next time"


def _timestamp(value: datetime | None) -> str:
    return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}" if value else ""
