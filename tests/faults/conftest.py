"""A broker that tests may stop, crash and stall: one node for all of them, on one worker."""

from __future__ import annotations

import gc
import os
import warnings
from typing import TYPE_CHECKING

import pytest

from support.nodes import start_node
from support.stage import Broker, Stage
from wch_local.rabbitmq import LocalBrokerError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.nodes import Node


@pytest.fixture(scope="session")
def node() -> Iterator[Node]:
    try:
        node = start_node()
    except LocalBrokerError as error:
        if "WCH_TEST_AMQP_URL" not in os.environ:
            raise
        pytest.skip(f"this test stops its broker, and only an address is given: {error}")
    yield node
    node.kill()
    node.remove()


@pytest.fixture
def fragile(node: Node) -> Iterator[Stage]:
    broker = Broker(node.amqp_url)
    url = broker.create_vhost()
    stage = Stage(broker, url)
    yield stage
    stage.close()
    broker.delete_vhost(url)
    with warnings.catch_warnings():
        # Collect the sockets of connections that broke with the broker here, not during a later test.
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
