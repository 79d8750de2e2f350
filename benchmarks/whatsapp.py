"""Messages a second of the whatsapp service: `python benchmarks/whatsapp.py AMQP_URL DATABASE_URL [RECIPIENTS [CALLS [MS]]]`.

Batches of 1,000, pacing off, CALLS (40) at a time, a simulator that answers in MS (20) milliseconds. Give it an empty virtual
host and an empty database of its own. Service and simulator are processes of their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import psycopg

from wch_common.client import Client
from wch_common.edge.declare import declare
from wch_common.events.whatsapp import BatchRequested, Parameter, Recipient, Template
from wch_whatsapp.topology import TOPOLOGY

BATCH = 1_000
DEFAULTS = ("100000", "40", "20")
GRAPH_PORT, HEALTH_PORT = 18082, 18083
TEMPLATE = Template(name="hello", language="en_US", body=(Parameter(text="you"),))
DONE = "SELECT count(*) FILTER (WHERE state = 'accepted'), count(*) FROM messages"


def resident(pid: int) -> tuple[int, float]:
    """Resident memory in MB and CPU seconds."""
    status = Path(f"/proc/{pid}/status").read_text()
    rss = int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) // 1024
    times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return rss, (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")


def started(command: list[str], url: str, **environment: str) -> subprocess.Popen[bytes]:
    """Start a program and wait until it answers."""
    log = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the program
    process = subprocess.Popen([sys.executable, *command], env={**os.environ, **environment}, stderr=log)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if httpx.get(url).is_success:
                return process
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise RuntimeError(f"{command} did not start")


def publish(amqp_url: str, recipients: int) -> None:
    """Publish the batches."""
    with Client(amqp_url, "/bench") as client:
        for start in range(0, recipients, BATCH):
            people = tuple(
                Recipient(to=f"+1{2_010_000_000 + n}", send_key=f"k{n}") for n in range(start, start + BATCH)
            )
            client.publish(
                BatchRequested(batch_id=f"b{start}", message=TEMPLATE, category="marketing", recipients=people)
            )


def main() -> None:
    """Measure and print."""
    amqp_url, database_url, *given = sys.argv[1:]
    recipients, calls, milliseconds = (int(text) for text in (*given, *DEFAULTS[len(given) :]))
    declare(amqp_url, TOPOLOGY)
    graph = f"http://127.0.0.1:{GRAPH_PORT}"
    simulator = started(
        ["-m", "wch_simulators.graph", "--port", str(GRAPH_PORT), "--latency", str(milliseconds / 1000)],
        f"{graph}/_simulator/journal?path=none",
    )
    service = started(
        ["-m", "wch_whatsapp"],
        f"http://127.0.0.1:{HEALTH_PORT}/readyz",
        WCH_AMQP_URL=amqp_url,
        WCH_DATABASE_URL=database_url,
        WCH_GRAPH_URL=graph,
        WCH_GRAPH_TOKEN="simulated-token",
        WCH_WHATSAPP_PHONE_NUMBER_ID="2002",
        WCH_WHATSAPP_HASH_KEY="a key for the benchmark",
        WCH_WHATSAPP_RATE="0",
        WCH_WHATSAPP_CALLS_IN_FLIGHT=str(calls),
        WCH_WHATSAPP_MESSAGING_LIMIT="-1",
        WCH_HEALTH_PORT=str(HEALTH_PORT),
        WCH_LOG_LEVEL="ERROR",
    )
    try:
        idle, cpu = resident(service.pid)
        began, most, last = time.monotonic(), idle, 0.0
        early = (0.0, 0)
        publish(amqp_url, recipients)
        with psycopg.connect(database_url, autocommit=True, options="-c search_path=whatsapp") as connection:
            while True:
                accepted, known = connection.execute(DONE).fetchone() or (0, 0)
                most = max(most, resident(service.pid)[0])
                if time.monotonic() - last > 10:
                    last = time.monotonic()
                    print(f"{last - began:6.0f} s  {known} known  {accepted} sent  {most} MB", flush=True)
                if not early[1] and accepted >= recipients / 10:
                    early = (time.monotonic(), accepted)
                if accepted == recipients:
                    break
                time.sleep(0.1)
        seconds = time.monotonic() - began
        used = resident(service.pid)[1] - cpu
        print(
            f"{recipients} recipients in {seconds:.0f} s; after the first tenth "
            f"{(recipients - early[1]) / (time.monotonic() - early[0]):.0f} a second (the calls alone: {1000 * calls / milliseconds:.0f}), "
            f"{1e6 * used / recipients:.0f} µs CPU each, {idle} MB idle, {most} MB at most"
        )
    finally:
        for process in (service, simulator):
            process.terminate()
            process.wait(60)


if __name__ == "__main__":
    main()
