"""A database that is slow, silent, full or read-only: every wait ends, no try is spent, and work goes on by itself."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from structlog.testing import capture_logs

from support.demo_events import ThingRequested
from support.stage import Stage
from support.store_scene import Scene, record
from support.waiting import PATIENCE_SECONDS, eventually
from wch_common.contract.event import Event
from wch_common.contract.message import Publication
from wch_common.errors import DatabaseAway, DatabaseSlow
from wch_common.store import database as module
from wch_common.store.database import MOST_CONNECTIONS, Database, connection_parameters
from wch_common.store.migrate import migrate
from wch_common.store.store import Store, Transaction


@pytest.fixture
def scene(stage: Stage, database_url: str) -> Iterator[Scene]:
    scene = Scene(stage, database_url)
    yield scene
    stage.stop()


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Store]:
    async def publish(_publication: Publication) -> None:
        return

    store = Store(url, "demo", publish)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def run(url: str, work: Callable[[Store], Awaitable[None]]) -> None:
    """Run something with a store of its own, within the tests' patience."""

    async def main() -> None:
        async with asyncio.timeout(PATIENCE_SECONDS), opened(url) as store:
            await work(store)

    migrate(url, "demo", ())
    asyncio.run(main())


def session(monkeypatch: pytest.MonkeyPatch, **limits: str) -> None:
    """Change the session's limits, of which the tests would otherwise wait for seconds."""
    monkeypatch.setattr(module, "_SESSION", {**module._SESSION, **limits})


LIMITS = """
SELECT setting FROM pg_settings
WHERE name IN ('idle_in_transaction_session_timeout', 'lock_timeout', 'statement_timeout') ORDER BY name
"""


def test_what_an_address_says_about_network_and_session_is_kept() -> None:
    found = conninfo_to_dict(connection_parameters("postgresql://h/d?connect_timeout=9&keepalives_idle=60"))
    assert (found["connect_timeout"], found["keepalives_idle"], found["tcp_user_timeout"]) == ("9", "60", "10000")
    options = module._options("postgresql://h/d?options=-c%20lock_timeout%3D77s", "demo")
    assert options.index("lock_timeout=10s") < options.index("lock_timeout=77s")


def test_every_session_has_limits(database_url: str) -> None:
    async def work(store: Store) -> None:
        for reserved in (False, True):
            rows = await store.database.rows(LIMITS, reserved=reserved)
            assert [row["setting"] for row in rows] == ["10000", "10000", "30000"]

    run(database_url, work)


class Proxy:
    """Forwards connections to a database server, until it is told to forget those that are open."""

    def __init__(self, url: str, folder: Path) -> None:
        parameters = conninfo_to_dict(url)
        self._target = f"{parameters['host']}/.s.PGSQL.{parameters.get('port', 5432)}"
        self._folder = folder
        self._silent: set[asyncio.Event] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self.url = make_conninfo(url, host=str(folder), port=5432)

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, f"{self._folder}/.s.PGSQL.5432")

    async def stop(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    def forget(self) -> None:
        """Forward nothing more on the connections that are open, without closing them."""
        for silent in self._silent:
            silent.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        silent = asyncio.Event()
        self._silent.add(silent)
        there, back = await asyncio.open_unix_connection(self._target)
        self._writers += (writer, back)
        await asyncio.gather(self._copy(reader, back, silent), self._copy(there, writer, silent))

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, silent: asyncio.Event) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                if silent.is_set():
                    return
                writer.write(data)
                await writer.drain()
            writer.close()


def test_a_connection_that_a_proxy_has_forgotten_is_closed(
    database_url: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module._Connection, "answer_seconds", 0.5)
    proxy = Proxy(database_url, tmp_path_factory.mktemp("p"))
    migrate(database_url, "demo", ())

    async def main() -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await proxy.start()
            async with stopping(proxy), opened(proxy.url) as store:
                await store.database.rows("SELECT 1")
                proxy.forget()
                with pytest.raises(DatabaseAway, match="no answer in"):
                    await store.database.rows("SELECT 2")
                await until_answered(store)
                with pytest.raises(DatabaseAway, match="no answer in"):
                    await forgotten_within(store, proxy)
                await until_answered(store)

    asyncio.run(main())


@asynccontextmanager
async def stopping(proxy: Proxy) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await proxy.stop()


async def forgotten_within(store: Store, proxy: Proxy) -> None:
    async with store.transaction() as tx:
        proxy.forget()
        await tx.rows("SELECT 3")


async def until_answered(store: Store) -> None:
    """Ask until a connection of the pool answers; those that were idle when they were forgotten are found out one by one."""
    while True:
        with suppress(DatabaseAway):
            await store.database.rows("SELECT 1")
            return


