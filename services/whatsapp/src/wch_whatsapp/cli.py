"""`wch whatsapp`: messages and what became of them, trying failed ones again, and whom not to write to."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

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
from wch_common.events.whatsapp import RetryRequested, SuppressionAddRequested, SuppressionRemoveRequested
from wch_common.integrations.phone import MalformedNumber, masked, normalised
from wch_whatsapp import people
from wch_whatsapp.identity import People

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from datetime import datetime

    from wch_common.contract.event import Request

app = typer.Typer(
    help="WhatsApp messages: list, show, retry, suppress, stats; forget and export a person.", no_args_is_help=True
)

SOURCE = "/wch/operator"
_MOST_KEYS = 1000
State = Annotated[
    Literal[
        "queued", "sending", "in_doubt", "accepted", "delivered", "read", "failed", "suppressed", "cancelled", "unknown"
    ]
    | None,
    typer.Option(help="Only messages in this state."),
]
Reason = Annotated[str | None, typer.Option(help="Only messages with this reason, like undeliverable.")]
Requester = Annotated[str | None, typer.Option(help="Only messages this program asked for.")]
Shop = Annotated[str | None, typer.Option(help="Only this shop's; needed where there are several.")]
Phone = Annotated[str, typer.Argument(help="Telephone number like +<country><number>.")]
HashKey = Annotated[
    str,
    typer.Option(
        "--hash-key",
        envvar="WCH_WHATSAPP_HASH_KEY",
        help="The services' key, by which people are known.",
        show_default=False,
    ),
]
Category = Annotated[
    Literal["marketing", "utility", "all"] | None,
    typer.Option(help="What is not to be sent: all, unless given.", show_default=False),
]
_WHERE = """
WHERE (%(state)s::text IS NULL OR state = %(state)s) AND (%(reason)s::text IS NULL OR reason = %(reason)s)
AND (%(requester)s::text IS NULL OR requester = %(requester)s) AND (%(shop)s::text IS NULL OR shop = %(shop)s)
AND (%(keys)s::text[] IS NULL OR send_key = ANY(%(keys)s))
"""
_LIST = f"""
SELECT id, shop, requester, send_key, phone, category, state, reason, code, attempt, due_at, updated_at FROM messages {_WHERE}
ORDER BY updated_at DESC LIMIT %(limit)s
"""  # noqa: S608 - words of this module
_TO_RETRY = f"""
SELECT shop, requester, send_key, state, reason, cancelled,
       state = 'failed' AND content IS NOT NULL AND phone IS NOT NULL AND cancelled IS NULL AS can_be
