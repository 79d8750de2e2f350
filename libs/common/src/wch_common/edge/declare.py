"""Declaring the topology, and looking passively whether it is all there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import amqp.exceptions
import kombu

from wch_common.edge.connection import open_connection
from wch_common.errors import TopologyMismatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from kombu.transport.virtual import Channel

    from wch_common.topology import Exchange, Queue, Topology

_PRECONDITION_FAILED = 406


def declare(url: str, topology: Topology) -> None:
    """Declare everything, changing nothing that exists; raises TopologyMismatch naming every object that differs."""
    problems: list[str] = []
    with open_connection(url, "wch topology") as connection:
        for exchange in topology.exchanges:
            _attempt(connection, problems, lambda channel, it=exchange: _exchange(it, channel).declare())
        for queue in topology.queues:
            _attempt(connection, problems, lambda channel, it=queue: _queue(it, channel).queue_declare())
        for binding in topology.bindings:
            _attempt(
                connection,
                problems,
                lambda channel, it=binding: kombu.Queue(it.queue, channel=channel).bind_to(it.exchange, it.key),
            )
    _raise(problems)


def look(url: str, topology: Topology) -> None:
    """Look whether every exchange and queue exists, with no configure permission; raises TopologyMismatch.

    The broker compares nothing here: arguments, bindings and policies are compared by `wch topology check`.
    """
    problems: list[str] = []
    with open_connection(url, "wch topology") as connection:
        for exchange in topology.exchanges:
            _attempt(connection, problems, lambda channel, it=exchange: _exchange(it, channel).declare(passive=True))
        for queue in topology.queues:
            _attempt(connection, problems, lambda channel, it=queue: _queue(it, channel).queue_declare(passive=True))
    _raise(problems)


def _exchange(exchange: Exchange, channel: Channel) -> kombu.Exchange:
    return kombu.Exchange(
        exchange.name, type="topic", durable=True, arguments=dict(exchange.arguments), channel=channel, no_declare=False
    )


def _queue(queue: Queue, channel: Channel) -> kombu.Queue:
    return kombu.Queue(queue.name, durable=True, queue_arguments=dict(queue.arguments), channel=channel)


def _attempt(connection: kombu.Connection, problems: list[str], action: Callable[[Channel], object]) -> None:
    """Run one declaration on a channel of its own, as a refusal closes the channel."""
    channel = connection.channel()
    try:
        action(channel)
    except (amqp.exceptions.NotFound, amqp.exceptions.PreconditionFailed, amqp.exceptions.AccessRefused) as error:
        problems.append(_sentence(error))
    else:
        channel.close()


def _sentence(error: amqp.exceptions.AMQPError) -> str:
    """Say what is wrong and what to do."""
    text = str(error.reply_text or error)
    name = (re.search(r"(?:queue|exchange) '([^']+)'", text) or ["", "?"])[1]
    if isinstance(error, amqp.exceptions.NotFound):
        return f"{name} does not exist. Create it with `wch topology apply`."
    if isinstance(error, amqp.exceptions.AccessRefused):
        return (
            f"{name}: this user may not declare it ({text}). Set WCH_DECLARE_TOPOLOGY=false and let "
            "`wch topology apply` or your operator create it."
        )
    return (
        f"{name} exists with other properties ({text}). The broker cannot change them in place: stop its consumers, let it "
        "drain or move its messages with a shovel, delete it, and run `wch topology apply`."
    )


def _raise(problems: list[str]) -> None:
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise TopologyMismatch(f"the broker's objects are not those of the topology:\n{lines}")
