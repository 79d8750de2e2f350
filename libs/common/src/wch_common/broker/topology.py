"""The broker's objects as data, from which declarations, checks, definitions, permissions and manifests are made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from wch_common.broker.queue_policy import QueuePolicy
from wch_common.contract.event import FACTS_EXCHANGE, REQUESTS_EXCHANGE, TYPE_PATTERN, EventData, Fact, Request
from wch_common.contract.personal import hold_personal_data

if TYPE_CHECKING:
    from collections.abc import Mapping

RETRY_EXCHANGE = "wch.retry"
DEAD_EXCHANGE = "wch.dead"
UNROUTABLE_EXCHANGE = "wch.unroutable"
UNROUTABLE_QUEUE = "wch.unroutable"
DLQ_SUFFIX = ".dlq"

WORK_DELIVERY_LIMIT = 20
# The only portable way to say "no limit": RabbitMQ 3.10 takes -1 as a limit and deletes a message on its first return.
NO_DELIVERY_LIMIT = 1_000_000
UNROUTABLE_LENGTH = 100_000

Argument: TypeAlias = str | int


@dataclass(frozen=True)
class Exchange:
    """A durable topic exchange; topic permissions limit who may publish which type."""

    name: str
    arguments: Mapping[str, Argument] = field(default_factory=dict)


@dataclass(frozen=True)
class Queue:
    """A durable quorum queue."""

    name: str
    arguments: Mapping[str, Argument]


@dataclass(frozen=True)
class Binding:
    """A binding of a queue to an exchange."""

    exchange: str
    queue: str
    key: str


@dataclass(frozen=True)
class Follow:
    """A fact a queue follows; with a requester, only the answers to its requests."""

    model: type[Fact]
    requester: str | None = None

    @property
    def key(self) -> str:
        """The binding key, with the exact version of the fact."""
        return f"{self.model.TYPE}.{self.requester}" if self.requester else f"{self.model.TYPE}.#"


@dataclass(frozen=True)
class WorkQueue:
    """One job's queue: the requests it handles, the facts it follows, and how it is consumed."""

    name: str
    requests: tuple[type[Request], ...] = ()
    follows: tuple[Follow, ...] = ()
    policy: QueuePolicy = field(default_factory=QueuePolicy)
    expires_unroutable: bool = False
    """Whether its service also removes old requests from `wch.unroutable`, which may hold anything."""

    @property
    def models(self) -> tuple[type[EventData], ...]:
        """Every event model that may arrive in it."""
        return (*self.requests, *(follow.model for follow in self.follows))

    @property
    def dlq(self) -> str:
        """The name of its dead-letter queue."""
        return self.name + DLQ_SUFFIX

    @property
    def expiring(self) -> tuple[str, ...]:
        """The queues from which its service removes old messages, because these may hold personal data."""
        own = (self.dlq,) if hold_personal_data(self.models) else ()
        return (*own, UNROUTABLE_QUEUE) if self.expires_unroutable else own

    def delay_queue(self, seconds: float) -> str:
        """The name of the delay queue for a retry delay."""
        return f"{self.name}.retry.{delay_name(seconds)}"

    def queues(self) -> list[Queue]:
        """The work queue, its delay queues and its dead-letter queue."""
        work = Queue(self.name, _handing_on(DEAD_EXCHANGE, self.name) | {"x-delivery-limit": WORK_DELIVERY_LIMIT})
        dlq = Queue(self.dlq, _keeping())
        return [work, *(self._delay_queue(seconds) for seconds in self.policy.retry_delays), dlq]

    def _delay_queue(self, seconds: float) -> Queue:
        waits = {"x-message-ttl": round(seconds * 1000), "x-delivery-limit": NO_DELIVERY_LIMIT}
        return Queue(self.delay_queue(seconds), _handing_on(RETRY_EXCHANGE, self.name) | waits)

    def bindings(self) -> list[Binding]:
        """Every binding of its queues."""
        found = [Binding(REQUESTS_EXCHANGE, self.name, _all_versions(model)) for model in self.requests]
        found += [Binding(FACTS_EXCHANGE, self.name, follow.key) for follow in self.follows]
        found += [
            Binding(RETRY_EXCHANGE, name, name)
            for name in (self.name, *map(self.delay_queue, self.policy.retry_delays))
        ]
        return [*found, Binding(DEAD_EXCHANGE, self.dlq, self.name)]


def _keeping() -> dict[str, Argument]:
    """Arguments of a queue that keeps its messages: reading never deletes them, and at a length limit it refuses new ones."""
    return {"x-queue-type": "quorum", "x-overflow": "reject-publish", "x-delivery-limit": NO_DELIVERY_LIMIT}


def _handing_on(exchange: str, key: str) -> dict[str, Argument]:
    """Arguments of a queue that dead-letters at least once; strategy and overflow are both needed to survive a failover."""
    return {
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": exchange,
        "x-dead-letter-routing-key": key,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


def _all_versions(model: type[Request]) -> str:
    """Return the key that binds all versions of a request, so that a newer producer's event waits instead of being unroutable."""
    match = TYPE_PATTERN.match(model.TYPE)
    if match is None:
        raise ValueError(f"{model.__name__}: {model.TYPE!r} is not a valid event type")
    return f"{match['name']}.*"


def delay_name(seconds: float) -> str:
    """Return a delay as queue names have it: `60s`, or `250ms` for a fraction of a second."""
    return f"{int(seconds)}s" if seconds == int(seconds) else f"{round(seconds * 1000)}ms"


@dataclass(frozen=True)
class Topology:
    """All broker objects that a set of work queues needs."""

    work_queues: tuple[WorkQueue, ...] = ()

    def __post_init__(self) -> None:
        names = [queue.name for queue in self.work_queues]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"work queues are defined twice: {', '.join(sorted(twice))}")
        done = [model.TYPE for queue in self.work_queues for model in queue.requests]
        if twice := {type_ for type_ in done if done.count(type_) > 1}:
            raise ValueError(f"a request must be handled by one queue; several handle {', '.join(sorted(twice))}")

    @property
    def exchanges(self) -> list[Exchange]:
        """The exchanges that all families share."""
        return [
            Exchange(UNROUTABLE_EXCHANGE),
            Exchange(REQUESTS_EXCHANGE, {"alternate-exchange": UNROUTABLE_EXCHANGE}),
            Exchange(FACTS_EXCHANGE),
            Exchange(RETRY_EXCHANGE),
            Exchange(DEAD_EXCHANGE),
        ]

    @property
    def queues(self) -> list[Queue]:
        """Every queue, starting with the one for unroutable requests."""
        unroutable = Queue(UNROUTABLE_QUEUE, _keeping() | {"x-max-length": UNROUTABLE_LENGTH})
        return [unroutable, *(queue for work in self.work_queues for queue in work.queues())]

    @property
    def bindings(self) -> list[Binding]:
        """Every binding."""
        first = Binding(UNROUTABLE_EXCHANGE, UNROUTABLE_QUEUE, "#")
        return [first, *(binding for work in self.work_queues for binding in work.bindings())]

    def merged(self, other: Topology) -> Topology:
        """Return the topology of both, for tools that span families."""
        return Topology((*self.work_queues, *other.work_queues))