FROM messages {_WHERE} ORDER BY can_be DESC, shop, requester LIMIT %(limit)s
"""  # noqa: S608 - words of this module
_ANY_PERSON = "SELECT phone, person FROM messages WHERE phone IS NOT NULL LIMIT 1"
_SHOW = "SELECT * FROM messages WHERE send_key = %(key)s OR id::text = %(key)s"
_STATS = """
SELECT shop, requester, category, state, reason, count(*) AS messages, max(updated_at) AS last FROM messages
WHERE updated_at > now() - %(hours)s * interval '1 hour' GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, messages DESC
"""
_NUMBERS = "SELECT sender, cause, paused_until FROM numbers ORDER BY sender"


@app.command(name="list")
def list_(
    database_url: DatabaseUrl = None,
    state: State = None,
    reason: Reason = None,
    requester: Requester = None,
    shop: Shop = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest first.")] = 50,
    json: AsJson = False,
) -> None:
    """List messages of the ledger, the newest first; numbers are masked."""
    wanted = {"state": state, "reason": reason, "requester": requester, "shop": shop, "keys": None, "limit": limit}
    with _ledger(database_url) as connection:
        rows = [_masked(row) for row in connection.execute(_LIST, wanted).fetchall()]
    if json:
        print_json(rows)
        return
    columns = ("SEND KEY", "TO", "REQUESTER", "STATE", "REASON", "CODE", "ATTEMPT", "SINCE (UTC)", "DUE (UTC)")
    cells = [
        (row["send_key"], row["phone"], row["requester"], row["state"], row["reason"], row["code"], row["attempt"],
         _timestamp(row["updated_at"]), _timestamp(row["due_at"])) for row in rows
    ]  # fmt: skip
    print_table(columns, cells, empty="no such message")
    if len(rows) == limit:
        say(f"the newest {limit}: --limit shows more, `wch whatsapp stats` counts all")


@app.command()
def show(
    key: Annotated[str, typer.Argument(help="Send key, or the ledger's id.")],
    database_url: DatabaseUrl = None,
    json: AsJson = False,
) -> None:
    """Show all that is known of a message but whom it goes to and what it says, which `export` shows."""
    with _ledger(database_url) as connection:
        rows = [_masked(row) for row in connection.execute(_SHOW, {"key": key}).fetchall()]
    if not rows:
        raise Wrong(f"the ledger has no message {key}")
    if json:
        print_json(rows)
        return
    for row in rows:
        table = Table(box=None, show_header=False, pad_edge=False)
        for name, value in row.items():
            if value not in (None, "", False):
                table.add_row(name, str(value))
        console.print(table)


@app.command()
def retry(
    amqp_url: AmqpUrl,
    database_url: DatabaseUrl = None,
    keys: Annotated[list[str] | None, typer.Option("--key", help="Send key; may be given several times.")] = None,
    reason: Reason = None,
    requester: Requester = None,
    shop: Shop = None,
    everything: Annotated[bool, typer.Option("--all", help="Every failed message.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 10_000,
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Try failed messages again, each still at most once; those in doubt and unknown are never touched."""
    if not (keys or reason or requester or everything):
        raise Wrong("say which messages: --key, --reason, --requester, or --all")
    state = None if keys else "failed"
    wanted = {"state": state, "reason": reason, "requester": requester, "shop": shop, "keys": keys, "limit": limit}
    with _ledger(database_url) as connection:
        found = connection.execute(_TO_RETRY, wanted).fetchall()
    if missing := sorted(set(keys or ()) - {row["send_key"] for row in found}):
        raise Wrong(f"the ledger has no such message: {', '.join(missing)}")
    rows = [row for row in found if row["can_be"]]
    not_tried = Counter(_why_not(row) for row in found if not row["can_be"])
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in rows:
        groups[row["shop"], row["requester"]].append(row["send_key"])
    if not dry_run:
        for (of_shop, of), mine in groups.items():
            parts = [mine[start : start + _MOST_KEYS] for start in range(0, len(mine), _MOST_KEYS)]
            for part in parts:
                _publish(amqp_url, RetryRequested(send_keys=tuple(part), of=of or None), of_shop, requester=of)
    if json:
        said = {"action": "retry", "messages": len(rows), "not_tried": not_tried}
        print_json(said | {"dry_run": dry_run, "by": whoami()})
    else:
        say(f"{'would try' if dry_run else 'asked to try'} {len(rows)} failed messages again")
        if not_tried:
            say("not tried: " + ", ".join(f"{count} {why}" for why, count in not_tried.most_common()))


