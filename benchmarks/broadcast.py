"""Campaigns: `python benchmarks/broadcast.py AMQP_URL DATABASE_URL RECIPIENTS [PAUSE [BATCH]]`.

Uploads a file of recipients with `wch campaigns import` and runs a campaign to it through broadcast and whatsapp against a simulator that answers in 20 ms; PAUSE (0) is in
seconds, BATCH (50) in recipients; with a PAUSE of `none` the list is uploaded and the campaign planned, and nothing is sent. Give
it an empty virtual host and an empty database of its own.
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


def wait(connection: psycopg.Connection, statement: str, load: Load, said: str) -> tuple[object, ...]:
    """Wait until a statement returns a row, and say every ten seconds how far it is."""
    last = time.monotonic()
    while True:
        load.look()
        if row := connection.execute(statement).fetchone():
            return row
        if time.monotonic() - last > 10:
            last = time.monotonic()
            print(f"  {said}: {connection.execute(SENT).fetchone()} sent, {load.most} MB", flush=True)
        time.sleep(0.2)


def imported(amqp_url: str, recipients: int) -> str:
    """Upload a file of so many lines with the operator's command, and return what that took."""
    with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
        file.write("to,body1\n")
        file.writelines(f"+1{2_010_000_000 + n},Guest {n}\n" for n in range(recipients))
        file.flush()
        command = [str(Path(sys.executable).with_name("wch")), "campaigns", "import", "everybody", file.name]
        process = subprocess.Popen(command, env=os.environ | {"WCH_AMQP_URL": amqp_url})
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError("the list was not uploaded")
    return f"{1e6 * (usage.ru_utime + usage.ru_stime) / recipients:.0f} µs CPU a line, {usage.ru_maxrss // 1024} MB at most"


def send(programs: ExitStack, common: dict[str, str]) -> None:
    """Have whatsapp send, to a simulator that answers in 20 ms."""
    graph = f"http://127.0.0.1:{GRAPH_PORT}"
    simulator = ["-m", "wch_simulators.graph", "--port", str(GRAPH_PORT), "--latency", "0.02"]
    programs.enter_context(running(simulator, f"{graph}/_simulator/journal?path=none"))
    environment = {"WCH_GRAPH_URL": graph, "WCH_GRAPH_TOKEN": "simulated-token"}
    environment |= {"WCH_WHATSAPP_PHONE_NUMBER_IDS": "2002", "WCH_WHATSAPP_HASH_KEY": "a key for the benchmark"}
    environment |= {"WCH_WHATSAPP_RATE": "0", "WCH_WHATSAPP_MESSAGING_LIMIT": "-1"}
    environment |= {"WCH_HEALTH_PORT": str(HEALTH_PORT)}
    ready = f"http://127.0.0.1:{HEALTH_PORT}/readyz"
    programs.enter_context(running(["-m", "wch_whatsapp"], ready, **common, **environment))


def main() -> None:
    """Measure and print."""
    amqp_url, database_url, count, *given = sys.argv[1:]
    recipients, pause = int(count), given[0] if given else "0"
    batch = int(given[1]) if len(given) > 1 else 50
    declare(amqp_url, TOPOLOGY)
    declare(amqp_url, WHATSAPP)
    common = {"WCH_AMQP_URL": amqp_url, "WCH_DATABASE_URL": database_url, "WCH_LOG_LEVEL": "ERROR"}
    with ExitStack() as programs:
        if pause != "none":
            send(programs, common)
        ready = f"http://127.0.0.1:{BROADCAST_PORT}/readyz"
        asking = running(["-m", "wch_broadcast"], ready, WCH_HEALTH_PORT=str(BROADCAST_PORT), **common)
        service = programs.enter_context(asking)
        began = time.monotonic()
        with (
            Client(amqp_url, "/bench") as client,
            psycopg.connect(database_url, autocommit=True, options="-c search_path=broadcast") as connection,
        ):
            load = Load(service, connection)
            taken = imported(amqp_url, recipients)
            wait(connection, "SELECT 1 FROM lists WHERE complete_at IS NOT NULL", load, "uploading")
            print(
                f"a list of {recipients}: {time.monotonic() - began:.1f} s, {load.told(recipients)}; the command: {taken}"
            )
            load = Load(service, connection)
            client.publish(
                CampaignRequested(
                    campaign_id="all",
                    list_id="everybody",
                    message=TEMPLATE,
                    category="marketing",
                    batch_size=batch,
                    pause_seconds=0.0 if pause == "none" else float(pause),
                )
            )
            began = time.monotonic()
            if pause == "none":
                wait(connection, "SELECT 1 FROM batches", load, "planning")
                print(f"a campaign to them: {time.monotonic() - began:.2f} s to its first batches, {load.most} MB")
                return
            wait(connection, "SELECT 1 FROM campaigns WHERE ended_at IS NOT NULL", load, "sending")
            print(
                f"a campaign to them: {connection.execute(STATE).fetchone()}, {connection.execute(SENT).fetchone()} sent; "
                f"{load.told(recipients)}"
            )


if __name__ == "__main__":
    main()
