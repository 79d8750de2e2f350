"""Measures CPU and rate of one worker: `python benchmarks/hot_path.py AMQP_URL [DATABASE_URL]`.

Publishes the events, then handles them with a no-op handler in 8 slots; with DATABASE_URL, in a transaction with the inbox. The figures
exclude the start of the service. Needs an empty virtual host and, if given, an empty database.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import uvloop
from pydantic import SecretStr

from wch_common.broker.blocking.declare import declare
from wch_common.broker.queue_policy import QueuePolicy
from wch_common.broker.topology import Topology, WorkQueue
from wch_common.client import Client
from wch_common.contract.event import Request
from wch_common.observability.logs import configure_logs
from wch_common.runtime.job import Job
from wch_common.runtime.service import Platform, Service
from wch_common.settings import ServiceSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wch_common.contract.event import Event
    from wch_common.store.store import Transaction

EVENTS = 20_000


class BenchRequested(Request):
    """Do nothing."""

    TYPE = "bench.noop.requested.v1"

    number: int
    text: str = "x" * 100


def main() -> None:
    """Measure and print the figures."""
    configure_logs(service="bench")
    url, database_url = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None
    queue = WorkQueue("bench.noop", (BenchRequested,), policy=QueuePolicy(retry_delays=(1,), concurrency=8))
    declare(url, Topology((queue,)))
    started, cpu = time.monotonic(), time.process_time()
    with Client(url, "/bench") as client:
        client.publish_many(BenchRequested(number=number) for number in range(EVENTS))
    rate, cpu_us = EVENTS / (time.monotonic() - started), (time.process_time() - cpu) / EVENTS * 1e6
    print(f"published with confirms: {rate:,.0f} events/s, {cpu_us:.0f} µs CPU per event")
    remaining, marks = EVENTS, []

    def count() -> None:
        nonlocal remaining
        if remaining == EVENTS:
            marks.append((time.monotonic(), time.process_time()))
        remaining -= 1
        if remaining == 0:
            marks.append((time.monotonic(), time.process_time()))
            service.stop_requested.set()

    async def noop(_event: Event[BenchRequested]) -> None:
        count()

    async def noop_in_transaction(_event: Event[BenchRequested], _tx: Transaction) -> None:
        count()

    async def compose(platform: Platform[ServiceSettings]) -> Sequence[Job]:
        if database_url is None:
            return [Job.with_handlers(queue, {BenchRequested: noop})]
        store = await platform.open_store(database_url)
        return [Job.in_transaction(queue, {BenchRequested: noop_in_transaction}, store)]

    settings = ServiceSettings(amqp_url=SecretStr(url), health_host="127.0.0.1", health_port=0)
    service = Service("bench", settings, compose)

    async def run() -> None:
        await service.run()

    uvloop.run(run())
    (wall0, cpu0), (wall1, cpu1) = marks
    print(f"handled: {EVENTS / (wall1 - wall0):,.0f} events/s, {(cpu1 - cpu0) / EVENTS * 1e6:.0f} µs CPU per event")


if __name__ == "__main__":
    main()
