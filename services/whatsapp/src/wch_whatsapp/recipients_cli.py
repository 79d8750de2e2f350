"""`wch recipients`: erases and exports a person in every service, and lists the erasures that services have not answered yet."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from wch_common.broker.blocking.dead_letters import NoSuchQueue, open_mailbox
from wch_common.cli import dlq, service
from wch_common.cli.output import (
    AmqpUrl,
    AsJson,
    CommandError,
    DatabaseUrl,
    DryRun,
    counted,
    print_json,
    print_table,
    say,
    whoami,
)
from wch_common.cli.service import Who, person_name, service_schema, timestamp
from wch_common.events.recipient import recipient_in
from wch_common.integrations.recipients import masked, person_of
from wch_whatsapp import admin

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from types import ModuleType

    from wch_common.contract.personal import Person
    from wch_common.events.whatsapp import ContactBook

app = typer.Typer(help="People: erase and export one in every service; list erasures.", no_args_is_help=True)

HashKey = Annotated[
    str,
    typer.Option(
        "--hash-key",
        envvar="WCH_PERSON_HASH_KEY",
        help="The services' key for the hashes that stand for people.",
        show_default=False,
    ),
]
_OWN = "whatsapp"
_ERASURES = "SELECT id, at FROM erasures ORDER BY begun_at DESC"
_ANSWERED = "SELECT id FROM erasures WHERE ended_at IS NOT NULL"
_ANSWER = "SELECT rows FROM erasures WHERE id = %(id)s AND ended_at IS NOT NULL"


@app.command()
def erase(
    person: Who,
    amqp_url: AmqpUrl,
    hash_key: HashKey,
    database_url: DatabaseUrl = None,
    reason: Annotated[str, typer.Option(help="The reason; it is logged.")] = "",
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for the answers of all services.")] = 60.0,
    discard: Annotated[
        bool,
        typer.Option("--discard-dead-letters", help="Discard dead letters that name the person, but not their wishes."),
    ] = False,
    contact_book: Annotated[
        bool,
        typer.Option("--contact-book", help="Also ask Meta to delete the person from its contact book."),
    ] = False,
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Erase a person from every service, under every name that is known of them; what waits in queues does not bring them back."""
    name, modules = person_name(person), service.admins()
    with _schema(database_url, _OWN) as connection:
        known = _known(connection, hash_key, name)
    rows = {one: _erasable(database_url, one, module, known) for one, module in modules.items()}
    suppressed = _is_suppressed(database_url, known)
    books = _ContactBooks(wanted=contact_book, dry_run=dry_run, ids=_user_ids(known))
    if not dry_run:
        request = admin.erase_request(name, reason=reason, by=whoami(), contact_book=contact_book)
        (id_,) = service.request(amqp_url, request)
        rows = _answers(database_url, modules, id_, wait)
        books = replace(books, answers=_contact_books(database_url, id_) if contact_book else ())
    dead_letters = dict(_dead_letters(amqp_url, known, discard=discard and not dry_run))
    if json:
        answers = [one.model_dump() for one in books.answers]
        record = {"action": "erase", "rows": rows, "contact_books": answers, "dead_letters": dead_letters}
        print_json(record | {"dry_run": dry_run, "by": whoami()})
        return
    verb = "would erase" if dry_run else "erased"
    tables = [f"{counted(n, 'row')} in {one}.{table}" for one in rows for table, n in rows[one].items() if n]
    say(f"{verb} {masked(name)}: {', '.join(tables)}" if tables else f"nothing is stored about {masked(name)}")
    if suppressed:
        say("the person's suppressions stay in force, without number and id")
    for line in books.lines():
        say(line)
    for queue, count in dead_letters.items():
        named = "1 dead letter that names" if count == 1 else f"{count} dead letters that name"
        if discard:
            say(f"{'would discard' if dry_run else 'discarded'} {named} the person from {queue}")
        else:
            say(f"{queue} has {named} the person: --discard-dead-letters removes what is no wish of theirs")


@dataclass(frozen=True)
class _ContactBooks:
    """Whether Meta is asked to delete somebody with so many user ids from its contact books, and what it answered."""

    wanted: bool
    dry_run: bool
    ids: int
    answers: Sequence[ContactBook] = ()

    def lines(self) -> Iterator[str]:
        """Yield what to print."""
        if not self.wanted:
            if self.ids:
                yield "Meta's contact book is not asked: --contact-book"
        elif self.dry_run and self.ids:
            yield f"would ask Meta's contact book to delete {counted(self.ids, 'user id')}"
        elif not self.answers:
            yield "Meta's contact book is not asked: no user id of the person is known, and it deletes by user ids only"
        for one in self.answers:
            problems = [f"{n} {what}" for n, what in ((one.refused, "refused"), (one.failed, "failed")) if n]
            said = ", ".join([f"{counted(one.deleted, 'user id')} deleted", *problems])
            why = "; the log of whatsapp says why" if problems else ""
            of = f" of portfolio {one.portfolio}" if one.portfolio else ""
            yield f"Meta's contact book{of}: {said}{why}"