@app.command()
def suppress(
    phone: Phone,
    amqp_url: AmqpUrl,
    reason: Annotated[str, typer.Option(help="Why; it is kept.")],
    category: Category = None,
    shop: Shop = None,
    remove: Annotated[bool, typer.Option("--remove", help="Write to the person again.")] = False,
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Write to a person no more (or, with --remove and the category that held, again)."""
    if remove and category is None:
        raise Wrong(
            "say what is to be removed: --category marketing, utility or all; `wch whatsapp export` shows what holds"
        )
    category = category or "all"
    model = SuppressionRemoveRequested if remove else SuppressionAddRequested
    number = _number(phone)
    if not dry_run:
        _publish(amqp_url, model(phone=number, category=category, reason=reason, by=whoami()), shop or "", requester="")
    verb = "removed" if remove else "added"
    if json:
        print_json({"action": f"suppression_{verb}", "category": category, "dry_run": dry_run, "by": whoami()})
    else:
        say(f"{'would ask' if dry_run else 'asked'} for the suppression of {masked(number)} ({category}) to be {verb}")


@app.command()
def stats(
    database_url: DatabaseUrl = None,
    hours: Annotated[float, typer.Option(min=0.1, help="Of messages that changed in so many hours.")] = 24.0,
    json: AsJson = False,
) -> None:
    """Count messages by shop, requester, category, state and reason, and say which numbers rest and why."""
    with _ledger(database_url) as connection:
        rows = connection.execute(_STATS, {"hours": hours}).fetchall()
        numbers = connection.execute(_NUMBERS).fetchall()
    if json:
        print_json({"messages": rows, "numbers": numbers})
        return
    columns = ("SHOP", "REQUESTER", "CATEGORY", "STATE", "REASON", "MESSAGES", "LAST (UTC)")
    print_table(columns, [(*list(row.values())[:6], _timestamp(row["last"])) for row in rows], empty="no message")
    for number in numbers:
        if number["cause"]:
            say(f"{number['sender']} rests: {number['cause']}, until {_timestamp(number['paused_until'])} UTC")


@app.command()
def forget(
    phone: Phone, hash_key: HashKey, database_url: DatabaseUrl = None, dry_run: DryRun = False, json: AsJson = False
) -> None:
    """Erase what the ledger knows of a person; whom not to write to is kept, by a hash that tells nobody the number."""
    number = _number(phone)
    with _ledger(database_url) as connection:
        person = _person(connection, hash_key, number)
        found = people.export(connection, person)
        counts = {table: len(rows) for table, rows in found.items()}
        if not dry_run:
            counts = people.forget(connection, person)
    if json:
        print_json({"action": "forget", "rows": counts, "dry_run": dry_run, "by": whoami()})
        return
    verb = "would be erased" if dry_run else "erased"
    say(f"{verb}: " + ", ".join(f"{count} in {table}" for table, count in counts.items()))
    if counts["suppressions"]:
        say("whom not to write to is kept without the number: the person's suppressions hold")
    say(
        "requests that wait or died still hold the number: see `wch queues list` for the queues of whatsapp, and their .dlq"
    )


@app.command()
def export(phone: Phone, hash_key: HashKey, database_url: DatabaseUrl = None) -> None:
    """Print all that is known of a person, as JSON."""
    number = _number(phone)
    with _ledger(database_url) as connection:
        print_json(people.export(connection, _person(connection, hash_key, number)))


def _ledger(database_url: str | None) -> AbstractContextManager[Any]:
    return service_schema(database_url, "whatsapp", "messages")


def _publish(amqp_url: str, data: Request, shop: str, *, requester: str) -> None:
    with Client(amqp_url, SOURCE) as client:
        client.publish(new_event(data, SOURCE, shop=shop or None, requester=requester or None))


def _number(text: str) -> str:
    try:
        return normalised(text)
    except MalformedNumber:
        raise Wrong("this is no telephone number with its country: write it like +<country><number>") from None


def _person(connection: Any, hash_key: str, number: str) -> bytes:  # noqa: ANN401 - a psycopg connection
    """Return the name of a number's owner; raises Wrong where another key than the services' would find nobody."""
    known = People(hash_key)
    for row in connection.execute(_ANY_PERSON).fetchall():
        if known.person(row["phone"]) != bytes(row["person"]):
            raise Wrong("this ledger was written with another hash key: give the services' WCH_WHATSAPP_HASH_KEY")
    return known.person(number)


def _why_not(row: dict[str, Any]) -> str:
    if row["state"] != "failed":
        return str(row["state"])
    if row["cancelled"] is not None:
        return "taken back"
    return f"{row['reason']} (nothing to send)"


def _masked(row: dict[str, Any]) -> dict[str, Any]:
    # Meta's id of a message holds its recipient's number, in base64.
    hidden = {"person", "content", "fallback", "wamid"} & set(row)
    told = {name: value for name, value in row.items() if name not in hidden}
    return told | {"phone": masked(row["phone"]) if row["phone"] else None}


def _timestamp(value: datetime | None) -> str:
    return f"{value:%m-%d %H:%M:%S}" if value else ""
