"""Cleaning up and scanning a million carts: `python benchmarks/carts.py AMQP_URL DATABASE_URL [CARTS [EXPIRED]]`.

CARTS (1,000,000) in the database, EXPIRED (300,000) of them past their expiry. Prints how long a cleanup takes, how long an update
beside it waits, how long a scan of 10,000 idle carts takes, and the service's memory and CPU. Give it an empty virtual host and an
empty database of its own.
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
# Customers change carts beside it, also such as are being deleted.
BESIDE = "UPDATE carts SET customer_name = 'Eve' WHERE cart_id = %s"


def main() -> None:
    """Measure and print."""
    amqp_url, database_url, *given = sys.argv[1:]
    carts, expired = (int(text) for text in (*given, *("1000000", "300000")[len(given) :]))
    declare(amqp_url, TOPOLOGY)
    environment = {"WCH_CARTS_QUIET_FROM": "00:00", "WCH_CARTS_QUIET_UNTIL": "00:00", "WCH_LOG_LEVEL": "ERROR"}
    environment |= {"WCH_AMQP_URL": amqp_url, "WCH_DATABASE_URL": database_url, "WCH_HEALTH_PORT": str(HEALTH_PORT)}
    with running(["-m", "wch_carts"], f"http://127.0.0.1:{HEALTH_PORT}/readyz", **environment) as service:
        options = "-c search_path=carts"
        with (
            Client(amqp_url, "/bench") as client,
            psycopg.connect(database_url, autocommit=True, options=options) as connection,
        ):
            connection.execute(FILL, {"carts": carts, "expired": expired, "idle": IDLE})
            names = [(cart_uuid("", f"c{n}"), f"c{n}") for n in range(carts - IDLE + 1, carts + 1)]
            connection.cursor().executemany("UPDATE carts SET id = %s WHERE cart_id = %s", names)
            connection.execute("VACUUM ANALYZE carts")
            load = Load(service, connection)
            client.publish(CleanupRequested())
            seconds, waited = watch(connection, load, carts)
            print(
                f"cleanup of {expired} of {carts}: {seconds:.1f} s, an update beside it waited {1000 * waited:.0f} ms at most; "
                f"{load.told(expired)}"
            )
            load, began = Load(service, connection), time.monotonic()
            client.publish(ReminderScanRequested())
            while connection.execute("SELECT count(*) FROM reminders").fetchone() != (IDLE,):
                time.sleep(0.05)
            claimed = time.monotonic() - began
            while connection.execute("SELECT count(*) FROM reminders WHERE state = 'asked'").fetchone() != (IDLE,):
                time.sleep(0.1)
            asked = time.monotonic() - began
            print(
                f"scan of {carts - expired}: {IDLE} idle carts taken up in {claimed:.1f} s, whatsapp asked for all in {asked:.1f} s; "
                f"{load.told(IDLE)}"
            )


def watch(connection: psycopg.Connection[tuple[object, ...]], load: Load, carts: int) -> tuple[float, float]:
    """Return how long the cleanup took, and the longest an update beside it took."""
    began, waited, number = time.monotonic(), 0.0, 0
    while connection.execute("SELECT 1 FROM cleanups WHERE ended_at IS NOT NULL").fetchone() is None:
        number += 1
        before = time.monotonic()
        connection.execute(BESIDE, (f"c{1 + number * 7919 % carts}",))
        waited = max(waited, time.monotonic() - before)
        load.look()
        time.sleep(0.002)
    return time.monotonic() - began, waited


if __name__ == "__main__":
    main()
