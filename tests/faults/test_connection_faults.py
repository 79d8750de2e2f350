"""Broken connections, and queues that refuse messages or disappear: cases in which other libraries lose messages."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
import warnings
from functools import partial

import amqp.exceptions
import pytest

from support.demo_events import ThingFailed, ThingRequested, thing_queue
from support.stage import Stage
from support.waiting import eventually
from wch_common.broker.aio import subscription as consuming
from wch_common.broker.blocking import publisher as publishing
from wch_common.broker.topology import Topology
from wch_common.client import Client, InvalidAttributes, PublishFailed
from wch_common.contract.event import Event, EventData, new_event
from wch_common.contract.message import Message, Publication
from wch_common.errors import PublishError, Refused, Unconfirmed, Unroutable
from wch_common.outcome import Reject, Retry
from wch_common.runtime.job import Job


def test_an_ack_never_hits_another_channels_delivery(stage: Stage) -> None:
    """In Dramatiq, finishing an old message after a reconnect acknowledges the new message that has the same tag."""
    release, runs, finished = threading.Event(), [], []

    async def handle(event: Event[ThingRequested]) -> None:
        runs.append(event.data.number)
        if len(runs) > 1:
            await asyncio.Event().wait()  # the delivery with tag 1 on the new channel is never finished
        while not release.is_set():
            await asyncio.sleep(0.01)
        finished.append(event.data.number)

    running = stage.start_job(Job.with_handlers(thing_queue(), {ThingRequested: handle}), grace_seconds=0.2)
    with stage.client() as client:
        client.publish(ThingRequested(number=1))
    eventually(lambda: len(runs) == 1)
    stage.cut_connection("wch-demo consuming")
    eventually(lambda: len(runs) == 2, "it is delivered again, with the same tag on a new channel")
    release.set()
    eventually(lambda: finished == [1], "the old run ends and acknowledges")
    running.stop()
    assert stage.depth("demo.thing") == 1, "the new delivery was requeued, so it was still unacknowledged"


def test_an_event_finished_while_the_connection_broke_is_only_acknowledged_on_redelivery(stage: Stage) -> None:
    release, runs = threading.Event(), []

    async def handle(event: Event[ThingRequested]) -> None:
        runs.append(event.data.number)
        while not release.is_set():
            await asyncio.sleep(0.01)

    stage.start_job(Job.with_handlers(thing_queue(concurrency=1), {ThingRequested: handle}))
    with stage.client() as client:
        client.publish(ThingRequested(number=1))
        eventually(lambda: runs == [1])
        stage.cut_connection("wch-demo consuming")
        eventually(lambda: len(runs) == 1 and stage.services[0].is_ready)
        release.set()
        client.publish(ThingRequested(number=2))
    eventually(lambda: 2 in runs)
    stage.stop()
    assert stage.depth("demo.thing") == 0
    assert runs == [1, 2]


def test_events_whose_acknowledgements_are_lost_with_the_connection_are_not_handled_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consuming, "_ACK_SECONDS", 3600)  # they wait for others when the connection is cut
    runs: list[int] = []

    async def handle(event: Event[ThingRequested]) -> None:
        runs.append(event.data.number)

    stage.start_job(Job.with_handlers(thing_queue(), {ThingRequested: handle}))
    with stage.client() as client:
        client.publish_many(ThingRequested(number=number) for number in range(5))
        eventually(lambda: len(runs) == 5)
        stage.cut_connection("wch-demo consuming")
        client.publish_many(ThingRequested(number=number) for number in range(5, 10))
        eventually(lambda: len(runs) == 10)
    stage.stop()
    assert sorted(runs) == list(range(10))
    assert stage.depth("demo.thing") == 0, "the old ones are acknowledged with the new ones"


def test_another_event_with_the_id_of_a_finished_one_is_not_mistaken_for_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consuming, "_ACK_SECONDS", 3600)
    release, runs = threading.Event(), []

    async def handle(event: Event[ThingRequested]) -> None:
        runs.append(event.data.number)
        while event.data.number == 2 and not release.is_set():
            await asyncio.sleep(0.01)

    stage.start_job(Job.with_handlers(thing_queue(concurrency=1), {ThingRequested: handle}))
    with stage.client() as client:
        client.publish_many(
            new_event(ThingRequested(number=n), "/t", id=id_) for n, id_ in ((1, "a"), (2, "b"), (3, "a"))
        )
        eventually(lambda: runs == [1, 2], "the third waits for the slot")
        stage.cut_connection("wch-demo consuming")
        release.set()
        eventually(lambda: 3 in runs, "it is delivered again, like the first")
        stage.await_depth("demo.thing", 0)  # the second one may come back after the third
    stage.stop()
    assert runs == [1, 2, 3]
    assert stage.depth("demo.thing") == 0


@pytest.mark.parametrize("fault", ["full", "deleted"])
def test_a_retry_that_cannot_be_published_is_repeated_and_nothing_is_acknowledged(stage: Stage, fault: str) -> None:
    """Dramatiq acknowledges a message although its publish to the delay queue failed, as it ignores the error."""
    attempts: list[int] = []
    queue, delay_queue = thing_queue(retry_delays=(60,)), "demo.thing.retry.60s"

    async def handle(event: Event[ThingRequested]) -> None:
        attempts.append(event.attempt)
        raise Retry("once")

    running = stage.start_job(Job.with_handlers(queue, {ThingRequested: handle}))
    if fault == "deleted":
        stage.delete_queue(delay_queue)
    else:
        stage.fill(delay_queue)
    with stage.client() as client:
        client.publish(ThingRequested(number=1))
    eventually(lambda: attempts and not running.is_ready, "the service is not ready while the settlement hangs")
    assert stage.depth("demo.thing.dlq") == 0
    if fault == "deleted":
        stage.declare(Topology((queue,)))
    else:
        stage.empty(delay_queue)
    stage.await_depth(delay_queue, 1)
    eventually(lambda: running.is_ready)
    stage.stop()
    assert attempts == [1], "the handler is not run again for a settlement"
    assert stage.depth("demo.thing") == 0


def test_a_dead_letter_that_cannot_be_published_is_repeated(stage: Stage) -> None:
    runs: list[int] = []
    queue = thing_queue()

    async def handle(event: Event[ThingRequested]) -> None:
        runs.append(event.attempt)
        raise Reject("never")

    running = stage.start_job(Job.with_handlers(queue, {ThingRequested: handle}))
    stage.delete_queue("demo.thing.dlq")
    with stage.client() as client:
        client.publish(ThingRequested(number=1))
    eventually(lambda: not running.is_ready)

    stage.declare(Topology((queue,)))
    (dead_letter,) = stage.await_dead_letters("demo.thing.dlq")
    assert dead_letter.message.headers["wch-error-kind"] == "rejected"
    assert runs == [1]


def test_a_consumer_that_the_broker_cancelled_is_not_ready_and_subscribes_again(stage: Stage) -> None:
    seen: list[int] = []
    queue = thing_queue()

    async def handle(event: Event[ThingRequested]) -> None:
        seen.append(event.data.number)

    running = stage.start_job(Job.with_handlers(queue, {ThingRequested: handle}))
    stage.delete_queue("demo.thing")
    eventually(lambda: not running.is_ready, "a service whose consumer is cancelled is not ready")

    stage.declare(Topology((queue,)))
    eventually(lambda: running.is_ready)
    with stage.client() as client:
        client.publish(ThingRequested(number=1))
    eventually(lambda: seen == [1])


def test_a_channel_that_the_broker_closed_is_reopened_and_uses_no_attempt(stage: Stage) -> None:
    """Only the channel is closed and the connection stays, as after the broker's consumer timeout."""
    attempts: list[int] = []

    async def handle(event: Event[ThingRequested]) -> None:
        attempts.append(event.attempt)
        if len(attempts) == 1:
            await asyncio.Event().wait()

    running = stage.start_job(Job.with_handlers(thing_queue(concurrency=2), {ThingRequested: handle}))
    with stage.client() as client:
        client.publish(ThingRequested(number=1))
    eventually(lambda: attempts == [1])
    subscription = running.service._consumers[0]._subscription
    assert subscription is not None
    running.in_loop(lambda: subscription._channel.basic_ack(4711))  # no such tag: 406, and the channel is closed
    eventually(lambda: attempts == [1, 1], "it is delivered again, without a counted attempt")
    eventually(lambda: running.is_ready)


