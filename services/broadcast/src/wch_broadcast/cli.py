"""`wch campaigns`: start, watch and control campaigns, upload lists, report results."""

from __future__ import annotations

import sys
import time
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn

from wch_broadcast import admin
from wch_broadcast.campaign import FINAL
from wch_broadcast.csv_rows import WrongHeadings
from wch_broadcast.report import opened, write_csv, write_json_lines
from wch_broadcast.start_cli import start
from wch_broadcast.uploads import Notes, Refusals, lines_of, read, refusals_in, upload, usable
from wch_common.cli import service
from wch_common.cli.output import (
    AmqpUrl,
    AsJson,
    CommandError,
    DatabaseUrl,
    DryRun,
    console,
    counted,
    print_json,
    print_table,
    say,
    whoami,
)
from wch_common.client import Client
from wch_common.integrations.phone import known_region

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from wch_broadcast.queries_admin import CampaignListed, CampaignStatus, ListListed

app = typer.Typer(help="Campaigns: start, status, list, pause, resume, cancel, import, report.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The campaign's name.", metavar="CAMPAIGN")]
Shop = Annotated[str | None, typer.Option(help="The shop; required if there are several.")]
Reason = Annotated[str, typer.Option("--reason", help="The reason; it is stored and published.")]
_WATCH_SECONDS = 0.5
_ADDED_SECONDS = 20.0


app.command()(start)


