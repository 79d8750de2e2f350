"""Compares a live broker with the topology: what would lose or delay messages, and what is merely left over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from wch_common.broker.topology import DLQ_SUFFIX, WORK_DELIVERY_LIMIT, Topology

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from wch_common.broker.management import Management

_CANNOT_CHANGE = (
    "The broker cannot change it in place: stop its consumers, let it drain or move its messages with a shovel, delete it, and "
    "run `wch topology apply`."
)


@dataclass(frozen=True)
class Difference:
    """One difference and what to do about it; an error must be resolved before a rollout."""

    level: Literal["error", "warning"]
    object: str
    problem: str


def differences(topology: Topology, management: Management) -> list[Difference]:
    """Return every difference between the broker and the topology."""
    queues, exchanges, bindings = management.queues(), management.exchanges(), management.bindings()
    found = [*_exchanges(topology, exchanges), *_queues(topology, queues), *_bindings(topology, queues, bindings)]
    for work in topology.work_queues:
        known = {queue.name for queue in topology.queues}
        for name, queue in queues.items():
            if name.startswith(f"{work.name}.retry.") and name not in known:
                waiting = queue.get("messages", 0)
                found.append(
                    Difference(
                        "warning",
                        name,
                        f"belongs to a retry delay that is no longer configured; it has {waiting} messages. Delete it when it is empty.",
                    )
                )
    return found


def _exchanges(topology: Topology, live: Mapping[str, Mapping[str, Any]]) -> Iterable[Difference]:
    for exchange in topology.exchanges:
        found = live.get(exchange.name)
        if found is None:
            yield Difference("error", exchange.name, "does not exist. Create it with `wch topology apply`.")
        elif found["type"] != "topic" or not found["durable"] or found["arguments"] != dict(exchange.arguments):
            yield Difference(
                "error", exchange.name, f"is not a durable topic exchange with {exchange.arguments}. {_CANNOT_CHANGE}"
            )


def _queues(topology: Topology, live: Mapping[str, Mapping[str, Any]]) -> Iterable[Difference]:
    for queue in topology.queues:
        there = live.get(queue.name)
        if there is None:
            yield Difference("error", queue.name, "does not exist. Create it with `wch topology apply`.")
            continue
        arguments = there.get("arguments", {})
        for key in sorted(set(queue.arguments) | set(arguments)):
            wanted, actual = queue.arguments.get(key), arguments.get(key)
            if wanted != actual:
                yield Difference("error", queue.name, f"{key} is {actual!r}, not {wanted!r}. {_CANNOT_CHANGE}")
        yield from _policies(queue.name, there)


def _policies(name: str, live: Mapping[str, Any]) -> Iterable[Difference]:
    """Find policies that undo what the arguments promise: the lower limit wins, and a policy's overflow overrides ours."""
    effective = dict(live.get("effective_policy_definition") or {})
    where = f"policy {live.get('policy') or live.get('operator_policy')!r}"
    if effective.get("overflow", "reject-publish") != "reject-publish":
        yield Difference("error", name, f"{where} sets overflow to {effective['overflow']}: messages would be dropped")
    limit = effective.get("delivery-limit")
    if limit is not None and (name.endswith(DLQ_SUFFIX) or 0 <= limit < WORK_DELIVERY_LIMIT):
        yield Difference("error", name, f"{where} lowers the delivery limit to {limit}: messages would leave early")
    for key in ("max-length", "max-length-bytes"):
        if key in effective:
            yield Difference(
                "warning", name, f"{where} sets {key} to {effective[key]}: above it, publishes are refused"
            )
    if "expires" in effective:
        yield Difference("error", name, f"{where} lets the queue expire with its messages")
    if "message-ttl" in effective:
        yield Difference("error", name, f"{where} sets a message TTL of {effective['message-ttl']} ms")
    if live.get("messages_dlx"):
        yield Difference(
            "warning",
            name,
            f"has {live['messages_dlx']} dead letters that it cannot pass on; does their target exist, and has it room?",
        )


def _bindings(
    topology: Topology, live_queues: Mapping[str, object], live: set[tuple[str, str, str]]
) -> Iterable[Difference]:
    wanted = {(binding.exchange, binding.queue, binding.key) for binding in topology.bindings}
    ours = {exchange.name for exchange in topology.exchanges}
    for exchange, queue, key in sorted(wanted - live):
        if queue in live_queues:
            yield Difference("error", queue, f"is not bound to {exchange} by {key}. Bind it with `wch topology apply`.")
    names = {queue.name for queue in topology.queues}
    for exchange, queue, key in sorted(live - wanted):
        if queue in names and exchange in ours:
            yield Difference(
                "warning", queue, f"is also bound to {exchange} by {key}, which the topology does not contain"
            )