def test_the_process_exits_when_recovery_fails_for_too_long(stage: Stage) -> None:
    async def handle(_event: Event[ThingRequested]) -> None: ...

    running = stage.start_job(Job.with_handlers(thing_queue(), {ThingRequested: handle}), recovery_limit_seconds=2.0)
    stage.delete_queue("demo.thing")
    eventually(lambda: running.exit_code == 1, "it exits, so that Kubernetes restarts it")


def test_a_graceful_stop_finishes_running_handlers_and_requeues_the_rest_without_spending_a_try(stage: Stage) -> None:
    release, finished, attempts = threading.Event(), [], []

    async def handle(event: Event[ThingRequested]) -> None:
        attempts.append(event.attempt)
        while not release.is_set():
            await asyncio.sleep(0.01)
        finished.append(event.data.number)

    running = stage.start_job(Job.with_handlers(thing_queue(concurrency=2), {ThingRequested: handle}))
    with stage.client() as client:
        client.publish_many(ThingRequested(number=n) for n in range(10))
    eventually(lambda: len(attempts) == 2)
    stopping = threading.Thread(target=running.stop)
    stopping.start()
    eventually(lambda: stage.depth("demo.thing") == 8, "deliveries that had not started are requeued at once")
    release.set()
    stopping.join()
    assert running.exit_code == 0
    assert len(finished) == 2
    assert stage.depth("demo.thing") == 8
    assert attempts == [1, 1]


