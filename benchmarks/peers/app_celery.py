"""Celery: threads, late acknowledgement, quorum queue, confirmed publishing; without results, events and gossip."""

from __future__ import annotations

from contextlib import asynccontextmanager

from celery import Celery
from kombu import Exchange, Queue
from marks import RETRY_SECONDS, TEXT, URL, BlockingPublisher, FailsOnce, publish_main, work

app = Celery("bench", broker=URL)
# Celery's documentation requires a topic exchange for quorum queues with native delayed delivery.
_exchange = Exchange("bench", type="topic")
app.conf.update(
    task_queues=[Queue("bench", _exchange, routing_key="bench", queue_arguments={"x-queue-type": "quorum"})],
    task_default_queue="bench",
    task_default_exchange="bench",
    task_default_exchange_type="topic",
    task_default_routing_key="bench",
    task_default_queue_type="quorum",
    broker_transport_options={"confirm_publish": True},
    broker_connection_retry_on_startup=True,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    task_store_errors_even_if_ignored=False,
    worker_prefetch_multiplier=2,
    worker_enable_remote_control=False,
    worker_send_task_events=False,
    task_serializer="json",
)


@app.task(name="bench", autoretry_for=(FailsOnce,), retry_kwargs={"max_retries": 3, "countdown": RETRY_SECONDS})
def bench(number: int, sent: int, text: str) -> None:
    work(number, sent)


@asynccontextmanager
async def open_publisher():
    yield BlockingPublisher(lambda number, sent: bench.apply_async((number, sent, TEXT)))


if __name__ == "__main__":
    publish_main(open_publisher)
