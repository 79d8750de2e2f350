"""`wch dlq`: what failed and why; replay dead letters to their queue, or discard them with a reason."""

from __future__ import annotations

import base64
import os
import time
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from wch_common.broker import headers as wch
from wch_common.broker.blocking.dead_letters import DeadLetter, Mailbox, NoSuchQueue, open_mailbox
from wch_common.broker.blocking.publisher import ConfirmedPublisher
from wch_common.broker.topology import DLQ_SUFFIX, RETRY_EXCHANGE, UNROUTABLE_QUEUE
from wch_common.cli.output import AmqpUrl, AsJson, CommandError, DryRun, console, print_json, print_table, say, whoami
from wch_common.cli.service import person_name
from wch_common.cli.topology import installed_topology
from wch_common.contract.envelope import peek
from wch_common.contract.event import REQUESTS_EXCHANGE
from wch_common.contract.message import Message, Publication
from wch_common.contract.personal import names_person, without_person
from wch_common.events import published_contract
from wch_common.integrations.recipients import person_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from wch_common.contract.personal import Person

app = typer.Typer(help="Dead letters: list, show, replay, discard.", no_args_is_help=True)

Queue = Annotated[str, typer.Argument(help="Dead-letter queue, like sync.product.dlq, or wch.unroutable.")]
Ids = Annotated[list[str] | None, typer.Option("--id", help="Message id; may be given several times.")]
Fingerprint = Annotated[
    str | None, typer.Option(help="Only dead letters with one cause, as shown by `wch dlq list QUEUE`.")
]
Kind = Annotated[str | None, typer.Option(help="Only one wch-error-kind, like retries_exhausted.")]
About = Annotated[
    str | None,
    typer.Option(
        help="Only dead letters that name a person: a number like +<country><number>, or Meta's id like DE.1234567890."
    ),
]
All = Annotated[bool, typer.Option("--all", help="Every dead letter that is in the queue now.")]
Limit = Annotated[int | None, typer.Option(min=1, help="At most this many.")]

_PEEKED = 1000
_LISTED = 20


@dataclass(frozen=True)
class Choice:
    """Which dead letters of a queue a command selects."""

    ids: frozenset[str]
    fingerprint: str | None
    kind: str | None
    everything: bool
    about: Person | None = None

    @classmethod
    def of(
        cls, ids: list[str] | None, fingerprint: str | None, kind: str | None, everything: bool, about: str | None
    ) -> Choice:
        """Return the choice; raises CommandError if nothing was chosen, as no options must not mean all dead letters."""
        if not (ids or fingerprint or kind or everything or about):
            raise CommandError("select dead letters with --id, --fingerprint, --kind, --about or --all")
        if kind is not None and kind not in wch.KINDS:
            raise CommandError(f"{kind!r} is not an error kind; choose one of {', '.join(sorted(wch.KINDS))}")
        person = person_of(person_name(about)) if about is not None else None
        return cls(frozenset(ids or ()), fingerprint, kind, everything, person)

    def takes(self, dead_letter: DeadLetter) -> bool:
        """Whether a dead letter is selected; all given conditions must hold."""
        headers = dead_letter.message.headers
        return (
            (not self.ids or _id(dead_letter) in self.ids)
            and (self.fingerprint is None or headers.get(wch.FINGERPRINT) == self.fingerprint)
            and (self.kind is None or headers.get(wch.KIND) == self.kind)
            and (self.about is None or names(dead_letter, self.about))
        )

    def refuse_missing(self, queue: str, done: Sequence[str]) -> None:
        """Raise CommandError if a given id was not found."""
        if missing := sorted(self.ids - set(done)):
            raise CommandError(f"{queue} has no dead letter with the id {', '.join(missing)}")


