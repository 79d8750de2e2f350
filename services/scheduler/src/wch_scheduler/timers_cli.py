"""`wch timers`: events that other programs have scheduled, each at a time of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from wch_common.cli.output import (
    AmqpUrl,
    AsJson,
    CommandError,
    DatabaseUrl,
    DryRun,
    print_json,
    print_table,
    whoami,
)
from wch_common.cli.service import (
    print_record,
    report,
    request,
    service_schema,
    timestamp,
    wait_until,
    wait_until_handled,
)
from wch_scheduler import admin
from wch_scheduler.topology import CONTROL

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

app = typer.Typer(help="Timers of other programs: list, show, cancel, stats.", no_args_is_help=True)

Key = Annotated[str | None, typer.Option(help="Only timers with this key.")]
Group = Annotated[str | None, typer.Option(help="Only timers of this group.")]
Requester = Annotated[str | None, typer.Option(help="Only timers of this AMQP user.")]
State = Annotated[
    Literal["waiting", "fired", "cancelled", "refused"] | None, typer.Option(help="Only timers in this state.")
]


@app.command(name="list")
def list_(
    database_url: DatabaseUrl = None,
    key: Key = None,
    group: Group = None,
    requester: Requester = None,
    state: State = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many.")] = 50,
    json: AsJson = False,
) -> None:
    """List timers: the waiting ones by due time, then the others, the latest first."""
    with _database(database_url) as connection:
        rows = admin.timers(connection, key=key, group=group, requester=requester, state=state, limit=limit)
    if json:
        print_json([vars(row) for row in rows])
        return
    columns = ("DUE (UTC)", "REQUESTER", "KEY", "GROUP", "EVENT", "STATE")
    cells = [(timestamp(row.due_at), row.requester, row.key, row.group, row.type, row.state) for row in rows]
    print_table(columns, cells, empty="no timers match")


@app.command()
def show(
    key: Annotated[str, typer.Argument(help="The timer's key.")],
    database_url: DatabaseUrl = None,
    requester: Requester = None,
    json: AsJson = False,
) -> None:
    """Show a timer without the data of its event, which may be personal."""
    with _database(database_url) as connection:
        found = admin.timers(connection, key=key, requester=requester)
    if not found:
        raise CommandError(f"there is no timer {key}")
    if json:
        print_json([vars(row) for row in found])
        return
    for row in found:
        print_record(vars(row))


@app.command()
def cancel(
    amqp_url: AmqpUrl,
    database_url: DatabaseUrl = None,
    key: Key = None,
    group: Group = None,
    requester: Requester = None,
    reason: Annotated[str, typer.Option(help="Reason, included in the published fact.")] = "",
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Cancel waiting timers and notify their requesters; exit code 1 if none is waiting."""
    if not (key or group or requester):
        raise CommandError("select timers with --key, --group or --requester")
    with _database(database_url) as connection:
        number = admin.waiting_timers(connection, key=key, group=group, requester=requester)
        if not number:
            raise CommandError("no waiting timer matches; see `wch timers list`")
        if not dry_run:
            wanted = admin.cancel_timers_request(key=key, group=group, requester=requester, by=whoami(), reason=reason)
            wait_until_handled(connection, CONTROL.name, request(amqp_url, wanted))
            # Many timers are cancelled in steps, of which the request is the first.
            wait_until(
                lambda: not admin.waiting_timers(connection, key=key, group=group, requester=requester),
                "matching timers are still waiting; see `wch timers stats`",
            )
    verb = "would cancel" if dry_run else "cancelled"
    report(
        f"{verb} {number} timer{'' if number == 1 else 's'}", json=json, dry_run=dry_run, action="cancel", timers=number
    )


@app.command()
def stats(database_url: DatabaseUrl = None, json: AsJson = False) -> None:
    """Count timers by requester, group and state."""
    with _database(database_url) as connection:
        rows = admin.timer_stats(connection)
    if json:
        print_json([vars(row) for row in rows])
        return
    columns = ("REQUESTER", "GROUP", "STATE", "TIMERS", "FIRST DUE (UTC)", "LAST DUE (UTC)")
    cells = [
        (row.requester, row.group, row.state, row.timers, timestamp(row.first), timestamp(row.last)) for row in rows
    ]
    print_table(columns, cells, empty="there are no timers")


def _database(database_url: str | None) -> AbstractContextManager[Any]:
    return service_schema(database_url, "scheduler", "timers")
