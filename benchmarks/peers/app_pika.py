"""Bare pika, the baseline: one thread, JSON, acknowledgement one by one or in batches (BENCH_ACK_BATCH); it has no retry delay."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import asynccontextmanager

import pika
from marks import MODE, TEXT, URL, WAIT_SECONDS, BlockingPublisher, mark, publish_main, should_fail

QUEUE = "bench"
ACK_BATCH = int(os.environ.get("BENCH_ACK_BATCH", "1"))
PREFETCH = 16 if ACK_BATCH == 1 else 4 * ACK_BATCH


def open_channel():
    channel = pika.BlockingConnection(pika.URLParameters(URL)).channel()
    channel.queue_declare(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
    return channel


@asynccontextmanager
async def open_publisher():
    channel = open_channel()
    channel.confirm_delivery()
    properties = pika.BasicProperties(delivery_mode=2, content_type="application/json")

    def publish(number: int, sent: int) -> None:
        body = json.dumps({"number": number, "sent": sent, "text": TEXT}).encode()
        channel.basic_publish("", QUEUE, body, properties, mandatory=True)

    yield BlockingPublisher(publish)


def worker() -> None:
    channel = open_channel()
    channel.basic_qos(prefetch_count=PREFETCH)
    unacknowledged = last = 0
    # Acknowledge an incomplete batch after 50 ms without a message.
    for method, _properties, body in channel.consume(QUEUE, inactivity_timeout=0.05):
        if method is None:
            if unacknowledged:
                channel.basic_ack(last, multiple=True)
                unacknowledged = 0
            continue
        job = json.loads(body)
        if should_fail(job["number"]):
            channel.basic_nack(method.delivery_tag, requeue=True)
            continue
        if MODE == "wait":
            time.sleep(WAIT_SECONDS)
        mark(job["number"], job["sent"])
        unacknowledged, last = unacknowledged + 1, method.delivery_tag
        if unacknowledged >= ACK_BATCH:
            channel.basic_ack(last, multiple=ACK_BATCH > 1)
            unacknowledged = 0


if __name__ == "__main__":
    worker() if sys.argv[1:] == ["worker"] else publish_main(open_publisher)
