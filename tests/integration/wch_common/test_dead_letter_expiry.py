"""The age after which dead letters that may name a person are removed."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import pytest
from structlog.testing import capture_logs

from support.command import wch
from support.stage import Stage
from support.waiting import eventually
from wch_common.broker.aio.connection import Link
from wch_common.broker.aio.queue_head import QueueHead, TakenMessage
from wch_common.broker.blocking.connection import open_connection
from wch_common.broker.blocking.dead_letters import purge
from wch_common.broker.dead_letter_age import age_seconds
from wch_common.broker.definitions import service_permissions
from wch_common.broker.queue_policy import QueuePolicy
from wch_common.broker.topology import UNROUTABLE_QUEUE, Topology, WorkQueue
from wch_common.cli.topology import installed_topology
from wch_common.contract.envelope import STRUCTURED
from wch_common.contract.event import Event, Request
from wch_common.contract.message import Headers, Message
from wch_common.contract.personal import PERSONAL
from wch_common.events.sync import ProductRequested
from wch_common.observability.metrics import Metrics
from wch_common.runtime import dead_letter_expiry
from wch_common.runtime.dead_letter_expiry import DeadLetterExpiry
from wch_common.runtime.job import Job
from wch_common.runtime.service import Platform
from wch_common.settings import ServiceSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NUMBER = "+15550100001"
DAYS = 90.0


class PersonRequested(Request):
    """Do something for a person."""

    TYPE = "demo.person.requested.v1"

    name: Annotated[str, PERSONAL]


PEOPLE = WorkQueue("demo.person", (PersonRequested,), policy=QueuePolicy(retry_delays=(0.2,)))
PRODUCTS = WorkQueue("sync.product", (ProductRequested,), policy=QueuePolicy(retry_delays=(0.2,)))


def ago(days: float) -> str:
    return (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="milliseconds")


def message(id_: str, headers: Headers, *, time: str | None = None) -> Message:
    """Return a message with an event that has a time only if one is given."""
    event: dict[str, Any] = {"specversion": "1.0", "id": id_, "source": "/t", "type": PersonRequested.TYPE}
    if time is not None:
        event["time"] = time
    body = orjson.dumps(event | {"data": {"name": f"Ada {NUMBER}"}})
    return Message(body, STRUCTURED, None, id_, headers)


def failed(id_: str, days: float) -> Message:
    """Return a message that the service dead-lettered so many days ago."""
    return message(id_, {"wch-last-failed-at": ago(days), "wch-error-kind": "rejected"}, time=ago(days + 500))


def put(stage: Stage, *messages: Message, queue: WorkQueue = PEOPLE) -> None:
    for one in messages:
        stage.send("wch.dead", queue.name, one)


def ids(stage: Stage, queue: str = PEOPLE.dlq) -> set[str]:
    return {str(one.message.message_id) for one in stage.dead_letters(queue)}


def read_all(stage: Stage, count: int) -> None:
    """Read them as an operator does, and wait until they are back in the queue."""
    eventually(lambda: len(stage.dead_letters(PEOPLE.dlq)) == count)
    stage.await_depth(PEOPLE.dlq, count)


@asynccontextmanager
async def linked(url: str) -> AsyncIterator[Link]:
    link = Link(url, "test expiry")
    running = asyncio.create_task(link.run())
    yield link
    await link.close()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@dataclass
class Replica:
    """A service's check of its dead letters, without the service."""

    url: str
    queues: Sequence[str] = (PEOPLE.dlq,)
    days: float = DAYS
    metrics: Metrics = field(default_factory=Metrics)

    def check(self, times: int = 1) -> list[Any]:
        """Check so many times and return what was logged."""

        async def play() -> None:
            async with linked(self.url) as link:
                expiry = self.expiry(link)
                for _ in range(times):
                    await expiry.once()

        with capture_logs() as lines:
            asyncio.run(play())
        return lines

    def expiry(self, link: Link) -> DeadLetterExpiry:
        return DeadLetterExpiry(link, self.queues, self.days, self.metrics)

    def metric(self, name: str, queue: str = PEOPLE.dlq) -> float | None:
        return self.metrics.registry.get_sample_value(name, {"queue": queue})

    @property
    def removed(self) -> float | None:
        return self.metric("wch_dead_letters_removed_total")


