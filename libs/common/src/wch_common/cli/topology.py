"""`wch topology`: show the topology, compare a broker with it, create it."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from importlib.metadata import entry_points
from typing import Annotated

import typer

from wch_common.broker.blocking.declare import absent, declare
from wch_common.broker.definitions import definitions, operator_manifests, producer_permissions, service_permissions
from wch_common.broker.diff import differences
from wch_common.broker.management import Management
from wch_common.broker.topology import Topology
from wch_common.cli.output import AmqpUrl, AsJson, CommandError, DryRun, ManagementUrl, print_json, print_table, say
from wch_common.events import published_contract
from wch_common.settings import ToolSettings, changed_policy, load_settings

app = typer.Typer(help="The broker's exchanges, queues and bindings.", no_args_is_help=True)


class Form(Enum):
    """The form in which the topology is printed."""

    TABLE = "table"
    DEFINITIONS = "definitions"
    OPERATOR = "operator"
    PERMISSIONS = "permissions"


def installed_topology() -> Topology:
    """Return the topology of every installed service (its entry point `wch.topology`), with the settings per queue."""
    queues = load_settings(ToolSettings).queues
    whole = Topology()
    for found in sorted(entry_points(group="wch.topology"), key=lambda found: found.name):
        whole = whole.merged(found.load())
    return Topology(
        tuple(replace(work, policy=changed_policy(work.name, work.policy, queues)) for work in whole.work_queues)
    )


@app.command()
def show(
    form: Annotated[Form, typer.Option("--as", help="A table, or a form for another tool.")] = Form.TABLE,
    vhost: Annotated[str, typer.Option(help="Virtual host in definitions, manifests and permissions.")] = "wch",
    cluster: Annotated[
        str, typer.Option(help="Name of the RabbitmqCluster in the topology operator's manifests.")
    ] = "rabbitmq",
    user: Annotated[str, typer.Option(help="The user of the permissions.")] = "wch",
    produces: Annotated[
        list[str] | None,
        typer.Option(help="With --as permissions: a type that the user publishes; may be given several times."),
    ] = None,
    answered: Annotated[
        bool,
        typer.Option(
            "--answered", help="With --produces: also queues of the user's own for the facts that answer its requests."
        ),
    ] = False,
) -> None:
    """Show the topology of every installed service."""
    topology = installed_topology()
    if form is Form.DEFINITIONS:
        print_json(definitions(topology, vhost))
    elif form is Form.OPERATOR:
        print_json({"apiVersion": "v1", "kind": "List", "items": operator_manifests(topology, vhost, cluster)})
    elif form is Form.PERMISSIONS and produces:
        if unknown := [name for name in produces if name not in published_contract()]:
            raise CommandError(f"unknown type: {', '.join(unknown)}; `wch events schemas` lists them")
        print_json(producer_permissions(user, vhost, produces, answered=answered))
    elif form is Form.PERMISSIONS:
        print_json(service_permissions(topology, user, vhost))
    else:
        rows = [
            (
                work.name,
                ", ".join(model.TYPE for model in work.models),
                ", ".join(f"{delay:g} s" for delay in work.policy.retry_delays),
                work.dlq,
            )
            for work in topology.work_queues
        ]
        print_table(
            ("QUEUE", "HANDLES OR FOLLOWS", "RETRY DELAYS", "DEAD LETTERS"), rows, empty="no service is installed"
        )


@app.command()
def check(amqp_url: AmqpUrl, management_url: ManagementUrl = None, json: AsJson = False) -> None:
    """Compare a live broker with the topology; exit code 1 if a difference would lose or delay messages."""
    with Management(amqp_url, management_url) as management:
        found = differences(installed_topology(), management)
    if json:
        print_json([vars(difference) for difference in found])
    else:
        rows = [(one.level, one.object, one.problem) for one in found]
        print_table(("LEVEL", "OBJECT", "PROBLEM"), rows, empty="the broker matches the topology")
    if any(one.level == "error" for one in found):
        raise typer.Exit(1)


@app.command()
def apply(
    amqp_url: AmqpUrl, management_url: ManagementUrl = None, dry_run: DryRun = False, json: AsJson = False
) -> None:
    """Create what is missing; change nothing that exists, and report what differs."""
    topology = installed_topology()
    if dry_run:
        with Management(amqp_url, management_url) as management:
            found = [one for one in differences(topology, management) if one.level == "error"]
        rows = [(one.object, _would(one.problem)) for one in found]
        if json:
            print_json({"dry_run": True, "would": [{"object": name, "action": action} for name, action in rows]})
            return
        print_table(("OBJECT", "ACTION"), rows, empty="nothing to do")
        return
    if not topology.work_queues:
        raise CommandError("no service is installed, so there is no topology to apply")
    missing = absent(amqp_url, topology)
    declare(amqp_url, topology)
    if json:
        print_json({"dry_run": False, "created": missing, "bindings": len(topology.bindings)})
        return
    existing = len(topology.exchanges) + len(topology.queues) - len(missing)
    say(f"created {len(missing)} exchanges and queues ({existing} existed), and set {len(topology.bindings)} bindings")


def _would(problem: str) -> str:
    if problem.startswith("does not exist"):
        return "created"
    return "bound" if "is not bound" in problem else f"none: it {problem}"