def test_a_process_that_stands_still_in_a_transaction_loses_its_locks(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    session(monkeypatch, idle_in_transaction_session_timeout="200ms")
    update = "UPDATE leases SET token = token + 1 WHERE name = 'row' RETURNING token"

    async def work(store: Store) -> None:
        await store.database.rows("INSERT INTO leases (name, holder, token, until) VALUES ('row', '', 0, now())")
        with pytest.raises(DatabaseSlow):
            await stand_still(store, update)
        assert await store.database.rows("SELECT token FROM leases") == [{"token": 1}], (
            "the first one's change is undone"
        )

    run(database_url, work)


async def stand_still(store: Store, update: str) -> None:
    """Update a row, and go on when another transaction has updated it."""
    async with store.transaction() as frozen:
        await frozen.rows(update)
        async with store.transaction() as other:
            await other.rows(update)
        await frozen.rows(update)


def test_leases_need_no_connection_of_the_handlers(database_url: str) -> None:
    async def work(store: Store) -> None:
        held = [store.database.connection() for _ in range(MOST_CONNECTIONS)]
        for one in held:
            await one.__aenter__()
        async with store.lease("one", seconds=30) as lease:
            assert lease is not None
        async with store.transaction(reserved=True) as tx:
            await tx.rows("SELECT 1")
        for one in held:
            await one.__aexit__(None, None, None)

    run(database_url, work)


def test_confirmed_rows_are_deleted_later_if_the_database_ends_the_statement(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    session(monkeypatch, lock_timeout="100ms")

    async def work(store: Store) -> None:
        await store.database.rows(
            "INSERT INTO outbox (id, exchange, routing_key, signed, body, due_at) VALUES ('1', '', '', false, '', now())"
        )
        store.outbox._confirmed.append("1")
        with psycopg.connect(database_url) as other:
            other.execute("LOCK TABLE demo.outbox IN SHARE MODE")
            await store.outbox.delete_confirmed()
        assert store.outbox._confirmed == ["1"]
        await store.outbox.delete_confirmed()
        assert await store.unpublished() == 0

    run(database_url, work)


def test_waiting_for_a_lock_spends_no_try_and_does_not_count_for_the_time_limit(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    session(monkeypatch, lock_timeout="300ms")
    attempts: list[int] = []
    waited = threading.Event()

    async def handle(event: Event[ThingRequested], tx: Transaction) -> None:
        attempts.append(event.attempt)
        if len(attempts) > 8:
            waited.set()
        await record(event, tx)

    with psycopg.connect(scene.url) as other, capture_logs() as lines:
        other.execute("LOCK TABLE demo.effects IN SHARE MODE")
        scene.start(handle, time_limit_seconds=0.1, retry_delays=(0.1, 0.2))
        with scene.stage.client() as client:
            client.publish(ThingRequested(number=1))
        eventually(waited.is_set, "it is repeated while the lock is held")
        delays = [line["outcome"] for line in lines if line["event"] == "event_not_done"]
        assert set(delays) == {"delayed"}, "others go on while it waits in a delay queue"
    eventually(lambda: scene.effects() == [1])
    assert set(attempts) == {1}
    assert scene.stage.depth("demo.thing.dlq") == 0


def test_a_handler_that_swallows_its_cancellation_is_cancelled_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wch_common.runtime.worker._CANCEL_AGAIN_SECONDS", 0.1)
    cancelled: list[int] = []

    async def handle(event: Event[ThingRequested], tx: Transaction) -> None:
        for _ in range(3 if event.attempt == 1 else 0):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(event.attempt)
                if len(cancelled) == 3:
                    raise
        await record(event, tx)

    scene.start(handle, time_limit_seconds=0.2)
    with scene.stage.client() as client:
        client.publish(ThingRequested(number=1))
    eventually(lambda: scene.effects() == [1])
    assert cancelled == [1, 1, 1]


def read_only(scene: Scene, switch: str) -> None:
    name = conninfo_to_dict(scene.url)["dbname"]
    with psycopg.connect(make_conninfo(scene.url, dbname="postgres"), autocommit=True) as admin:
        admin.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = {switch}".encode())
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))


def test_consumption_pauses_while_the_database_takes_no_writes(scene: Scene) -> None:
    attempts: list[int] = []

    async def handle(event: Event[ThingRequested], tx: Transaction) -> None:
        attempts.append(event.attempt)
        await record(event, tx)

    running = scene.start(handle)
    read_only(scene, "on")
    with pytest.raises(DatabaseAway, match="read-only"):
        asyncio.run(Database(scene.url, "demo").check())
    with scene.stage.client() as client:
        client.publish_many(ThingRequested(number=number) for number in range(20))
    eventually(lambda: "database: does not answer, or takes no writes" in running.service.not_ready())
    read_only(scene, "off")
    eventually(lambda: scene.effects() == list(range(20)))
    assert set(attempts) <= {1}
    eventually(lambda: running.is_ready)


FULL = """
CREATE FUNCTION demo.full() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$;
CREATE TRIGGER full_disk BEFORE INSERT ON demo.effects FOR EACH ROW EXECUTE FUNCTION demo.full();
"""


def test_a_database_that_answers_and_refuses_the_work_is_tried_less_and_less_often(scene: Scene) -> None:
    """One on a full disk does; the pauses between two tries are of one outage, whose beginning is kept."""
    attempts: list[int] = []

    async def handle(event: Event[ThingRequested], tx: Transaction) -> None:
        attempts.append(event.attempt)
        await record(event, tx)

    running = scene.start(handle, concurrency=1)
    scene.query(FULL)
    gate = running.service._gate
    with scene.stage.client() as client:
        client.publish(ThingRequested(number=1))
    eventually(lambda: gate.closed_since is not None)
    began = gate._began
    eventually(lambda: gate._closings >= 4)
    assert gate._began == began
    scene.query("DROP TRIGGER full_disk ON demo.effects")
    eventually(lambda: scene.effects() == [1])
    assert set(attempts) == {1}
    assert len(attempts) <= gate._closings + 1, "each pause allows one try"


def test_a_process_on_a_database_that_refuses_the_work_ends_after_the_recovery_limit(scene: Scene) -> None:
    scene.query(FULL)
    with capture_logs() as lines:
        running = scene.start(record, recovery_limit_seconds=0.5)
        with scene.stage.client() as client:
            client.publish(ThingRequested(number=1))
        eventually(lambda: not running._thread.is_alive())
    assert running.exit_code == 1
    assert any("not working for" in str(line.get("error")) for line in lines)
