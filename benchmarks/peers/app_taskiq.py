"""Taskiq with taskiq-aio-pika: asyncio, acknowledgement after execution (its default), quorum queue, its own retry middleware."""

from __future__ import annotations

from contextlib import asynccontextmanager

from marks import RETRY_SECONDS, SLOTS, TEXT, URL, publish_main, publish_windowed, work_async
from taskiq import SmartRetryMiddleware
from taskiq_aio_pika import AioPikaBroker, Queue

broker = AioPikaBroker(
    URL, qos=2 * SLOTS, task_queues=[Queue(name="bench")], delay_queue=Queue(name="bench.delay")
).with_middlewares(SmartRetryMiddleware(default_retry_count=3, default_delay=RETRY_SECONDS))


@broker.task(task_name="bench", retry_on_error=True)
async def bench(number: int, sent: int, text: str) -> None:
    await work_async(number, sent)


class TaskiqPublisher:
    """Waits for each confirm, or for up to 500 confirms at a time."""

    async def one(self, number: int, sent: int) -> None:
        await bench.kiq(number, sent, TEXT)

    async def many(self, numbers: range) -> None:
        await publish_windowed(self.one, numbers, 500)


@asynccontextmanager
async def open_publisher():
    await broker.startup()
    yield TaskiqPublisher()
    await broker.shutdown()


if __name__ == "__main__":
    publish_main(open_publisher)