def test_a_handler_interrupted_by_the_stop_uses_no_attempt(stage: Stage) -> None:
    attempts: list[int] = []

    async def handle(event: Event[ThingRequested]) -> None:
        attempts.append(event.attempt)
        if len(attempts) == 1:
            await asyncio.Event().wait()

    running = stage.start_job(Job.with_handlers(thing_queue(), {ThingRequested: handle}), grace_seconds=0.2)
    with stage.client() as client:
        client.publish(ThingRequested(number=1))
    eventually(lambda: attempts == [1])
    assert running.stop() == 0
    assert stage.depth("demo.thing") == 1
    stage.start_job(Job.with_handlers(thing_queue(), {ThingRequested: handle}))
    eventually(lambda: attempts == [1, 1])


def test_a_blocking_handler_longer_than_the_heartbeat_keeps_its_delivery(stage: Stage) -> None:
    runs: list[int] = []

    def handle(event: Event[ThingRequested]) -> None:
        runs.append(event.data.number)
        time.sleep(5)  # a blocking handler that runs longer than two heartbeats

    stage.url += "?heartbeat=1"
    running = stage.start_job(Job.with_handlers(thing_queue(), {ThingRequested: handle}))
    stage.url = stage.url.partition("?")[0]
    with stage.client() as client:
        client.publish(ThingRequested(number=1))
    eventually(lambda: runs == [1])
    eventually(lambda: running.service._consumers[0].worker.running == 0)
    running.stop()
    assert runs == [1]
    assert stage.depth("demo.thing") == 0


def test_no_more_handlers_run_than_there_are_slots(stage: Stage) -> None:
    """With FastStream's defaults, 2,000 messages led to 1,818 concurrent handlers."""
    now, most, done = 0, 0, 0

    async def handle(_event: Event[ThingRequested]) -> None:
        nonlocal now, most, done
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.001)
        now, done = now - 1, done + 1

    stage.start_job(Job.with_handlers(thing_queue(concurrency=8), {ThingRequested: handle}))
    with stage.client() as client:
        client.publish_many(ThingRequested(number=n) for n in range(2000))
    eventually(lambda: done == 2000)
    assert most <= 8


