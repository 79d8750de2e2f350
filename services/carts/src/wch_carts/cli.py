"""`wch carts`: counts and their value, one cart, cleaning up, reminding; forgetting and exporting a person."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from wch_carts import people
from wch_carts.queries import CART, CLEANUP, REMINDERS, SHOPS, WOULD_BE_REMINDED, statistics
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
from wch_common.events.carts import CleanupRequested, ReminderRequested, ReminderScanRequested
from wch_common.integrations.phone import MalformedNumber, masked, normalised

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from wch_common.contract.event import Event, Request

app = typer.Typer(help="Carts: stats, show, cleanup, remind; forget and export a person.", no_args_is_help=True)

SOURCE = "/wch/operator"
Shop = Annotated[str | None, typer.Option(help="The shop; needed where there are several.")]
Phone = Annotated[str, typer.Argument(help="Telephone number like +<country><number>.")]
_WAIT_SECONDS, _LOOK_SECONDS = 60.0, 0.2


@app.command()
def stats(database_url: DatabaseUrl = None, shop: Shop = None, json: AsJson = False) -> None:
    """Count carts and reminders, with the value of those that were recovered, and show the last cleanup."""
    with _database(database_url) as connection:
        found = statistics(connection, shop)
    if json:
        print_json(found)
        return
    columns = ("SHOP", "ACTIVE", "EXPIRED", "ABANDONED", "COMPLETED", "REMINDED", "RECOVERED", "VALUE")
    names = ("shop", "active", "expired", "abandoned", "completed", "reminded", "recovered")
    cells = [(*(row[name] for name in names), ", ".join(row["value"])) for row in found["shops"]]
    print_table(columns, cells, empty="no cart")
    for row in found["not_reminded"]:
        say(f"{row['reminders']} {row['state']}: {row['reason'] or '–'}")
    for row in found["cleanups"]:
        say(f"last cleanup{_of(row['shop'])}: {_result(row)}, at {row['ended_at']:%m-%d %H:%M:%S}")


@app.command()
def show(
    cart: Annotated[str, typer.Argument(help="The shop's name for the cart.", metavar="CART")],
    database_url: DatabaseUrl = None,
    shop: Shop = None,
    json: AsJson = False,
) -> None:
    """Show a cart and what came of its reminders, without its owner's number, name and address, which `export` shows."""
    with _database(database_url) as connection:
        rows = connection.execute(CART, {"cart": cart, "shop": shop}).fetchall()
        for row in rows:
            row["reminders"] = connection.execute(REMINDERS, {"id": row.pop("id")}).fetchall()
            row["phone"] = masked(row["phone"]) if row["phone"] else None
    if not rows:
        raise Wrong(f"there is no cart {cart}" + (f" of the shop {shop}" if shop else ""))
    if json:
        print_json(rows)
        return
    for row in rows:
        _print(row)


