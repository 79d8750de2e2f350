"""What the commands of the services share: reading a service's schema, requesting work, and printing the result."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

import psycopg
import typer
from psycopg.rows import dict_row
from rich.table import Column, Table

from wch_common.cli.output import CommandError, pipe_wide, print_json, say, whoami
from wch_common.client import Client
from wch_common.events.recipient import MalformedRecipient
from wch_common.integrations import recipients
from wch_common.observability.redact import error_text
from wch_common.store.database import connection_parameters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime
    from types import ModuleType

    from wch_common.contract.event import Event, EventData

SOURCE: Final = "/wch/operator"
Who = Annotated[
    str,
    typer.Argument(
        help="Phone number like +<country><number>, or Meta's id of a user, like DE.1234567890.", metavar="RECIPIENT"
    ),
]
_WAIT_SECONDS, _POLL_SECONDS = 60.0, 0.2
_HANDLED = "SELECT 1 FROM inbox WHERE queue = %(queue)s AND source = %(source)s AND id = ANY(%(ids)s)"


@contextmanager
def service_schema(database_url: str | None, service: str, contents: str, remedy: str = "") -> Iterator[Any]:
    """Open the schema of a service for reading; its rows come as dicts.

    Raises CommandError, naming its `contents` (a plural), and the `remedy` if the service has never run.
    """
    if database_url is None:
        raise CommandError(f"{contents} are in the service's database: give --database-url, or set WCH_DATABASE_URL")
    try:
        address = connection_parameters(database_url, options=f"-c search_path={service} -c timezone=UTC")
        with psycopg.connect(address, row_factory=dict_row, autocommit=True) as connection:
            yield connection
    except psycopg.errors.UndefinedTable:
        then = f"; {remedy}" if remedy else ""
        raise CommandError(
            f"this database has no {contents}: the {service} service has never run on it{then}"
        ) from None
    except psycopg.Error as error:
        raise CommandError(f"the database cannot be read: {error_text(error, 300)}") from None


def admin_of(name: str) -> ModuleType:
    """Return the reads of another service, its entry point `wch.admin`; raises CommandError if it is not installed here."""
    for found in entry_points(group="wch.admin", name=name):
        return cast("ModuleType", found.load())
    raise CommandError(f"the package wch-{name} is not installed here")


def request(
    amqp_url: str, *events: EventData | Event[Any], shop: str | None = None, requester: str | None = None
) -> list[str]:
    """Publish requests in the operator's name and return their ids."""
    with Client(amqp_url, SOURCE, shop=shop, requester=requester) as client:
        return client.publish_many(events)


def wait_until_handled(connection: Any, queue: str, ids: Sequence[str]) -> None:  # noqa: ANN401 - a psycopg connection
    """Wait until a service has handled the operator's requests from a queue; raises CommandError after a minute."""
    wanted = {"queue": queue, "source": SOURCE, "ids": list(ids)}
    wait_until(
        lambda: len(connection.execute(_HANDLED, wanted).fetchall()) >= len(ids),
        f"the service has not handled the request within {_WAIT_SECONDS:.0f} s: it waits in the queue {queue} (is the service "
        f"running?), or it was refused (`wch dlq list {queue}.dlq` shows why)",
    )


def wait_until(condition: Callable[[], bool], problem: str, *, seconds: float = _WAIT_SECONDS) -> None:
    """Wait until a condition is true; raises CommandError with the problem after some seconds (60)."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise CommandError(problem)
        time.sleep(_POLL_SECONDS)


def report(sentence: str, *, json: bool, dry_run: bool, **record: object) -> None:
    """Print what a command did: a sentence, or with `json` a record with who did it."""
    if json:
        print_json(record | {"dry_run": dry_run, "by": whoami()})
    else:
        say(sentence)


def admins() -> dict[str, ModuleType]:
    """Return the modules that read what services know about people, by service.

    They are those of WCH_SERVICES, separated by commas; without it, of every service that is installed here.
    """
    installed = {one.name: one for one in entry_points(group="wch.admin")}
    named = [one.strip() for one in os.environ.get("WCH_SERVICES", "").split(",") if one.strip()]
    if unknown := sorted(set(named) - set(installed)):
        raise CommandError(f"WCH_SERVICES names {', '.join(unknown)}; installed here: {', '.join(sorted(installed))}")
    modules = {name: installed[name].load() for name in sorted(named or installed)}
    return {name: module for name, module in modules.items() if hasattr(module, "export_person")}


def print_record(values: Mapping[str, object]) -> None:
    """Print the fields of one thing that are set, each on a line."""
    table = Table(Column(no_wrap=True), Column(overflow="fold"), box=None, show_header=False, pad_edge=False)
    for name, value in values.items():
        if value is not False and value not in (None, "", {}, []):
            table.add_row(name, str(value))
    pipe_wide().print(table)


def person_name(text: str) -> str:
    """Return a person's number with its country code, or Meta's id of them; raises CommandError."""
    try:
        return recipients.person(text).names[0]
    except MalformedRecipient as error:
        raise CommandError(str(error)) from None


def timestamp(value: datetime | None) -> str:
    """Return a time as tables show it, or an empty text."""
    return f"{value:%Y-%m-%d %H:%M:%S}" if value else ""
