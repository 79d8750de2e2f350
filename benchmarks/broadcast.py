"""Measures a campaign: `python benchmarks/broadcast.py AMQP_URL DATABASE_URL RECIPIENTS [PAUSE [BATCH]]`.

Uploads a file of RECIPIENTS lines with `wch campaigns import`, and runs a campaign to this list through broadcast and whatsapp
against a simulator that answers in 20 ms. PAUSE (0) is in seconds, BATCH (50) in recipients. With a PAUSE of `none` it uploads
the list and plans the campaign, but sends nothing. Needs an empty virtual host and an empty database.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import psycopg
from measuring import Load, running
from whatsapp import GRAPH_PORT, HEALTH_PORT, TEMPLATE

from wch_broadcast.topology import TOPOLOGY
from wch_common.broker.blocking.declare import declare
from wch_common.client import Client
from wch_common.events.broadcast import CampaignRequested
from wch_whatsapp.topology import TOPOLOGY as WHATSAPP

BROADCAST_PORT = 18084
STATE = "SELECT state, ended_at - started_at, batches FROM campaigns"
SENT = "SELECT coalesce(sum((counts->>'accepted/')::int), 0) FROM batches"


def wait(connection: psycopg.Connection, statement: str, load: Load, phase: str) -> tuple[object, ...]:
    """Wait until a statement returns a row and return it; print the progress every ten seconds."""
    last = time.monotonic()
    while True:
        load.sample()
        if row := connection.execute(statement).fetchone():
            return row
        if time.monotonic() - last > 10:
            last = time.monotonic()
            print(f"  {phase}: {connection.execute(SENT).fetchone()} sent, {load.peak} MB", flush=True)
        time.sleep(0.2)


def upload(amqp_url: str, recipients: int) -> str:
    """Upload a file of `recipients` lines with `wch`, and return the CPU time and memory of the command as text."""
    with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
        file.write("to,body1\n")
        file.writelines(f"+1555{n:07d},Guest {n}\n" for n in range(recipients))
        file.flush()
        command = [str(Path(sys.executable).with_name("wch")), "campaigns", "import", "guests", file.name]
        process = subprocess.Popen(command, env=os.environ | {"WCH_AMQP_URL": amqp_url})
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{' '.join(command)} ended with status {status}; its output above says why")
    return f"{1e6 * (usage.ru_utime + usage.ru_stime) / recipients:.0f} µs CPU per line, at most {usage.ru_maxrss // 1024} MB"


def start_sending(programs: ExitStack, common: dict[str, str]) -> None:
    """Start whatsapp and a simulator that answers in 20 ms; `programs` ends both."""
    graph = f"http://127.0.0.1:{GRAPH_PORT}"
    simulator = ["-m", "wch_simulators.graph", "--port", str(GRAPH_PORT), "--latency", "0.02"]
    programs.enter_context(running(simulator, f"{graph}/_simulator/journal?path=none"))
    environment = {"WCH_GRAPH_URL": graph, "WCH_GRAPH_TOKEN": "simulated-token"}
    environment |= {"WCH_WHATSAPP_PHONE_NUMBER_IDS": "2002"}
    environment |= {"WCH_WHATSAPP_RATE": "0", "WCH_WHATSAPP_MESSAGING_LIMIT": "-1"}
    environment |= {"WCH_HEALTH_PORT": str(HEALTH_PORT)}
    ready = f"http://127.0.0.1:{HEALTH_PORT}/readyz"
    programs.enter_context(running(["-m", "wch_whatsapp"], ready, **common, **environment))


def main() -> None:
    """Measure and print the figures."""
    amqp_url, database_url, count, *options = sys.argv[1:]
    recipients, pause = int(count), options[0] if options else "0"
    batch = int(options[1]) if len(options) > 1 else 50
    declare(amqp_url, TOPOLOGY)
    declare(amqp_url, WHATSAPP)
    common = {"WCH_AMQP_URL": amqp_url, "WCH_DATABASE_URL": database_url, "WCH_LOG_LEVEL": "ERROR"}
    common |= {"WCH_PERSON_HASH_KEY": "a key for the benchmark"}
    with ExitStack() as programs:
        if pause != "none":
            start_sending(programs, common)
        ready = f"http://127.0.0.1:{BROADCAST_PORT}/readyz"
        program = running(["-m", "wch_broadcast"], ready, WCH_HEALTH_PORT=str(BROADCAST_PORT), **common)
        service = programs.enter_context(program)
        started = time.monotonic()
        with (
            Client(amqp_url, "/bench") as client,
            psycopg.connect(database_url, autocommit=True, options="-c search_path=broadcast") as connection,
        ):
            load = Load(service, connection)
            usage = upload(amqp_url, recipients)
            wait(connection, "SELECT 1 FROM lists WHERE complete_at IS NOT NULL", load, "uploading")
            print(
                f"a list of {recipients}: {time.monotonic() - started:.1f} s, {load.summary(recipients)}; the command: {usage}"
            )
            load = Load(service, connection)
            client.publish(
                CampaignRequested(
                    campaign_id="all",
                    list_id="guests",
                    message=TEMPLATE,
                    category="marketing",
                    batch_size=batch,
                    pause_seconds=0.0 if pause == "none" else float(pause),
                )
            )
            started = time.monotonic()
            if pause == "none":
                wait(connection, "SELECT 1 FROM batches", load, "planning")
                print(f"a campaign to them: {time.monotonic() - started:.2f} s to its first batches, {load.peak} MB")
                return
            wait(connection, "SELECT 1 FROM campaigns WHERE ended_at IS NOT NULL", load, "sending")
            print(
                f"a campaign to them: {connection.execute(STATE).fetchone()}, {connection.execute(SENT).fetchone()} sent; "
                f"{load.summary(recipients)}"
            )


if __name__ == "__main__":
    main()
