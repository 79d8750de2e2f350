"""Declares the topology, or checks passively that all of it exists."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

import amqp.exceptions
import kombu
from tenacity import RetryError, Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from wch_common.broker.blocking.connection import CONNECTION_ERRORS, BrokerUnreachable, open_connection
from wch_common.errors import TopologyMismatch
from wch_common.observability.redact import redact

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kombu.transport.virtual import Channel

    from wch_common.broker.topology import Binding, Exchange, Queue, Topology

_PATIENCE_SECONDS = 60.0


def declare(url: str, topology: Topology) -> None:
    """Declare what is missing and change nothing that exists; raises TopologyMismatch naming every object that differs."""
    _each(
        url,
        [
            *(partial(_declare_exchange, exchange) for exchange in topology.exchanges),
            *(partial(_declare_queue, queue) for queue in topology.queues),
            *(partial(_bind, binding) for binding in topology.bindings),
        ],
    )


def absent(url: str, topology: Topology) -> list[str]:
    """Return the names of the exchanges and queues that do not exist."""
    found = []
    with open_connection(url, "wch topology") as connection:
        channel = connection.channel()
        checks = [(one.name, partial(_declare_exchange, one, passive=True)) for one in topology.exchanges]
        checks += [(one.name, partial(_declare_queue, one, passive=True)) for one in topology.queues]
        for name, action in checks:
            try:
                action(channel)
            except amqp.exceptions.NotFound:
                found.append(name)
                channel = connection.channel()  # a refusal closes the channel
            except amqp.exceptions.AccessRefused:
                channel = connection.channel()  # it exists
    return found


def check_exists(url: str, topology: Topology) -> None:
    """Check that every exchange and queue exists, without a configure permission; raises TopologyMismatch.

    The broker compares nothing here; `wch topology check` compares arguments, bindings and policies.
    """
    _each(
        url,
        [
            *(partial(_declare_exchange, exchange, passive=True) for exchange in topology.exchanges),
            *(partial(_declare_queue, queue, passive=True) for queue in topology.queues),
        ],
    )


def _declare_exchange(exchange: Exchange, channel: Channel, *, passive: bool = False) -> None:
    arguments = dict(exchange.arguments)
    made = kombu.Exchange(exchange.name, type="topic", durable=True, arguments=arguments, channel=channel)
    made.declare(passive=passive)


def _declare_queue(queue: Queue, channel: Channel, *, passive: bool = False) -> None:
    made = kombu.Queue(queue.name, durable=True, queue_arguments=dict(queue.arguments), channel=channel)
    made.queue_declare(passive=passive)


def _bind(binding: Binding, channel: Channel) -> None:
    kombu.Queue(binding.queue, channel=channel).bind_to(binding.exchange, binding.key)


def _each(url: str, actions: Sequence[Callable[[Channel], None]]) -> None:
    """Carry out every action and report all failures together, so that one run shows the whole difference.

    Each action can be repeated, so a connection that breaks meanwhile is replaced; raises BrokerUnreachable if they go on breaking.
    """
    problems: list[str] = []
    waiting = list(reversed(actions))
    # A busy broker cannot always form a quorum queue in time; it closes the connection then (541).
    attempts = Retrying(
        retry=retry_if_exception_type(CONNECTION_ERRORS),
        stop=stop_after_delay(_PATIENCE_SECONDS),
        wait=wait_random_exponential(multiplier=0.2, max=5),
    )
    try:
        for attempt in attempts:
            with attempt:
                _carry_out(url, waiting, problems)
    except RetryError as error:
        broken = error.last_attempt.exception()
        raise BrokerUnreachable(f"the broker keeps closing the connection: {redact(str(broken), 300)}") from None
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise TopologyMismatch(f"the broker differs from the topology:\n{lines}")


def _carry_out(url: str, waiting: list[Callable[[Channel], None]], problems: list[str]) -> None:
    """Carry out the last action and remove it, until none is left."""
    with open_connection(url, "wch topology") as connection:
        channel = connection.channel()
        while waiting:
            try:
                waiting[-1](channel)
                waiting.pop()
            except (
                amqp.exceptions.NotFound,
                amqp.exceptions.PreconditionFailed,
                amqp.exceptions.AccessRefused,
            ) as error:
                waiting.pop()
                problems.append(_sentence(error))
                channel = connection.channel()  # a refusal closes the channel


def _sentence(error: amqp.exceptions.AMQPError) -> str:
    """Return what is wrong and what to do."""
    text = str(error.reply_text or error)
    name = (re.search(r"(?:queue|exchange) '([^']+)'", text) or ["", "?"])[1]
    if isinstance(error, amqp.exceptions.NotFound):
        return f"{name} does not exist. Create it with `wch topology apply`."
    if isinstance(error, amqp.exceptions.AccessRefused):
        return (
            f"{name}: this user has no permission to declare it ({text}). Set WCH_DECLARE_TOPOLOGY=false and let "
            "`wch topology apply` or your operator create it."
        )
    return (
        f"{name} exists with other properties ({text}). The broker cannot change them in place: stop its consumers, let "
        "it drain or move its messages with a shovel, delete it, and run `wch topology apply`."
    )
