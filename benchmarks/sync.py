"""Measures a sync of all products: `python benchmarks/sync.py AMQP_URL DATABASE_URL [PRODUCTS]`.

Requests PRODUCTS (100,000) products one by one; the service copies them from a simulated shop to a simulated catalog. Needs an
empty virtual host and an empty database.
"""

from __future__ import annotations

import sys
import time

import httpx
import psycopg
from measuring import Load, running

from wch_common.broker.blocking.declare import declare
from wch_common.client import Client
from wch_common.events.sync import ProductRequested
from wch_sync.topology import TOPOLOGY

SHOP_PORT, GRAPH_PORT, HEALTH_PORT = 18086, 18087, 18088
CHUNK = 5_000
DONE = "SELECT count(DISTINCT product_id) FROM sent_items"


def main() -> None:
    """Measure and print the figures."""
    amqp_url, database_url, *options = sys.argv[1:]
    products = int(options[0]) if options else 100_000
    declare(amqp_url, TOPOLOGY)
    shop, graph = f"http://127.0.0.1:{SHOP_PORT}", f"http://127.0.0.1:{GRAPH_PORT}"
    shops = running(["-m", "wch_simulators.shop", "--port", str(SHOP_PORT)], f"{shop}/_simulator/journal?path=none")
    graphs = running(["-m", "wch_simulators.graph", "--port", str(GRAPH_PORT)], f"{graph}/_simulator/journal?path=none")
    environment = {"WCH_AMQP_URL": amqp_url, "WCH_DATABASE_URL": database_url, "WCH_LOG_LEVEL": "ERROR"}
    environment |= {"WCH_WOOCOMMERCE_URL": shop, "WCH_WOOCOMMERCE_CONSUMER_KEY": "ck_simulated"}
    environment |= {"WCH_WOOCOMMERCE_CONSUMER_SECRET": "cs_simulated", "WCH_GRAPH_URL": graph, "WCH_CATALOG_ID": "1001"}
    environment |= {"WCH_GRAPH_TOKEN": "simulated-token", "WCH_HEALTH_PORT": str(HEALTH_PORT)}
    with shops, graphs:
        for start in range(1, products + 1, CHUNK):
            chunk = [{"id": number} for number in range(start, min(start + CHUNK, products + 1))]
            httpx.post(f"{shop}/_simulator/products", json={"products": chunk}, timeout=60).raise_for_status()
        with (
            running(["-m", "wch_sync"], f"http://127.0.0.1:{HEALTH_PORT}/readyz", **environment) as service,
            psycopg.connect(database_url, autocommit=True, options="-c search_path=sync") as connection,
            Client(amqp_url, "/bench") as client,
        ):
            load, started = Load(service, connection), time.monotonic()
            client.publish_many(ProductRequested(product_id=number) for number in range(1, products + 1))
            published, last = time.monotonic() - started, 0.0
            while (row := connection.execute(DONE).fetchone()) and row[0] < products:
                load.sample()
                if time.monotonic() - last > 10:
                    last = time.monotonic()
                    print(f"{last - started:6.0f} s  {row[0]} synced, {load.peak} MB", flush=True)
                time.sleep(0.2)
            seconds = time.monotonic() - started
            calls = len(httpx.get(f"{graph}/_simulator/journal?path=items_batch", timeout=60).json())
            print(
                f"{products} products in {seconds:.0f} s (published in {published:.0f} s), {calls} calls to the catalog; {load.summary(products)}"
            )


if __name__ == "__main__":
    main()
