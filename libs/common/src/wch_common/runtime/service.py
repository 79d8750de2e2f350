"""A service: its connections, its queues at work, its health, and its orderly stop."""

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

import structlog
import uvloop

from wch_common.backoff import until_success
from wch_common.broker.aio.connection import Link
from wch_common.broker.aio.publisher import Publisher
from wch_common.broker.blocking.connection import BrokerUnreachable
from wch_common.broker.blocking.declare import check_exists, declare
from wch_common.broker.headers import WorkerIdentity
from wch_common.broker.topology import Topology, WorkQueue
from wch_common.contract.envelope import encode
from wch_common.errors import DatabaseAway, RecoveryFailed, SettingsError, WchError
from wch_common.observability.health import Health
from wch_common.observability.logs import configure_logs
from wch_common.observability.metrics import Metrics, QueueMetrics
from wch_common.observability.redact import error_text
from wch_common.runtime.consumer import Consumer
from wch_common.runtime.dead_letter_expiry import DeadLetterExpiry
from wch_common.runtime.gate import Gate
from wch_common.runtime.settlement import Settlement
from wch_common.runtime.worker import HandlerStuck, QueueContext
from wch_common.settings import ServiceSettings, load_settings, masked, unknown_settings
from wch_common.store.maintenance import RETENTION_SECONDS, Loop, periodic
from wch_common.store.store import Store
from wch_common.tasks import cancel_and_wait

if TYPE_CHECKING:
    from wch_common.contract.event import Event, EventData
    from wch_common.runtime.job import Job
    from wch_common.store.erased_people import ErasedPeople
    from wch_common.store.migrate import MigrationSet

log = structlog.get_logger(__name__)

_TICK_SECONDS = 1.0
_COUNT_SECONDS = 15.0
MOST_UNPUBLISHED = 5000
"""How many committed events may wait for the broker before no more handlers start."""

SettingsT = TypeVar("SettingsT", bound=ServiceSettings)


@dataclass
class Platform(Generic[SettingsT]):
    """What the runtime offers a service while the service is composed."""

    service: str
    settings: SettingsT
    metrics: Metrics
    publisher: Publisher
    resources: AsyncExitStack
    """Closed at the end, in reverse order."""
    store: Store | None = None
    background: list[Loop] = field(default_factory=list)
    """Loops that run as long as the service; one that fails ends the service."""
    finishing: list[Callable[[float], Awaitable[None]]] = field(default_factory=list)
    """Called at the end with the grace period in seconds, while database and broker are still connected."""

    @property
    def source(self) -> str:
        """The CloudEvents source of what this service publishes."""
        return f"/wch/{self.service}"

    def queue(self, default: WorkQueue) -> WorkQueue:
        """Return the queue with the policy that the settings give it."""
        return replace(default, policy=self.settings.policy(default.name, default.policy))

    async def open_store(
        self, url: str, migrations: Sequence[MigrationSet] = (), *, erased_people: ErasedPeople | None = None
    ) -> Store:
        """Migrate the service's schema, connect to it, and use it for parking; it is closed at the end.

        A service whose events name people gives `erased_people`, who are left out of what is older than their erasure.
        """
        # Here, as a service without tables must not load SQLAlchemy and alembic, which take 22 MB.
        from wch_common.store.migrate import migrate

        await self._until_database_answers(lambda: asyncio.to_thread(migrate, url, self.service, migrations))
        timeout = self.settings.confirm_timeout_seconds
        self.store = Store(
            url,
            self.service,
            self.publisher.publish,
            confirm_timeout_seconds=timeout,
            erased_people=erased_people,
        )
        await self._until_database_answers(self.store.open)
        self.resources.push_async_callback(self.store.close)
        return self.store

    async def _until_database_answers(self, step: Callable[[], Awaitable[None]]) -> None:
        try:
            await until_success(
                step, DatabaseAway, _report("database_unreachable"), limit_seconds=self.settings.recovery_limit_seconds
            )
        except DatabaseAway as error:
            raise RecoveryFailed(error_text(error)) from error

    async def emit(self, event: Event[EventData]) -> None:
        """Publish an event and wait for its confirm; for families without tables."""
        await self.publisher.publish(encode(event))


Compose: TypeAlias = Callable[[Platform[SettingsT]], Awaitable[Sequence["Job"]]]


