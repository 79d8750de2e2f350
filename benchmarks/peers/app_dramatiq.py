"""Dramatiq: threads, its default middleware, confirmed publishing, and a classic queue, the only type it supports."""

from __future__ import annotations

from contextlib import asynccontextmanager

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from marks import RETRY_SECONDS, TEXT, URL, BlockingPublisher, publish_main, work

dramatiq.set_broker(RabbitmqBroker(url=URL, confirm_delivery=True))


@dramatiq.actor(queue_name="bench", max_retries=3, min_backoff=RETRY_SECONDS * 1000, max_backoff=RETRY_SECONDS * 1000)
def bench(number: int, sent: int, text: str) -> None:
    work(number, sent)


@asynccontextmanager
async def open_publisher():
    yield BlockingPublisher(lambda number, sent: bench.send(number, sent, TEXT))


if __name__ == "__main__":
    publish_main(open_publisher)