@app.command()
def cleanup(
    amqp_url: AmqpUrl,
    database_url: DatabaseUrl = None,
    older_than: Annotated[
        float | None,
        typer.Option(min=0, max=1_000_000, help="Only carts untouched for so many hours, of those that have expired."),
    ] = None,
    shop: Shop = None,
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Have expired carts deleted; with the database's address, wait for the result."""
    request = CleanupRequested(older_than_hours=older_than, dry_run=dry_run)
    (event_id,) = _publish(amqp_url, [request], shop)
    found = _awaited(database_url, event_id) if database_url else None
    if json:
        print_json({"action": "cleanup", "dry_run": dry_run, "by": whoami(), "result": found})
    elif found is not None:
        say(_result(found))
    else:
        say("asked for a cleanup" + (" that only counts" if dry_run else "") + "; see `wch carts stats`")


@app.command()
def remind(
    amqp_url: AmqpUrl,
    carts: Annotated[
        list[str] | None,
        typer.Argument(help="Carts whose owners are reminded; all idle ones if left out.", metavar="[CART]…"),
    ] = None,
    database_url: DatabaseUrl = None,
    shop: Shop = None,
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Remind the owners of carts, each once since the cart last changed, and not in quiet hours."""
    if dry_run:
        with _database(database_url) as connection:
            names = {"carts": carts or None, "shop": shop}
            found = connection.execute(WOULD_BE_REMINDED, names).fetchone()["carts"]
    elif carts:
        shops = _shops_of(carts, database_url, shop) if database_url else dict.fromkeys(carts, shop)
        _publish(
            amqp_url, [new_event(ReminderRequested(cart_id=cart), SOURCE, shop=of) for cart, of in shops.items()], None
        )
        found = len(shops)
    else:
        _publish(amqp_url, [ReminderScanRequested()], shop)
        found = 0
    if json:
        print_json({"action": "remind", "carts": found, "dry_run": dry_run, "by": whoami()})
    elif dry_run:
        say(f"{found} carts may be reminded of, where they are idle long enough and it is not quiet")
    else:
        say(f"asked for the reminders of {found} carts" if carts else "asked for the reminders of all idle carts")


@app.command()
def forget(phone: Phone, database_url: DatabaseUrl = None, dry_run: DryRun = False, json: AsJson = False) -> None:
    """Erase a person from all carts; what the carts were worth is kept."""
    number = _number(phone)
    with _database(database_url) as connection:
        found = len(people.export(connection, number)) if dry_run else people.forget(connection, number)
    if json:
        print_json({"action": "forget", "carts": found, "dry_run": dry_run, "by": whoami()})
        return
    say(f"{'would be erased' if dry_run else 'erased'} from {found} carts")
    say("reminders under way hold the number as well: see `wch whatsapp forget`, and `wch dlq list` for carts.cart.dlq")


@app.command()
def export(phone: Phone, database_url: DatabaseUrl = None) -> None:
    """Print all that is known of a person, as JSON."""
    with _database(database_url) as connection:
        print_json(people.export(connection, _number(phone)))


def _database(database_url: str | None) -> AbstractContextManager[Any]:
    return service_schema(database_url, "carts", "carts")


def _shops_of(carts: Sequence[str], database_url: str, shop: str | None) -> dict[str, str | None]:
    """Return each cart with its shop; raises where one is not known, or in several shops."""
    with _database(database_url) as connection:
        rows = connection.execute(SHOPS, {"carts": list(carts), "shop": shop}).fetchall()
    found = {row["cart_id"]: row["shops"] for row in rows}
    for cart in carts:
        if cart not in found:
            raise Wrong(f"there is no cart {cart}" + (f" of the shop {shop}" if shop else ""))
        if len(found[cart]) > 1:
            raise Wrong(f"several shops have a cart {cart}: name one of {', '.join(found[cart])} with --shop")
    return {cart: found[cart][0] or None for cart in carts}


def _publish(amqp_url: str, requests: Sequence[Request | Event[Request]], shop: str | None) -> list[str]:
    with Client(amqp_url, SOURCE, shop=shop) as client:
        return client.publish_many(requests)


def _awaited(database_url: str, event_id: str) -> dict[str, Any] | None:
    """Wait for the result of a cleanup; None where it does not come in a minute."""
    deadline = time.monotonic() + _WAIT_SECONDS
    with _database(database_url) as connection:
        while time.monotonic() < deadline:
            row: dict[str, Any] | None = connection.execute(CLEANUP, {"event": event_id}).fetchone()
            if row is not None and row["ended_at"] is not None:
                return row
            time.sleep(_LOOK_SECONDS)
    return None


def _result(row: dict[str, Any]) -> str:
    verb = "would be deleted" if row["dry_run"] else "deleted"
    return f"{row['deleted']} carts {verb}, {row['kept']} kept, in {row['seconds']:.1f} s"


def _print(row: dict[str, Any]) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    reminders, items = row.pop("reminders"), row.pop("items")
    for name, value in row.items():
        if value not in (None, "", {}):
            table.add_row(name, str(value))
    for item in items:
        table.add_row("item", f"{item['quantity']} × {item['name']} at {item['price']}")
    for one in reminders:
        since = f"since version {one['period']}"
        table.add_row("reminder", f"{one['state']} {one['reason']} ({since}, {one['changed_at']:%m-%d %H:%M:%S})")
    console.print(table)


def _of(shop: str) -> str:
    return f" of {shop}" if shop else ""


def _number(text: str) -> str:
    try:
        return normalised(text)
    except MalformedNumber as error:
        raise Wrong(str(error)) from None