def run_service(name: str, settings_type: type[SettingsT], compose: Compose[SettingsT]) -> int:
    """Run a service until it is signalled to stop; returns the exit code: 0 stopped, 1 failed, 2 wrong settings."""
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
    """Composes a service, runs it until a signal or a failure, and stops its parts in order."""

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
                # Its thread cannot be stopped, and an orderly exit would wait for it.
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
        """Start; False if the stop came first, as it may while the broker or the database is unreachable."""
        starting, stop = asyncio.create_task(self._start(resources)), asyncio.create_task(self.stop_requested.wait())
        await asyncio.wait((starting, stop), return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if starting.done():
            starting.result()
            return True
        await cancel_and_wait((starting,))
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
            self._gate = Gate(
                store.database.check,
                lambda: store.database.last_commit,
                lambda: max(store.outbox.unconfirmed, self._outbox_rows) > MOST_UNPUBLISHED,
            )
        self._consumers = [self._consumer(job, platform) for job in jobs]
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
        store_loops: list[Loop] = []
        if platform.store is not None:
            store_loops = [*platform.store.background, periodic("row_counts", self._count_rows, _COUNT_SECONDS)]
        loops = (*store_loops, *platform.background, *self._expiry_loops(jobs))
        self._loops = [asyncio.create_task(_forever(run)) for run in loops]
        self._tasks += self._loops
        for consumer in self._consumers:
            self._tasks += consumer.start()

    def _expiry_loops(self, jobs: Sequence[Job]) -> list[Loop]:
        """Return the loop that removes old dead letters, if the service has queues for that and is to do it."""
        days, queues = self._settings.dead_letter_days, [name for job in jobs for name in job.queue.expiring]
        if not days or not queues:
            return []
        expiry = DeadLetterExpiry(self._consuming, queues, days, self._metrics)
        return [periodic("dead_letters", expiry.once, RETENTION_SECONDS)]

    def _consumer(self, job: Job, platform: Platform[SettingsT]) -> Consumer:
        worker = WorkerIdentity(package_version(self.name))
        parking = platform.store.parking if platform.store is not None else None
        settlement = Settlement(job.queue, self._publisher.publish, worker, parking)
        metrics = QueueMetrics(self._metrics, job.queue.name)
        return Consumer(QueueContext(job, platform.source, settlement, metrics, self._gate), self._consuming)

    async def _prepare_topology(self, topology: Topology) -> None:
        """Declare or check the topology, until the broker answers; a mismatch is raised, as waiting does not mend it."""
        url = self._settings.amqp_url.get_secret_value()
        prepare = declare if self._settings.declare_topology else check_exists
        try:
            await until_success(
                lambda: asyncio.to_thread(prepare, url, topology),
                (BrokerUnreachable, OSError),
                _report("broker_unreachable"),
                limit_seconds=self._settings.recovery_limit_seconds,
            )
        except (BrokerUnreachable, OSError) as error:
            raise RecoveryFailed(error_text(error)) from error

    async def _until_stopped(self) -> None:
        """Wait for the signal to stop; a task that ends by itself is a failure and is raised."""
        stop = asyncio.create_task(self.stop_requested.wait())
        await asyncio.wait((stop, *self._tasks), return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        for task in self._tasks:
            if task.done() and not task.cancelled():
                if (error := task.exception()) is not None:
                    raise error if isinstance(error, WchError) else WchError(f"{task.get_name()}: {error!r}") from error
                if not self.stop_requested.is_set():
                    raise WchError(f"the background task {task.get_name()} ended unexpectedly")

    async def _tick(self, health: Health) -> None:
        """Update the liveness probe and the gauges, and end the process when recovery fails for too long."""
        limit = self._settings.recovery_limit_seconds
        while True:
            health.beat()
            now = time.monotonic()
            for consumer in self._consumers:
                self._metrics.running.labels(consumer.name).set(consumer.worker.running)
                self._metrics.queued.labels(consumer.name).set(consumer.worker.queued)
                self._metrics.consuming.labels(consumer.name).set(consumer.problem is None)
                self._metrics.settlements_stuck.labels(consumer.name).set(consumer.stuck)
            since = [
                *(consumer.down_since for consumer in self._consumers),
                self._publishing.down_since,
                self._gate.closed_since,
            ]
            longest = max((now - started for started in since if started is not None), default=0.0)
            if longest > limit:
                raise RecoveryFailed(f"not working for {longest:.0f} s: {'; '.join(self.not_ready())}")
            await asyncio.sleep(_TICK_SECONDS)

    async def _count_rows(self) -> None:
        """Set the gauges of rows that wait in the database."""
        if self._store is None:
            return
        self._outbox_rows = await self._store.unpublished()
        self._metrics.outbox.set(self._outbox_rows)
        parked = await self._store.parked()
        for queue in {*parked, *(consumer.name for consumer in self._consumers)}:
            self._metrics.parked.labels(queue).set(parked.get(queue, 0))

    def not_ready(self) -> list[str]:
        """Return what keeps the service from working, as sentences."""
        problems = [problem for consumer in self._consumers if (problem := consumer.problem)]
        if not self._publisher.is_ready:
            problems.append("publishing: not connected, or the broker blocks it (memory or disk alarm)")
        if self._gate.closed_since is not None:
            problems.append("database: does not answer, or takes no writes")
        elif not self._gate.is_open:
            problems.append(f"outbox: more than {MOST_UNPUBLISHED} events wait for the broker")
        return problems

    async def _stop(self) -> None:
        log.info("stopping", consumers=len(self._consumers))
        grace = self._settings.grace_seconds
        ends = [*(consumer.stop(grace) for consumer in self._consumers), *(finish(grace) for finish in self._finishing)]
        for result in await asyncio.gather(*ends, return_exceptions=True):
            if isinstance(result, BaseException):
                log.error("stop_failed", error=error_text(result))
        await cancel_and_wait(self._loops)
        if self._store is not None:
            # After the last commit, and while there is still a connection to publish on.
            await self._store.outbox.finish()
        for task in self._tasks:
            task.cancel()
        await self._consuming.close()
        await self._publishing.close()
        await cancel_and_wait(self._tasks)


def _report(event: str) -> Callable[[int, BaseException], None]:
    """Return a function that logs a failed attempt under the name of a log event."""

    def report(failures: int, error: BaseException) -> None:
        log.warning(event, failures=failures, error=error_text(error))

    return report


async def _forever(run: Callable[[], Awaitable[None]]) -> None:
    await run()
