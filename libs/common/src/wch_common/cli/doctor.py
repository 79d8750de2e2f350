"""`wch doctor`: checks the installation and says what to do about each problem."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import typer

from wch_common.broker.blocking.connection import BrokerUnreachable, open_connection
from wch_common.broker.blocking.dead_letters import NoSuchQueue, open_mailbox
from wch_common.broker.dead_letter_age import DAY_SECONDS, age_seconds, is_soon_old
from wch_common.broker.diff import differences
from wch_common.broker.management import Management, ManagementUnreachable
from wch_common.broker.topology import UNROUTABLE_QUEUE
from wch_common.cli.output import AmqpUrl, AsJson, DatabaseUrl, ManagementUrl, console, counted, print_json
from wch_common.cli.queues import parked_events, switches
from wch_common.cli.topology import installed_topology
from wch_common.observability.redact import error_text
from wch_common.settings import ToolSettings, load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wch_common.broker.topology import Topology

_OLDEST = (3, 10)
_PEEKED = 1000


def doctor(
    amqp_url: AmqpUrl,
    management_url: ManagementUrl = None,
    database_url: DatabaseUrl = None,
    json: AsJson = False,
) -> None:
    """Check broker, topology, consumers, dead letters and database; exit code 1 if something is wrong."""
    findings = [
        {"what": what, "state": state, "detail": detail}
        for what, state, detail in _check(amqp_url, management_url, database_url)
    ]
    if json:
        print_json(findings)
    else:
        signs = {"ok": "[green]ok   [/]", "warning": "[yellow]check[/]", "error": "[red]wrong[/]"}
        for finding in findings:
            console().print(signs[finding["state"]], f"{finding['what']}:", finding["detail"])
    if any(finding["state"] == "error" for finding in findings):
        raise typer.Exit(1)


def _check(amqp_url: str, management_url: str | None, database_url: str | None) -> Iterator[tuple[str, str, str]]:
    topology = installed_topology()
    try:
        with open_connection(amqp_url, "wch doctor"):
            yield "broker", "ok", "accepts connections"
    except BrokerUnreachable as error:
        yield "broker", "error", str(error)
        return
    try:
        with Management(amqp_url, management_url) as management:
            yield from _check_broker(amqp_url, management, topology)
    except ManagementUnreachable as error:
        yield "management API", "warning", f"{error}; topology and consumers were not checked"
    if database_url:
        yield from _check_database(database_url)


def _check_broker(amqp_url: str, management: Management, topology: Topology) -> Iterator[tuple[str, str, str]]:
    version = str(management.overview()["rabbitmq_version"])
    supported = tuple(int(part) for part in version.split(".")[:2]) >= _OLDEST
    yield "version", "ok" if supported else "error", f"RabbitMQ {version}" + ("" if supported else ", older than 3.10")
    alarm = management.alarms()
    yield "alarms", "error" if alarm else "ok", alarm or "none"
    found = differences(topology, management)
    for difference in found:
        yield "topology", difference.level, f"{difference.object} {difference.problem}"
    if not found:
        yield "topology", "ok", f"{len(topology.queues)} queues match the topology"
    queues = management.queues()
    for work in topology.work_queues:
        yield from _check_queue(work.name, queues)
    yield from _check_dead_letters(amqp_url, topology, queues)


def _check_queue(name: str, queues: dict[str, dict[str, Any]]) -> Iterator[tuple[str, str, str]]:
    queue = queues.get(name)
    if queue is None:
        return
    consumers, waiting = queue.get("consumers", 0), queue.get("messages", 0)
    messages = f"{waiting} {'message' if waiting == 1 else 'messages'}"
    if consumers:
        yield name, "ok", f"{consumers} {'consumer' if consumers == 1 else 'consumers'}, {messages}"
    else:
        yield name, "error", f"no consumer, {messages}: is its service running and ready?"


def _check_dead_letters(
    amqp_url: str, topology: Topology, queues: dict[str, dict[str, Any]]
) -> Iterator[tuple[str, str, str]]:
    expiring = {queue for work in topology.work_queues for queue in work.expiring}
    for queue in (*(work.dlq for work in topology.work_queues), UNROUTABLE_QUEUE):
        if count := queues.get(queue, {}).get("messages", 0):
            what = "request" if queue == UNROUTABLE_QUEUE else "dead letter"
            which = " of types that no service handles" if queue == UNROUTABLE_QUEUE else ""
            removal = _removal(amqp_url, queue) if queue in expiring else ""
            yield queue, "warning", f"{counted(count, what)}{which}: `wch dlq list {queue}`{removal}"


def _removal(amqp_url: str, queue: str) -> str:
    """Return how old the oldest is and when it is removed, as the end of a sentence; empty while that is far away."""
    days = load_settings(ToolSettings).dead_letter_days
    try:
        with open_mailbox(amqp_url, queue) as mailbox:
            ages = [age_seconds(one.message, one.published) for one in mailbox.take(_PEEKED)] if days else []
    except (NoSuchQueue, BrokerUnreachable):
        return ""
    oldest = max((age for age in ages if age is not None), default=None)
    if oldest is None or not is_soon_old(oldest, days):
        return ""
    return f"; the oldest is {oldest / DAY_SECONDS:.0f} days old and is removed after {days:g}"


def _check_database(url: str) -> Iterator[tuple[str, str, str]]:
    try:
        with psycopg.connect(url, connect_timeout=5) as connection:
            version = connection.info.server_version
    except psycopg.Error as error:
        yield "database", "error", error_text(error, 300)
        return
    yield "database", "ok", f"PostgreSQL {version // 10000}"
    for row in switches(url):
        yield (
            row["service"],
            "warning",
            f"{row['setting']} is set since {row['since']:%Y-%m-%d %H:%M} UTC: {row['effect']}",
        )
    for row in parked_events(url):
        what = f"{row['events']} {'event' if row['events'] == 1 else 'events'} parked" + (
            f" for {row['scope']}" if row["scope"] else ""
        )
        yield row["queue"], "warning", f"{what}: `wch queues parked {row['queue']}`"