@app.command()
def status(
    campaign: Name,
    database_url: DatabaseUrl = None,
    shop: Shop = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show the progress until the campaign ends or pauses.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Show the progress of a campaign, and the cause if it waits or ended early."""
    with _database(database_url) as connection:
        if watch and not json:
            _watch(connection, campaign, shop)
        found = _found(connection, campaign, shop)
    if json:
        print_json(asdict(found) | {"totals": found.totals.model_dump(mode="json")})
        return
    _print(found)


@app.command(name="list")
def list_(
    database_url: DatabaseUrl = None,
    shop: Shop = None,
    lists: Annotated[bool, typer.Option("--lists", help="List the lists of recipients instead.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of rows.")] = 50,
    json: AsJson = False,
) -> None:
    """List campaigns, newest first."""
    with _database(database_url) as connection:
        if lists:
            found_lists = admin.lists(connection, shop=shop, limit=limit)
        else:
            found = admin.campaigns(connection, shop=shop, limit=limit)
    if json:
        print_json(found_lists if lists else found)
    elif lists:
        _print_lists(found_lists)
    else:
        _print_campaigns(found)


@app.command()
def pause(
    campaign: Name,
    amqp_url: AmqpUrl,
    reason: Reason = "",
    shop: Shop = None,
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Pause a campaign; batches that are already requested are sent."""
    data = admin.pause_request(campaign, reason=reason, by=whoami())
    _request(amqp_url, "pause", data, shop, dry_run=dry_run, json=json)


@app.command()
def resume(campaign: Name, amqp_url: AmqpUrl, shop: Shop = None, dry_run: DryRun = False, json: AsJson = False) -> None:
    """Resume a paused or failed campaign, and retry recipients that failed for a reason of the whole campaign."""
    data = admin.resume_request(campaign, by=whoami())
    _request(amqp_url, "resume", data, shop, dry_run=dry_run, json=json)


@app.command()
def cancel(
    campaign: Name,
    amqp_url: AmqpUrl,
    reason: Reason = "",
    shop: Shop = None,
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Cancel a campaign and its unsent messages."""
    data = admin.cancel_request(campaign, reason=reason, by=whoami())
    _request(amqp_url, "cancel", data, shop, dry_run=dry_run, json=json)


def _region(text: str | None) -> str | None:
    try:
        return known_region(text) if text else None
    except ValueError as error:
        raise CommandError(f"--region, WCH_WHATSAPP_REGION: {error}") from None


@app.command(name="import")
def import_(
    list_id: Annotated[str, typer.Argument(help="Name of the new list.", metavar="LIST")],
    file: Annotated[Path, typer.Argument(help="CSV file whose first line names the columns; - for standard input.")],
    amqp_url: AmqpUrl,
    database_url: DatabaseUrl = None,
    region: Annotated[
        str | None,
        typer.Option(
            help="Country of numbers without a country code, like DE.", envvar="WCH_WHATSAPP_REGION", callback=_region
        ),
    ] = None,
    shop: Shop = None,
    refused: Annotated[Path | None, typer.Option(help="CSV file to which refused lines are written.")] = None,
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Upload a list of recipients; refused lines are printed with number and reason, the other lines are used."""
    if database_url is not None:
        with _database(database_url) as connection:
            if admin.complete_list_exists(connection, list_id, shop):
                raise CommandError(f"there is already a list {list_id}; choose another name")
    notes = Notes()
    with lines_of(file) as lines, refusals_in(refused) as refusals:
        progress = Progress(TextColumn("{task.completed:.0f} lines"), console=console(), transient=True, disable=json)
        with progress, _readable(file), Client(amqp_url, service.SOURCE, shop=shop) as client:
            task = progress.add_task("", total=None)
            recipients = usable(read(lines, region, notes), refusals, lambda: progress.advance(task))
            publish: Callable[[Any], object] = (lambda _part: None) if dry_run else client.publish
            parts = upload(recipients, list_id, publish)
    if database_url is not None and not dry_run:
        _await_list(database_url, list_id, shop)
    result = {"list": list_id, "recipients": refusals.kept, "refused": refusals.count, "parts": parts}
    if json:
        print_json(result | {"dry_run": dry_run, "lines": refusals.first} | asdict(notes))
    else:
        _print_refusals(refusals)
        _print_notes(notes)
        verb = "would upload" if dry_run else "uploaded"
        say(f"{verb} {refusals.kept} recipients as {list_id}, refused {counted(refusals.count, 'line')}")


@app.command()
def report(
    campaign: Name,
    database_url: DatabaseUrl = None,
    shop: Shop = None,
    output: Annotated[Path | None, typer.Option("--output", help="File to write instead of standard output.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Write one JSON object per line.")] = False,
) -> None:
    """Write a CSV of a campaign's recipients with outcome and reason; it contains complete numbers and ids."""
    with _database(database_url) as connection:
        found = _found(connection, campaign, shop)
        if found.details_deleted:
            raise CommandError(
                f"the outcomes of the recipients of {campaign} have been deleted, as their retention period is over; "
                f"the totals are kept: wch campaigns status {campaign}"
            )
        # Closed before its connection, also if the reader, such as `head`, has gone.
        with closing(admin.report(connection, found.id)) as rows, opened(output) as out:
            (write_json_lines if json else write_csv)(rows, out)


# -- output


def _watch(connection: Any, campaign: str, shop: str | None) -> None:  # noqa: ANN401 - a psycopg connection
    columns = (TextColumn("{task.description}"), BarColumn(40), TextColumn("{task.percentage:>5.1f} %"))
    with Progress(*columns, TextColumn("{task.fields[state]}"), console=console()) as bar:
        task = bar.add_task(campaign, total=100, state="")
        while True:
            found = _found(connection, campaign, shop)
            bar.update(task, completed=found.totals.percentage, state=_line(found))
            if found.state in FINAL or found.state == "paused":
                return
            time.sleep(_WATCH_SECONDS)


def _line(found: CampaignStatus) -> str:
    totals = found.totals.model_dump()
    parts = [f"{totals[name]} {name}" for name in ("sent", "failed", "unknown", "skipped", "deferred") if totals[name]]
    cause = f" ({found.cause})" if found.cause else ""
    return f"{found.state}{cause}: " + (", ".join(parts) or "no results yet")


def _print(found: CampaignStatus) -> None:
    totals = found.totals
    say(f"{found.campaign_id} {_line(found)}; {totals.percentage} % of {totals.recipients} recipients")
    counts = totals.model_dump()
    names = ("sent", "delivered", "read", "unknown", "cancelled", "deferred", "waiting")
    rows = [(name, counts[name]) for name in names]
    rows += [(f"failed: {one.reason}", one.recipients) for one in totals.failed_by]
    rows += [(f"skipped: {one.reason}", one.recipients) for one in totals.skipped_by]
    print_table(("OUTCOME", "RECIPIENTS"), [row for row in rows if row[1]], empty="no recipients")


def _print_campaigns(found: Sequence[CampaignListed]) -> None:
    columns = ("CAMPAIGN", "SHOP", "REQUESTER", "STATE", "CAUSE", "RECIPIENTS", "BATCHES", "REQUESTED", "ENDED")
    rows = [
        (*list(asdict(one).values())[:7], service.timestamp(one.created_at), service.timestamp(one.ended_at))
        for one in found
    ]
    print_table(columns, rows, empty="no campaigns")


def _print_lists(found: Sequence[ListListed]) -> None:
    columns = ("LIST", "SHOP", "RECIPIENTS", "MALFORMED", "DUPLICATES", "COMPLETE")
    rows = [(*list(asdict(one).values())[:5], service.timestamp(one.complete_at)) for one in found]
    print_table(columns, rows, empty="no lists")


def _print_refusals(refusals: Refusals) -> None:
    for one in refusals.first:
        say(f"line {one.line}: {one.reason}")
    if refusals.count > len(refusals.first):
        say(f"… and {refusals.count - len(refusals.first)} more; --refused FILE writes all of them")


def _print_notes(notes: Notes) -> None:
    remarks = (
        (notes.changed, "with line breaks, tabs or runs of spaces in a value, each of which is sent as one space"),
        (notes.without_values, "without values for the body, which get the campaign's, or fail if it has none"),
    )
    for noted, remark in remarks:
        if noted.count:
            more = f" and {noted.count - len(noted.first)} more" if noted.count > len(noted.first) else ""
            say(f"{counted(noted.count, 'line')} {remark}: {', '.join(map(str, noted.first))}{more}")


# -- input


def _database(database_url: str | None) -> AbstractContextManager[Any]:
    return service.service_schema(database_url, "broadcast", "campaigns")


def _found(connection: Any, campaign: str, shop: str | None) -> CampaignStatus:  # noqa: ANN401 - a psycopg connection
    found = admin.campaigns_named(connection, campaign, shop)
    if not found:
        raise CommandError(f"there is no campaign {campaign}; `wch campaigns list` lists them")
    if len(found) > 1:
        raise CommandError(
            f"several shops have a campaign {campaign}: give --shop {' or '.join(one.shop for one in found)}"
        )
    return found[0]


def _request(
    amqp_url: str, action: str, data: admin.CampaignRequest, shop: str | None, *, dry_run: bool, json: bool
) -> None:
    if not dry_run:
        service.request(amqp_url, data, shop=shop)
    sentence = f"{'would request' if dry_run else 'requested'}: {action} {data.campaign_id}"
    service.report(sentence, json=json, dry_run=dry_run, action=action, campaign=data.campaign_id)


def _await_list(database_url: str, list_id: str, shop: str | None) -> None:
    """Wait a little until the service has added the list, so that a campaign can be started next."""
    deadline = time.monotonic() + _ADDED_SECONDS
    with _database(database_url) as connection:
        while not admin.complete_list_exists(connection, list_id, shop):
            if time.monotonic() > deadline:
                print(
                    "the broadcast service has not added the whole list yet: see wch campaigns list --lists",
                    file=sys.stderr,
                )
                return
            time.sleep(_WATCH_SECONDS)


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    try:
        yield
    except WrongHeadings as error:
        raise CommandError(f"{file}: {error}") from None
    except UnicodeDecodeError:
        raise CommandError(f"{file}: is not UTF-8; save it as CSV in UTF-8") from None
