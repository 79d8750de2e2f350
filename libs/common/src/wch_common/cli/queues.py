"""`wch queues`: what each queue holds, what waits for a retry, and what is parked for which scope."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any, LiteralString

import psycopg
import typer
from psycopg import sql
from psycopg.rows import dict_row

from wch_common.broker.management import Management
from wch_common.cli.output import (
    AmqpUrl,
    AsJson,
    CommandError,
    DatabaseUrl,
    ManagementUrl,
    print_json,
    print_table,
    say,
)
from wch_common.cli.topology import installed_topology
from wch_common.observability.redact import error_text
from wch_common.store.database import connection_parameters

if TYPE_CHECKING:
    from collections.abc import Mapping

app = typer.Typer(help="Queues: list what they hold, and parked events.", no_args_is_help=True)

_SWITCHES = "SELECT {service} AS service, setting, effect, since FROM {schema}.switches ORDER BY setting"
_PARKED = """
SELECT parked.queue, parked.scope, count(*) AS events, min(parked.due_at) AS next_due,
       CASE WHEN scopes.paused_until > now() THEN scopes.paused_until END AS paused_until
FROM {schema}.parked LEFT JOIN {schema}.scopes USING (scope)
GROUP BY parked.queue, parked.scope, scopes.paused_until
"""


@app.command(name="list")
def list_(
    amqp_url: AmqpUrl, management_url: ManagementUrl = None, database_url: DatabaseUrl = None, json: AsJson = False
) -> None:
    """List every work queue: events waiting, being handled, waiting for a retry, parked, and dead letters."""
    waiting: Counter[str] = Counter()
    for row in parked_events(database_url) if database_url else []:
        waiting[row["queue"]] += row["events"]
    with Management(amqp_url, management_url) as management:
        live = management.queues()
    rows = []
    for work in installed_topology().work_queues:
        retry_delays = [work.delay_queue(seconds) for seconds in work.policy.retry_delays]
        rows.append(
            {
                "queue": work.name,
                "waiting": _count(live, work.name, "messages_ready"),
                "handled": _count(live, work.name, "messages_unacknowledged"),
                "consumers": _count(live, work.name, "consumers"),
                "retry": sum(_count(live, delay_queue, "messages") or 0 for delay_queue in retry_delays),
                "parked": waiting[work.name] if database_url else None,
                "dead": _count(live, work.dlq, "messages"),
            }
        )
    if json:
        print_json(rows)
        return
    columns = ("QUEUE", "WAITING", "HANDLED NOW", "CONSUMERS", "RETRYING", "PARKED", "DEAD LETTERS")
    table = [tuple("?" if cell is None else cell for cell in row.values()) for row in rows]
    print_table(columns, table, empty="no service is installed")
    if database_url is None:
        say(
            "to count parked events, give --database-url (or set WCH_DATABASE_URL): they are in the services' databases"
        )


@app.command()
def parked(
    database_url: DatabaseUrl = None,
    queue: Annotated[str | None, typer.Argument(help="A queue; all of them if omitted.")] = None,
    json: AsJson = False,
) -> None:
    """List parked events by the scope they wait for (a shop, a catalog, a phone number id) and the end of its pause."""
    if database_url is None:
        raise CommandError("parked events are in the services' databases: give --database-url, or set WCH_DATABASE_URL")
    known = {work.name for work in installed_topology().work_queues}
    if queue is not None and queue not in known:
        raise CommandError(f"{queue} is not a work queue; choose one of {', '.join(sorted(known)) or 'none'}")
    rows = [row for row in parked_events(database_url) if queue in {None, row["queue"]}]
    if json:
        print_json(rows)
        return
    table = [
        (
            row["queue"],
            row["scope"] or "(none)",
            row["events"],
            _timestamp(row["next_due"]),
            _timestamp(row["paused_until"]),
        )
        for row in rows
    ]
    print_table(("QUEUE", "SCOPE", "EVENTS", "NEXT DUE", "PAUSED UNTIL"), table, empty="nothing is parked")


def parked_events(database_url: str) -> list[dict[str, Any]]:
    """Return parked events by queue and scope, for every service whose schema is in this database; raises CommandError."""
    found = _of_services(database_url, "parked", _PARKED)
    return sorted(found, key=lambda row: (row["queue"], -row["events"]))


def switches(database_url: str) -> list[dict[str, Any]]:
    """Return the settings by which services of this database leave work undone on purpose; raises CommandError."""
    return _of_services(database_url, "switches", _SWITCHES)


def _of_services(database_url: str, table: str, statement: LiteralString) -> list[dict[str, Any]]:
    """Return the rows of a statement in every schema that has a table."""
    found: list[dict[str, Any]] = []
    try:
        address = connection_parameters(database_url, options="-c timezone=UTC")
        with psycopg.connect(address, row_factory=dict_row) as connection:
            schemas = connection.execute(
                "SELECT table_schema FROM information_schema.tables WHERE table_name = %s ORDER BY 1", (table,)
            )
            for row in schemas.fetchall():
                composed = sql.SQL(statement).format(
                    schema=sql.Identifier(row["table_schema"]), service=sql.Literal(row["table_schema"])
                )
                found += connection.execute(composed).fetchall()
    except psycopg.Error as error:
        raise CommandError(f"the tables of the services cannot be read: {error_text(error, 300)}") from None
    return found


def _count(live: Mapping[str, Mapping[str, Any]], queue: str, what: str) -> int | None:
    """Return a number of a queue, or None if the queue does not exist."""
    return int(live[queue].get(what, 0)) if queue in live else None


def _timestamp(value: Any) -> str:  # noqa: ANN401 - a datetime or None
    return "" if value is None else value.isoformat(sep=" ", timespec="seconds")
