"""Bare pika: one thread, JSON, acknowledged one by one or in batches (BENCH_ACK_BATCH); the floor, with no retry path."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import asynccontextmanager

import pika
from marks import MODE, TEXT, URL, WAIT_SECONDS, OneByOne, fails_now, mark, publish_main

QUEUE = "bench"
ACK_BATCH = int(os.environ.get("BENCH_ACK_BATCH", "1"))
PREFETCH = 16 if ACK_BATCH == 1 else 4 * ACK_BATCH


def declared():
    channel = pika.BlockingConnection(pika.URLParameters(URL)).channel()
    channel.queue_declare(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
    return channel


@asynccontextmanager
async def opened():
    channel = declared()
    channel.confirm_delivery()
    properties = pika.BasicProperties(delivery_mode=2, content_type="application/json")

    def publish(number: int, sent: int) -> None:
        body = json.dumps({"number": number, "sent": sent, "text": TEXT}).encode()
        channel.basic_publish("", QUEUE, body, properties, mandatory=True)

    yield OneByOne(publish)


def worker() -> None:
    channel = declared()
    channel.basic_qos(prefetch_count=PREFETCH)
    open_ = last = 0
    # The rest of a batch is acknowledged when nothing comes for a moment.
    for method, _properties, body in channel.consume(QUEUE, inactivity_timeout=0.05):
        if method is None:
            if open_:
                channel.basic_ack(last, multiple=True)
                open_ = 0
            continue
        job = json.loads(body)
        if fails_now(job["number"]):
            channel.basic_nack(method.delivery_tag, requeue=True)
            continue
        if MODE == "wait":
            time.sleep(WAIT_SECONDS)
        mark(job["number"], job["sent"])
        open_, last = open_ + 1, method.delivery_tag
        if open_ >= ACK_BATCH:
            channel.basic_ack(last, multiple=ACK_BATCH > 1)
            open_ = 0


if __name__ == "__main__":
    worker() if sys.argv[1:] == ["worker"] else publish_main(opened)
