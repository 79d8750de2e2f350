"""`wch timers`: what other programs have asked to be published at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from wch_common.cli.output import AsJson, DatabaseUrl, DryRun, Wrong, print_json, print_table, say, whoami
from wch_common.cli.service import service_schema

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from datetime import datetime

app = typer.Typer(help="Timers of other programs: list, show, cancel, stats.", no_args_is_help=True)

Key = Annotated[str | None, typer.Option(help="Only this key's.")]
Group = Annotated[str | None, typer.Option(help="Only this group's.")]
Requester = Annotated[str | None, typer.Option(help="Only this AMQP user's.")]
State = Annotated[
    Literal["waiting", "fired", "cancelled", "refused"] | None, typer.Option(help="Only those in this state.")
]
_WHERE = """
WHERE (%(key)s::text IS NULL OR key = %(key)s) AND (%(group)s::text IS NULL OR group_name = %(group)s)
AND (%(requester)s::text IS NULL OR requester = %(requester)s) AND (%(state)s::text IS NULL OR state = %(state)s)
"""
_LIST = f"""
SELECT requester, key, group_name AS group, event->>'type' AS type, state, due_at, ended_at, version FROM timers {_WHERE}
AND event->>'type' IS NOT NULL  -- what was taken back before it was asked for is no timer
ORDER BY state <> 'waiting', CASE WHEN state = 'waiting' THEN due_at END, ended_at DESC LIMIT %(limit)s
"""  # noqa: S608 - words of this module
_SHOW = f"""
SELECT requester, key, group_name AS group, event->>'type' AS event, event->>'shop' AS shop, state, due_at, asked_at, ended_at,
       version AS replaced, correlationid, causationid FROM timers {_WHERE} ORDER BY due_at
"""  # noqa: S608 - words of this module
_COUNT = f"SELECT count(*) AS timers FROM timers {_WHERE}"  # noqa: S608 - words of this module
_CANCEL = f"""
UPDATE timers SET state = 'cancelled', asked_at = greatest(asked_at, now()), ended_at = now() {_WHERE} RETURNING 1
"""  # noqa: S608 - words of this module
_STATS = """
SELECT requester, group_name AS group, state, count(*) AS timers, min(due_at) AS first, max(due_at) AS last FROM timers
WHERE event->>'type' IS NOT NULL GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""


@app.command(name="list")
def list_(
    database_url: DatabaseUrl = None,
    key: Key = None,
    group: Group = None,
    requester: Requester = None,
    state: State = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    json: AsJson = False,
) -> None:
    """List timers: those that wait, the next first, and then the others, the latest first."""
    wanted = {"key": key, "group": group, "requester": requester, "state": state, "limit": limit}
    with _database(database_url) as connection:
        rows = connection.execute(_LIST, wanted).fetchall()
    if json:
        print_json(rows)
        return
    columns = ("DUE", "REQUESTER", "KEY", "GROUP", "EVENT", "STATE")
    cells = [
        (_timestamp(row["due_at"]), row["requester"], row["key"], row["group"], row["type"], row["state"])
        for row in rows
    ]
    print_table(columns, cells, empty="no such timer")


@app.command()
def show(
    key: Annotated[str, typer.Argument(help="The timer's key.")],
    database_url: DatabaseUrl = None,
    requester: Requester = None,
    json: AsJson = False,
) -> None:
    """Show all that is known of a timer, the event's data left out, which may be personal."""
    with _database(database_url) as connection:
        found = connection.execute(_SHOW, {"key": key, "group": None, "requester": requester, "state": None}).fetchall()
    if not found:
        raise Wrong(f"there is no timer {key}")
    if json:
        print_json(found)
        return
    for row in found:
        print_table(("", ""), [(name, value) for name, value in row.items() if value not in (None, "")], empty="")


@app.command()
def cancel(
    database_url: DatabaseUrl = None,
    key: Key = None,
    group: Group = None,
    requester: Requester = None,
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Take waiting timers back; their requesters are not told. Fails where none waits."""
    if not (key or group or requester):
        raise Wrong("say which timers: --key, --group, or --requester")
    wanted = {"key": key, "group": group, "requester": requester, "state": "waiting"}
    with _database(database_url) as connection:
        if dry_run:
            number = connection.execute(_COUNT, wanted).fetchone()["timers"]
        else:
            number = len(connection.execute(_CANCEL, wanted).fetchall())
    if not number:
        raise Wrong("no such timer waits; see `wch timers list`")
    if json:
        print_json({"action": "cancel", "timers": number, "dry_run": dry_run, "by": whoami()})
    else:
        say(f"{'would cancel' if dry_run else 'cancelled'} {number} timer{'' if number == 1 else 's'}")


@app.command()
def stats(database_url: DatabaseUrl = None, json: AsJson = False) -> None:
    """Count timers by requester, group and state."""
    with _database(database_url) as connection:
        rows = connection.execute(_STATS).fetchall()
    if json:
        print_json(rows)
        return
    columns = ("REQUESTER", "GROUP", "STATE", "TIMERS", "FIRST DUE", "LAST DUE")
    cells = [(*list(row.values())[:4], _timestamp(row["first"]), _timestamp(row["last"])) for row in rows]
    print_table(columns, cells, empty="no timer")


def _database(database_url: str | None) -> AbstractContextManager[Any]:
    return service_schema(database_url, "scheduler", "timers")


def _timestamp(value: datetime | None) -> str:
    return f"{value:%Y-%m-%d %H:%M:%S}" if value else ""
