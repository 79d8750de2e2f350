"""`wch doctor`: checks the installation and says what to do about each problem."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import typer

from wch_common.broker.blocking.connection import BrokerUnreachable, open_connection
from wch_common.broker.diff import differences
from wch_common.broker.management import Management, ManagementUnreachable
from wch_common.broker.topology import UNROUTABLE_QUEUE
from wch_common.cli.output import AmqpUrl, AsJson, DatabaseUrl, ManagementUrl, console, counted, print_json
from wch_common.cli.queues import parked_events, switches
from wch_common.cli.topology import installed_topology
from wch_common.observability.redact import error_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wch_common.broker.topology import Topology

_OLDEST = (3, 10)


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
            yield from _check_broker(management, topology)
    except ManagementUnreachable as error:
        yield "management API", "warning", f"{error}; topology and consumers were not checked"
    if database_url:
        yield from _check_database(database_url)


def _check_broker(management: Management, topology: Topology) -> Iterator[tuple[str, str, str]]:
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
        yield from _check_queue(work.name, work.dlq, queues)
    unroutable = queues.get(UNROUTABLE_QUEUE, {}).get("messages", 0)
    if unroutable:
        yield (
            UNROUTABLE_QUEUE,
            "warning",
            f"has {counted(unroutable, 'request')} of types that no service handles: `wch dlq list {UNROUTABLE_QUEUE}`",
        )


def _check_queue(name: str, dlq: str, queues: dict[str, dict[str, Any]]) -> Iterator[tuple[str, str, str]]:
    queue = queues.get(name)
    if queue is None:
        return
    consumers, waiting = queue.get("consumers", 0), queue.get("messages", 0)
    messages = f"{waiting} {'message' if waiting == 1 else 'messages'}"
    if consumers:
        yield name, "ok", f"{consumers} {'consumer' if consumers == 1 else 'consumers'}, {messages}"
    else:
        yield name, "error", f"no consumer, {messages}: is its service running and ready?"
    dead_letters = queues.get(dlq, {}).get("messages", 0)
    if dead_letters:
        yield (
            dlq,
            "warning",
            f"{counted(dead_letters, 'dead letter')}: `wch dlq list {dlq}`",
        )


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
