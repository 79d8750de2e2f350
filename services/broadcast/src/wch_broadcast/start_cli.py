"""`wch campaigns start`: checks a campaign, shows what it is going to do, and requests it."""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from pydantic import ValidationError

from wch_broadcast import admin
from wch_broadcast.start_check import StartPlan, WhatsAppState, is_named, plan, span, unknown_list
from wch_common.cli import service
from wch_common.cli.output import AmqpUrl, AsJson, CommandError, DatabaseUrl, DryRun, counted, print_json, say, whoami
from wch_common.errors import field_errors

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    from wch_broadcast.list_check import ListCheck, Sample
    from wch_broadcast.queries_admin import ListFound
    from wch_common.events.broadcast import CampaignRequested
    from wch_common.integrations.templates import Preview

    class MakeRequest(Protocol):
        """Makes the request for a template whose placeholders have names or have not, or of which that is not known."""

        def __call__(self, *, is_named: bool | None) -> CampaignRequested: ...


_SHOWN_IN_REFUSAL = 3
_LIKE_A_NAME = re.compile("[a-z_][a-z0-9_]{0,63}=")
_MOST_NAMES = 10_000
_SET_DATABASE = "because they are in the database: give --database-url, or set WCH_DATABASE_URL"
_NOT_CHECKED = f"the list, the template and the limits were not checked, {_SET_DATABASE}"
_NOT_STARTED = f"not started: the list, the template and the limits cannot be checked, {_SET_DATABASE}; --unchecked starts it anyway"


