"""`wch campaigns`: start, watch and steer campaigns, upload their lists, and report what became of their recipients."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from pydantic import ValidationError
from rich.progress import BarColumn, Progress, TextColumn

from wch_broadcast import people
from wch_broadcast.campaign import FINAL
from wch_broadcast.queries import CAMPAIGN_NAMED, CAMPAIGNS, LIST_NAMED, LISTS, summary
from wch_broadcast.report import write
from wch_broadcast.uploads import WrongHeadings, lines_of, noted, read, refusals, uploaded
from wch_common.cli.output import (
    AmqpUrl,
    AsJson,
    DatabaseUrl,
    DryRun,
    Wrong,
    console,
    print_json,
    print_table,
    say,
    whoami,
)
from wch_common.cli.service import service_schema
from wch_common.client import Client
from wch_common.contract.event import new_event
from wch_common.errors import field_errors
from wch_common.events.broadcast import (
    CampaignCancelRequested,
    CampaignPauseRequested,
    CampaignRequested,
    CampaignResumeRequested,
    RecipientsRequested,
)
from wch_common.integrations.phone import MalformedNumber, masked, normalised

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from wch_common.contract.event import Request

app = typer.Typer(
    help="Campaigns: start, status, list, pause, resume, cancel, import, report; forget and export a person.",
    no_args_is_help=True,
)

SOURCE = "/wch/operator"
Name = Annotated[str, typer.Argument(help="The campaign's name.", metavar="CAMPAIGN")]
Shop = Annotated[str | None, typer.Option(help="The shop; needed where there are several.")]
Why = Annotated[str, typer.Option("--reason", help="Why; it is kept and told.")]
Phone = Annotated[str, typer.Argument(help="Telephone number like +<country><number>.")]
_WATCH_SECONDS = 0.5


@app.command()
def start(
    campaign: Name,
    list_id: Annotated[str, typer.Option("--list", help="The list it goes to, see `wch campaigns import`.")],
    amqp_url: AmqpUrl,
    database_url: DatabaseUrl = None,
    template: Annotated[str | None, typer.Option(help="Name of an approved template.")] = None,
    language: Annotated[str, typer.Option(help="The template's language.")] = "en_US",
    values: Annotated[
        list[str] | None, typer.Option("--value", help="A value for its body's next placeholder, or name=value.")
    ] = None,
    text: Annotated[str | None, typer.Option(help="Free text; the template is then its fallback.")] = None,
    category: Annotated[Literal["marketing", "utility", "service"], typer.Option(help="What it is.")] = "marketing",
    batch_size: Annotated[int, typer.Option(min=1, max=1000, help="Recipients of one batch.")] = 50,
    pause: Annotated[float, typer.Option(min=0, help="Seconds from the start of a batch to the next.")] = 1.0,
    start_at: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%dT%H:%M:%S%z"], help="Not before.")] = None,
    stop_at: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%dT%H:%M:%S%z"], help="Not after.")] = None,
    beside_others: Annotated[bool, typer.Option("--beside-others", help="Do not wait for other campaigns.")] = False,
    sender: Annotated[str | None, typer.Option(help="Phone number id to send from.")] = None,
    shop: Shop = None,
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Ask for a campaign to be run."""
    wanted: dict[str, Any] = _message(text, template, language, values or ()) | {
        "campaign_id": campaign,
        "list_id": list_id,
        "category": category,
        "sender": sender,
        "batch_size": batch_size,
        "pause_seconds": pause,
        "start_at": start_at,
        "stop_at": stop_at,
        "exclusive": not beside_others,
    }
    data = _validated(wanted)
    _refuse_known(database_url, campaign, shop)
    if not dry_run:
        _publish(amqp_url, [data], shop)
    _said("start", campaign, dry_run=dry_run, json=json)
    if not (json or dry_run):
        say(f"see how far it is with: wch campaigns status {campaign} --watch")


