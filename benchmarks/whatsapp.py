"""Measures the messages a second of the whatsapp service.

`python benchmarks/whatsapp.py AMQP_URL DATABASE_URL [RECIPIENTS [CALLS [MS]]]` publishes batches of 1,000 recipients. The service
sends them without pacing, with CALLS (40) calls in flight, to a simulator that answers in MS (20) milliseconds.
Needs an empty virtual host and an empty database.
"""

from __future__ import annotations

import sys
import time

import psycopg
from measuring import Load, running

from wch_common.broker.blocking.declare import declare
from wch_common.client import Client
from wch_common.events.whatsapp import BatchRecipient, BatchRequested
from wch_common.events.whatsapp_content import Parameter, Template
from wch_whatsapp.topology import TOPOLOGY

BATCH = 1_000
DEFAULTS = ("100000", "40", "20")
GRAPH_PORT, HEALTH_PORT = 18082, 18083
TEMPLATE = Template(name="hello", language="en_US", body=(Parameter(text="you"),))
DONE = "SELECT count(*) FILTER (WHERE state = 'accepted'), count(*) FROM messages"


def publish(amqp_url: str, recipients: int) -> None:
    """Publish requests for so many recipients, in batches."""
    with Client(amqp_url, "/bench") as client:
        for start in range(0, recipients, BATCH):
            numbers = range(start, min(start + BATCH, recipients))
            batch = tuple(BatchRecipient(to=f"+1555{n:07d}", send_key=f"k{n}") for n in numbers)
            client.publish(
                BatchRequested(batch_id=f"b{start}", message=TEMPLATE, category="marketing", recipients=batch)
            )


def main() -> None:
    """Measure and print the figures."""
    amqp_url, database_url, *options = sys.argv[1:]
    recipients, calls, milliseconds = (int(text) for text in (*options, *DEFAULTS[len(options) :]))
    declare(amqp_url, TOPOLOGY)
    graph = f"http://127.0.0.1:{GRAPH_PORT}"
    simulator = running(
        ["-m", "wch_simulators.graph", "--port", str(GRAPH_PORT), "--latency", str(milliseconds / 1000)],
        f"{graph}/_simulator/journal?path=none",
    )
    sending = running(
        ["-m", "wch_whatsapp"],
        f"http://127.0.0.1:{HEALTH_PORT}/readyz",
        WCH_AMQP_URL=amqp_url,
        WCH_DATABASE_URL=database_url,
        WCH_GRAPH_URL=graph,
        WCH_GRAPH_TOKEN="simulated-token",
        WCH_WHATSAPP_PHONE_NUMBER_IDS="2002",
        WCH_PERSON_HASH_KEY="a key for the benchmark",
        WCH_WHATSAPP_RATE="0",
        WCH_WHATSAPP_CALLS_IN_FLIGHT=str(calls),
        WCH_WHATSAPP_MESSAGING_LIMIT="-1",
        WCH_HEALTH_PORT=str(HEALTH_PORT),
        WCH_LOG_LEVEL="ERROR",
    )
    with (
        simulator,
        sending as service,
        psycopg.connect(database_url, autocommit=True, options="-c search_path=whatsapp") as connection,
    ):
        load, started, last = Load(service, connection), time.monotonic(), 0.0
        first_tenth = (0.0, 0)
        publish(amqp_url, recipients)
        while True:
            accepted, stored = connection.execute(DONE).fetchone() or (0, 0)
            load.sample()
            if time.monotonic() - last > 10:
                last = time.monotonic()
                print(f"{last - started:6.0f} s  {stored} stored  {accepted} accepted  {load.peak} MB", flush=True)
            if not first_tenth[1] and accepted >= recipients / 10:
                first_tenth = (time.monotonic(), accepted)
            if accepted == recipients:
                break
            time.sleep(0.5)
        seconds = time.monotonic() - started
        print(
            f"{recipients} recipients in {seconds:.0f} s; after the first tenth "
            f"{(recipients - first_tenth[1]) / (time.monotonic() - first_tenth[0]):.0f} a second (the calls alone: {1000 * calls / milliseconds:.0f}), "
            f"{load.summary(recipients)}"
        )


if __name__ == "__main__":
    main()