@app.command(name="list")
def list_(
    amqp_url: AmqpUrl,
    queue: Annotated[str | None, typer.Argument(help="A dead-letter queue; all of them if omitted.")] = None,
    about: About = None,
    json: AsJson = False,
) -> None:
    """List the dead-letter queues, or the dead letters of one queue, grouped by cause."""
    choice = Choice.of(None, None, None, True, about)
    if queue is None:
        rows: list[dict[str, Any]] = []
        for name in dead_letter_queues():
            try:
                with open_mailbox(amqp_url, name) as mailbox:
                    count = mailbox.count() if about is None else sum(map(choice.takes, mailbox.take()))
                    rows.append({"queue": name, "dead_letters": count})
            except NoSuchQueue:
                rows.append({"queue": name, "dead_letters": None})
        if json:
            print_json(rows)
        else:
            table = [(row["queue"], "missing" if row["dead_letters"] is None else row["dead_letters"]) for row in rows]
            print_table(("QUEUE", "DEAD LETTERS"), table, empty="no service is installed")
        return
    with _opened(amqp_url, queue) as mailbox:
        total, groups = mailbox.count(), _grouped(filter(choice.takes, mailbox.take(_PEEKED)))
    if json:
        print_json(groups)
        return
    for group in groups:
        times = group["first"] if group["first"] == group["last"] else f"{group['first']} to {group['last']}"
        cause = f"  fingerprint {group['fingerprint']}  {times}" if group["fingerprint"] else ""
        say(f"{group['count']} × {group['kind']}{cause}, for example {group['example']}")
        say(f"    {group['error']}")
    if not groups:
        say(f"{queue} is empty" if about is None else f"no dead letter in {queue} names the person")
    if total > _PEEKED:
        say(f"only the first {_PEEKED} of {total} dead letters were read")


@app.command()
def show(
    queue: Queue,
    amqp_url: AmqpUrl,
    ids: Ids = None,
    about: About = None,
    limit: Limit = 10,
    json: AsJson = False,
) -> None:
    """Show dead letters with all headers and the body. Nothing is removed; only the broker's delivery count rises."""
    choice = Choice.of(ids, None, None, True, about)
    with _opened(amqp_url, queue) as mailbox:
        dead_letters = list(_chosen(mailbox, choice, None if ids else limit))
    if json:
        print_json([_as_dict(dead_letter) for dead_letter in dead_letters])
    choice.refuse_missing(queue, [str(_id(dead_letter)) for dead_letter in dead_letters])
    if json:
        return
    if not dead_letters:
        say(f"{queue} is empty" if about is None else f"no dead letter in {queue} names the person")
    for dead_letter in dead_letters:
        console().rule(f"{_id(dead_letter) or 'without an id'}", align="left")
        for key, value in sorted(
            dead_letter.message.headers.items(), key=lambda item: (not item[0].startswith(wch.PREFIX), item[0])
        ):
            _show_value(key, _readable(value))
        _show_value("body", dead_letter.message.body.decode("utf-8", "replace"))


def _show_value(key: str, value: str) -> None:
    console().print(f"[bold]{key}[/]", end=" ")
    console().print(value, markup=False, soft_wrap=not console().is_terminal)


