"""A service: its connections, its queues at work, its health, and its end."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

import psycopg
import structlog
import uvloop

from wch_common.edge.connection import BrokerUnreachable
from wch_common.edge.declare import declare, look
from wch_common.engine.connection import Link, backoff_seconds
from wch_common.engine.publishing import Publisher
from wch_common.envelope import encode
from wch_common.errors import DatabaseAway, Interrupted, RecoveryFailed, SettingsError, TopologyMismatch, WchError
from wch_common.headers import Worker as WorkerName
from wch_common.health import Health
from wch_common.logs import configure_logs
from wch_common.metrics import Metrics, QueueMetrics
from wch_common.redact import error_text
from wch_common.runtime.consumer import Consumer
from wch_common.runtime.gate import Gate
from wch_common.runtime.settlement import Settlement
from wch_common.runtime.worker import HandlerStuck
from wch_common.settings import ServiceSettings, load_settings, masked, unknown_settings
from wch_common.store.store import Store
from wch_common.tasks import ended
from wch_common.topology import Topology, WorkQueue

if TYPE_CHECKING:
    from wch_common.event import Event, EventData
    from wch_common.runtime.job import Job
    from wch_common.store.migrate import MigrationSet

log = structlog.get_logger(__name__)

_TICK_SECONDS = 1.0
_COUNT_SECONDS = 15.0
MOST_UNRELAYED = 5000

SettingsT = TypeVar("SettingsT", bound=ServiceSettings)


@dataclass
class Platform(Generic[SettingsT]):
    """What the runtime offers a service while it is being put together."""

    service: str
    settings: SettingsT
    metrics: Metrics
    publisher: Publisher
    resources: AsyncExitStack
    """Closed at the end, last entered first."""
    store: Store | None = None
    background: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    """Loops that run as long as the service; one that fails ends it."""
    finishing: list[Callable[[float], Awaitable[None]]] = field(default_factory=list)
    """Called at the end with the seconds of grace, while database and broker are still there."""

    @property
    def source(self) -> str:
        """The CloudEvents source of what this service publishes."""
        return f"/wch/{self.service}"

    def queue(self, default: WorkQueue) -> WorkQueue:
        """Return the queue with what the settings change."""
        return replace(default, policy=self.settings.policy(default.name, default.policy))

    async def open_store(self, url: str, migrations: Sequence[MigrationSet] = ()) -> Store:
        """Migrate the service's schema, connect, and use it for parking; it is closed at the end."""
        # Here, as a service without tables must not load SQLAlchemy and alembic, which take 22 MB.
        from wch_common.store.migrate import migrate

        await self._until_database_answers(lambda: asyncio.to_thread(migrate, url, self.service, migrations))
        timeout = self.settings.confirm_timeout_seconds
        self.store = Store(url, self.service, self.publisher, confirm_timeout_seconds=timeout)
        await self._until_database_answers(self.store.open)
        self.resources.push_async_callback(self.store.close)
        return self.store

    async def _until_database_answers(self, step: Callable[[], Awaitable[None]]) -> None:
        began, failures = time.monotonic(), 0
        while True:
            try:
                return await step()
            except DatabaseAway as error:
                failures += 1
                if time.monotonic() - began > self.settings.recovery_limit_seconds:
                    raise RecoveryFailed(error_text(error)) from error
                log.warning("database_unreachable", failures=failures, error=error_text(error))
                await asyncio.sleep(backoff_seconds(failures))

    async def emit(self, event: Event[EventData]) -> None:
        """Publish an event and wait for its confirm; for families without tables."""
        await self.publisher.publish(encode(event))


Compose: TypeAlias = Callable[[Platform[SettingsT]], Awaitable[Sequence["Job"]]]


def run_service(name: str, settings_type: type[SettingsT], compose: Compose[SettingsT]) -> int:
    """Run a service until it is told to stop; returns the exit code (0 stopped, 1 failed, 2 wrong settings)."""
    try:
        settings = load_settings(settings_type)
    except SettingsError as error:
        print(f"wch-{name} cannot start: {error}", file=sys.stderr)  # noqa: T201 - logs are not configured yet
        return 2
    configure_logs(service=name, level=settings.log_level, as_json=settings.log_format == "json")
    log.info("starting", version=package_version(name), settings=masked(settings))
    return uvloop.run(_until_signalled(name, settings, compose))


