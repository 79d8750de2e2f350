"""Dramatiq: threads, its own middleware, confirmed publishing; a classic queue, as it knows no other."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from marks import RETRY_SECONDS, TEXT, URL, publish_main, work

dramatiq.set_broker(RabbitmqBroker(url=URL, confirm_delivery=True))


@dramatiq.actor(queue_name="bench", max_retries=3, min_backoff=RETRY_SECONDS * 1000, max_backoff=RETRY_SECONDS * 1000)
def bench(number: int, sent: int, text: str) -> None:
    work(number, sent)


class Publishing:
    """Dramatiq confirms one by one."""

    async def one(self, number: int, sent: int) -> None:
        bench.send(number, sent, TEXT)

    async def many(self, numbers: range) -> None:
        for number in numbers:
            await self.one(number, time.time_ns())


@asynccontextmanager
async def opened():
    yield Publishing()


if __name__ == "__main__":
    publish_main(opened)