def start(
    campaign: Annotated[str, typer.Argument(help="The campaign's name.", metavar="CAMPAIGN")],
    list_id: Annotated[str, typer.Option("--list", help="List of recipients, uploaded with `wch campaigns import`.")],
    amqp_url: AmqpUrl,
    database_url: DatabaseUrl = None,
    template: Annotated[str | None, typer.Option(help="Name of an approved template.")] = None,
    language: Annotated[str, typer.Option(help="Language of the template.")] = "en_US",
    values: Annotated[
        list[str] | None,
        typer.Option(
            "--value",
            help="Value for the next placeholder of the template's body; name=value if its placeholders have names.",
        ),
    ] = None,
    text: Annotated[str | None, typer.Option(help="Free text; the template becomes its fallback.")] = None,
    category: Annotated[
        Literal["marketing", "utility", "service"], typer.Option(help="Category of the message.")
    ] = "marketing",
    batch_size: Annotated[int, typer.Option(min=1, max=1000, help="Recipients per batch.")] = 50,
    pause: Annotated[
        float, typer.Option(min=0, help="Seconds from the start of one batch to the start of the next.")
    ] = 1.0,
    start_at: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%dT%H:%M:%S%z"], help="Earliest time of the first batch.")
    ] = None,
    stop_at: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%dT%H:%M:%S%z"], help="Time after which nothing is sent.")
    ] = None,
    beside_others: Annotated[
        bool, typer.Option("--beside-others", help="Do not wait for the shop's other campaigns.")
    ] = False,
    sender: Annotated[str | None, typer.Option(help="Phone number id to send from.")] = None,
    shop: Annotated[str | None, typer.Option(help="The shop; required if there are several.")] = None,
    unchecked: Annotated[
        bool,
        typer.Option(
            "--unchecked",
            help="Start without a database: nobody checks then whether the list exists, whether the template exists, is "
            "approved and fits the values, and what the messaging limit allows.",
        ),
    ] = False,
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Check a campaign against its list, the template at Meta and the limits, show samples, and start it."""
    wanted: dict[str, Any] = {
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

    def request(*, is_named: bool | None) -> CampaignRequested:
        return _validated(wanted | message_of(text, template, language, values or (), is_named=is_named))

    checked: StartPlan | None = None
    if database_url is not None:
        data, checked = _checked(request, database_url, shop)
    elif unchecked:
        data = request(is_named=None)
    else:
        raise CommandError(_NOT_STARTED)
    if checked is not None and checked.refusals:
        raise CommandError(_refusal(checked))
    if not dry_run:
        service.request(amqp_url, data, shop=shop or (checked.recipient_list.shop or None if checked else None))
    if json:
        print_json(_record(data, checked) | {"dry_run": dry_run, "by": whoami()})
        return
    _print(data, checked)
    say(f"{'would request' if dry_run else 'requested'}: start {campaign}")
    if not dry_run:
        say(f"follow its progress with: wch campaigns status {campaign} --watch")


# -- input


def message_of(
    text: str | None, template: str | None, language: str, values: Sequence[str], *, is_named: bool | None
) -> dict[str, Any]:
    """Return message and fallback; raises CommandError if neither text nor template is given.

    `is_named` says whether the template's placeholders have names; if that is not known, a value like `name=text` has one.
    """
    if template is None and text is None:
        raise CommandError("give --template, --text, or both")
    body = [_value(one, is_named) for one in values]
    approved = {"kind": "template", "name": template, "language": language, "body": body} if template else None
    if text is None:
        return {"message": approved, "fallback": None}
    return {"message": {"kind": "text", "body": text}, "fallback": approved}


def _value(given: str, is_named: bool | None) -> dict[str, Any]:
    name, _, text = given.partition("=")
    has_name = bool(_LIKE_A_NAME.match(given)) if is_named is None else is_named and "=" in given and name != ""
    return {"name": name, "text": text} if has_name else {"name": None, "text": given}


def _validated(wanted: dict[str, Any]) -> CampaignRequested:
    try:
        return admin.start_request(wanted)
    except ValidationError as error:
        raise CommandError("; ".join(str(one) if one.field else one.problem for one in field_errors(error))) from None


# -- checks


def _checked(request: MakeRequest, database_url: str, shop: str | None) -> tuple[CampaignRequested, StartPlan]:
    """Return a campaign and its plan; raises CommandError if its list does not exist or its name is taken."""
    data = request(is_named=False)
    with service.service_schema(database_url, "broadcast", "campaigns") as connection:
        found = _list(connection, data.list_id or "", shop)
        if admin.campaign_exists(connection, data.campaign_id, found.shop):
            name = data.campaign_id
            raise CommandError(f"there is already a campaign {name}: see wch campaigns status {name}")
        state = _whatsapp_state(database_url, found.shop)
        data = request(is_named=is_named(data, state))
        ahead = admin.campaigns_ahead(connection, found.shop)
        with closing(admin.list_rows(connection, found.id)) as rows:
            return data, plan(data, found, rows, state, ahead, datetime.now(UTC))


def _list(connection: Any, name: str, shop: str | None) -> ListFound:  # noqa: ANN401 - a psycopg connection
    found = admin.lists_named(connection, name, shop)
    if not found:
        known = [one.list_id for one in admin.lists(connection, shop=shop, limit=_MOST_NAMES)]
        raise CommandError(unknown_list(name, shop, known))
    if len(found) > 1:
        raise CommandError(f"several shops have a list {name}: give --shop {' or '.join(one.shop for one in found)}")
    return found[0]


def _whatsapp_state(database_url: str, shop: str) -> WhatsAppState:
    """Return what whatsapp knows of the shop; without its package or its tables, why that is not known."""
    try:
        whatsapp = service.admin_of("whatsapp")
        with service.service_schema(database_url, "whatsapp", "templates") as connection:
            read, templates = whatsapp.templates(connection, shop)
            return WhatsAppState(read, templates, whatsapp.sending_numbers(connection, shop))
    except CommandError as error:
        return WhatsAppState(problem=str(error))


def _refusal(checked: StartPlan) -> str:
    """Return one sentence with every reason, and the first recipients if all would fail."""
    check, reasons = checked.check, list(checked.refusals)
    if check.recipients and check.bad == check.recipients and not check.refusal:
        reasons += [f"recipient {one.number} ({one.to}): {one.problem}" for one in check.first[:_SHOWN_IN_REFUSAL]]
    return f"not started: {'; '.join((*reasons, *filter(None, (checked.copy,))))}"


# -- output


def _record(data: CampaignRequested, checked: StartPlan | None) -> dict[str, Any]:
    record: dict[str, Any] = {"action": "start", "campaign": data.campaign_id}
    if checked is None:
        return record | {"checked": False, "warnings": [_NOT_CHECKED]}
    check, template = checked.check, checked.template
    return record | {
        "checked": True,
        "list": {name: value for name, value in asdict(checked.recipient_list).items() if name != "id"},
        "recipients": check.recipients,
        "failing": {"count": check.bad, "first": [asdict(one) for one in check.first]},
        "changed_values": check.changed,
        "template": template and {name: getattr(template, name) for name in ("name", "language", "status", "category")},
        "templates_read_at": checked.read_at,
        "samples": [asdict(one) for one in check.samples],
        "sender": checked.sender,
        "messages_a_second": checked.rate,
        "duration": checked.duration and asdict(checked.duration),
        "limit": checked.limit and asdict(checked.limit),
        "warnings": checked.warnings,
    }


def _print(data: CampaignRequested, checked: StartPlan | None) -> None:
    if checked is None:
        say(f"warning: {_NOT_CHECKED}")
        return
    _print_recipients(checked.check, checked.recipient_list)
    if (template := checked.template) is not None:
        say(f"template {template.name} ({template.language}), {template.category} at Meta; {checked.copy}")
    for sample in checked.check.samples:
        _print_sample(sample)
    _print_times(data, checked)
    for warning in checked.warnings:
        say(f"warning: {warning}")


def _print_recipients(check: ListCheck, found: ListFound) -> None:
    kinds = ((found.malformed, "malformed"), (found.duplicates, "duplicate"))
    left_out = ", ".join(f"{number} {name}" for number, name in kinds if number)
    say(
        f"{counted(check.recipients, 'recipient')} in the list {found.list_id}"
        + (f" ({left_out} left out)" if left_out else "")
    )
    if check.changed:
        say(
            f"{counted(check.changed, 'recipient')} with line breaks, tabs or runs of spaces in a value: in a template each is sent as one space"
        )
    if check.bad:
        say(f"{counted(check.bad, 'recipient')} will fail:")
        for one in check.first:
            say(f"  recipient {one.number} ({one.to}): {one.problem}")
        if check.bad > len(check.first):
            say(f"  … and {check.bad - len(check.first)} more")


def _print_sample(sample: Sample) -> None:
    say(f"sample to {sample.to}:")
    _print_preview(sample.message)
    if sample.outside_window is not None:
        say("  or, if the recipient did not write within 24 hours:")
        _print_preview(sample.outside_window)


def _print_preview(shown: Preview) -> None:
    buttons = "  ".join(f"[{button}]" for button in shown.buttons)
    for part in filter(None, (shown.header, shown.body, shown.footer, buttons)):
        for line in part.splitlines():
            say(f"  │ {line}")


def _print_times(data: CampaignRequested, checked: StartPlan) -> None:
    if (duration := checked.duration) is not None:
        batches = "1 batch" if duration.batches == 1 else f"{duration.batches} batches"
        pace = f", {data.pause_seconds:g} s from one to the next" if data.pause_seconds and duration.batches > 1 else ""
        rate = f", at most {checked.rate:g} messages a second from {checked.sender}" if checked.rate else ""
        begins = f" from {duration.begins_at:%Y-%m-%d %H:%M} UTC on" if data.start_at else ""
        say(f"estimated duration{begins}: {span(duration.seconds)} ({batches}{pace}{rate})")
    if (limit := checked.limit) is not None:
        say(f"messaging limit: {limit.left} of {limit.limit} recipients in 24 hours are left")
        if limit.waiting:
            first = f", the first at {limit.frees_at:%Y-%m-%d %H:%M} UTC" if limit.frees_at else ""
            say(
                f"  up to {limit.waiting} recipients wait until earlier ones no longer count{first if not limit.left else ''}"
            )
