"""`wch schedules`: what is published when; run, pause, resume, preview and check schedules."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo

import orjson
import typer

from wch_common.cli.output import (
    AmqpUrl,
    AsJson,
    CommandError,
    DatabaseUrl,
    DryRun,
    print_json,
    print_table,
    say,
    whoami,
)
from wch_common.cli.service import print_record, report, request, service_schema, timestamp, wait_until_handled
from wch_common.events import published_contract
from wch_scheduler import admin
from wch_scheduler.file import WrongFile, read
from wch_scheduler.topology import CONTROL

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from wch_common.contract.event import Request
    from wch_scheduler.queries import ScheduleRow

app = typer.Typer(help="Schedules: list, show, run, pause, resume, preview, missed, check.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The schedule's name in the file.", metavar="SCHEDULE")]
Why = Annotated[str, typer.Option("--reason", help="Reason, stored with the pause.")]


@app.command(name="list")
def list_(database_url: DatabaseUrl = None, json: AsJson = False) -> None:
    """List schedules with their next and last run, missed times, and pauses."""
    with _database(database_url) as connection:
        rows = admin.schedules(connection)
    if json:
        print_json([vars(row) for row in rows])
        return
    columns = ("SCHEDULE", "GROUP", "WHEN", "NEXT (UTC)", "LAST (UTC)", "FIRED", "MISSED", "STATE")
    cells = [
        (row.name, row.definition["group"], _when(row), timestamp(row.next_due), timestamp(row.last_fired_at),
         row.fired, row.missed, _state(row)) for row in rows
    ]  # fmt: skip
    print_table(columns, cells, empty="the file in use has no schedules")


@app.command()
def show(name: Name, database_url: DatabaseUrl = None, json: AsJson = False) -> None:
    """Show a schedule as it is in use, and its last runs."""
    with _database(database_url) as connection:
        row, ticks = _found(connection, name), admin.last_ticks(connection, name)
    if json:
        print_json(vars(row) | {"ticks": [vars(tick) for tick in ticks]})
        return
    values = row.definition | {key: value for key, value in vars(row).items() if key != "definition"}
    print_record({key: _plain(value) for key, value in values.items() if value not in (None, "", {}, [])})
    for tick in ticks:
        by = f" by {tick.by}" if tick.by else ""
        say(f"run: {timestamp(tick.planned)}, {tick.kind}{by}, published {timestamp(tick.fired_at)}")


@app.command()
def run(
    name: Name, amqp_url: AmqpUrl, database_url: DatabaseUrl = None, dry_run: DryRun = False, json: AsJson = False
) -> None:
    """Publish a schedule's events once, now; the times of its plan stay as they are."""
    with _database(database_url) as connection:
        row = _found(connection, name)
        if row.run_waits:
            raise CommandError(f"{row.triggered_by} has requested a run of {name}, which is not published yet")
        _carry_out(connection, amqp_url, admin.run_request(name, whoami()), dry_run=dry_run)
    report(
        _sentence("run", "triggered", name, dry_run=dry_run), json=json, dry_run=dry_run, action="run", schedule=name
    )