def test_no_more_deliveries_are_unacknowledged_than_the_prefetch(stage: Stage) -> None:
    blocked, release = 0, threading.Event()

    async def handle(_event: Event[ThingRequested]) -> None:
        nonlocal blocked
        blocked += 1
        while not release.is_set():
            await asyncio.sleep(0.01)

    queue = thing_queue(concurrency=8)
    running = stage.start_job(Job.with_handlers(queue, {ThingRequested: handle}))
    with stage.client() as client:
        client.publish_many(ThingRequested(number=n) for n in range(2000))
        # One more than the prefetch: the first delivery, after which the consumer raised its prefetch from 1.
        held = queue.policy.prefetch + 1
        stage.await_depth("demo.thing", 2000 - held)
        client.publish(ThingRequested(number=2000))
        stage.await_depth("demo.thing", 2001 - held)
    assert blocked == 8
    assert running.service._consumers[0].worker.queued == held - 8
    release.set()


def test_reading_a_dead_letter_never_deletes_it(stage: Stage) -> None:
    """With the default delivery limit of RabbitMQ 4, a quorum queue drops a message after 21 reads."""

    async def handle(_event: Event[ThingRequested]) -> None:
        raise Reject("never")

    stage.start_job(Job.with_handlers(thing_queue(), {ThingRequested: handle}))
    with stage.client() as client:
        client.publish(ThingRequested(number=1))
    stage.await_dead_letters("demo.thing.dlq")
    stage.send("wch.unroutable", "other.thing.requested.v1", Message(b"{}", "text/plain", None, "1"))
    peek = {"count": 1, "ackmode": "reject_requeue_true", "encoding": "auto"}
    with stage.broker.api as api:
        for queue in ("demo.thing.dlq", "wch.unroutable"):
            for _ in range(30):
                stage.dead_letters(queue)
                api.post(f"/queues/{stage.vhost}/{queue}/get", json=peek).raise_for_status()
            assert len(stage.await_dead_letters(queue)) == 1  # which returns to the queue shortly after the read


def test_a_short_retry_delay_is_not_delayed_by_a_long_one(stage: Stage) -> None:
    """In Taskiq's delay queue, a delay of one second behind one of eight took eight seconds."""
    done: list[int] = []

    async def handle(event: Event[ThingRequested]) -> None:
        if event.attempt == 1:
            raise Retry("wait", after=60 if event.data.number == 1 else 0.1)
        done.append(event.data.number)

    stage.start_job(Job.with_handlers(thing_queue(retry_delays=(0.2, 60)), {ThingRequested: handle}))
    with stage.client() as client:
        client.publish(ThingRequested(number=1))
        eventually(lambda: stage.depth("demo.thing.retry.60s") == 1)
        client.publish(ThingRequested(number=2))
    eventually(lambda: done == [2])
    assert stage.depth("demo.thing.retry.60s") == 1


def test_publishing_to_a_missing_exchange_is_an_error(stage: Stage) -> None:
    """FastStream, Taskiq and Celery return normally from a publish that reaches no queue."""
    message = Message(b"{}", "application/json", None, "1")
    from wch_common.broker.blocking.publisher import ConfirmedPublisher

    publisher = ConfirmedPublisher(stage.url, "test")
    (missing,) = publisher.publish([Publication("no.such.exchange", "k", message)])
    (unbound,) = publisher.publish([Publication("amq.topic", "k", message)])
    (optional,) = publisher.publish([Publication("amq.topic", "k", message, mandatory=False)])
    publisher.close()
    assert isinstance(missing, Unroutable)
    assert isinstance(unbound, Unroutable)
    assert optional is None