@app.command()
def replay(
    queue: Queue,
    amqp_url: AmqpUrl,
    ids: Ids = None,
    fingerprint: Fingerprint = None,
    kind: Kind = None,
    everything: All = False,
    limit: Limit = None,
    rate: Annotated[float, typer.Option(min=0.1, help="Dead letters a second, at most.")] = 50.0,
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Publish dead letters again to the queue in which they failed, and only to it; attempts are counted from one."""
    choice = Choice.of(ids, fingerprint, kind, everything, None)
    done: list[str] = []
    publisher = ConfirmedPublisher(amqp_url, "wch dlq replay")
    with _opened(amqp_url, queue) as mailbox:
        for dead_letter in _chosen(mailbox, choice, limit):
            if not dry_run:
                (error,) = publisher.publish([_replayed(queue, dead_letter)])
                if error is not None:
                    raise CommandError(
                        f"after {len(done)} dead letters, {_id(dead_letter)} could not be replayed and stays: {error}"
                    )
                # Published and confirmed first: a crash here leaves a duplicate, which the inbox removes, and loses nothing.
                mailbox.remove(dead_letter)
                time.sleep(1 / rate)
            done.append(_id(dead_letter) or "(no id)")
    publisher.close()
    _report("replay", queue, done, dry_run=dry_run, json=json)
    choice.refuse_missing(queue, done)


@app.command()
def discard(
    queue: Queue,
    amqp_url: AmqpUrl,
    reason: Annotated[str, typer.Option(help="Why they are not needed; it is kept with the record.")],
    ids: Ids = None,
    fingerprint: Fingerprint = None,
    kind: Kind = None,
    about: About = None,
    everything: All = False,
    limit: Limit = None,
    keep: Annotated[
        Path | None, typer.Option(help="Append each discarded dead letter to this file of JSON lines.")
    ] = None,
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Remove dead letters permanently, with a reason; --keep writes them to a file first."""
    choice = Choice.of(ids, fingerprint, kind, everything, about)
    if not reason.strip():
        raise CommandError("give the reason in --reason: why are these dead letters not needed?")
    done: list[str] = []
    with _opened(amqp_url, queue) as mailbox:
        for dead_letter in _chosen(mailbox, choice, limit):
            if not dry_run:
                if keep is not None:
                    _keep(keep, queue, dead_letter, reason)
                mailbox.remove(dead_letter)
            done.append(_id(dead_letter) or "(no id)")
    _report("discard", queue, done, dry_run=dry_run, json=json, reason=reason)
    choice.refuse_missing(queue, done)


def dead_letter_queues() -> list[str]:
    """Return the dead-letter queues of every installed service, and the queue of unroutable requests."""
    return [*(work.dlq for work in installed_topology().work_queues), UNROUTABLE_QUEUE]


def names(dead_letter: DeadLetter, person: Person) -> bool:
    """Whether a dead letter is an event that names a person, in any form of their numbers or by an id."""
    event = peek(dead_letter.message)
    return event is not None and names_person(published_contract(), event.type, event.data, person)


def says_something_about(dead_letter: DeadLetter, person: Person) -> bool:
    """Whether erasing a person would change a dead letter; what they have requested in their own favour stays."""
    event = peek(dead_letter.message)
    return event is not None and without_person(published_contract(), event.type, event.data, person) is not None


def _id(dead_letter: DeadLetter) -> str | None:
    """Return the event's id: the property that our clients set, otherwise the id in the body."""
    if dead_letter.message.message_id:
        return dead_letter.message.message_id
    event = peek(dead_letter.message)
    return event.id if event else None


def _opened(amqp_url: str, queue: str) -> AbstractContextManager[Mailbox]:
    """Open a queue of dead letters; raises CommandError for any other queue."""
    if queue != UNROUTABLE_QUEUE and not queue.endswith(DLQ_SUFFIX):
        raise CommandError(
            f"{queue} is not a dead-letter queue: their names end in {DLQ_SUFFIX}, and there is {UNROUTABLE_QUEUE}"
        )
    return open_mailbox(amqp_url, queue)


def _chosen(mailbox: Mailbox, choice: Choice, limit: int | None) -> Iterator[DeadLetter]:
    """Yield the selected dead letters among those that were in the queue at the start."""
    left = limit
    for dead_letter in mailbox.take():
        if left is not None and left <= 0:
            return
        if choice.takes(dead_letter):
            left = None if left is None else left - 1
            yield dead_letter


def _replayed(queue: str, dead_letter: DeadLetter) -> Publication:
    message = dead_letter.message
    own = {key: None for key in message.headers if key.startswith(wch.PREFIX)}
    record: dict[str, Any] = {
        wch.REPLAY: wch.replay_count(message) + 1,
        "wch-replayed-at": datetime.now(UTC).isoformat(timespec="seconds"),
        "wch-replayed-by": whoami(),
    }
    clean: Message = message.copied({**own, **record})
    if queue == UNROUTABLE_QUEUE:
        return Publication(REQUESTS_EXCHANGE, dead_letter.routing_key, clean)
    return Publication(RETRY_EXCHANGE, queue.removesuffix(DLQ_SUFFIX), clean)


def _grouped(dead_letters: Iterator[DeadLetter]) -> list[dict[str, Any]]:
    groups: dict[tuple[str, str], list[DeadLetter]] = defaultdict(list)
    for dead_letter in dead_letters:
        headers = dead_letter.message.headers
        kind = headers.get(wch.KIND) or ("moved by the broker" if "x-death" in headers else "unroutable")
        cause = str(headers.get(wch.FINGERPRINT) or dead_letter.routing_key)
        groups[cause, str(kind)].append(dead_letter)
    rows = []
    for (fingerprint, kind), members in sorted(groups.items(), key=lambda item: -len(item[1])):
        last = members[-1].message
        timestamps = sorted(str(member.message.headers.get(wch.LAST_FAILED, "")) for member in members)
        event = peek(last)
        rows.append(
            {
                "count": len(members),
                "fingerprint": fingerprint if wch.FINGERPRINT in last.headers else "",
                "kind": kind,
                "error": _error_line(last) or members[-1].routing_key,
                "first": timestamps[0][:19],
                "last": timestamps[-1][:19],
                "example": (event.subject if event else "") or _id(members[-1]) or "",
            }
        )
    return rows


def _error_line(message: Message) -> str:
    parts = [str(message.headers.get(name) or "") for name in (wch.ERROR_TYPE, wch.ERROR_MESSAGE)]
    return ": ".join(part for part in (*parts, _fields(message)) if part)[:300]


def _fields(message: Message) -> str:
    """Return which fields were wrong and why; empty if the data was not at fault."""
    try:
        rows = orjson.loads(str(message.headers.get(wch.ERROR_FIELDS) or "[]"))
        return "; ".join(f"{row['field']}: {row['problem']}" for row in rows)
    except (orjson.JSONDecodeError, TypeError, KeyError):
        return ""  # another program's header of that name


def _as_dict(dead_letter: DeadLetter) -> dict[str, Any]:
    return {
        "id": _id(dead_letter),
        "exchange": dead_letter.exchange,
        "routing_key": dead_letter.routing_key,
        "content_type": dead_letter.message.content_type,
        "headers": dead_letter.message.headers,
        **_body(dead_letter.message.body),
    }


def _body(body: bytes) -> dict[str, str]:
    """Return a body as text, or in Base64 if it is not UTF-8, so that no byte is lost."""
    try:
        return {"body": body.decode()}
    except UnicodeDecodeError:
        return {"body_base64": base64.b64encode(body).decode()}


def _readable(value: object) -> str:
    return orjson.dumps(value, default=str).decode() if isinstance(value, (dict, list)) else str(value)


def _whole(value: object) -> object:
    return {"base64": base64.b64encode(value).decode()} if isinstance(value, bytes) else str(value)


def _keep(file: Path, queue: str, dead_letter: DeadLetter, reason: str) -> None:
    line = _as_dict(dead_letter) | {"queue": queue, "discarded_by": whoami(), "reason": reason}
    line["discarded_at"] = datetime.now(UTC).isoformat(timespec="seconds")
    with file.open("ab") as out:
        out.write(orjson.dumps(line, default=_whole) + b"\n")
        out.flush()
        os.fsync(out.fileno())


def _report(
    action: str, queue: str, done: Sequence[str], *, dry_run: bool, json: bool, reason: str | None = None
) -> None:
    if json:
        record = {"action": action, "queue": queue, "dead_letters": len(done), "ids": done, "dry_run": dry_run}
        print_json(record | {"by": whoami(), "reason": reason})
        return
    verb = f"would {action}" if dry_run else f"{action}ed"
    say(f"{verb} {len(done)} dead letter{'' if len(done) == 1 else 's'} from {queue}")
    if dry_run:
        for id_ in done[:_LISTED]:
            say(f"    {id_}")
        if len(done) > _LISTED:
            say(f"    and {len(done) - _LISTED} more")
