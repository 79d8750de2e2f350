"""A broker that restarts, crashes, stalls or blocks its publishers, on a node of its own."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from support.demo_events import ThingRequested, thing_queue
from support.stage import Stage
from support.waiting import eventually
from wch_common.broker.aio.connection import Link
from wch_common.broker.aio.publisher import Publisher
from wch_common.broker.blocking.publisher import ConfirmedPublisher
from wch_common.broker.topology import Topology
from wch_common.contract.event import Event
from wch_common.contract.message import Message, Publication
from wch_common.errors import PublishError, Unconfirmed, Unroutable
from wch_common.outcome import Retry
from wch_common.runtime.job import Job

if TYPE_CHECKING:
    from support.nodes import Node


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_every_confirmed_event_survives_a_crash_of_the_broker_under_load(node: Node, fragile: Stage, how: str) -> None:
    """Remoulade took 71 s to recover from a SIGKILL of the broker; Celery loses messages published without confirms."""
    seen: set[int] = set()
    attempts: list[int] = []

    async def handle(event: Event[ThingRequested]) -> None:
        attempts.append(event.attempt)
        if event.attempt == 1 and event.data.number % 3 == 0:
            raise Retry("every third fails once")
        seen.add(event.data.number)

    running = fragile.start_job(Job.with_handlers(thing_queue(), {ThingRequested: handle}))
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
    assert enough.wait(180)
    getattr(node, how)()
    node.start()
    publishing.join(120)
    eventually(lambda: set(confirmed) <= seen, "every confirmed event is handled")
    eventually(lambda: running.is_ready)
    assert len(confirmed) > 3000
    assert max(attempts) == 2, "an interruption uses no attempt"
    fragile.stop()
    assert fragile.depth("demo.thing.dlq") == 0


def test_a_broker_that_blocks_publishing_delays_retries_and_loses_none(node: Node, fragile: Stage) -> None:
    done: set[int] = set()
    healed = threading.Event()

    async def handle(event: Event[ThingRequested]) -> None:
        if not healed.is_set():
            raise Retry("not yet")
        done.add(event.data.number)

    # A shorter delay keeps both cores busy with retries, and the commands below wait for the processor.
    queue = thing_queue(retry_delays=(1,), tries=10_000)
    running = fragile.start_job(Job.with_handlers(queue, {ThingRequested: handle}), confirm_timeout_seconds=2.0)
    with fragile.client() as client:
        client.publish_many(ThingRequested(number=n) for n in range(40))
    try:
        # An alarm blocks only connections that publish, as retries do.
        node.control("set_vm_memory_high_watermark", "0.000001")
        eventually(lambda: not running.is_ready, "a blocked publisher is not ready")
        eventually(lambda: running.service._consumers[0].stuck, "the alarm lasts longer than the confirm timeout")
        with fragile.client(confirm_timeout_seconds=1.0) as client, pytest.raises(Unconfirmed):
            client.publish(ThingRequested(number=40), id="blocked")
        healed.set()
    finally:
        node.control("set_vm_memory_high_watermark", "0.6")
    with fragile.client() as client:
        client.publish(ThingRequested(number=40), id="blocked")
    eventually(lambda: done == set(range(41)))
    eventually(lambda: running.is_ready)
    eventually(lambda: all(fragile.depth(queue.name) == 0 for queue in queue.queues()))
    fragile.stop()
    assert all(fragile.depth(queue.name) == 0 for queue in queue.queues())


@pytest.mark.parametrize("side", ["client", "service"])
def test_a_confirm_that_comes_too_late_never_answers_for_another_message(node: Node, fragile: Stage, side: str) -> None:
    fragile.declare(Topology((thing_queue(),)))
    message = Message(b"{}", "text/plain", None, "1")
    late = Publication("wch.retry", "demo.thing", message)
    nowhere = Publication("wch.retry", "no.such.queue", message)

    def by_the_client() -> list[type | None]:
        publisher = ConfirmedPublisher(fragile.url, "test", confirm_timeout_seconds=1.0)
        while publisher.publish([late]) != [None]:
            continue  # a confirm may take longer than a second on a busy machine
        node.pause()
        try:
            found = publisher.publish([late])
        finally:
            node.resume()
        while isinstance((answered := publisher.publish([nowhere]))[0], Unconfirmed):
            continue  # the broker is slow after its restart
        found += answered
        publisher.close()
        return [type(error) if error else None for error in found]

    async def by_the_service() -> list[type | None]:
        link = Link(fragile.url, "test")
        publisher = Publisher(link, confirm_timeout_seconds=1.0)
        tasks = [asyncio.create_task(link.run()), asyncio.create_task(publisher.run())]
        while await answer(publisher, late) is not None:
            continue  # a confirm may take longer than a second on a busy machine
        found: list[type | None] = []
        node.pause()
        try:
            found.append(await answer(publisher, late))
        finally:
            node.resume()
        while (answered := await answer(publisher, nowhere)) is Unconfirmed:
            continue  # the broker is slow after its restart
        found.append(answered)
        await link.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return found

    found = by_the_client() if side == "client" else asyncio.run(asyncio.wait_for(by_the_service(), 180))
    assert found == [Unconfirmed, Unroutable]


async def answer(publisher: Publisher, publication: Publication) -> type | None:
    try:
        await publisher.publish(publication)
    except PublishError as error:
        return type(error)
    return None


def test_a_delivery_that_exceeds_the_brokers_consumer_timeout_is_handled_again(node: Node, fragile: Stage) -> None:
    """RabbitMQ closes the channel of a consumer that keeps a delivery unacknowledged for too long, by default 30 minutes."""
    attempts: list[int] = []

    async def handle(event: Event[ThingRequested]) -> None:
        attempts.append(event.attempt)
        if len(attempts) == 1:
            await asyncio.Event().wait()

    node.control("eval", "application:set_env(rabbit, channel_tick_interval, 500).")
    node.control("eval", "application:set_env(rabbit, consumer_timeout, 1000).")
    try:
        running = fragile.start_job(Job.with_handlers(thing_queue(), {ThingRequested: handle}))
        with fragile.client() as client:
            client.publish(ThingRequested(number=1))
        eventually(lambda: attempts == [1, 1], "it is delivered again, without a counted attempt")
        eventually(lambda: running.is_ready)
    finally:
        node.control("eval", "application:set_env(rabbit, consumer_timeout, 1800000).")
    fragile.stop()
    assert fragile.depth("demo.thing.dlq") == 0


def test_a_service_leaves_a_stalled_broker_and_reconnects(node: Node, fragile: Stage) -> None:
    seen: list[int] = []

    async def handle(event: Event[ThingRequested]) -> None:
        seen.append(event.data.number)

    fragile.url += "?heartbeat=2"
    running = fragile.start_job(Job.with_handlers(thing_queue(), {ThingRequested: handle}))
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
