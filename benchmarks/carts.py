"""Measures a cleanup and a scan of a million carts: `python benchmarks/carts.py AMQP_URL DATABASE_URL [CARTS [EXPIRED]]`.

Fills the database with CARTS (1,000,000) carts, of which EXPIRED (300,000) have expired. Prints the duration of a cleanup, the longest
wait of a concurrent update, the duration of a scan for 10,000 idle carts, and the service's memory and CPU. Needs an empty virtual host
and an empty database.
"""

from __future__ import annotations

import sys
import time

import psycopg
from measuring import Load, running

from wch_carts.identity import cart_uuid
from wch_carts.topology import TOPOLOGY
from wch_common.broker.blocking.declare import declare
from wch_common.client import Client
from wch_common.events.carts import CleanupRequested, ReminderScanRequested

HEALTH_PORT = 18084
IDLE = 10_000
FILL = """
INSERT INTO carts (id, shop, cart_id, version, updated_version, filled_version, status, phone, person, customer_name, items,
                   item_count, total, currency, remindable, expires_at, idle_since, updated_at)
SELECT gen_random_uuid(), '', 'c' || n, 1, 1, 1, 'active', '+1555' || lpad(n::text, 7, '0'), '+1555' || lpad(n::text, 7, '0'), 'Ada',
       '[{"name": "Tee", "price": "9.95", "quantity": 2, "product_id": 1}]', 1, 19.90, 'EUR', n > %(carts)s - %(idle)s,
       CASE WHEN n <= %(expired)s THEN now() - interval '1 hour' ELSE now() + interval '60 hours' END,
       now() - CASE WHEN n > %(carts)s - %(idle)s THEN interval '5 hours' ELSE interval '50 hours' END, now() - interval '5 hours'
FROM generate_series(1, %(carts)s) AS n
"""
# Customers change carts during the cleanup, including those that the cleanup deletes.
CONCURRENT = "UPDATE carts SET customer_name = 'Eve' WHERE cart_id = %s"


def main() -> None:
    """Measure and print the figures."""
    amqp_url, database_url, *options = sys.argv[1:]
    carts, expired = (int(text) for text in (*options, *("1000000", "300000")[len(options) :]))
    declare(amqp_url, TOPOLOGY)
    environment = {"WCH_CARTS_QUIET_FROM": "00:00", "WCH_CARTS_QUIET_UNTIL": "00:00", "WCH_LOG_LEVEL": "ERROR"}
    environment |= {"WCH_CARTS_MOST_PER_HOUR": "10000000"}
    environment |= {
        "WCH_AMQP_URL": amqp_url,
        "WCH_DATABASE_URL": database_url,
        "WCH_PERSON_HASH_KEY": "a key for the benchmark",
        "WCH_HEALTH_PORT": str(HEALTH_PORT),
    }
    with running(["-m", "wch_carts"], f"http://127.0.0.1:{HEALTH_PORT}/readyz", **environment) as service:
        search_path = "-c search_path=carts"
        with (
            Client(amqp_url, "/bench") as client,
            psycopg.connect(database_url, autocommit=True, options=search_path) as connection,
        ):
            connection.execute(FILL, {"carts": carts, "expired": expired, "idle": IDLE})
            names = [(cart_uuid("", f"c{n}"), f"c{n}") for n in range(carts - IDLE + 1, carts + 1)]
            connection.cursor().executemany("UPDATE carts SET id = %s WHERE cart_id = %s", names)
            connection.execute("VACUUM ANALYZE carts")
            load = Load(service, connection)
            client.publish(CleanupRequested())
            seconds, waited = watch(connection, load, carts)
            print(
                f"cleanup of {expired} of {carts}: {seconds:.1f} s, a concurrent update waited at most {1000 * waited:.0f} ms; "
                f"{load.summary(expired)}"
            )
            load, started = Load(service, connection), time.monotonic()
            client.publish(ReminderScanRequested())
            while connection.execute("SELECT count(*) FROM reminders").fetchone() != (IDLE,):
                time.sleep(0.05)
            claimed = time.monotonic() - started
            while connection.execute("SELECT count(*) FROM reminders WHERE state = 'requested'").fetchone() != (IDLE,):
                time.sleep(0.1)
            requested = time.monotonic() - started
            print(
                f"scan of {carts - expired}: {IDLE} idle carts claimed in {claimed:.1f} s, all reminders requested in {requested:.1f} s; "
                f"{load.summary(IDLE)}"
            )


def watch(connection: psycopg.Connection[tuple[object, ...]], load: Load, carts: int) -> tuple[float, float]:
    """Return the duration of the cleanup and of the slowest concurrent update, both in seconds."""
    started, waited, number = time.monotonic(), 0.0, 0
    while connection.execute("SELECT 1 FROM cleanups WHERE ended_at IS NOT NULL").fetchone() is None:
        number += 1
        before = time.monotonic()
        connection.execute(CONCURRENT, (f"c{1 + number * 7919 % carts}",))
        waited = max(waited, time.monotonic() - before)
        load.sample()
        time.sleep(0.002)
    return time.monotonic() - started, waited


if __name__ == "__main__":
    main()
