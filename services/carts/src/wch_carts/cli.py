"""`wch carts`: statistics, one cart, cleanups, reminders."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wch_carts import admin
from wch_common.cli import service
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
)
from wch_common.contract.event import new_event
from wch_common.integrations.recipients import masked

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from wch_carts.queries_admin import CartDetails, CleanupResult, ReminderDetails

app = typer.Typer(help="Carts: stats, show, cleanup, remind.", no_args_is_help=True)

Shop = Annotated[str | None, typer.Option(help="The shop; required if there are several.")]
_WAIT_SECONDS, _POLL_SECONDS = 60.0, 0.2


@app.command()
def stats(database_url: DatabaseUrl = None, shop: Shop = None, json: AsJson = False) -> None:
    """Count carts and reminders, with the value of recovered carts, and show each shop's last cleanup."""
    with _database(database_url) as connection:
        found = admin.statistics(connection, shop=shop)
    if json:
        print_json(found)
        return
    columns = ("SHOP", "ACTIVE", "EXPIRED", "ABANDONED", "COMPLETED", "REMINDED", "RECOVERED", "VALUE")
    rows = [(*list(asdict(one).values())[:7], ", ".join(one.value)) for one in found.shops]
    print_table(columns, rows, empty="no carts")
    for one in found.not_reminded:
        say(f"{one.reminders} {one.state}: {one.reason or '–'}")
    for cleaned in found.cleanups:
        of = f" of {cleaned.shop}" if cleaned.shop else ""
        say(f"last cleanup{of}: {_result(cleaned)}, at {service.timestamp(cleaned.ended_at)}")


@app.command()
def show(
    cart: Annotated[str, typer.Argument(help="The shop's name for the cart.", metavar="CART")],
    database_url: DatabaseUrl = None,
    shop: Shop = None,
    json: AsJson = False,
) -> None:
    """Show a cart and its reminders, without its owner's number, name and address; `wch recipients export` shows those."""
    with _database(database_url) as connection:
        found = [(one, admin.reminders_of(connection, one)) for one in admin.carts_named(connection, cart, shop)]
    if not found:
        raise CommandError(_no_cart(cart, shop))
    if json:
        print_json([_public(one) | {"reminders": reminders} for one, reminders in found])
        return
    for one, reminders in found:
        _print(one, reminders)


@app.command()
def cleanup(
    amqp_url: AmqpUrl,
    database_url: DatabaseUrl = None,
    older_than: Annotated[
        float | None,
        typer.Option(min=0, max=1_000_000, help="Delete only expired carts that have not changed for so many hours."),
    ] = None,
    shop: Shop = None,
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Delete expired carts; with --database-url, wait for the result."""
    request = admin.cleanup_request(older_than_hours=older_than, dry_run=dry_run)
    (event_id,) = service.request(amqp_url, request, shop=shop)
    found = _awaited(database_url, event_id) if database_url else None
    if found is not None:
        sentence = _result(found)
    else:
        sentence = f"requested a cleanup{' that only counts' if dry_run else ''}; see `wch carts stats`"
    service.report(sentence, json=json, dry_run=dry_run, action="cleanup", result=found)


@app.command()
def remind(
    amqp_url: AmqpUrl,
    carts: Annotated[
        list[str] | None,
        typer.Argument(help="Carts whose owners are reminded; by default all idle carts.", metavar="[CART]…"),
    ] = None,
    database_url: DatabaseUrl = None,
    shop: Shop = None,
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Remind the owners of carts, once for each change of a cart, and not in quiet hours."""
    if dry_run:
        with _database(database_url) as connection:
            count = admin.remindable_carts(connection, carts, shop)
        owners = f"the {'owner' if count == 1 else 'owners'} of up to {counted(count, 'cart')}"
        sentence = (
            f"would remind {owners}, if idle long enough, outside quiet hours"
            if count
            else "no cart can be reminded of now"
        )
    elif carts:
        shops = _shops_of(carts, database_url, shop) if database_url else dict.fromkeys(carts, shop)
        requests = [new_event(admin.reminder_request(cart), service.SOURCE, shop=of) for cart, of in shops.items()]
        count = len(service.request(amqp_url, *requests))
        sentence = f"requested {'a reminder' if count == 1 else 'reminders'} of {counted(count, 'cart')}"
    else:
        service.request(amqp_url, admin.scan_request(), shop=shop)
        count = 0
        sentence = "requested reminders of all idle carts"
    service.report(sentence, json=json, dry_run=dry_run, action="remind", carts=count)


def _database(database_url: str | None) -> AbstractContextManager[Any]:
    return service.service_schema(database_url, "carts", "carts")


def _no_cart(cart: str, shop: str | None) -> str:
    return f"there is no cart {cart}" + (f" of the shop {shop}" if shop else "")


def _shops_of(carts: Sequence[str], database_url: str, shop: str | None) -> dict[str, str | None]:
    """Return the shop of each cart; raises CommandError for a cart that no shop has, or several."""
    with _database(database_url) as connection:
        found = admin.shops_of_carts(connection, carts, shop)
    for cart in carts:
        if cart not in found:
            raise CommandError(_no_cart(cart, shop))
        if len(found[cart]) > 1:
            raise CommandError(f"several shops have a cart {cart}: give --shop {' or '.join(found[cart])}")
    return {cart: found[cart][0] or None for cart in carts}


def _awaited(database_url: str, event_id: str) -> CleanupResult | None:
    """Wait for the result of a cleanup; None if it takes longer than a minute."""
    deadline = time.monotonic() + _WAIT_SECONDS
    with _database(database_url) as connection:
        while time.monotonic() < deadline:
            if (found := admin.cleanup_of_request(connection, event_id)) is not None:
                return found
            time.sleep(_POLL_SECONDS)
    return None


def _result(found: CleanupResult) -> str:
    verb = "would be deleted" if found.dry_run else "deleted"
    return f"{found.deleted} carts {verb}, {found.kept} kept, in {found.seconds:.1f} s"


def _public(cart: CartDetails) -> dict[str, Any]:
    """Return the fields of a cart, with the number masked."""
    fields = asdict(cart) | {"phone": masked(cart.phone) if cart.phone else None}
    del fields["id"]
    return fields


def _print(cart: CartDetails, reminders: Sequence[ReminderDetails]) -> None:
    fields = _public(cart)
    items = fields.pop("items")
    service.print_record(fields)
    for item in items:
        say(f"item: {item['quantity']} × {item['name']} at {item['price']}")
    for one in reminders:
        changed = f"for version {one.period} of the cart, at {service.timestamp(one.changed_at)}"
        say(f"reminder: {' '.join(filter(None, (one.state, one.reason)))} ({changed})")
