"""Taskiq with taskiq-aio-pika: asyncio, acknowledged after it was executed (its default), quorum queue, its own retry middleware."""

from __future__ import annotations

from contextlib import asynccontextmanager

from marks import RETRY_SECONDS, SLOTS, TEXT, URL, each, publish_main, work_async
from taskiq import SmartRetryMiddleware
from taskiq_aio_pika import AioPikaBroker, Queue

broker = AioPikaBroker(
    URL, qos=2 * SLOTS, task_queues=[Queue(name="bench")], delay_queue=Queue(name="bench.delay")
).with_middlewares(SmartRetryMiddleware(default_retry_count=3, default_delay=RETRY_SECONDS))


@broker.task(task_name="bench", retry_on_error=True)
async def bench(number: int, sent: int, text: str) -> None:
    await work_async(number, sent)


class Publishing:
    """A confirm is awaited for each; many are awaited together."""

    async def one(self, number: int, sent: int) -> None:
        await bench.kiq(number, sent, TEXT)

    async def many(self, numbers: range) -> None:
        await each(self.one, numbers, 500)


@asynccontextmanager
async def opened():
    await broker.startup()
    yield Publishing()
    await broker.shutdown()


if __name__ == "__main__":
    publish_main(opened)
