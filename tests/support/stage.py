"""A virtual host for one test, with services on it, and ways to inspect its queues."""

from __future__ import annotations

import asyncio
import secrets
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import httpx
from pydantic import SecretStr

from support.database import Schema
from support.waiting import PATIENCE_SECONDS, eventually
from wch_common.broker.blocking.connection import CONNECTION_ERRORS, open_connection
from wch_common.broker.blocking.dead_letters import DeadLetter, Mailbox, mailbox_on, purge
from wch_common.broker.blocking.declare import declare
from wch_common.broker.blocking.publisher import ConfirmedPublisher
from wch_common.broker.topology import Topology
from wch_common.client import Client
from wch_common.contract.message import Message, Publication
from wch_common.errors import Refused
from wch_common.integrations.shops import ShopSettings
from wch_common.runtime.service import Platform, Service
from wch_common.settings import ServiceSettings
from wch_local.rabbitmq import NO_TLS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    import kombu

    from wch_common.runtime.job import Job


@dataclass
class Broker:
    """The address of a broker, whose management API is 10,000 ports above AMQP, as by default."""

    amqp_url: str

    @property
    def api(self) -> httpx.Client:
        """A client of the management API."""
        parts = urlsplit(self.amqp_url)
        base = f"http://{parts.hostname}:{(parts.port or 5672) + 10_000}/api"
        auth = (parts.username or "guest", parts.password or "guest")
        return httpx.Client(base_url=base, auth=auth, timeout=30, verify=NO_TLS)

    @property
    def user(self) -> str:
        """The user's name."""
        return urlsplit(self.amqp_url).username or "guest"

    @property
    def version(self) -> tuple[int, ...]:
        """The broker's version."""
        with self.api as api:
            text = api.get("/overview").raise_for_status().json()["rabbitmq_version"]
        return tuple(int(part) for part in text.split(".")[:2])

    def create_vhost(self) -> str:
        """Create a virtual host and return its AMQP address."""
        name = f"wch-test-{secrets.token_hex(4)}"
        with self.api as api:
            api.put(f"/vhosts/{name}").raise_for_status()
            everything = {"configure": ".*", "write": ".*", "read": ".*"}
            api.put(f"/permissions/{name}/{quote(self.user)}", json=everything).raise_for_status()
        return f"{self.amqp_url}/{name}"

    def delete_vhost(self, url: str) -> None:
        """Delete a virtual host with everything in it."""
        with self.api as api:
            api.delete(f"/vhosts/{url.rpartition('/')[2]}")