@app.command()
def export(
    person: Who,
    hash_key: HashKey,
    database_url: DatabaseUrl = None,
    output: Annotated[Path | None, typer.Option(help="File to write; standard output if omitted.")] = None,
) -> None:
    """Write everything that every service stores about a person, as JSON by service and table."""
    with _schema(database_url, _OWN) as connection:
        known = _known(connection, hash_key, person_name(person))
    found = {}
    for one, module in service.admins().items():
        with _schema(database_url, one) as connection:
            found[one] = module.export_person(connection, _called_by(one, known))
    if output is None:
        print_json(found)
        return
    # Nobody else can read it, neither a new file nor one that was there.
    with os.fdopen(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
        os.fchmod(out.fileno(), 0o600)
        out.write(orjson.dumps(found, default=str, option=orjson.OPT_INDENT_2))
    say(f"wrote {output}")


@dataclass(frozen=True)
class _Erasure:
    id: str
    at: datetime
    answered: tuple[str, ...]
    missing: tuple[str, ...]


@app.command()
def erasures(
    database_url: DatabaseUrl = None,
    open_only: Annotated[bool, typer.Option("--open", help="Only those that a service has not answered.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of rows.")] = 50,
    json: AsJson = False,
) -> None:
    """List requests to erase somebody, newest first, and which services have not answered yet."""
    with _schema(database_url, _OWN) as connection:
        requests = connection.execute(_ERASURES).fetchall()
    done: dict[str, set[str]] = {}
    for one in service.admins():
        with _schema(database_url, one) as connection:
            done[one] = {row["id"] for row in connection.execute(_ANSWERED).fetchall()}
    found = [
        _Erasure(
            row["id"],
            row["at"],
            tuple(one for one in done if row["id"] in done[one]),
            tuple(one for one in done if row["id"] not in done[one]),
        )
        for row in requests
    ]
    shown = [one for one in found if one.missing or not open_only][:limit]
    if json:
        print_json([vars(one) for one in shown])
        return
    cells = [(one.id, timestamp(one.at), ", ".join(one.answered), ", ".join(one.missing)) for one in shown]
    print_table(("ID", "AS OF (UTC)", "ANSWERED BY", "MISSING"), cells, empty="there are no such erasures")


def _schema(database_url: str | None, name: str) -> AbstractContextManager[Any]:
    remedy = "" if name == _OWN else f"name the services that this shop runs, without {name}, in WCH_SERVICES"
    return service_schema(database_url, name, "data about people", remedy)


def _known(connection: Any, hash_key: str, name: str) -> Person:  # noqa: ANN401 - a psycopg connection
    try:
        return admin.known_as(connection, hash_key, name)
    except admin.WrongHashKey as error:
        raise CommandError(str(error)) from None


def _user_ids(person: Person) -> int:
    return sum(recipient_in(one).user_id is not None for one in person.names)


def _contact_books(database_url: str | None, id_: str) -> Sequence[ContactBook]:
    with _schema(database_url, _OWN) as connection:
        return admin.contact_books(connection, id_)


def _called_by(one: str, person: Person) -> Person:
    """Return a person under the keys of a service: whatsapp stores hashes, the others a form of the name."""
    return person if one == _OWN else person_of(*person.names)


def _erasable(database_url: str | None, one: str, module: ModuleType, person: Person) -> Mapping[str, int]:
    with _schema(database_url, one) as connection:
        counts: Mapping[str, int] = module.erasable_rows(connection, _called_by(one, person))
    return counts


def _is_suppressed(database_url: str | None, person: Person) -> bool:
    with _schema(database_url, _OWN) as connection:
        return any(row["lifted_at"] is None for row in admin.export_person(connection, person)["suppressions"])


def _answers(
    database_url: str | None, modules: Mapping[str, ModuleType], id_: str, seconds: float
) -> dict[str, Mapping[str, int]]:
    """Wait until every service has answered, and return the rows that each has erased; raises CommandError that names who is late."""
    answers: dict[str, Mapping[str, int]] = {}

    def all_answered() -> bool:
        for one in sorted(set(modules) - set(answers)):
            with _schema(database_url, one) as connection:
                if (row := connection.execute(_ANSWER, {"id": id_}).fetchone()) is not None:
                    answers[one] = row["rows"]
        return len(answers) == len(modules)

    try:
        service.wait_until(all_answered, "", seconds=seconds)
    except CommandError:
        late = sorted(set(modules) - set(answers))
        then = (
            "the other services follow whatsapp, which with --contact-book asks Meta first"
            if _OWN in late
            else f"`wch recipients erasures --open` lists it as {id_} until then; leave a service out with WCH_SERVICES"
        )
        raise CommandError(
            f"not yet answered by {', '.join(late)}: is the service running, and was the request refused (`wch dlq list`)? It waits, and "
            f"need not be repeated; {then}"
        ) from None
    return answers


def _dead_letters(amqp_url: str, person: Person, *, discard: bool) -> Iterator[tuple[str, int]]:
    """Yield how many dead letters of each queue say something about a person, where there are any; a STOP of theirs is none."""
    for queue in dlq.dead_letter_queues():
        try:
            with open_mailbox(amqp_url, queue) as mailbox:
                found = [one for one in mailbox.take() if dlq.says_something_about(one, person)]
                for one in found if discard else ():
                    mailbox.remove(one)
        except NoSuchQueue:
            continue
        if found:
            yield queue, len(found)
