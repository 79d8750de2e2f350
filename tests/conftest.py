"""Brokers and databases for the tests: decided lazily, isolated, and said."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.stage import Broker, Stage
from wch_local.rabbitmq import PrivateNode

if TYPE_CHECKING:
    from collections.abc import Iterator


def start_private_node() -> PrivateNode:
    """Start a node of the tests' own, of the installation that WCH_RABBITMQ_ROOT names."""
    root = Path(os.environ.get("WCH_RABBITMQ_ROOT") or "/")
    folder = Path(tempfile.mkdtemp(prefix="wch-node-", dir="/var/tmp"))
    node = PrivateNode.new(folder, root)
    node.start()
    return node


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    """The broker of the session: the address given, or a private node."""
    if given := os.environ.get("WCH_TEST_AMQP_URL"):
        yield Broker(given.rstrip("/"))
        return
    node = start_private_node()
    yield Broker(node.amqp_url)
    node.stop()
    node.remove()


@pytest.fixture
def stage(broker: Broker) -> Iterator[Stage]:
    """A virtual host of the test's own."""
    url = broker.create_vhost()
    made = Stage(broker, url)
    yield made
    made.stop()
    broker.delete_vhost(url)
