"""WCH Jobs: a service with the same job, including its delay queues, dead letters, metrics and health."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import asynccontextmanager

from marks import MODE, RETRY_SECONDS, SLOTS, TEXT, URL, mark, publish_main, publish_windowed, work_async

from wch_common.broker.aio.connection import Link
from wch_common.broker.aio.publisher import Publisher
from wch_common.broker.blocking.declare import declare
from wch_common.broker.queue_policy import Batching, QueuePolicy
from wch_common.broker.topology import Topology, WorkQueue
from wch_common.client import Client
from wch_common.contract.envelope import encode
from wch_common.contract.event import Event, Fact, Request, new_event
from wch_common.runtime.job import Job
from wch_common.runtime.service import Platform, run_service
from wch_common.settings import ServiceSettings

BATCH = int(os.environ.get("BENCH_BATCH", "0"))
SHARE_LIMIT = int(os.environ.get("BENCH_SHARE_LIMIT", "1"))
PREFETCH = int(os.environ.get("BENCH_PREFETCH", "0")) or None


class BenchRequested(Request):
    """Do one job."""

    TYPE = "bench.job.requested.v1"

    number: int
    sent: int
    text: str


class BenchDone(Fact):
    """A job was done."""

    TYPE = "bench.job.done.v1"

    number: int


QUEUE = WorkQueue(
    "bench",
    (BenchRequested,),
    policy=QueuePolicy(
        retry_delays=(RETRY_SECONDS,),
        tries=3,
        concurrency=SLOTS,
        batching=Batching(BATCH, 0.05) if BATCH else None,
        prefetch_limit=PREFETCH,
    ),
)


async def handle(event: Event[BenchRequested]) -> None:
    await work_async(event.data.number, event.data.sent)


async def handle_batch(events):
    for event in events:
        mark(event.data.number, event.data.sent)
    return [None] * len(events)


async def handle_in_transaction(event: Event[BenchRequested], tx) -> None:
    await tx.rows(
        "INSERT INTO jobs (number, text) VALUES (%(number)s, %(text)s)",
        {"number": event.data.number, "text": event.data.text},
    )
    tx.emit(event.derive(BenchDone(number=event.data.number), "/wch/bench"))
    tx.then(lambda: mark(event.data.number, event.data.sent))


async def compose(platform: Platform[ServiceSettings]):
    if BATCH:
        return [Job.with_batch_handler(QUEUE, handle_batch)]
    if MODE != "database":
        return [Job.with_handlers(QUEUE, {BenchRequested: handle})]
    store = await platform.open_store(os.environ["BENCH_DATABASE_URL"])
    await store.database.rows("CREATE TABLE IF NOT EXISTS jobs (number bigint, text text)")
    return [Job.in_transaction(QUEUE, {BenchRequested: handle_in_transaction}, store, share_limit=SHARE_LIMIT)]


class ClientPublisher:
    """Publishes with the client, one at a time or many with their confirms outstanding together."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def one(self, number: int, sent: int) -> None:
        self._client.publish(BenchRequested(number=number, sent=sent, text=TEXT))

    async def many(self, numbers: range) -> None:
        self._client.publish_many(BenchRequested(number=number, sent=0, text=TEXT) for number in numbers)


@asynccontextmanager
async def open_publisher():
    declare(URL, Topology((QUEUE,)))
    with Client(URL, "/bench") as client:
        yield ClientPublisher(client)


class ServicePublisher:
    """Publishes as a service does, on its own connection in its event loop."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    async def one(self, number: int, sent: int) -> None:
        data = BenchRequested(number=number, sent=sent, text=TEXT)
        await self._publisher.publish(encode(new_event(data, "/wch/bench")))

    async def many(self, numbers: range) -> None:
        await publish_windowed(self.one, numbers, 1000)


@asynccontextmanager
async def open_inside_publisher():
    declare(URL, Topology((QUEUE,)))
    link = Link(URL, "bench")
    publisher = Publisher(link)
    tasks = [asyncio.create_task(link.run()), asyncio.create_task(publisher.run())]
    yield ServicePublisher(publisher)
    await link.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["worker"]:
        sys.exit(run_service("bench", ServiceSettings, compose))
    publish_main(open_inside_publisher if os.environ.get("BENCH_INSIDE") else open_publisher)
