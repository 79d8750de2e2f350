"""The topology in the forms that other tools read: definitions file, permissions, manifests of the topology operator."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from wch_common.broker.topology import DEAD_EXCHANGE, RETRY_EXCHANGE
from wch_common.contract.event import FACTS_EXCHANGE, REQUESTS_EXCHANGE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wch_common.broker.topology import Topology


def definitions(topology: Topology, vhost: str) -> dict[str, Any]:
    """Return a definitions file for `rabbitmqctl import_definitions` and the management UI."""
    return {
        "vhosts": [{"name": vhost}],
        "exchanges": [
            {
                "name": exchange.name,
                "vhost": vhost,
                "type": "topic",
                "durable": True,
                "auto_delete": False,
                "internal": False,
                "arguments": dict(exchange.arguments),
            }
            for exchange in topology.exchanges
        ],
        "queues": [
            {
                "name": queue.name,
                "vhost": vhost,
                "durable": True,
                "auto_delete": False,
                "arguments": dict(queue.arguments),
            }
            for queue in topology.queues
        ],
        "bindings": [
            {
                "source": binding.exchange,
                "vhost": vhost,
                "destination": binding.queue,
                "destination_type": "queue",
                "routing_key": binding.key,
                "arguments": {},
            }
            for binding in topology.bindings
        ],
    }


def service_permissions(topology: Topology, user: str, vhost: str) -> dict[str, Any]:
    """Return a service's permissions: configure nothing, write its exchanges, read its work queues and what expires there."""
    expiring = {name for work in topology.work_queues for name in work.expiring}
    names = "|".join(map(re.escape, (*(work.name for work in topology.work_queues), *sorted(expiring))))
    exchanges = (REQUESTS_EXCHANGE, FACTS_EXCHANGE, RETRY_EXCHANGE, DEAD_EXCHANGE)
    keys = "|".join(re.escape(work.name) for work in topology.work_queues)
    families = "|".join(sorted({re.escape(work.name.split(".")[0]) for work in topology.work_queues}))
    return {
        "permissions": [
            {
                "user": user,
                "vhost": vhost,
                "configure": "^$",
                "write": f"^({'|'.join(map(re.escape, exchanges))})$",
                "read": f"^({names})$",
            }
        ],
        "topic_permissions": [
            _topic(user, vhost, RETRY_EXCHANGE, rf"^({keys})(\.retry\..+)?$"),
            _topic(user, vhost, DEAD_EXCHANGE, f"^({keys})$"),
            _topic(user, vhost, FACTS_EXCHANGE, rf"^({families})\..+$"),
        ],
    }


def producer_permissions(user: str, vhost: str, types: Sequence[str], *, answered: bool = False) -> dict[str, Any]:
    """Return another program's permissions: to publish exactly its types, so that a typo is a 403 rather than a lost event.

    With `answered` it may declare queues named `<user>.…` and bind them to the facts that answer it.
    """
    own = rf"{re.escape(user)}\..*"
    requests = [type_ for type_ in types if re.search(r"requested\.v\d+$", type_)]
    facts = [type_ for type_ in types if type_ not in requests]
    return {
        "permissions": [
            {
                "user": user,
                "vhost": vhost,
                "configure": f"^{own}$" if answered else "^$",
                "write": f"^({'|'.join((*map(re.escape, (REQUESTS_EXCHANGE, FACTS_EXCHANGE)), *([own] * answered)))})$",
                "read": f"^({re.escape(FACTS_EXCHANGE)}|{own})$" if answered else "^$",
            }
        ],
        "topic_permissions": [
            _topic(user, vhost, REQUESTS_EXCHANGE, _exactly(requests)),
            _topic(user, vhost, FACTS_EXCHANGE, _exactly(facts, suffix=r"(\.[a-z0-9_-]+)?"))
            | ({"read": rf"^.+\.{re.escape(user)}$"} if answered else {}),
        ],
    }


def _topic(user: str, vhost: str, exchange: str, write: str) -> dict[str, str]:
    return {"user": user, "vhost": vhost, "exchange": exchange, "write": write, "read": "^$"}


def _exactly(types: Sequence[str], suffix: str = "") -> str:
    return f"^({'|'.join(map(re.escape, types))}){suffix}$" if types else "^$"


def operator_manifests(topology: Topology, vhost: str, cluster: str) -> list[dict[str, Any]]:
    """Return resources for the messaging topology operator; deleting a resource retains its queue and messages."""
    common = {"vhost": vhost, "rabbitmqClusterReference": {"name": cluster}}
    found: list[dict[str, Any]] = [_resource("Exchange", exchange.name, common | {
        "name": exchange.name, "type": "topic", "durable": True, "arguments": dict(exchange.arguments),
    }) for exchange in topology.exchanges]  # fmt: skip
    for queue in topology.queues:
        arguments = {key: value for key, value in queue.arguments.items() if key != "x-queue-type"}
        spec = {
            "name": queue.name,
            "type": "quorum",
            "durable": True,
            "deletionPolicy": "retain",
            "arguments": arguments,
        }
        found.append(_resource("Queue", queue.name, common | spec))
    for binding in topology.bindings:
        spec = {
            "source": binding.exchange,
            "destination": binding.queue,
            "destinationType": "queue",
            "routingKey": binding.key,
        }
        found.append(_resource("Binding", f"{binding.exchange} {binding.queue} {binding.key}", common | spec))
    return found


def _resource(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower().replace("*", "all").replace("#", "any")).strip("-")
    return {"apiVersion": "rabbitmq.com/v1beta1", "kind": kind, "metadata": {"name": plain}, "spec": spec}
