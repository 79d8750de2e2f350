"""FastStream: asyncio, pydantic, quorum queue, persistent messages; it has no retry delay, so it requeues a failed job at once."""

from __future__ import annotations

from contextlib import asynccontextmanager

from faststream import AckPolicy, FastStream
from faststream.rabbit import Channel, QueueType, RabbitBroker, RabbitQueue
from marks import MODE, SLOTS, TEXT, URL, publish_main, publish_windowed, work_async
from pydantic import BaseModel

# FastStream starts a task per message, so the prefetch limits how many handlers wait at a time.
broker = RabbitBroker(URL, default_channel=Channel(prefetch_count=SLOTS if MODE == "wait" else 2 * SLOTS))
queue = RabbitQueue("bench", queue_type=QueueType.QUORUM, durable=True)
app = FastStream(broker)


class Job(BaseModel):
    """The body of a message."""

    number: int
    sent: int
    text: str


@broker.subscriber(queue, ack_policy=AckPolicy.NACK_ON_ERROR)
async def bench(job: Job) -> None:
    await work_async(job.number, job.sent)


class FastStreamPublisher:
    """Waits for each confirm, or for up to 500 confirms at a time."""

    async def one(self, number: int, sent: int) -> None:
        await broker.publish(Job(number=number, sent=sent, text=TEXT), queue, persist=True, mandatory=True)

    async def many(self, numbers: range) -> None:
        await publish_windowed(self.one, numbers, 500)


@asynccontextmanager
async def open_publisher():
    async with broker:
        await broker.declare_queue(queue)
        yield FastStreamPublisher()


if __name__ == "__main__":
    publish_main(open_publisher)