@pytest.fixture(autouse=True)
def no_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letter_expiry, "NOTICE_SECONDS", 0)


@pytest.fixture
def replica(stage: Stage) -> Replica:
    stage.declare(Topology((PEOPLE, PRODUCTS)))
    return Replica(stage.url)


def test_old_dead_letters_are_removed_and_young_ones_stay(stage: Stage, replica: Replica) -> None:
    put(stage, failed("1", 120), failed("2", 91), failed("3", 89), failed("4", 0))
    lines = replica.check()
    stage.await_depth(PEOPLE.dlq, 2)
    eventually(lambda: ids(stage) == {"3", "4"})
    removed = [line for line in lines if line["event"] == "dead_letter_removed"]
    assert [(line["event_id"], line["type"], line["error_kind"], line["age_days"]) for line in removed] == [
        ("1", PersonRequested.TYPE, "rejected", 120.0),
        ("2", PersonRequested.TYPE, "rejected", 91.0),
    ]
    assert {(line["queue"], line["log_level"]) for line in removed} == {(PEOPLE.dlq, "warning")}
    assert replica.removed == 2


def test_old_ones_behind_young_ones_that_an_operator_returned_are_removed(stage: Stage, replica: Replica) -> None:
    put(stage, failed("old", 100), *(failed(str(number), 89 - number) for number in range(5)), failed("other", 0))
    with open_connection(stage.url) as first, open_connection(stage.url) as second:
        operator, other = first.channel(), second.channel()
        operator.basic_get(PEOPLE.dlq)
        for _ in range(5):
            other.basic_get(PEOPLE.dlq)
    # The operator returned the oldest first; where it is now, each check and each further operator decides.
    replica.check()
    stage.await_depth(PEOPLE.dlq, 6)
    assert "old" not in ids(stage)
    with open_connection(stage.url) as connection:
        channel = connection.channel()
        kept = [channel.basic_get(PEOPLE.dlq) for _ in range(4)]
        put(stage, failed("late", 100))
        channel.basic_reject(kept.pop().delivery_tag, requeue=True)
        channel.basic_reject(kept.pop(0).delivery_tag, requeue=True)
    eventually(lambda: stage.depth(PEOPLE.dlq) == 7)
    read_all(stage, 7)
    replica.check()
    stage.await_depth(PEOPLE.dlq, 6)
    assert "late" not in ids(stage)


