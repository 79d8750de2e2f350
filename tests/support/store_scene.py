"""A service with handlers in transactions, on a stage with a database."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg

from support.demo_events import ThingDone, ThingRequested, thing_queue
from support.stage import RunningService, Stage
from wch_common.contract.event import Event
from wch_common.runtime.job import Job
from wch_common.runtime.service import Platform
from wch_common.settings import ServiceSettings
from wch_common.store.store import Transaction

Handler = Callable[[Event[ThingRequested], Transaction], Awaitable[None]]
EFFECT = "INSERT INTO effects (number) VALUES (%(number)s)"


class Scene:
    """A stage with a database and a service with handlers in transactions."""

    def __init__(self, stage: Stage, database_url: str) -> None:
        self.stage = stage
        self.url = database_url
        self._schema = stage.schema(database_url, "public")
        self.query("CREATE SCHEMA demo; CREATE TABLE demo.effects (number int)")

    def start(
        self,
        handler: Handler,
        *,
        confirm_timeout_seconds: float = 1.0,
        grace_seconds: float = 10.0,
        recovery_limit_seconds: float = 120.0,
        share_limit: int = 1,
        **policy: Any,
    ) -> RunningService:
        """Start a service whose handler runs in transactions, its own or shared by up to `share_limit` events."""

        async def compose(platform: Platform[ServiceSettings]) -> Sequence[Job]:
            store = await platform.open_store(self.url)
            queue = thing_queue(**policy)
            return [Job.in_transaction(queue, {ThingRequested: handler}, store, share_limit=share_limit)]

        return self.stage.start(
            compose,
            confirm_timeout_seconds=confirm_timeout_seconds,
            grace_seconds=grace_seconds,
            recovery_limit_seconds=recovery_limit_seconds,
        )

    def start_plain(self, handler: Callable[[Event[ThingRequested]], Awaitable[None]], **policy: Any) -> RunningService:
        """Start a service that has a store, with a handler outside of transactions."""

        async def compose(platform: Platform[ServiceSettings]) -> Sequence[Job]:
            await platform.open_store(self.url)
            return [Job.with_handlers(thing_queue(**policy), {ThingRequested: handler})]

        return self.stage.start(compose, confirm_timeout_seconds=1.0)

    @contextmanager
    def database_away(self) -> Iterator[None]:
        """While the block runs, the database refuses connections."""
        name = psycopg.conninfo.conninfo_to_dict(self.url)["dbname"]
        with psycopg.connect(psycopg.conninfo.make_conninfo(self.url, dbname="postgres"), autocommit=True) as admin:
            admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
            try:
                yield
            finally:
                admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true".encode())

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        return self._schema.rows(statement)

    def effects(self) -> list[int]:
        return [row[0] for row in self.query("SELECT number FROM demo.effects ORDER BY number")]


async def record(event: Event[ThingRequested], tx: Transaction) -> None:
    """Make the domain change and emit its fact."""
    await tx.rows(EFFECT, {"number": event.data.number})
    tx.emit(event.derive(ThingDone(number=event.data.number), "/wch/demo"))