@app.command()
def status(
    campaign: Name,
    database_url: DatabaseUrl = None,
    shop: Shop = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show it live until it ends.")] = False,
    json: AsJson = False,
) -> None:
    """Show how far a campaign is, and why it does not go on where it does not."""
    with _database(database_url) as connection:
        if watch and not json:
            _watch(connection, campaign, shop)
        found = _found(connection, campaign, shop)
    if json:
        print_json(found)
        return
    _print(found)


@app.command(name="list")
def list_(
    database_url: DatabaseUrl = None,
    shop: Shop = None,
    lists: Annotated[bool, typer.Option("--lists", help="List the lists of recipients instead.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest first.")] = 50,
    json: AsJson = False,
) -> None:
    """List campaigns, the newest first."""
    with _database(database_url) as connection:
        rows = connection.execute(LISTS if lists else CAMPAIGNS, {"shop": shop, "limit": limit}).fetchall()
    if json:
        print_json(rows)
        return
    if lists:
        print_table(
            ("LIST", "SHOP", "RECIPIENTS", "MALFORMED", "DUPLICATES", "COMPLETE"),
            [(*list(row.values())[:5], _timestamp(row["complete_at"])) for row in rows],
            empty="no list",
        )
    else:
        print_table(
            ("CAMPAIGN", "SHOP", "REQUESTER", "STATE", "CAUSE", "RECIPIENTS", "BATCHES", "ASKED FOR", "ENDED"),
            [(*list(row.values())[:7], _timestamp(row["created_at"]), _timestamp(row["ended_at"])) for row in rows],
            empty="no campaign",
        )


