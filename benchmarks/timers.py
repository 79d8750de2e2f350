"""Measures a million timers, 10,000 of them due in one second: `python benchmarks/timers.py AMQP_URL DATABASE_URL [TIMERS [AT_ONCE]]`.

Prints the duration of the release at the default rate, the service's memory and CPU, and the delay of single timers at low load.
Needs an empty virtual host and an empty database.
"""

from __future__ import annotations

import sys
import time
from datetime import timedelta

import psycopg
from measuring import Load, running

from wch_common.broker.blocking.declare import declare
from wch_common.client import Client
from wch_common.events.carts import CleanupRequested
from wch_scheduler.topology import TOPOLOGY

HEALTH_PORT = 18085
SINGLE = 200
DELAY = timedelta(seconds=1)
FILL = """
INSERT INTO timers (id, requester, key, due_at, event, state, requested_at)
SELECT gen_random_uuid(), 'bench' || n %% 10, 'k' || n,
       CASE WHEN n <= %(now)s THEN now() + interval '5 seconds' ELSE now() + interval '1 day' + n * interval '1 second' END,
       '{"type": "carts.cleanup.requested.v1", "data": {}, "shop": null}', 'waiting', now() FROM generate_series(1, %(timers)s) AS n
"""
LATE = "SELECT extract(epoch FROM ended_at - due_at)::float8 FROM timers WHERE state = 'fired' ORDER BY 1"


def main() -> None:
    """Measure and print the figures."""
    amqp_url, database_url, *options = sys.argv[1:]
    timers, at_once = (int(text) for text in (*options, *("1000000", "10000")[len(options) :]))
    declare(amqp_url, TOPOLOGY)
    user = amqp_url.removeprefix("amqp://").partition(":")[0]
    environment = {"WCH_LOG_LEVEL": "ERROR", "WCH_SCHEDULER_REQUESTERS": f'{{"{user}": ["carts.*"]}}'}
    environment |= {
        "WCH_AMQP_URL": amqp_url,
        "WCH_DATABASE_URL": database_url,
        "WCH_PERSON_HASH_KEY": "a key for the benchmark",
        "WCH_HEALTH_PORT": str(HEALTH_PORT),
    }
    with (
        running(["-m", "wch_scheduler"], f"http://127.0.0.1:{HEALTH_PORT}/readyz", **environment) as service,
        psycopg.connect(database_url, autocommit=True, options="-c search_path=scheduler") as connection,
    ):
        connection.execute(FILL, {"timers": timers, "now": at_once})
        connection.execute("VACUUM ANALYZE timers")
        load, started, began = Load(service, connection), 0.0, time.monotonic()
        while (fired := count(connection, "SELECT count(*) FROM timers WHERE state = 'fired'")) < at_once:
            started = started or (time.monotonic() if fired else 0.0)
            load.sample()
            time.sleep(0.05)
        seconds = time.monotonic() - (started or began)  # few timers can all fire before the first poll
        print(
            f"{at_once} of {timers} timers due at once: released in {seconds:.1f} s, {at_once / seconds:.0f} a second, "
            f"{load.summary(at_once)}"
        )
        connection.execute("DELETE FROM timers WHERE state = 'fired'")
        with Client(amqp_url, "/bench") as client:
            for number in range(SINGLE):
                client.schedule(CleanupRequested(), key=f"single{number}", after=DELAY)
                time.sleep(0.05)
        while count(connection, "SELECT count(*) FROM timers WHERE state = 'fired'") < SINGLE:
            time.sleep(0.1)
        late = [row[0] for row in connection.execute(LATE).fetchall()]
        print(
            f"{SINGLE} single timers, 20 a second: late by {1000 * late[len(late) // 2]:.0f} ms (p50), "
            f"{1000 * late[int(len(late) * 0.99)]:.0f} ms (p99)"
        )


def count(connection: psycopg.Connection[tuple[int]], statement: str) -> int:
    """Return the number that a statement selects."""
    row = connection.execute(statement).fetchone()
    return row[0] if row else 0


if __name__ == "__main__":
    main()