async def _until_signalled(name: str, settings: SettingsT, compose: Compose[SettingsT]) -> int:
    service = Service(name, settings, compose)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, service.stop_requested.set)
    return await service.run()


def package_version(name: str) -> str:
    """Return the installed version of a service's package."""
    try:
        return importlib.metadata.version(f"wch-{name}")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


class Service(Generic[SettingsT]):
    """Puts a service together, runs it until a signal or a failure, and takes it apart in order."""

    def __init__(self, name: str, settings: SettingsT, compose: Compose[SettingsT]) -> None:
        self.name = name
        self._settings = settings
        self._compose = compose
        self._consuming = Link(settings.amqp_url.get_secret_value(), f"wch-{name} consuming")
        self._publishing = Link(settings.amqp_url.get_secret_value(), f"wch-{name} publishing")
        self._publisher = Publisher(self._publishing, confirm_timeout_seconds=settings.confirm_timeout_seconds)
        self._metrics = Metrics()
        self._consumers: list[Consumer] = []
        self._gate = Gate()
        self._store: Store | None = None
        self._outbox_rows = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._loops: list[asyncio.Task[None]] = []
        self._finishing: list[Callable[[float], Awaitable[None]]] = []
        self.stop_requested = asyncio.Event()

    async def run(self) -> int:
        """Run until stopped; returns the exit code."""
        async with AsyncExitStack() as resources:
            try:
                if await self._started(resources):
                    await self._until_stopped()
            except HandlerStuck as error:
                log.error("service_failed", error=error_text(error))
                # Its thread cannot be ended, and an orderly exit would wait for it.
                os._exit(1)
            except WchError as error:
                log.error("service_failed", error=error_text(error))
                return 2 if isinstance(error, SettingsError) else 1
            except Exception as error:
                log.exception("service_failed", error=f"{type(error).__name__}: {error_text(error)}")
                return 1
            finally:
                await self._stop()
        log.info("stopped")
        return 0

    async def _started(self, resources: AsyncExitStack) -> bool:
        """Start; False where the stop came first, as it may while the broker or the database is away."""
        starting, stop = asyncio.create_task(self._start(resources)), asyncio.create_task(self.stop_requested.wait())
        await asyncio.wait((starting, stop), return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if starting.done():
            starting.result()
            return True
        await ended((starting,))
        return False

    async def _start(self, resources: AsyncExitStack) -> None:
        platform = Platform(self.name, self._settings, self._metrics, self._publisher, resources)
        jobs = await self._compose(platform)
        for unknown in unknown_settings(type(self._settings), [job.queue.name for job in jobs]):
            log.warning("setting_unknown", detail=unknown)
        for unused in self._settings.unused():
            log.warning("setting_unused", detail=unused)
        await self._prepare_topology(Topology(tuple(job.queue for job in jobs)))
        self._store, self._finishing = platform.store, platform.finishing
        if platform.store is not None:
            store = platform.store
            self._gate = Gate(store.ping, lambda: max(store.outbox.unrelayed, self._outbox_rows) > MOST_UNRELAYED)
        worker = WorkerName(package_version(self.name))
        for job in jobs:
            settlement = Settlement(job.queue, self._publisher, worker, platform.store)
            metrics = QueueMetrics(self._metrics, job.queue.name)
            named = replace(job, source=platform.source)
            self._consumers.append(Consumer(named, self._consuming, settlement, metrics, self._gate))
        health = Health(self._metrics.registry, self.not_ready)
        try:
            port = health.start(self._settings.health_host, self._settings.health_port)
        except OSError as error:
            where = f"{self._settings.health_host}:{self._settings.health_port}"
            raise SettingsError(
                f"WCH_HEALTH_HOST, WCH_HEALTH_PORT: cannot listen on {where}: {error.strerror}"
            ) from None
        resources.callback(health.stop)
        log.info("serving_health", port=port)
        for run in (self._consuming.run, self._publishing.run, self._publisher.run, lambda: self._tick(health)):
            self._tasks.append(asyncio.create_task(run()))
        store_loops = [*platform.store.background, self._count_rows] if platform.store is not None else []
        self._loops = [asyncio.create_task(_forever(run)) for run in (*store_loops, *platform.background)]
        self._tasks += self._loops
        for consumer in self._consumers:
            self._tasks += consumer.start()

    async def _prepare_topology(self, topology: Topology) -> None:
        """Declare or look, until the broker answers; a mismatch ends the start, as waiting does not mend it."""
        url, began, failures = self._settings.amqp_url.get_secret_value(), time.monotonic(), 0
        prepare = declare if self._settings.declare_topology else look
        while True:
            try:
                await asyncio.to_thread(prepare, url, topology)
            except TopologyMismatch:
                raise
            except (BrokerUnreachable, OSError) as error:
                failures += 1
                if time.monotonic() - began > self._settings.recovery_limit_seconds:
                    raise RecoveryFailed(error_text(error)) from error
                log.warning("broker_unreachable", failures=failures, error=error_text(error))
                await asyncio.sleep(backoff_seconds(failures))
            else:
                return

    async def _until_stopped(self) -> None:
        """Wait for the signal to stop; a task that ended by itself is a failure and is raised."""
        stop = asyncio.create_task(self.stop_requested.wait())
        await asyncio.wait((stop, *self._tasks), return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        for task in self._tasks:
            if task.done() and not task.cancelled():
                if (error := task.exception()) is not None:
                    raise error if isinstance(error, WchError) else WchError(f"{task.get_name()}: {error!r}") from error
                if not self.stop_requested.is_set():
                    raise WchError(f"{task.get_name()} ended by itself")

    async def _tick(self, health: Health) -> None:
        """Beat for the liveness probe, set the gauges, and end the process when recovery fails for long."""
        limit = self._settings.recovery_limit_seconds
        while True:
            health.beat()
            now = time.monotonic()
            for consumer in self._consumers:
                self._metrics.running.labels(consumer.name).set(consumer.worker.running)
                self._metrics.held.labels(consumer.name).set(consumer.worker.held)
                self._metrics.consuming.labels(consumer.name).set(consumer.problem is None)
                self._metrics.settlements_stuck.labels(consumer.name).set(consumer.stuck)
            since = [
                *(consumer.down_since for consumer in self._consumers),
                self._publishing.down_since,
                self._gate.closed_since,
            ]
            longest = max((now - moment for moment in since if moment is not None), default=0.0)
            if longest > limit:
                raise RecoveryFailed(f"not working for {longest:.0f} s: {'; '.join(self.not_ready())}")
            await asyncio.sleep(_TICK_SECONDS)

    async def _count_rows(self) -> None:
        """Set the gauges of rows that wait in the database."""
        while self._store is not None:
            try:
                self._outbox_rows = await self._store.unrelayed()
                self._metrics.outbox.set(self._outbox_rows)
                parked = await self._store.parked()
                for queue in {*parked, *(consumer.name for consumer in self._consumers)}:
                    self._metrics.parked.labels(queue).set(parked.get(queue, 0))
            except (Interrupted, psycopg.Error) as error:
                log.warning("rows_not_counted", error=error_text(error))
            await asyncio.sleep(_COUNT_SECONDS)

    def not_ready(self) -> list[str]:
        """Return what keeps the service from working, in words."""
        problems = [problem for consumer in self._consumers if (problem := consumer.problem)]
        if not self._publisher.is_ready:
            problems.append("publishing: not connected, or the broker blocks it (memory or disk alarm)")
        if self._gate.closed_since is not None:
            problems.append("database: does not answer")
        elif not self._gate.is_open:
            problems.append(f"outbox: more than {MOST_UNRELAYED} events wait for the broker")
        return problems

    async def _stop(self) -> None:
        log.info("stopping", consumers=len(self._consumers))
        grace = self._settings.grace_seconds
        ends = [*(consumer.stop(grace) for consumer in self._consumers), *(finish(grace) for finish in self._finishing)]
        for result in await asyncio.gather(*ends, return_exceptions=True):
            if isinstance(result, BaseException):
                log.error("not_stopped_in_order", error=error_text(result))
        await ended(self._loops)
        if self._store is not None:
            # When nothing more is committed, and while there is still a connection to publish on.
            await self._store.outbox.finish()
        for task in self._tasks:
            task.cancel()
        await self._consuming.close()
        await self._publishing.close()
        await ended(self._tasks)


async def _forever(run: Callable[[], Awaitable[None]]) -> None:
    await run()