@app.command()
def pause(
    campaign: Name,
    amqp_url: AmqpUrl,
    reason: Why = "",
    shop: Shop = None,
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Begin no further batch; batches that were asked for are sent."""
    data = CampaignPauseRequested(campaign_id=campaign, reason=reason, by=whoami())
    _control(amqp_url, "pause", data, shop, dry_run=dry_run, json=json)


@app.command()
def resume(campaign: Name, amqp_url: AmqpUrl, shop: Shop = None, dry_run: DryRun = False, json: AsJson = False) -> None:
    """Go on with a paused or failed campaign; who failed for a reason that was everybody's is tried again."""
    data = CampaignResumeRequested(campaign_id=campaign, by=whoami())
    _control(amqp_url, "resume", data, shop, dry_run=dry_run, json=json)


@app.command()
def cancel(
    campaign: Name,
    amqp_url: AmqpUrl,
    reason: Why = "",
    shop: Shop = None,
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """End a campaign and take back what is not under way."""
    data = CampaignCancelRequested(campaign_id=campaign, reason=reason, by=whoami())
    _control(amqp_url, "cancel", data, shop, dry_run=dry_run, json=json)


@app.command(name="import")
def import_(
    list_id: Annotated[str, typer.Argument(help="The list's name, a new one.", metavar="LIST")],
    file: Annotated[Path, typer.Argument(help="CSV file whose first line names the columns; - for standard input.")],
    amqp_url: AmqpUrl,
    database_url: DatabaseUrl = None,
    region: Annotated[
        str | None, typer.Option(help="Country of numbers written without one, like DE.", envvar="WCH_WHATSAPP_REGION")
    ] = None,
    shop: Shop = None,
    refused: Annotated[Path | None, typer.Option(help="Write lines that were refused to this CSV file.")] = None,
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Upload a list of recipients; lines that cannot be used are told with number and reason, the others are kept."""
    told = f"there is a list {list_id} already; choose another name"
    _refuse_used(database_url, LIST_NAMED, {"shop": shop, "list": list_id}, told)
    with lines_of(file) as lines, refusals(refused) as note:
        counted = Progress(TextColumn("{task.completed:.0f} lines"), console=console, transient=True, disable=json)
        with counted:
            task = counted.add_task("", total=None)
            found = noted(read(lines, region), note, lambda: counted.advance(task))
            try:
                with Client(amqp_url, SOURCE) as client:
                    publish = (lambda _part: None) if dry_run else partial(_published, client, shop)
                    parts = uploaded(found, list_id, publish)
            except WrongHeadings as error:
                raise Wrong(f"{file}: {error}") from None
            except UnicodeDecodeError:
                raise Wrong(f"{file}: is not UTF-8; save it as CSV in UTF-8") from None
    result = {"list": list_id, "recipients": note.kept, "refused": note.count, "parts": parts, "dry_run": dry_run}
    if json:
        print_json(result | {"lines": [{"line": one.line, "reason": one.reason} for one in note.first]})
        return
    for one in note.first:
        say(f"line {one.line}: {one.reason}")
    if note.count > len(note.first):
        say(f"… and {note.count - len(note.first)} more; --refused FILE writes all")
    say(f"{'would upload' if dry_run else 'uploaded'} {note.kept} recipients as {list_id}, refused {note.count} lines")


@app.command()
def report(
    campaign: Name,
    database_url: DatabaseUrl = None,
    shop: Shop = None,
    output: Annotated[Path | None, typer.Option("--output", help="File to write; standard output if left out.")] = None,
    json: Annotated[bool, typer.Option("--json", help="A JSON object a line instead.")] = False,
) -> None:
    """Write a CSV of a campaign's recipients with outcome and reason; it holds whole numbers."""
    with _database(database_url) as connection:
        found = _found(connection, campaign, shop)
        if found["details_deleted"]:
            raise Wrong(
                f"what became of each recipient of {campaign} was deleted when it had been kept long enough; "
                f"what is left is the summary: wch campaigns status {campaign}"
            )
        with _written(output) as out:
            write(connection, found["id"], out, json=json)


@app.command()
def forget(phone: Phone, database_url: DatabaseUrl = None, dry_run: DryRun = False, json: AsJson = False) -> None:
    """Erase a person from all lists; who was not written to yet is passed over."""
    number = _number(phone)
    with _database(database_url) as connection:
        count = len(people.export(connection, number)) if dry_run else people.forget(connection, number)
    if json:
        print_json({"action": "forget", "rows": count, "dry_run": dry_run, "by": whoami()})
    else:
        say(f"{'would be erased' if dry_run else 'erased'}: {masked(number)} in {count} places of lists")
        say("requests that wait or died still hold the number: see broadcast.campaign.dlq and broadcast.recipients.dlq")


@app.command()
def export(phone: Phone, database_url: DatabaseUrl = None) -> None:
    """Print all that is known of a person, as JSON."""
    with _database(database_url) as connection:
        print_json(people.export(connection, _number(phone)))


# -- showing


def _watch(connection: Any, campaign: str, shop: str | None) -> None:  # noqa: ANN401 - a psycopg connection
    columns = (TextColumn("{task.description}"), BarColumn(40), TextColumn("{task.percentage:>5.1f} %"))
    with Progress(*columns, TextColumn("{task.fields[said]}"), console=console) as bar:
        task = bar.add_task(campaign, total=100, said="")
        while True:
            found = _found(connection, campaign, shop)
            bar.update(task, completed=found["totals"]["percentage"], said=_line(found))
            if found["state"] in FINAL or found["state"] == "paused":
                return
            time.sleep(_WATCH_SECONDS)


def _line(found: dict[str, Any]) -> str:
    told = found["totals"]
    parts = [f"{told[name]} {name}" for name in ("sent", "failed", "unknown", "skipped", "deferred") if told[name]]
    cause = f" ({found['cause']})" if found["cause"] else ""
    return f"{found['state']}{cause}: " + (", ".join(parts) or "nothing yet")


def _print(found: dict[str, Any]) -> None:
    told = found["totals"]
    say(f"{found['campaign_id']} {_line(found)}; {told['percentage']} % of {told['recipients']} recipients")
    rows = [(name, told[name]) for name in ("sent", "delivered", "read", "unknown", "cancelled", "deferred", "waiting")]
    rows += [(f"failed: {one['reason']}", one["recipients"]) for one in told["failed_by"]]
    rows += [(f"skipped: {one['reason']}", one["recipients"]) for one in told["skipped_by"]]
    print_table(("OUTCOME", "RECIPIENTS"), [row for row in rows if row[1]], empty="no recipient was asked for yet")


def _found(connection: Any, campaign: str, shop: str | None) -> dict[str, Any]:  # noqa: ANN401 - a psycopg connection
    found = summary(connection, campaign, shop)
    if not found:
        raise Wrong(f"there is no campaign {campaign}; `wch campaigns list` names them")
    if len(found) > 1:
        raise Wrong(
            f"several shops have a campaign {campaign}: give --shop {' or '.join(one['shop'] for one in found)}"
        )
    return found[0]


@contextmanager
def _written(output: Path | None) -> Iterator[Any]:
    if output is None:
        yield sys.stdout
        return
    with output.open("w", newline="") as out:
        yield out


def _refuse_known(database_url: str | None, campaign: str, shop: str | None) -> None:
    told = f"there is a campaign {campaign} already: see wch campaigns status {campaign}"
    _refuse_used(database_url, CAMPAIGN_NAMED, {"shop": shop, "campaign": campaign}, told)


def _refuse_used(database_url: str | None, statement: str, names: dict[str, Any], told: str) -> None:
    """Refuse a name that is taken, where the database can be asked."""
    if database_url is None:
        return
    with _database(database_url) as connection:
        if connection.execute(statement, names).fetchall():
            raise Wrong(told)


def _database(database_url: str | None) -> AbstractContextManager[Any]:
    return service_schema(database_url, "broadcast", "campaigns")


# -- asking


def _control(amqp_url: str, verb: str, data: Request, shop: str | None, *, dry_run: bool, json: bool) -> None:
    if not dry_run:
        _publish(amqp_url, [data], shop)
    _said(verb, data.campaign_id, dry_run=dry_run, json=json)  # type: ignore[attr-defined]


def _said(verb: str, campaign: str, *, dry_run: bool, json: bool) -> None:
    if json:
        print_json({"action": verb, "campaign": campaign, "dry_run": dry_run, "by": whoami()})
    else:
        say(f"{'would ask' if dry_run else 'asked'} to {verb} {campaign}")


def _publish(amqp_url: str, requests: list[Request], shop: str | None) -> None:
    with Client(amqp_url, SOURCE) as client:
        client.publish_many([new_event(one, SOURCE, shop=shop) for one in requests])


def _published(client: Client, shop: str | None, part: RecipientsRequested) -> None:
    client.publish(new_event(part, SOURCE, shop=shop))


def _message(text: str | None, template: str | None, language: str, values: Sequence[str]) -> dict[str, Any]:
    """Return message and fallback; raises Wrong where there is none."""
    if template is None and text is None:
        raise Wrong("give a --template, a --text, or both")
    body = [_value(one) for one in values]
    approved = {"kind": "template", "name": template, "language": language, "body": body} if template else None
    if text is None:
        return {"message": approved, "fallback": None}
    return {"message": {"kind": "text", "body": text}, "fallback": approved}


def _validated(wanted: dict[str, Any]) -> CampaignRequested:
    try:
        return CampaignRequested.model_validate(wanted, strict=False)
    except ValidationError as error:
        raise Wrong("; ".join(str(one) if one.field else one.problem for one in field_errors(error))) from None


def _value(text: str) -> dict[str, Any]:
    name, found, value = text.partition("=")
    return {"name": name, "text": value} if found and name.isidentifier() else {"text": text}


def _number(text: str) -> str:
    try:
        return normalised(text)
    except MalformedNumber as error:
        raise Wrong(str(error)) from None


def _timestamp(value: datetime | None) -> str:
    return f"{value:%m-%d %H:%M:%S}" if value else ""
