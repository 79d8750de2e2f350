"""`wch events`: publish or check an event, list the types, their schemas and their examples."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import orjson
import typer
from pydantic import ValidationError

from wch_common.cli.output import AmqpUrl, AsJson, CommandError, DryRun, print_json, print_table, say
from wch_common.client import Client
from wch_common.contract.envelope import STRUCTURED, data_errors, decode, encode
from wch_common.contract.event import EventData, Request, new_event
from wch_common.contract.examples import example_events, load_examples
from wch_common.contract.message import Message
from wch_common.contract.schemas import data_schema, write_contract
from wch_common.errors import ContractError
from wch_common.events import published_contract

app = typer.Typer(help="Publish and check events.", no_args_is_help=True)


@app.command()
def publish(
    type: Annotated[str, typer.Argument(help="Like sync.product.requested.v1.")],  # noqa: A002 - the attribute's name
    data: Annotated[str, typer.Argument(help="JSON, like '{\"product_id\": 7}'; - reads standard input.")],
    amqp_url: AmqpUrl,
    source: Annotated[str, typer.Option(help="The publishing program.")] = "/wch/cli",
    id: Annotated[str | None, typer.Option(help="Id of the event; events with the same id are handled once.")] = None,  # noqa: A002
    shop: Annotated[str | None, typer.Option(help="Name of the shop, if there are several.")] = None,
    requester: Annotated[str | None, typer.Option(help="Name of the requester, which the answers carry.")] = None,
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Publish one event and wait for the broker's confirm."""
    model = _data(type, data)
    event = new_event(model, source, id=id, shop=shop, requester=requester)
    if not dry_run:
        with Client(amqp_url, source) as client:
            client.publish(event)
    if json:
        print_json(orjson.loads(encode(event).message.body) | {"published": not dry_run})
    else:
        say(f"{'would publish' if dry_run else 'published'} {event.type} {event.id} to {event.exchange}")


@app.command()
def check(
    file: Annotated[
        Path, typer.Argument(help="A complete event as JSON (CloudEvents, structured mode); - reads standard input.")
    ],
    json: AsJson = False,
) -> None:
    """Check an event against the contract, as a consumer does."""
    body = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    try:
        event = decode(Message(body, STRUCTURED), published_contract())
    except ContractError as error:
        if json:
            fields = [vars(field) for field in error.fields]
            print_json({"ok": False, "kind": error.kind, "error": str(error), "fields": fields})
            raise typer.Exit(1) from None
        details = [f"\n  {field}" for field in error.fields if field.problem not in str(error)]
        raise CommandError("".join((str(error), *details))) from None
    if json:
        print_json({"ok": True, "type": event.type, "id": event.id})
    else:
        say(f"ok: {event.type} {event.id}")


@app.command()
def schemas(
    type: Annotated[str | None, typer.Argument(help="A type; all are listed if omitted.")] = None,  # noqa: A002
    write: Annotated[
        Path | None, typer.Option(help="Write all schemas and the AsyncAPI document into this folder.")
    ] = None,
    json: AsJson = False,
) -> None:
    """List the event types, show the JSON Schema of one, or write the whole contract."""
    registry = published_contract()
    if write is not None:
        try:
            changed = write_contract(registry, write)
        except (FileNotFoundError, ValueError) as error:
            raise CommandError(str(error)) from None
        say(f"{len(changed)} files changed: {', '.join(changed) or 'the contract is up to date'}")
    elif type is not None:
        model = registry.model(type)
        print_json(data_schema(model, load_examples(model)))
    else:
        rows = [
            (model.TYPE, "request" if issubclass(model, Request) else "fact", (model.__doc__ or "").split("\n")[0])
            for model in registry
        ]
        if json:
            print_json([{"type": name, "kind": kind, "description": text} for name, kind, text in rows])
        else:
            print_table(("TYPE", "KIND", "DESCRIPTION"), rows, empty="no event types are installed")


@app.command()
def example(
    type: Annotated[str, typer.Argument(help="Like whatsapp.message.requested.v1.")],  # noqa: A002
    number: Annotated[int, typer.Option(min=1, help="Which example, if the type has several.")] = 1,
    data: Annotated[
        bool, typer.Option("--data", help="Print only its data, as `wch events publish` takes it.")
    ] = False,
) -> None:
    """Print an example of a type: a complete event, which `wch events check -` accepts."""
    events = example_events(published_contract().model(type))
    if number > len(events):
        raise CommandError(f"{type} has no example {number}: give a number from 1 to {len(events)}")
    print_json(events[number - 1]["data"] if data else events[number - 1])


def _data(type_: str, text: str) -> EventData:
    """Return the typed data; unknown fields are refused, as they are never written."""
    written = sys.stdin.buffer.read() if text == "-" else text
    model = published_contract().model(type_)
    try:
        return model.model_validate_json(written, extra="forbid")
    except ValidationError as error:
        lines = "".join(f"\n  {field}" for field in data_errors(error))
        raise CommandError(f"the data does not match the schema of {type_}:{lines}") from None