@app.command()
def pause(
    name: Name,
    amqp_url: AmqpUrl,
    database_url: DatabaseUrl = None,
    reason: Why = "",
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Publish nothing of a schedule until it is resumed; times that pass meanwhile are not caught up."""
    with _database(database_url) as connection:
        if _found(connection, name).paused_at is not None:
            raise CommandError(f"{name} is already paused")
        _carry_out(connection, amqp_url, admin.pause_request(name, whoami(), reason), dry_run=dry_run)
    report(
        _sentence("pause", "paused", name, dry_run=dry_run), json=json, dry_run=dry_run, action="pause", schedule=name
    )


@app.command()
def resume(
    name: Name, amqp_url: AmqpUrl, database_url: DatabaseUrl = None, dry_run: DryRun = False, json: AsJson = False
) -> None:
    """Continue a paused schedule from its next time on."""
    with _database(database_url) as connection:
        if _found(connection, name).paused_at is None:
            raise CommandError(f"{name} is not paused")
        _carry_out(connection, amqp_url, admin.resume_request(name, whoami()), dry_run=dry_run)
    report(
        _sentence("resume", "resumed", name, dry_run=dry_run),
        json=json,
        dry_run=dry_run,
        action="resume",
        schedule=name,
    )


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="The file of schedules.", exists=True, dir_okay=False)],
    shop: Annotated[list[str] | None, typer.Option(help="Name of a shop; once for each, if there are several.")] = None,
    json: AsJson = False,
) -> None:
    """Report every mistake in a file with its line, before it is rolled out; exit code 1 if there is one."""
    mistakes: tuple[str, ...] = ()
    try:
        found = read(file.read_text(encoding="utf-8"), published_contract(), tuple(shop or [""]))
    except UnicodeDecodeError as error:
        mistakes = (f"the file is not UTF-8: {error}",)
    except WrongFile as error:
        mistakes = error.mistakes
    if json:
        print_json({"file": str(file), "mistakes": mistakes})
    else:
        say("\n".join(mistakes) or f"{file} is valid: {', '.join(found.schedules) or 'no schedules'}")
    if mistakes:
        raise typer.Exit(1)


@app.command()
def preview(
    name: Name,
    database_url: DatabaseUrl = None,
    count: Annotated[int, typer.Option(min=1, max=1000, help="How many times.")] = 10,
    json: AsJson = False,
) -> None:
    """Show a schedule's next times, in its time zone and in UTC, without its jitter."""
    with _database(database_url) as connection:
        row = _found(connection, name)
    if not row.definition["enabled"]:
        raise CommandError(f"{name} is not enabled in the file, so it has no next time")
    times = admin.next_times(row, datetime.now(UTC), count)
    if json:
        print_json(times)
        return
    zone = row.definition["time_zone"]
    cells = [
        (f"{one.astimezone(ZoneInfo(zone)):%a %Y-%m-%d %H:%M:%S %Z}", f"{one:%Y-%m-%d %H:%M:%S} UTC") for one in times
    ]
    print_table((zone, "UTC"), cells, empty="the schedule has no next time")


@app.command()
def missed(
    name: Annotated[str | None, typer.Argument(help="Only of this schedule.", metavar="[SCHEDULE]")] = None,
    database_url: DatabaseUrl = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many, the newest first.")] = 50,
    json: AsJson = False,
) -> None:
    """List times that were missed in outages and not caught up, with the policy that decided so."""
    with _database(database_url) as connection:
        if name is not None:
            _found(connection, name)
        rows = admin.missed_times(connection, name, limit=limit)
    if json:
        print_json([vars(row) for row in rows])
        return
    cells = [(row.schedule, row.ticks, timestamp(row.first), timestamp(row.last), row.policy) for row in rows]
    print_table(("SCHEDULE", "TIMES", "FIRST (UTC)", "LAST (UTC)", "CATCH-UP"), cells, empty="no times were missed")


def _database(database_url: str | None) -> AbstractContextManager[Any]:
    return service_schema(database_url, "scheduler", "schedules")


def _found(connection: Any, name: str) -> ScheduleRow:  # noqa: ANN401 - a psycopg connection
    if (row := admin.schedule(connection, name)) is None:
        raise CommandError(f"there is no schedule {name}; see `wch schedules list`")
    return row


def _carry_out(connection: Any, amqp_url: str, wanted: Request, *, dry_run: bool) -> None:  # noqa: ANN401 - psycopg's
    """Publish a request and wait until the scheduler has handled it."""
    if not dry_run:
        wait_until_handled(connection, CONTROL.name, request(amqp_url, wanted))


def _sentence(verb: str, done: str, name: str, *, dry_run: bool) -> str:
    return f"would {verb} {name}" if dry_run else f"{done} {name}"


def _when(row: ScheduleRow) -> str:
    definition = row.definition
    if definition["cron"]:
        return f"{definition['cron']} {definition['time_zone']}"
    return f"every {definition['every_seconds']:g} s"


def _plain(value: object) -> str:
    return orjson.dumps(value).decode() if isinstance(value, (dict, list)) else str(value)


def _state(row: ScheduleRow) -> str:
    if row.triggered_at:
        return f"triggered by {row.triggered_by}, not published yet"
    if row.paused_at:
        return f"paused by {row.paused_by}" + (f": {row.reason}" if row.reason else "")
    if not row.definition["enabled"]:
        return "not enabled"
    return "" if row.next_due else "no next time"
