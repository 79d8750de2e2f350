"""WCH Jobs: a service as the others are written here, with its retry queues, dead letters, metrics and health."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import asynccontextmanager

from marks import MODE, RETRY_SECONDS, SLOTS, TEXT, URL, each, mark, publish_main, work_async

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
TOGETHER = int(os.environ.get("BENCH_TOGETHER", "1"))
HELD = int(os.environ.get("BENCH_PREFETCH", "0")) or None


class BenchRequested(Request):
    """Do a job."""

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
        prefetch_limit=HELD,
    ),
)


async def bench(event: Event[BenchRequested]) -> None:
    await work_async(event.data.number, event.data.sent)


async def together(events):
    for event in events:
        mark(event.data.number, event.data.sent)
    return [None] * len(events)


async def in_transaction(event: Event[BenchRequested], tx) -> None:
    await tx.rows(
        "INSERT INTO jobs (number, text) VALUES (%(number)s, %(text)s)",
        {"number": event.data.number, "text": event.data.text},
    )
    tx.emit(event.derive(BenchDone(number=event.data.number), "/wch/bench"))
    tx.then(lambda: mark(event.data.number, event.data.sent))


async def compose(platform: Platform[ServiceSettings]):
    if BATCH:
        return [Job.with_batch_handler(QUEUE, together)]
    if MODE != "database":
        return [Job.with_handlers(QUEUE, {BenchRequested: bench})]
    store = await platform.open_store(os.environ["BENCH_DATABASE_URL"])
    await store.database.rows("CREATE TABLE IF NOT EXISTS jobs (number bigint, text text)")
    return [Job.in_transaction(QUEUE, {BenchRequested: in_transaction}, store, share_limit=TOGETHER)]


class Publishing:
    """One at a time, or many with their confirms outstanding together."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def one(self, number: int, sent: int) -> None:
        self._client.publish(BenchRequested(number=number, sent=sent, text=TEXT))

    async def many(self, numbers: range) -> None:
        self._client.publish_many(BenchRequested(number=number, sent=0, text=TEXT) for number in numbers)


@asynccontextmanager
async def opened():
    declare(URL, Topology((QUEUE,)))
    with Client(URL, "/bench") as client:
        yield Publishing(client)


class Inside:
    """As a service publishes, over its own connection in its event loop."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    async def one(self, number: int, sent: int) -> None:
        data = BenchRequested(number=number, sent=sent, text=TEXT)
        await self._publisher.publish(encode(new_event(data, "/wch/bench")))

    async def many(self, numbers: range) -> None:
        await each(self.one, numbers, 1000)


@asynccontextmanager
async def opened_inside():
    declare(URL, Topology((QUEUE,)))
    link = Link(URL, "bench")
    publisher = Publisher(link)
    tasks = [asyncio.create_task(link.run()), asyncio.create_task(publisher.run())]
    yield Inside(publisher)
    await link.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["worker"]:
        sys.exit(run_service("bench", ServiceSettings, compose))
    publish_main(opened_inside if os.environ.get("BENCH_INSIDE") else opened)