def test_only_so_many_young_ones_are_read_and_the_next_check_continues_behind_them(
    stage: Stage, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wch_common.runtime.dead_letter_expiry.MOST_RETURNED", 3)
    put(stage, *(failed(str(number), 1) for number in range(8)), failed("old", 100))
    read_all(stage, 9)
    replica.check(2)
    stage.await_depth(PEOPLE.dlq, 9)
    replica.check()
    stage.await_depth(PEOPLE.dlq, 8)


def test_what_the_broker_moved_counts_from_then(stage: Stage, replica: Replica) -> None:
    stage.send("wch.retry", PEOPLE.name, message("moved", {"wch-last-failed-at": ago(100)}, time=ago(100)))
    stage.await_depth(PEOPLE.name, 1)
    stage.reject(PEOPLE.name)
    stage.await_depth(PEOPLE.dlq, 1)
    replica.check()
    eventually(lambda: ids(stage) == {"moved"})
    replica.days = 0.1 / 86_400
    eventually(lambda: replica.check() and stage.depth(PEOPLE.dlq) == 0, "it is a tenth of a second old")


def test_without_a_time_they_stay_and_hide_no_older_ones(stage: Stage, replica: Replica) -> None:
    unknown = [message("none", {}), message("text", {"wch-last-failed-at": "soon"}), Message(b"\xff", None)]
    ahead = message("ahead", {"wch-last-failed-at": ago(-9000)})
    put(stage, *unknown, failed("old", 100), ahead, failed("young", 1))
    for _ in range(2):
        lines = [line for line in replica.check() if line["event"] == "dead_letters_without_time"]
        assert [(line["queue"], line["dead_letters"]) for line in lines] == [(PEOPLE.dlq, 4)]
        stage.await_depth(PEOPLE.dlq, 5)
    eventually(lambda: ids(stage) == {"none", "text", "None", "ahead", "young"})


def test_so_many_without_a_time_that_others_are_not_reached_are_reported_as_that(
    stage: Stage, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letter_expiry, "MOST_HELD", 3)
    put(stage, *(message(str(number), {}) for number in range(3)), failed("old", 100))
    (line,) = (line for line in replica.check() if line["event"] == "dead_letters_without_time")
    assert "those behind them are not reached" in line["detail"]
    assert math.isnan(replica.metric("wch_dead_letter_oldest_seconds") or 0.0)
    stage.await_depth(PEOPLE.dlq, 4)


def test_a_request_that_nobody_handles_counts_from_what_its_publisher_says(stage: Stage) -> None:
    stage.declare(Topology((PEOPLE,)))
    replica = Replica(stage.url, (UNROUTABLE_QUEUE,))
    stage.send("wch.requests", "demo.unknown.requested.v1", message("old", {}, time=ago(100)))
    long_ago = round((datetime.now(UTC) - timedelta(days=100)).timestamp())
    with stage.broker.api as api:
        for id_, properties in (("stamped", {"timestamp": long_ago}), ("milliseconds", {"timestamp": long_ago * 1000})):
            published: dict[str, Any] = {
                "routing_key": "x.y.requested.v1",
                "payload": id_,
                "payload_encoding": "string",
            }
            published["properties"] = properties | {"message_id": id_, "delivery_mode": 2}
            api.post(f"/exchanges/{stage.vhost}/wch.requests/publish", json=published).raise_for_status()
    stage.send("wch.requests", "demo.unknown.requested.v1", message("young", {}, time=ago(1)))
    stage.await_depth(UNROUTABLE_QUEUE, 4)
    replica.check()
    stage.await_depth(UNROUTABLE_QUEUE, 2)
    eventually(lambda: ids(stage, UNROUTABLE_QUEUE) == {"young", "milliseconds"})


def test_a_request_whose_age_its_publisher_claims_is_removed_some_hours_after_it_was_found(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letter_expiry, "NOTICE_SECONDS", 3600)
    stage.declare(Topology((PEOPLE,)))
    replica = Replica(stage.url, (PEOPLE.dlq, UNROUTABLE_QUEUE))
    put(stage, failed("dead", 100))

    def send(name: str, age: float) -> None:
        stage.send("wch.requests", "demo.unknown.requested.v1", message(name, {}, time=ago(age)))

    async def checks() -> None:
        async with linked(stage.url) as link:
            expiry = replica.expiry(link)
            await expiry.once()
            assert replica.metric("wch_dead_letter_oldest_seconds", UNROUTABLE_QUEUE) == pytest.approx(
                200 * 86_400, abs=600
            )
            send("late", 100)
            await asyncio.to_thread(stage.await_depth, UNROUTABLE_QUEUE, 4)
            expiry._noticed = {one: at - 3600 for one, at in expiry._noticed.items()}
            await expiry.once()
            assert len(expiry._noticed) <= 1, "those that are gone are not kept in memory"

    for name, age in (("old", 100), ("older", 200), ("young", 1)):
        send(name, age)
    stage.await_depth(UNROUTABLE_QUEUE, 3)
    with capture_logs() as lines:
        asyncio.run(checks())
    stage.await_depth(PEOPLE.dlq, 0)
    assert "dead_letters_will_be_removed" in [line["event"] for line in lines]
    eventually(lambda: ids(stage, UNROUTABLE_QUEUE) == {"late", "young"})


def test_two_replicas_remove_each_once_and_no_young_one(stage: Stage, replica: Replica) -> None:
    put(stage, *(failed(f"old {number}", 91 + number) for number in range(60)))
    put(stage, *(failed(f"young {number}", 89 - number) for number in range(5)))
    read_all(stage, 65)
    other = Replica(stage.url)

    async def play() -> None:
        async with linked(stage.url) as one, linked(stage.url) as two:
            await asyncio.gather(replica.expiry(one).once(), other.expiry(two).once())

    with capture_logs() as lines:
        asyncio.run(play())
    stage.await_depth(PEOPLE.dlq, 5)
    removed = [line["event_id"] for line in lines if line["event"] == "dead_letter_removed"]
    assert sorted(removed) == sorted(f"old {number}" for number in range(60))
    assert (replica.removed or 0) + (other.removed or 0) == 60
    assert replica.removed, "both take part"
    assert other.removed, "both take part"


def test_what_an_operator_holds_is_removed_once_it_is_back(stage: Stage, replica: Replica) -> None:
    put(stage, failed("held", 100), failed("old", 100), failed("young", 1))
    with open_connection(stage.url) as connection:
        channel = connection.channel()
        held = channel.basic_get(PEOPLE.dlq)
        replica.check()
        assert replica.removed == 1
        channel.basic_reject(held.delivery_tag, requeue=True)
    stage.await_depth(PEOPLE.dlq, 2)
    replica.check()
    stage.await_depth(PEOPLE.dlq, 1)
    eventually(lambda: ids(stage) == {"young"})


def test_a_missing_queue_is_logged_once_and_the_others_are_checked(stage: Stage, replica: Replica) -> None:
    replica.queues = ("demo.missing.dlq", PEOPLE.dlq)
    put(stage, failed("old", 100))
    lines = [line for line in replica.check(3) if line["event"] == "dead_letters_unreadable"]
    assert [(line["queue"], line["log_level"]) for line in lines] == [("demo.missing.dlq", "error")]
    assert "wch topology apply" in lines[0]["error"]
    assert stage.depth(PEOPLE.dlq) == 0
    age = replica.metric("wch_dead_letter_oldest_seconds", "demo.missing.dlq")
    assert age is not None
    assert math.isnan(age)


def test_a_queue_that_is_full_is_checked(stage: Stage, replica: Replica) -> None:
    put(stage, failed("old", 100), failed("young", 1))
    stage.limit(PEOPLE.dlq, 1)
    eventually(lambda: stage.queue_info(PEOPLE.dlq).get("policy") == "tiny", "the limit holds")
    replica.check()
    eventually(lambda: ids(stage) == {"young"})


def test_without_permission_the_service_goes_on(stage: Stage, replica: Replica) -> None:
    put(stage, failed("old", 100))
    shown = service_permissions(Topology((PRODUCTS,)), "", stage.vhost)
    with stage.broker.api as api:
        user = f"service-{stage.vhost}"
        api.put(f"/users/{user}", json={"password": user, "tags": ""}).raise_for_status()
        try:
            address = f"/permissions/{stage.vhost}/{user}"
            api.put(address, json=shown["permissions"][0]).raise_for_status()
            replica.url = f"amqp://{user}:{user}@{stage.url.partition('@')[2]}"
            (line,) = [line for line in replica.check(2) if line["event"] == "dead_letters_unreadable"]
            assert line["queue"] == PEOPLE.dlq
            assert "wch topology show --as permissions" in line["error"]
            shown = service_permissions(Topology((PEOPLE,)), "", stage.vhost)
            api.put(address, json=shown["permissions"][0]).raise_for_status()
            assert [line["event"] for line in replica.check()] == ["dead_letter_removed"]
        finally:
            api.delete(f"/users/{user}")
    assert stage.depth(PEOPLE.dlq) == 0


def test_a_connection_that_breaks_between_taking_and_removing_loses_nothing(
    stage: Stage, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(stage, failed("old", 100), failed("young", 1))
    take = QueueHead.take

    async def play() -> None:
        async with linked(stage.url) as link:

            async def break_once(head: QueueHead) -> TakenMessage | None:
                monkeypatch.setattr(QueueHead, "take", take)
                taken, connection = await take(head), await link.connected()
                await asyncio.to_thread(stage.cut_connection, "test expiry")
                await connection.lost()
                return taken

            monkeypatch.setattr(QueueHead, "take", break_once)
            expiry = replica.expiry(link)
            await expiry.once()
            assert replica.removed == 0
            await asyncio.to_thread(stage.await_depth, PEOPLE.dlq, 2)
            await expiry.once()

    with capture_logs() as lines:
        asyncio.run(play())
    eventually(lambda: ids(stage) == {"young"})
    assert replica.removed == 1
    assert [line["log_level"] for line in lines if line["event"] == "dead_letters_not_checked"] == ["warning"]


def test_a_removal_that_the_broker_never_received_is_repeated(
    stage: Stage, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(stage, failed("old", 100), failed("young", 1))
    remove = QueueHead.remove

    async def play() -> None:
        async with linked(stage.url) as link:

            def cut(head: QueueHead, taken: TakenMessage) -> None:
                monkeypatch.setattr(QueueHead, "remove", remove)
                stage.cut_connection("test expiry")  # blocks this loop, which therefore does not notice
                remove(head, taken)

            monkeypatch.setattr(QueueHead, "remove", cut)
            expiry = replica.expiry(link)
            await expiry.once()
            await asyncio.to_thread(stage.await_depth, PEOPLE.dlq, 2)
            await expiry.once()

    asyncio.run(play())
    eventually(lambda: ids(stage) == {"young"})
    assert replica.removed == 2, "rather reported twice than not at all"


def test_a_cancelled_check_leaves_every_dead_letter_in_its_queue(
    stage: Stage, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(stage, message("1", {}), message("2", {}), failed("young", 1))
    take, taken = QueueHead.take, 0

    async def play() -> None:
        holding = asyncio.Event()

        async def stop_at_third(head: QueueHead) -> TakenMessage | None:
            nonlocal taken
            if taken == 2:
                holding.set()
                await asyncio.Event().wait()
            taken += 1
            return await take(head)

        monkeypatch.setattr(QueueHead, "take", stop_at_third)
        async with linked(stage.url) as link:
            check = asyncio.create_task(replica.expiry(link).once())
            await holding.wait()
            check.cancel()
            await asyncio.gather(check, return_exceptions=True)
            # The connection stays open: only the channel's end returns what was taken.
            await asyncio.to_thread(stage.await_depth, PEOPLE.dlq, 3)

    asyncio.run(play())
    eventually(lambda: ids(stage) == {"1", "2", "young"})


def test_the_oldest_is_measured_and_a_warning_comes_with_two_thirds_of_the_age(stage: Stage, replica: Replica) -> None:
    def warnings() -> list[Any]:
        return [line for line in replica.check() if line["event"] == "dead_letters_will_be_removed"]

    assert warnings() == []
    assert replica.metric("wch_dead_letter_oldest_seconds") == 0
    put(stage, failed("1", 59.9))
    assert warnings() == []
    purge(stage.url, PEOPLE.dlq)
    put(stage, failed("2", 61), failed("3", 59))
    (line,) = warnings()
    assert (line["queue"], line["oldest_days"], line["removed_after_days"]) == (PEOPLE.dlq, 61.0, 90.0)
    assert line["log_level"] == "warning"
    assert f"wch dlq list {PEOPLE.dlq}" in line["detail"]
    assert replica.metric("wch_dead_letter_oldest_seconds") == pytest.approx(61 * 86_400, rel=0.001)
    replica.days = 30
    replica.check()
    assert replica.metric("wch_dead_letter_oldest_seconds") == 0
    assert replica.removed == 2


def test_no_log_line_says_anything_about_a_person(stage: Stage, replica: Replica) -> None:
    put(stage, message(NUMBER, {}))
    for days in (100, 80):
        named = failed(NUMBER, days)
        named.headers |= {"wch-error-message": NUMBER, "wch-error-kind": "rejected"}
        put(stage, named, Message(f"to {NUMBER}".encode(), "text/plain", None, "DE.1234567890", named.headers))
    lines = replica.check()
    assert {line["event"] for line in lines} == {
        "dead_letter_removed",
        "dead_letters_will_be_removed",
        "dead_letters_without_time",
    }
    assert [text for text in (NUMBER[1:], "1234567890", "Ada") if text in json.dumps(lines)] == []


def start(stage: Stage, *queues: WorkQueue, **settings: Any) -> None:
    """Start a service with these queues, which handles everything at once."""

    async def handle(_event: Event[Any]) -> None: ...

    async def compose(_platform: Platform[ServiceSettings]) -> Sequence[Job]:
        return [Job.with_handlers(queue, dict.fromkeys(queue.models, handle)) for queue in queues]

    stage.start(compose, **settings)


def delivery_counts(stage: Stage, queue: str) -> set[object]:
    return {one.message.headers.get("x-delivery-count") or 0 for one in stage.dead_letters(queue)}


def test_a_service_removes_from_the_queues_that_may_name_a_person_only(stage: Stage, replica: Replica) -> None:
    put(stage, failed("product", 1000), queue=PRODUCTS)
    put(stage, failed("old", 100), failed("young", 1))
    stage.send("wch.requests", "demo.unknown.requested.v1", message("unknown", {}, time=ago(1000)))
    start(stage, PRODUCTS, PEOPLE)
    stage.await_depth(PEOPLE.dlq, 1)
    assert delivery_counts(stage, PRODUCTS.dlq) == {0}
    assert stage.depth(UNROUTABLE_QUEUE) == 1
    stage.cut_connection("wch-demo consuming")
    eventually(lambda: all(service.is_ready for service in stage.services), "it goes on")


def test_the_service_that_expires_unroutable_requests_removes_old_ones(stage: Stage) -> None:
    queue = WorkQueue(PRODUCTS.name, PRODUCTS.requests, policy=PRODUCTS.policy, expires_unroutable=True)
    stage.declare(Topology((queue,)))
    for id_, days in (("old", 100), ("young", 1)):
        stage.send("wch.requests", "demo.unknown.requested.v1", message(id_, {}, time=ago(days)))
    start(stage, queue)
    stage.await_depth(UNROUTABLE_QUEUE, 1)
    eventually(lambda: ids(stage, UNROUTABLE_QUEUE) == {"young"})


def test_with_an_age_of_zero_dead_letters_are_kept(stage: Stage, replica: Replica) -> None:
    put(stage, failed("old", 1000))
    start(stage, PEOPLE, dead_letter_days=0.0)
    registry = stage.services[0].service._metrics.registry
    assert registry.get_sample_value("wch_dead_letters_removed_total", {"queue": PEOPLE.dlq}) is None
    assert delivery_counts(stage, PEOPLE.dlq) == {0}


def test_the_queues_of_the_installed_services_that_may_name_a_person() -> None:
    topology = installed_topology()
    expiring = {name for work in topology.work_queues for name in work.expiring}
    assert {"whatsapp.message.dlq", "carts.cart.dlq", "broadcast.recipients.dlq", "scheduler.timer.dlq"} <= expiring
    assert not expiring & {"sync.product.dlq", "carts.cleanup.dlq"}
    assert [work.name for work in topology.work_queues if UNROUTABLE_QUEUE in work.expiring] == ["whatsapp.control"]


def test_the_doctor_says_which_queue_loses_dead_letters_soon(stage: Stage) -> None:
    stage.declare(installed_topology())
    stage.send("wch.dead", "carts.cart", failed("1", 61))
    stage.send("wch.dead", "whatsapp.message", failed("2", 50))
    stage.send("wch.dead", "sync.product", failed("3", 61))

    def said(**environment: str) -> list[str]:
        text = wch(stage, "doctor", code=1, **environment)
        return [line for line in " ".join(text.split()).split("check ") if "dead letter" in line]

    eventually(lambda: len(said()) == 3, "the management API counts them")
    (line,) = [line for line in said() if "days old" in line]
    assert "carts.cart.dlq: 1 dead letter: `wch dlq list carts.cart.dlq`" in line
    assert "the oldest is 61 days old and is removed after 90" in line
    assert not [line for line in said(WCH_DEAD_LETTER_DAYS="0") if "days old" in line]
    assert len([line for line in said(WCH_DEAD_LETTER_DAYS="60") if "removed after 60" in line]) == 2


@pytest.mark.parametrize(
    ("headers", "published", "days"),
    [
        ({"wch-last-failed-at": ago(3)}, 0, 3),
        ({"x-death": [{"time": datetime.now(UTC)}, {"time": datetime(2020, 1, 1)}]}, 0, 0),  # noqa: DTZ001 - py-amqp
        ({"x-death": [{"time": 10**15}, "x"], "wch-last-failed-at": 7.5}, datetime.now(UTC) - timedelta(days=2), 2),
        ({"x-death": "x"}, 10**15, 5),
        ({}, None, 5),
        ({"wch-last-failed-at": ago(-0.1)}, 0, 0),
    ],
)
def test_the_latest_time_of_the_best_witness_counts(headers: Headers, published: object, days: float) -> None:
    age = age_seconds(message("1", headers, time=ago(5)), published)
    assert age == pytest.approx(days * 86_400, abs=600)
