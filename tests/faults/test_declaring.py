"""A broker that closes the connection while a topology is declared, as RabbitMQ does (541) when it is too busy to form a quorum queue."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from support.stage import Stage
from wch_common.broker.blocking import declare as declaring
from wch_common.broker.blocking.connection import BrokerUnreachable
from wch_common.broker.topology import Topology, WorkQueue

QUEUE = WorkQueue("demo.thing")


def cut_connections(monkeypatch: pytest.MonkeyPatch, cuts: list[int]) -> None:
    """Cut the connection before a queue is declared, as often as there are `cuts`."""
    original = declaring._declare_queue

    def declare_queue(queue: Any, channel: Any, **options: Any) -> None:
        if cuts:
            cuts.pop()
            channel.connection.transport.sock.shutdown(socket.SHUT_RDWR)
        original(queue, channel, **options)

    monkeypatch.setattr(declaring, "_declare_queue", declare_queue)


def test_a_topology_is_declared_although_the_connection_breaks(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    cuts = [1, 2, 3]
    cut_connections(monkeypatch, cuts)
    declaring.declare(stage.url, Topology((QUEUE,)))
    assert cuts == []
    assert declaring.absent(stage.url, Topology((QUEUE,))) == []


def test_a_broker_that_goes_on_closing_connections_is_unreachable(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a service that starts, this is a reason to wait for the broker; another exception would end it."""
    monkeypatch.setattr(declaring, "_PATIENCE_SECONDS", 1.0)
    cut_connections(monkeypatch, [1] * 10_000)
    with pytest.raises(BrokerUnreachable, match="the broker keeps closing the connection"):
        declaring.declare(stage.url, Topology((QUEUE,)))
