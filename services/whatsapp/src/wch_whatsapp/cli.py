"""`wch whatsapp`: lists, counts and retries messages, and suppresses recipients."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from wch_common.cli import service
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
from wch_common.cli.service import Who, person_name, print_record, report, service_schema, timestamp
from wch_common.events.failure_reasons import FAILURE_REASONS, failure_reason
from wch_common.integrations.recipients import masked
from wch_whatsapp import admin

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from wch_whatsapp.queries import RetryCandidate

app = typer.Typer(help="WhatsApp messages: list, show, retry, suppress, stats.", no_args_is_help=True)

State = Annotated[
    Literal[
        "queued", "sending", "in_doubt", "accepted", "delivered", "read", "failed", "suppressed", "cancelled", "unknown"
    ]
    | None,
    typer.Option(help="Only messages in this state."),
]
Reason = Annotated[str | None, typer.Option(help="Only messages with this reason, like undeliverable.")]
Requester = Annotated[str | None, typer.Option(help="Only messages of this requester.")]
Shop = Annotated[str | None, typer.Option(help="Only messages of this shop.")]
OneShop = Annotated[str | None, typer.Option("--shop", help="The shop; required if there are several.")]
Category = Annotated[
    Literal["marketing", "utility", "all"] | None,
    typer.Option(help="Category of the suppression; all by default.", show_default=False),
]


@app.command(name="list")
def list_(
    database_url: DatabaseUrl = None,
    state: State = None,
    reason: Reason = None,
    requester: Requester = None,
    shop: Shop = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of messages.")] = 50,
    json: AsJson = False,
) -> None:
    """List messages of the ledger, the newest first, with masked numbers and ids."""
    which = admin.MessageFilter(state=state, reason=reason, requester=requester, shop=shop, limit=limit)
    with _ledger(database_url) as connection:
        rows = admin.list_messages(connection, which)
    if json:
        print_json(rows)
        return
    columns = ("SEND KEY", "TO", "REQUESTER", "STATE", "REASON", "CODE", "ATTEMPT", "SINCE (UTC)", "DUE (UTC)")
    cells = [
        (row.send_key, row.phone or row.user_id, row.requester, row.state, row.reason, row.code, row.attempt,
         timestamp(row.updated_at), timestamp(row.due_at)) for row in rows
    ]  # fmt: skip
    print_table(columns, cells, empty="no messages found")
    if len(rows) == limit:
        say(f"only the newest {limit} messages are shown: increase --limit, or count all with `wch whatsapp stats`")


@app.command()
def show(
    key: Annotated[str, typer.Argument(help="Send key, or id in the ledger.")],
    database_url: DatabaseUrl = None,
    json: AsJson = False,
) -> None:
    """Show a message without its recipient and its text; `wch recipients export` shows those."""
    with _ledger(database_url) as connection:
        rows = admin.show_messages(connection, key)
    if not rows:
        raise CommandError(
            f"the ledger has no message {key}: give its send key, or its id from `wch whatsapp list --json`"
        )
    if json:
        print_json(rows)
        return
    for row in rows:
        print_record(asdict(row) | _explained(row.reason))


@app.command()
def retry(
    amqp_url: AmqpUrl,
    database_url: DatabaseUrl = None,
    keys: Annotated[list[str] | None, typer.Option("--key", help="Send key; can be repeated.")] = None,
    reason: Reason = None,
    requester: Requester = None,
    shop: Shop = None,
    everything: Annotated[bool, typer.Option("--all", help="Every failed message.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of messages.")] = 10_000,
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Retry failed messages, each still sent at most once; messages in doubt or unknown are never retried."""
    if not (keys or reason or requester or everything):
        raise CommandError("choose the messages to retry: give --key, --reason, --requester, or --all")
    state = None if keys else "failed"
    which = admin.MessageFilter(state, reason, requester, shop, keys, limit)
    with _ledger(database_url) as connection:
        found = admin.retry_candidates(connection, which)
    if missing := sorted(set(keys or ()) - {row.send_key for row in found}):
        raise CommandError(f"the ledger has no such message: {', '.join(missing)}")
    rows = [row for row in found if row.can_retry]
    skipped = Counter(_why_not(row) for row in found if not row.can_retry)
    if rows and not dry_run:
        service.request(amqp_url, *admin.retry_requests(rows, service.SOURCE))
    if json:
        record = {"action": "retry", "messages": len(rows), "skipped": skipped}
        print_json(record | {"dry_run": dry_run, "by": whoami()})
        return
    say(f"{'would request' if dry_run else 'requested'} a retry of {len(rows)} failed messages")
    if skipped:
        say("skipped: " + ", ".join(f"{count} {why}" for why, count in skipped.most_common()))


@app.command()
def suppress(
    person: Who,
    amqp_url: AmqpUrl,
    reason: Annotated[str, typer.Option(help="The reason; it is stored.")],
    category: Category = None,
    shop: OneShop = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove the suppression of this category.")] = False,
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Stop sending to a recipient; --remove lifts the suppression."""
    if remove and category is None:
        raise CommandError(
            "give the category to remove: --category marketing, utility or all; `wch recipients export` shows which exist"
        )
    category = category or "all"
    build = admin.unsuppress_request if remove else admin.suppress_request
    name = person_name(person)
    if not dry_run:
        service.request(amqp_url, build(name, category, reason=reason, by=whoami()), shop=shop)
    report(
        f"{'would request' if dry_run else 'requested'} {'removal of ' if remove else ''}the suppression of {masked(name)} "
        f"({category})",
        json=json,
        dry_run=dry_run,
        action="suppression_remove" if remove else "suppression_add",
        category=category,
    )


@app.command()
def stats(
    database_url: DatabaseUrl = None,
    hours: Annotated[float, typer.Option(min=0.1, help="Only messages that changed within so many hours.")] = 24.0,
    json: AsJson = False,
) -> None:
    """Count messages by shop, requester, category, state and reason; show what may cost money, and paused numbers."""
    with _ledger(database_url) as connection:
        rows = admin.count_messages(connection, hours)
        numbers = admin.list_numbers(connection)
        charges = admin.list_charges(connection)
    if json:
        print_json({"messages": rows, "numbers": numbers, "charges": charges})
        return
    columns = ("SHOP", "REQUESTER", "CATEGORY", "STATE", "REASON", "MESSAGES", "LAST (UTC)")
    cells = [
        (row.shop, row.requester, row.category, row.state, row.reason, row.messages, timestamp(row.last))
        for row in rows
    ]
    print_table(columns, cells, empty="no messages found")
    months: dict[tuple[str, str], list[str]] = defaultdict(list)
    for charge in charges:
        months[f"{charge.month:%Y-%m}", charge.sender].append(f"{charge.messages} {charge.kind}")
    for (month, sender), counts in months.items():
        say(f"the sending number {sender} has sent in {month} what may cost money: {', '.join(counts)}")
    for number in numbers:
        if number.cause:
            remedy = failure_reason(number.cause).remedy
            until = timestamp(number.paused_until)
            say(f"{number.sender} is paused: {number.cause}, until {until} UTC; what to do: {remedy}")


def _ledger(database_url: str | None) -> AbstractContextManager[Any]:
    return service_schema(database_url, "whatsapp", "messages")


def _explained(reason: str) -> dict[str, str]:
    if reason not in FAILURE_REASONS:
        return {}
    found = failure_reason(reason)
    return {"meaning": found.meaning, "what_to_do": found.remedy}


def _why_not(row: RetryCandidate) -> str:
    if row.state != "failed":
        return row.state
    if row.cancelled is not None:
        return "cancelled"
    return f"{row.reason} (nothing to send)"
