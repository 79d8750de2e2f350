"""A broker that restarts, crashes, stalls or blocks; on a node of the tests' own."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from support.demo_family import ThingRequested, thing_queue
from support.nodes import start_node
from support.stage import Broker, Stage
from support.waiting import eventually
from wch_common.errors import PublishError
from wch_common.event import Event
from wch_common.outcome import Retry
from wch_common.runtime.job import Job
from wch_local.rabbitmq import LocalBrokerError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.nodes import Node


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    try:
        node = start_node()
    except LocalBrokerError as error:
        if "WCH_TEST_AMQP_URL" not in os.environ:
            raise
        pytest.skip(f"only an address is given, and this has to stop its broker: {error}")
    yield node
    node.kill()
    node.remove()


@pytest.fixture
def fragile(node: Node) -> Iterator[Stage]:
    broker = Broker(node.amqp_url)
    url = broker.create_vhost()
    stage = Stage(broker, url)
    yield stage
    stage.stop()
    broker.delete_vhost(url)


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_every_confirmed_event_survives_a_broker_that_ends_under_load(node: Node, fragile: Stage, how: str) -> None:
    """Remoulade took 71 s to come back from a broker's SIGKILL; Celery loses what was published without confirms."""
    seen: set[int] = set()
    attempts: list[int] = []

    async def handle(event: Event[ThingRequested]) -> None:
        attempts.append(event.attempt)
        if event.attempt == 1 and event.data.number % 3 == 0:
            raise Retry("every third fails once")
        seen.add(event.data.number)

    running = fragile.start_job(Job.for_each(thing_queue(), {ThingRequested: handle}))
    confirmed: list[int] = []
    enough = threading.Event()

    def publish() -> None:
        with fragile.client() as client:
            for number in range(4000):
                try:
                    client.publish(ThingRequested(number=number), id=str(number))
                except PublishError:
                    continue
                confirmed.append(number)
                if number == 300:
                    enough.set()

    publishing = threading.Thread(target=publish)
    publishing.start()
    assert enough.wait(60)
    getattr(node, how)()
    node.start()
    publishing.join(120)
    eventually(lambda: set(confirmed) <= seen, "every confirmed event is handled", seconds=60)
    eventually(lambda: running.is_ready, seconds=60)
    assert len(confirmed) > 3000
    assert max(attempts) == 2, "an interruption spends no try"
    fragile.stop()
    assert fragile.depth("demo.thing.dlq") == 0


def test_a_broker_that_blocks_publishing_holds_retries_up_and_loses_none(node: Node, fragile: Stage) -> None:
    done: set[int] = set()
    healed = threading.Event()

    async def handle(event: Event[ThingRequested]) -> None:
        if not healed.is_set():
            raise Retry("not yet")
        done.add(event.data.number)

    queue = thing_queue(rungs=(0.2,), tries=10_000)
    running = fragile.start_job(Job.for_each(queue, {ThingRequested: handle}), confirm_timeout_seconds=2.0)
    with fragile.client() as client:
        client.publish_many(ThingRequested(number=n) for n in range(40))
    try:
        # An alarm blocks only those who publish, as the retries do.
        node.control("set_vm_memory_high_watermark", "0.000001")
        eventually(lambda: not running.is_ready, "a blocked publisher is not ready")
        healed.set()
    finally:
        node.control("set_vm_memory_high_watermark", "0.6")
    eventually(lambda: len(done) == 40)
    eventually(lambda: running.is_ready)
    fragile.stop()
    assert all(fragile.depth(queue.name) == 0 for queue in queue.queues())


def test_a_broker_that_stalls_is_left_and_found_again(node: Node, fragile: Stage) -> None:
    seen: list[int] = []

    async def handle(event: Event[ThingRequested]) -> None:
        seen.append(event.data.number)

    fragile.url += "?heartbeat=2"
    running = fragile.start_job(Job.for_each(thing_queue(), {ThingRequested: handle}))
    fragile.url = fragile.url.partition("?")[0]
    node.pause()
    try:
        eventually(lambda: not running.is_ready, "missed heartbeats end the connection")
    finally:
        node.resume()
    eventually(lambda: running.is_ready)
    with fragile.client() as client:
        client.publish(ThingRequested(number=1))
    eventually(lambda: seen == [1])