def test_every_message_is_published_persistent(stage: Stage) -> None:
    """For events of the client, and for the runtime's copies: in a delay queue, as a dead letter, and the fact about it."""

    async def handle(event: Event[ThingRequested]) -> None:
        raise (Reject("never") if event.data.number == 1 else Retry("later"))

    def on_dead_letter(event: Event[ThingRequested], reason: str) -> ThingFailed:
        return ThingFailed(number=event.data.number, reason=reason)

    queue = thing_queue(retry_delays=(60,))
    stage.declare(Topology((queue,)))
    stage.follow("facts", "demo.thing.failed.#")
    with stage.client() as client:
        client.publish_many(ThingRequested(number=number) for number in (1, 2))
    assert stage.delivery_mode("demo.thing") == 2
    stage.start_job(Job.with_handlers(queue, {ThingRequested: handle}, on_dead_letter=on_dead_letter))
    for name in ("demo.thing.retry.60s", "demo.thing.dlq", "facts"):
        stage.await_depth(name, 1)
        assert stage.delivery_mode(name) == 2, name


def test_the_client_says_why_nothing_was_sent(stage: Stage) -> None:
    nowhere = Client("amqp://guest:guest@127.0.0.1:1/x", "/test", confirm_timeout_seconds=1.0)
    with nowhere as client, pytest.raises(Unconfirmed, match=r"nothing was sent within 1 s: .*refused"):
        client.publish(ThingRequested(number=1))
    with stage.client() as client:
        for wrong in ({"requester": "A b"}, {"shop": "x" * 300}, {"id": "x" * 300}, {"id": ""}):
            (name,) = wrong
            with pytest.raises(InvalidAttributes, match=name):
                client.publish(ThingRequested(number=1), **wrong)


def test_the_client_raises_if_an_event_is_not_known_to_be_safe(stage: Stage) -> None:
    """The publish functions of Celery and FastStream return normally although the broker accepted nothing."""
    with stage.client() as client, pytest.raises(Unroutable):
        client.publish(ThingRequested(number=1))
    stage.declare(Topology((thing_queue(),)))
    stage.limit("demo.thing", 5)
    safe: list[str] = []
    failures: list[tuple[Event[EventData], PublishError]] = []

    def some_refused() -> bool:
        with stage.client() as client:
            made = [client.event(ThingRequested(number=number)) for number in range(50)]
            try:
                safe.extend(client.publish_many(made))
            except PublishFailed as failed:
                failures.extend(failed.failures)
                refused = {event.id for event, _ in failed.failures}
                safe.extend(event.id for event in made if event.id not in refused)
        return bool(failures)

    eventually(some_refused, "the queue is full")
    assert {type(error) for _, error in failures} == {Refused}
    kept = [str(dead_letter.message.message_id) for dead_letter in stage.dead_letters("demo.thing")]
    assert sorted(kept) == sorted(safe)


@pytest.mark.scale
def test_a_service_that_is_restarted_repeatedly_under_load_loses_and_leaks_nothing(stage: Stage) -> None:
    times, events = (100, 20_000) if os.environ.get("WCH_TEST_SCALE") == "full" else (12, 2_000)
    handled: set[int] = set()

    async def handle(event: Event[ThingRequested]) -> None:
        await asyncio.sleep(0.002)
        handled.add(event.data.number)

    # Before RabbitMQ 4.3, each stop counts as a redelivery; more of them than the crash limit are still no crash.
    job = Job.with_handlers(thing_queue(), {ThingRequested: handle})
    stage.declare(Topology((job.queue,)))
    with stage.client() as client:
        client.publish_many(ThingRequested(number=number) for number in range(events))
    for _ in range(times):
        before = len(handled)
        running = stage.start_job(job)
        eventually(partial(lambda count: len(handled) > count or len(handled) == events, before), "it works")
        assert running.stop() == 0
    running = stage.start_job(job)
    eventually(lambda: len(handled) + stage.depth("demo.thing.dlq") >= events)
    running.stop()
    assert handled == set(range(events))
    assert stage.depth("demo.thing") == stage.depth("demo.thing.dlq") == 0
    assert [one.name for one in threading.enumerate() if one.name == "health"] == []


def test_a_connection_on_which_no_channel_opens_is_closed(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise amqp.exceptions.ChannelError("no channel")

    monkeypatch.setattr(publishing, "_Window", refuse)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        with stage.client(confirm_timeout_seconds=0.5) as client, pytest.raises(Unconfirmed):
            client.publish(ThingRequested(number=1))
        gc.collect()
    assert [str(one.message) for one in caught] == []
