"""FastStream: asyncio, pydantic, quorum queue, persistent messages; it has no retry, so a failure is given back at once."""

from __future__ import annotations

from contextlib import asynccontextmanager

from faststream import AckPolicy, FastStream
from faststream.rabbit import Channel, QueueType, RabbitBroker, RabbitQueue
from marks import MODE, SLOTS, TEXT, URL, each, publish_main, work_async
from pydantic import BaseModel

# One task per message: where a handler waits, the prefetch is the number of slots.
broker = RabbitBroker(URL, default_channel=Channel(prefetch_count=SLOTS if MODE == "wait" else 2 * SLOTS))
queue = RabbitQueue("bench", queue_type=QueueType.QUORUM, durable=True)
app = FastStream(broker)


class Job(BaseModel):
    """What is sent."""

    number: int
    sent: int
    text: str


@broker.subscriber(queue, ack_policy=AckPolicy.NACK_ON_ERROR)
async def bench(job: Job) -> None:
    await work_async(job.number, job.sent)


class Publishing:
    """A confirm is awaited for each; many are awaited together."""

    async def one(self, number: int, sent: int) -> None:
        await broker.publish(Job(number=number, sent=sent, text=TEXT), queue, persist=True, mandatory=True)

    async def many(self, numbers: range) -> None:
        await each(self.one, numbers, 500)


@asynccontextmanager
async def opened():
    async with broker:
        await broker.declare_queue(queue)
        yield Publishing()


if __name__ == "__main__":
    publish_main(opened)