@dataclass
class Stage:
    """A virtual host, and the services started on it."""

    broker: Broker
    url: str
    services: list[RunningService] = field(default_factory=list)
    resources: ExitStack = field(default_factory=ExitStack)
    _opened: ExitStack = field(default_factory=ExitStack)
    _inspecting: kombu.Connection | None = None

    @property
    def vhost(self) -> str:
        """The virtual host's name."""
        return self.url.rpartition("/")[2]

    def start(
        self, compose: Callable[[Platform[ServiceSettings]], Awaitable[Sequence[Job]]], **settings: Any
    ) -> RunningService:
        """Start a service in a thread and wait until it is ready."""
        running = RunningService(self.url, compose, settings)
        self.services.append(running)
        return running.start()

    def start_job(self, job: Job, **settings: Any) -> RunningService:
        """Start a service with one job."""

        async def compose(_platform: Platform[ServiceSettings]) -> Sequence[Job]:
            return [job]

        return self.start(compose, **settings)

    def declare(self, topology: Topology) -> None:
        """Declare a topology."""
        declare(self.url, topology)

    def client(self, **options: Any) -> Client:
        """A client of the virtual host."""
        return Client(self.url, "/test", **options)

    def send(self, exchange: str, key: str, message: Message) -> None:
        """Publish any message, as any program could."""
        publisher = ConfirmedPublisher(self.url, "test")
        (error,) = publisher.publish([Publication(exchange, key, message)])
        publisher.close()
        if error:
            raise error

    def follow(self, queue: str, *keys: str, exchange: str = "wch.facts") -> None:
        """Bind a queue of the test's own to facts, or to another exchange's events."""
        with self.broker.api as api:
            arguments = {"x-queue-type": "quorum", "x-overflow": "reject-publish"}
            api.put(f"/queues/{self.vhost}/{queue}", json={"durable": True, "arguments": arguments})
            for key in keys:
                api.post(f"/bindings/{self.vhost}/e/{exchange}/q/{queue}", json={"routing_key": key}).raise_for_status()

    @contextmanager
    def mailbox(self, queue: str) -> Iterator[Mailbox]:
        """Open a queue, on a connection that is reopened after it breaks."""
        if self._inspecting is None or not self._inspecting.connected:
            self._opened.close()
            self._inspecting = self._opened.enter_context(open_connection(self.url, "test inspecting"))
        try:
            with mailbox_on(self._inspecting, queue) as mailbox:
                yield mailbox
        except CONNECTION_ERRORS:
            self._opened.close()
            raise

    def depth(self, queue: str) -> int:
        """How many messages are ready."""
        with self.mailbox(queue) as mailbox:
            return mailbox.count()

    def dead_letters(self, queue: str) -> list[DeadLetter]:
        """Read every message of a queue and leave them there."""
        with self.mailbox(queue) as mailbox:
            found = list(mailbox.take())
        eventually(lambda: self.depth(queue) >= len(found), f"the messages read are back in {queue}")
        return found

    def schema(self, database_url: str, name: str) -> Schema:
        """A service's schema, for queries by the test."""
        schema = Schema(database_url, name)
        self.resources.callback(schema.close)
        return schema

    def await_depth(self, queue: str, count: int, *, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until this many messages are ready."""
        eventually(lambda: self.depth(queue) == count, f"{count} messages in {queue}", seconds=seconds)

    def await_dead_letters(self, queue: str, count: int = 1, *, seconds: float = PATIENCE_SECONDS) -> list[DeadLetter]:
        """Wait until this many messages are ready and return them."""
        self.await_depth(queue, count, seconds=seconds)
        return self.dead_letters(queue)

    def queue_info(self, queue: str) -> dict[str, Any]:
        """A queue's state from the management API, which lags by a second or more."""
        with self.broker.api as api:
            answer = api.get(f"/queues/{self.vhost}/{queue}")
            return dict(answer.json()) if answer.status_code == httpx.codes.OK else {}

    def cut_connection(self, name: str) -> None:
        """Have the broker close the connections with a name, and wait until they are gone."""

        def mine() -> list[str]:
            found = api.get("/connections").json()
            here = [one for one in found if one.get("vhost") == self.vhost]
            return [one["name"] for one in here if one.get("client_properties", {}).get("connection_name") == name]

        with self.broker.api as api:
            old = eventually(mine, f"the connection {name} is listed")
            for connection in old:
                api.delete(f"/connections/{quote(connection, safe='')}").raise_for_status()
            eventually(lambda: not set(old) & set(mine()), f"the connection {name} is closed")

    def delete_queue(self, queue: str) -> None:
        """Delete a queue with consumers, as a person in the management UI could."""
        with self.broker.api as api:
            api.delete(f"/queues/{self.vhost}/{queue}").raise_for_status()

    def fill(self, queue: str) -> None:
        """Make a queue refuse messages: a policy limits its length, and messages fill it."""
        self.limit(queue, 1)

        def refused() -> bool:
            try:
                self.send("wch.retry", queue, Message(b"filler", "text/plain"))
            except Refused:
                return True
            return False

        eventually(refused, f"{queue} is full")

    def empty(self, queue: str) -> None:
        """Undo `fill`; the messages are removed first, because those published after the limit are the service's."""
        purge(self.url, queue)
        self.unlimit()

    def limit(self, queue: str, length: int) -> None:
        """Limit a queue's length by a policy; it takes effect a little later, so wait for a refusal."""
        policy = {"pattern": f"^{queue}$", "definition": {"max-length": length}, "apply-to": "queues"}
        with self.broker.api as api:
            api.put(f"/policies/{self.vhost}/tiny", json=policy).raise_for_status()

    def unlimit(self) -> None:
        """Undo `limit`."""
        with self.broker.api as api:
            api.delete(f"/policies/{self.vhost}/tiny").raise_for_status()

    def delivery_mode(self, queue: str) -> int:
        """The delivery mode of the first message; 2 is persistent."""
        peek = {"count": 1, "ackmode": "ack_requeue_true", "encoding": "auto"}
        with self.broker.api as api:
            (got,) = api.post(f"/queues/{self.vhost}/{queue}/get", json=peek).raise_for_status().json()
        return int(got["properties"]["delivery_mode"])

    def reject(self, queue: str) -> None:
        """Have the broker dead-letter the first message, as a reject by a foreign consumer does."""
        with open_connection(self.url) as connection:
            channel = connection.channel()
            channel.basic_reject(channel.basic_get(queue).delivery_tag, requeue=False)

    def stop(self) -> None:
        """Stop every service."""
        for service in self.services:
            service.stop()

    def close(self) -> None:
        """Stop every service and close the connections."""
        with self.resources, self._opened:
            self.stop()


def in_sections(settings_type: type[ServiceSettings], values: dict[str, Any]) -> dict[str, Any]:
    """Return settings with those of the one shop, given by their flat names, put into its sections."""
    if not issubclass(settings_type, ShopSettings):
        return values
    if values.get("shops_file"):
        return values | {"one_shop": None}  # the stage sets no variables, which would be the one shop
    shop: dict[str, dict[str, Any]] = {section: {} for section in settings_type.entry().model_fields}
    plain = dict(values)
    for variable, ((section, name), _) in settings_type.section_variables().items():
        flat = variable.removeprefix("WCH_").lower()
        if flat in plain:
            shop[section][name] = plain.pop(flat)
    return plain | {"one_shop": shop}


class RunningService:
    """A service in a thread of this process."""

    def __init__(
        self,
        url: str,
        compose: Callable[..., Awaitable[Sequence[Job]]],
        settings: dict[str, Any],
        *,
        name: str = "demo",
        settings_type: type[ServiceSettings] = ServiceSettings,
    ) -> None:
        values: dict[str, Any] = {
            "health_host": "127.0.0.1",
            "health_port": 0,
            "grace_seconds": 10.0,
            "recovery_limit_seconds": 120.0,
        }
        self._name = name
        self.settings = settings_type(amqp_url=SecretStr(url), **in_sections(settings_type, values | settings))
        self._compose = compose
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._service: Service[ServiceSettings] | None = None
        self.exit_code: int | None = None

    def start(self) -> RunningService:
        """Start the service and wait until it is ready."""
        self._thread.start()
        eventually(lambda: self.is_ready or not self._thread.is_alive(), "the service to be ready")
        return self

    @property
    def service(self) -> Service[ServiceSettings]:
        """The service itself."""
        assert self._service is not None
        return self._service

    @property
    def is_ready(self) -> bool:
        """Whether /readyz would return 200."""
        service = self._service
        return service is not None and bool(service._tasks) and not service.not_ready()

    def in_loop(self, action: Callable[[], object]) -> None:
        """Run a function in the service's event loop."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(action)

    def stop(self) -> int | None:
        """Stop the service as SIGTERM does and return the exit code."""
        if self._thread.is_alive() and self._loop is not None and self._service is not None:
            self._loop.call_soon_threadsafe(self._service.stop_requested.set)
        self._thread.join(PATIENCE_SECONDS)
        assert not self._thread.is_alive(), "the service did not stop"
        return self.exit_code

    def _run(self) -> None:
        async def main() -> int:
            self._loop = asyncio.get_running_loop()
            self._service = Service(self._name, self.settings, self._compose)
            return await self._service.run()

        self.exit_code = 1
        self.exit_code = asyncio.run(main())
