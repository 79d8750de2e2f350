"""The sync service as a process: started as in production, killed and restarted; `make scale` uses larger numbers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from support.crashing_sync import STEPS
from support.ports import own_port
from support.process import Program
from support.stage import Stage
from support.sync_stage import CATALOG, SyncStage
from support.waiting import eventually
from wch_simulators.shop import product

FULL = os.environ.get("WCH_TEST_SCALE") == "full"
PRODUCTS = 10_000 if FULL else 1_500
SECONDS = 600 if FULL else 90
SIGKILLED = -9


@pytest.fixture
def sync(stage: Stage, database_url: str) -> Iterator[SyncStage]:
    made = SyncStage(stage, database_url)
    yield made
    made.close()


class Service:
    """`python -m wch_sync`, with its settings in the environment."""

    def __init__(self, sync: SyncStage, log: Path, **changes: str) -> None:
        self.port = own_port()
        self._settings = {
            "WCH_AMQP_URL": sync.stage.url,
            "WCH_DATABASE_URL": sync.database_url,
            "WCH_WOOCOMMERCE_URL": sync.shop_url,
            "WCH_WOOCOMMERCE_CONSUMER_KEY": sync.shop.key,
            "WCH_WOOCOMMERCE_CONSUMER_SECRET": sync.shop.secret,
            "WCH_GRAPH_URL": sync.graph_url,
            "WCH_GRAPH_TOKEN": sync.graph.token,
            "WCH_CATALOG_ID": CATALOG,
            "WCH_CATALOG_POLL_SECONDS": "0.1",
            "WCH_SYNC_PRODUCT_BATCH_WINDOW": "2",
            "WCH_HEALTH_HOST": "127.0.0.1",
            "WCH_HEALTH_PORT": str(self.port),
        } | changes
        self._log = log

    def run(self, module: str, *arguments: str) -> Program:
        """Start a module with its settings."""
        return Program(module, *arguments, log=self._log, **self._settings)

    def start(self) -> Program:
        """Start it and wait until it is ready."""
        program = self.run("wch_sync")
        eventually(lambda: not program.is_running or self.get("/readyz"), "the service is ready")
        assert program.is_running, self._log.read_text()
        return program

    def get(self, path: str) -> str:
        """Return the answer of its health port, or an empty text if that is not a success."""
        try:
            answer = httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=5)
        except httpx.HTTPError:
            return ""
        return answer.text if answer.is_success else ""


def more_calls_than(sync: SyncStage, calls: int) -> bool:
    return len(sync.batches) > calls


def resident_megabytes(program: Program) -> float:
    """Return the peak resident memory of the process, or 0 if the system does not report it."""
    status = Path(f"/proc/{program.pid}/status")
    if not status.exists():
        return 0.0
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) / 1024


@pytest.mark.scale
@pytest.mark.timeout(SECONDS + 900)
def test_many_products_take_few_calls_and_bounded_memory(sync: SyncStage, tmp_path: Path) -> None:
    sync.add(product(id_) for id_ in range(1, PRODUCTS + 1))
    with Service(sync, tmp_path / "log").start() as program:
        before = resident_megabytes(program)
        sync.request(*range(1, PRODUCTS + 1))
        eventually(lambda: len(sync.catalog) == PRODUCTS, "every product is in the catalog", seconds=SECONDS)
        eventually(lambda: sync.query("SELECT count(*) FROM inbox") == [(PRODUCTS,)], seconds=SECONDS)
        peak = resident_megabytes(program)
        print(
            f"{PRODUCTS} products: {len(sync.batches)} items_batch calls, {before:.0f} MB idle, {peak:.0f} MB at most"
        )
        assert program.terminate() == 0, (tmp_path / "log").read_text()
    assert len(sync.batches) <= PRODUCTS // 1000 + 2
    assert peak < 300
    sync.stage.await_depth("facts", PRODUCTS, seconds=SECONDS)
    assert sync.stage.depth("sync.product") == sync.stage.depth("sync.product.dlq") == 0


@pytest.mark.scale
@pytest.mark.timeout(SECONDS + 900)
def test_nothing_is_lost_when_the_service_is_killed_in_the_middle(sync: SyncStage, tmp_path: Path) -> None:
    sync.add(product(id_) for id_ in range(1, PRODUCTS + 1))
    service = Service(sync, tmp_path / "log", WCH_SYNC_PRODUCT_BATCH_SIZE=str(PRODUCTS // 6))
    sync.request(*range(1, PRODUCTS + 1))
    for _ in range(3):
        with service.start() as program:
            eventually(partial(more_calls_than, sync, len(sync.batches)), "a call is in flight")
            program.kill()
        # The leases of a dead holder expire after 60 and 90 s; the test expires them at once.
        sync.query("UPDATE leases SET until = now(); UPDATE outbox SET due_at = now()")
    with service.start() as program:
        eventually(lambda: sync.query("SELECT count(*) FROM inbox") == [(PRODUCTS,)], seconds=SECONDS)
        eventually(lambda: sync.query("SELECT count(*) FROM outbox") == [(0,)], seconds=SECONDS)
        assert program.terminate() == 0
    assert len(sync.catalog) == PRODUCTS
    assert sync.query("SELECT count(*) FROM in_flight") == [(0,)]
    assert sync.stage.depth("sync.product") == sync.stage.depth("sync.product.dlq") == 0
    # After a kill, a fact may be published twice under the same id.
    facts = sync.facts()
    assert {fact["data"]["product_id"] for fact in facts} == set(range(1, PRODUCTS + 1))
    assert len({fact["id"] for fact in facts}) == PRODUCTS


@pytest.mark.parametrize("step", STEPS)
def test_the_catalog_ends_with_the_newest_state_whatever_step_the_process_is_killed_at(
    sync: SyncStage, tmp_path: Path, step: str
) -> None:
    """Each event has one result, no product stays in flight, and a change after the kill is not overwritten."""
    sync.add([product(1), product(2)])
    service = Service(sync, tmp_path / "log", WCH_SYNC_PRODUCT_BATCH_WINDOW="0.2")
    sync.request(1, 2)
    with service.run("support.crashing_sync", step) as dying:
        assert dying.wait() == SIGKILLED, (tmp_path / "log").read_text()
    sync.add([product(1, price="77.00", regular_price="77.00"), product(2)])
    sync.request(1)
    # The leases of a dead holder expire after 60 and 120 s; the test expires them at once.
    sync.query("UPDATE leases SET until = now(); UPDATE outbox SET due_at = now()")
    with service.start() as program:
        eventually(lambda: sync.query("SELECT count(*) FROM inbox") == [(3,)], "every event is done")
        eventually(lambda: sync.query("SELECT count(*) FROM outbox") == [(0,)], "every fact is published")
        assert program.terminate() == 0
    assert sync.catalog["wc_1"]["price"] == "77.00 EUR"
    assert set(sync.catalog) == {"wc_1", "wc_2"}
    assert sync.query("SELECT count(*) FROM in_flight") == [(0,)]
    assert sync.stage.depth("sync.product") == sync.stage.depth("sync.product.dlq") == 0
    assert {fact["data"]["product_id"] for fact in sync.facts()} == {1, 2}


def test_missing_settings_stop_the_process_at_once(tmp_path: Path) -> None:
    names = {name: "" for name in os.environ if name.startswith("WCH_")}
    with Program("wch_sync", log=tmp_path / "log", **names) as program:
        assert program.wait() == 2
    assert "WCH_WOOCOMMERCE_URL" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("away", ["WCH_AMQP_URL", "WCH_DATABASE_URL"])
def test_a_stop_is_obeyed_while_broker_or_database_is_unreachable_at_the_start(
    sync: SyncStage, tmp_path: Path, away: str
) -> None:
    scheme = "amqp" if away == "WCH_AMQP_URL" else "postgresql"
    log = tmp_path / "log"
    service = Service(sync, log, **{away: f"{scheme}://guest:guest@127.0.0.1:1/x"})
    with service.run("wch_sync") as program:
        eventually(lambda: "unreachable" in log.read_text(), "it tries to connect")
        assert program.terminate() == 0, log.read_text()
    assert '"stopped"' in log.read_text()


@pytest.mark.parametrize(
    ("setting", "value"),
    [("WCH_DATABASE_URL", "nonsense"), ("WCH_AMQP_URL", "http://x"), ("WCH_HEALTH_HOST", "192.0.2.77")],
)
def test_a_wrong_address_stops_the_process_with_one_sentence(
    sync: SyncStage, tmp_path: Path, setting: str, value: str
) -> None:
    log = tmp_path / "log"
    with Service(sync, log, **{setting: value}).run("wch_sync") as program:
        assert program.wait() in {1, 2}
    assert "Traceback" not in log.read_text()
    assert setting in log.read_text() or "amqp://" in log.read_text()


def test_the_process_serves_health_and_metrics(sync: SyncStage, tmp_path: Path) -> None:
    service = Service(sync, tmp_path / "log")
    sync.add([product(7)])
    with service.start() as program:
        sync.request(7)
        eventually(lambda: 'outcome="done"' in service.get("/metrics"), "the metric counts the event")
        assert service.get("/healthz") == "ok\n"
        sync.stage.delete_queue("sync.product")
        eventually(lambda: not service.get("/readyz"), "a process that does not consume is not ready")
        assert service.get("/healthz") == "ok\n"
        assert program.terminate() == 0
    log = (tmp_path / "log").read_text()
    assert sync.shop.secret not in log
    assert sync.graph.token not in log
    assert "Traceback" not in log
