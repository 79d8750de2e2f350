"""The command `wch` on a real broker."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import amqp
import kombu
import pika
import pytest

from support.command import as_json, wch
from support.stage import Stage
from support.waiting import eventually
from wch_common.broker.blocking.dead_letters import DeadLetter, NoSuchQueue, open_mailbox
from wch_common.broker.blocking.declare import check_exists, declare
from wch_common.broker.blocking.publisher import ConfirmedPublisher
from wch_common.broker.definitions import producer_permissions
from wch_common.broker.diff import differences
from wch_common.broker.management import Management
from wch_common.broker.queue_policy import QueuePolicy
from wch_common.broker.topology import Topology, WorkQueue
from wch_common.cli.topology import installed_topology
from wch_common.contract.envelope import STRUCTURED
from wch_common.contract.event import Event
from wch_common.contract.message import Message, Publication
from wch_common.errors import PublishError, Refused, TopologyMismatch
from wch_common.events.sync import ProductRequested
from wch_common.outcome import Reject, Retry, Throttled
from wch_common.runtime.job import Job
from wch_common.runtime.service import Platform
from wch_common.settings import ServiceSettings
from wch_common.store.store import Transaction

TOPOLOGY = installed_topology()
QUEUE = WorkQueue("sync.product", (ProductRequested,), policy=QueuePolicy(retry_delays=(0.2,), tries=1))


def one_of(rows: list[Any], queue: str) -> Any:
    """Return the row of one queue; queues of other services may precede or follow it."""
    return next(row for row in rows if row["queue"] == queue)


def kind_of(dead_letter: DeadLetter) -> object:
    return dead_letter.message.headers["wch-error-kind"]


def dead_letters(stage: Stage, count: int) -> list[int]:
    """Make odd requests fail permanently and even ones exhaust their attempts; return the list of handled products."""
    handled: list[int] = []

    async def handle(event: Event[ProductRequested]) -> None:
        handled.append(event.data.product_id)
        if event.replay:
            return
        await asyncio.sleep(0)
        if event.data.product_id % 2:
            raise Reject("odd")
        raise Retry("even")

    stage.start_job(Job.with_handlers(QUEUE, {ProductRequested: handle}))
    with stage.client() as client:
        client.publish_many(ProductRequested(product_id=number) for number in range(1, count + 1))
    stage.await_depth("sync.product.dlq", count)
    handled.clear()
    return handled


def test_dead_letters_are_listed_by_cause_without_changing_them(stage: Stage) -> None:
    dead_letters(stage, 6)
    groups = as_json(stage, "dlq", "list", "sync.product.dlq")
    assert {group["kind"]: group["count"] for group in groups} == {"rejected": 3, "retries_exhausted": 3}
    assert {"queue": "sync.product.dlq", "dead_letters": 6} in as_json(stage, "dlq", "list")
    (shown,) = as_json(stage, "dlq", "show", "sync.product.dlq", "--limit", "1")
    assert shown["headers"]["wch-queue"] == "sync.product"
    assert "wch-error-message" in wch(stage, "dlq", "show", "sync.product.dlq")
    assert "has no dead letter with the id unknown" in wch(
        stage, "dlq", "show", "sync.product.dlq", "--id", "unknown", code=1
    )
    assert stage.depth("sync.product.dlq") == 6


def test_the_list_of_dead_letters_names_the_wrong_fields(stage: Stage) -> None:
    async def handle(_event: Event[ProductRequested]) -> None: ...

    stage.start_job(Job.with_handlers(QUEUE, {ProductRequested: handle}))
    body = b'{"specversion":"1.0","id":"1","source":"/t","type":"sync.product.requested.v1","data":{"product_id":"x"}}'
    stage.send("wch.requests", "sync.product.requested.v1", Message(body, STRUCTURED, None, "1"))
    stage.await_depth("sync.product.dlq", 1)
    assert "data.product_id: must be" in wch(stage, "dlq", "list", "sync.product.dlq")


def test_replay_publishes_selected_dead_letters_to_their_queue_with_no_tries_spent(stage: Stage) -> None:
    handled = dead_letters(stage, 6)
    said = wch(stage, "dlq", "replay", "sync.product.dlq", "--kind", "rejected", "--dry-run")
    ids = {str(one.message.message_id) for one in stage.dead_letters("sync.product.dlq") if kind_of(one) == "rejected"}
    assert "would replay 3 dead letters" in said
    assert all(id_ in said for id_ in ids), "a dry run lists them"
    output = as_json(stage, "dlq", "replay", "sync.product.dlq", "--kind", "rejected", "--dry-run")
    assert (set(output["ids"]), output["dry_run"]) == (ids, True)
    assert stage.depth("sync.product.dlq") == 6
    wch(stage, "dlq", "replay", "sync.product.dlq", "--kind", "rejected")
    stage.await_depth("sync.product.dlq", 3)
    stage.await_depth("sync.product", 0)
    assert set(handled) == {1, 3, 5}
    id_ = stage.dead_letters("sync.product.dlq")[0].message.message_id
    wch(stage, "dlq", "replay", "sync.product.dlq", "--id", str(id_))
    stage.await_depth("sync.product.dlq", 2)
    (group,) = as_json(stage, "dlq", "list", "sync.product.dlq")
    assert "replayed 0 dead letters" in wch(stage, "dlq", "replay", "sync.product.dlq", "--fingerprint", "0")
    assert "has no dead letter with the id unknown" in wch(
        stage, "dlq", "replay", "sync.product.dlq", "--id", "unknown", code=1
    )
    assert "choose one of expired_waiting" in wch(stage, "dlq", "replay", "sync.product.dlq", "--kind", "x", code=1)
    assert "replayed 2 dead letters" in wch(
        stage, "dlq", "replay", "sync.product.dlq", "--fingerprint", group["fingerprint"]
    )
    assert "select dead letters with" in wch(stage, "dlq", "replay", "sync.product.dlq", code=1)


def test_a_replayed_event_that_fails_again_says_how_often_it_was_replayed(stage: Stage) -> None:
    async def handle(_event: Event[ProductRequested]) -> None:
        raise Reject("always")

    stage.start_job(Job.with_handlers(QUEUE, {ProductRequested: handle}))
    with stage.client() as client:
        client.publish(ProductRequested(product_id=1))
    for _ in range(2):
        stage.await_depth("sync.product.dlq", 1)
        wch(stage, "dlq", "replay", "sync.product.dlq", "--all")
    (dead_letter,) = stage.await_dead_letters("sync.product.dlq")
    assert dead_letter.message.headers["wch-replay"] == 2
    assert dead_letter.message.headers["wch-attempt"] == 1


def test_discard_needs_a_reason_and_can_keep_what_it_removes(stage: Stage, tmp_path: Path) -> None:
    dead_letters(stage, 4)
    assert "--reason" in wch(stage, "dlq", "discard", "sync.product.dlq", "--all", code=2)
    assert "give the reason in --reason" in wch(
        stage, "dlq", "discard", "sync.product.dlq", "--all", "--reason", " ", code=1
    )
    file = tmp_path / "kept.jsonl"
    words = ("dlq", "discard", "sync.product.dlq", "--kind", "rejected", "--reason", "a test", "--keep", str(file))
    assert as_json(stage, *words, "--dry-run")["dead_letters"] == 2
    assert not file.exists()
    assert stage.depth("sync.product.dlq") == 4
    assert as_json(stage, *words)["dead_letters"] == 2
    stage.await_depth("sync.product.dlq", 2)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["reason"] for line in lines] == ["a test"] * 2
    assert all("product_id" in line["body"] for line in lines)


def test_discarded_dead_letters_are_kept_byte_for_byte(stage: Stage, tmp_path: Path) -> None:
    stage.declare(Topology((QUEUE,)))
    bodies = [b"\xff\xfe\x00", "grün".encode()]
    for number, body in enumerate(bodies):
        stage.send("wch.dead", "sync.product", Message(body, "text/plain", None, str(number), {"raw": b"\xff"}))
    file = tmp_path / "kept.jsonl"
    wch(stage, "dlq", "discard", "sync.product.dlq", "--all", "--reason", "a test", "--keep", str(file))
    first, second = (json.loads(line) for line in file.read_text().splitlines())
    assert base64.b64decode(first["body_base64"]) == bodies[0]
    assert base64.b64decode(first["headers"]["raw"]["base64"]) == b"\xff"
    assert second["body"].encode() == bodies[1]


@pytest.mark.parametrize("fault", ["full", "deleted"])
def test_a_dead_letter_whose_replay_is_not_confirmed_stays_where_it_is(stage: Stage, fault: str) -> None:
    stage.declare(Topology((QUEUE,)))
    stage.send("wch.dead", "sync.product", Message(b"{}", "application/json", None, "1"))
    if fault == "full":
        stage.fill("sync.product")
    else:
        stage.delete_queue("sync.product")
    said = wch(stage, "dlq", "replay", "sync.product.dlq", "--all", code=1)
    assert "1 could not be replayed and stays" in said
    assert stage.depth("sync.product.dlq") == 1


def test_a_replay_reaches_its_queue_only_and_does_not_fan_out_again(stage: Stage) -> None:
    stage.declare(Topology((QUEUE,)))
    with stage.broker.api as api:
        api.put(f"/queues/{stage.vhost}/other", json={"durable": True}).raise_for_status()
        for exchange in ("wch.requests", "wch.facts"):
            api.post(f"/bindings/{stage.vhost}/e/{exchange}/q/other", json={"routing_key": "#"}).raise_for_status()
    stage.send("wch.dead", "sync.product", Message(b"{}", "application/json", None, "1"))
    wch(stage, "dlq", "replay", "sync.product.dlq", "--all")
    stage.await_depth("sync.product", 1)
    assert stage.depth("other") == 0


def test_a_dead_letter_the_broker_moved_by_itself_is_replayed_without_its_history(stage: Stage) -> None:
    """With a copied x-death, RabbitMQ 3.10 takes the next retry for a cycle and drops it."""
    runs: list[int] = []

    async def handle(event: Event[ProductRequested]) -> None:
        runs.append(event.attempt)
        if event.attempt == 1:
            raise Retry("once more")

    stage.declare(Topology((QUEUE,)))
    with stage.client() as client:
        client.publish(ProductRequested(product_id=1))
    stage.reject("sync.product")
    (dead_letter,) = stage.await_dead_letters("sync.product.dlq")
    assert "x-death" in dead_letter.message.headers
    wch(stage, "dlq", "replay", "sync.product.dlq", "--all")
    (waiting,) = stage.await_dead_letters("sync.product")
    assert not [key for key in waiting.message.headers if key.startswith("x-") and key != "x-delivery-count"]
    stage.start_job(Job.with_handlers(QUEUE, {ProductRequested: handle}))
    eventually(lambda: runs == [1, 2], "it returns from its delay queue")
    stage.await_depth("sync.product", 0)
    assert stage.depth("sync.product.dlq") == 0


def test_a_work_queue_is_not_a_dead_letter_queue(stage: Stage) -> None:
    """Every read of a work queue raises the delivery counts, which identify a message that kills its process."""
    stage.declare(Topology((QUEUE,)))
    with stage.client() as client:
        client.publish(ProductRequested(product_id=1))
    reason = ("--reason", "a test")
    for words in (("list",), ("show",), ("replay", "--all", "--dry-run"), ("discard", "--all", *reason)):
        said = wch(stage, "dlq", words[0], "sync.product", *words[1:], code=1)
        assert "sync.product is not a dead-letter queue" in said
    assert stage.depth("sync.product") == 1


def test_an_unreachable_broker_or_file_is_reported_in_one_sentence(stage: Stage, tmp_path: Path) -> None:
    wrong = stage.url.replace(":", ":x", 2).replace("amqp:x", "amqp:")
    for words in (("doctor",), ("dlq", "list"), ("topology", "apply")):
        assert "refuses this user" in wch(stage, *words, code=1, WCH_AMQP_URL=wrong)
    said = wch(stage, "dlq", "list", code=1, WCH_AMQP_URL="http://localhost")
    assert "must have the form amqp://" in said
    broken = stage.url.replace("@", "#x@")
    for words in (("doctor",), ("topology", "check"), ("queues", "list"), ("dlq", "list")):
        assert "in a name or password" in wch(stage, *words, code=1, WCH_AMQP_URL=broken)
    assert "missing.json" in wch(stage, "events", "check", str(tmp_path / "missing.json"), code=1)
    stage.declare(Topology((QUEUE,)))
    stage.send("wch.dead", "sync.product", Message(b"{}", "application/json", None, "1"))
    keep = ("--reason", "a test", "--keep", "/nonexistent/kept.jsonl")
    assert "/nonexistent/kept.jsonl" in wch(stage, "dlq", "discard", "sync.product.dlq", "--all", *keep, code=1)
    assert stage.depth("sync.product.dlq") == 1
    file = tmp_path / "url"
    file.write_text(stage.url + "\n")
    assert "sync.product.dlq" in wch(stage, "dlq", "list", WCH_AMQP_URL="", WCH_AMQP_URL_FILE=str(file))


@pytest.mark.parametrize("command", ["whatsapp list", "campaigns list", "carts stats", "schedules list", "timers list"])
def test_a_database_on_which_the_service_has_never_run_is_reported(
    stage: Stage, empty_database_url: str, command: str
) -> None:
    said = wch(stage, *command.split(), code=1, WCH_DATABASE_URL=empty_database_url)
    assert "service has never run on it" in said


def test_an_unroutable_request_can_be_replayed_once_a_service_handles_it(stage: Stage) -> None:
    stage.declare(Topology(()))
    with stage.client() as client:
        client.publish(ProductRequested(product_id=7))
    stage.await_depth("wch.unroutable", 1)
    said = wch(stage, "dlq", "list", "wch.unroutable")
    assert "unroutable" in said
    assert "sync.product.requested.v1" in said
    stage.declare(Topology((QUEUE,)))
    wch(stage, "dlq", "replay", "wch.unroutable", "--all")
    stage.await_depth("sync.product", 1)
    assert stage.depth("wch.unroutable") == 0


def test_a_dead_letter_without_a_message_id_is_identified_by_the_id_in_its_body(stage: Stage) -> None:
    stage.declare(Topology(()))
    body = b'{"specversion": "1.0", "id": "from-php", "source": "/shop", "type": "sync.product.requested.v1", "data": {"product_id": 7}}'
    with pika.BlockingConnection(pika.URLParameters(stage.url)) as connection:
        properties = pika.BasicProperties(content_type="application/cloudevents+json", delivery_mode=2)
        connection.channel().basic_publish("wch.requests", "sync.product.requested.v1", body, properties)
    stage.await_depth("wch.unroutable", 1)
    assert "for example from-php" in wch(stage, "dlq", "list", "wch.unroutable")
    assert "from-php" in wch(stage, "dlq", "show", "wch.unroutable", "--id", "from-php")
    wch(stage, "dlq", "discard", "wch.unroutable", "--id", "from-php", "--reason", "a test")
    assert stage.depth("wch.unroutable") == 0


def test_events_are_published_and_wrong_fields_are_named(stage: Stage) -> None:
    stage.declare(TOPOLOGY)
    output = as_json(stage, "events", "publish", "sync.product.requested.v1", '{"product_id": 7}', "--id", "mine")
    assert (output["id"], output["published"]) == ("mine", True)
    stage.await_depth("sync.product", 1)
    wrong = wch(stage, "events", "publish", "sync.product.requested.v1", '{"product_id": "7", "extra": 1}', code=1)
    assert "data.product_id" in wrong
    assert "data.extra" in wrong
    assert "does not know the type" in wch(stage, "events", "publish", "sync.nothing.requested.v1", "{}", code=1)
    assert "would publish" in wch(
        stage, "events", "publish", "sync.product.requested.v1", '{"product_id": 7}', "--dry-run"
    )
    assert stage.depth("sync.product") == 1
    wch(stage, "events", "publish", "sync.product.requested.v1", "-", given='{"product_id": 8}')
    stage.await_depth("sync.product", 2)


def test_the_topology_is_applied_checked_and_its_differences_are_reported(stage: Stage) -> None:
    assert "does not exist" in wch(stage, "topology", "check", code=1)
    wch(stage, "topology", "apply", "--dry-run")
    assert "does not exist" in wch(stage, "topology", "check", code=1), "a dry run changes nothing"
    assert "(0 existed)" in wch(stage, "topology", "apply")
    stage.delete_queue("sync.product.dlq")
    would = {"object": "sync.product.dlq", "action": "created"}
    assert would in as_json(stage, "topology", "apply", "--dry-run")["would"]
    assert as_json(stage, "topology", "apply")["created"] == ["sync.product.dlq"]
    assert "created 0 exchanges and queues" in wch(stage, "topology", "apply")
    assert as_json(stage, "topology", "check") == []
    with stage.broker.api as api:
        api.delete(f"/bindings/{stage.vhost}/e/wch.retry/q/sync.product/sync.product").raise_for_status()
    assert "is not bound to wch.retry" in wch(stage, "topology", "check", code=1)


def test_every_object_that_differs_is_reported(stage: Stage) -> None:
    stage.declare(TOPOLOGY)
    with stage.broker.api as api:
        for queue, arguments in (
            ("sync.product.retry.60s", {"x-queue-type": "quorum", "x-message-ttl": 1}),
            ("sync.product.dlq", None),
        ):
            api.delete(f"/queues/{stage.vhost}/{queue}").raise_for_status()
            if arguments:
                body = {"durable": True, "arguments": arguments}
                api.put(f"/queues/{stage.vhost}/{queue}", json=body).raise_for_status()
        api.delete(f"/exchanges/{stage.vhost}/wch.facts").raise_for_status()
        api.put(f"/exchanges/{stage.vhost}/wch.facts", json={"type": "direct"}).raise_for_status()
    said = wch(stage, "topology", "check", code=1)
    assert "x-message-ttl is 1, not 60000" in said
    assert "sync.product.dlq" in said
    assert "does not exist" in said
    assert "is not a durable topic exchange" in said


def test_a_queue_with_other_arguments_stops_the_start_with_what_to_do(stage: Stage) -> None:
    with stage.broker.api as api:
        api.put(f"/queues/{stage.vhost}/sync.product", json={"durable": True}).raise_for_status()
    with pytest.raises(TopologyMismatch, match=r"(?s)sync\.product exists with other properties.*delete it"):
        declare(stage.url, TOPOLOGY)
    with pytest.raises(TopologyMismatch, match="does not exist"):
        check_exists(stage.url, Topology((WorkQueue("other.queue"),)))


def test_definitions_import_into_a_broker_that_then_passes_the_check(stage: Stage) -> None:
    shown = json.loads(wch(stage, "topology", "show", "--as", "definitions", "--vhost", stage.vhost))
    with stage.broker.api as api:
        api.post(f"/definitions/{stage.vhost}", json=shown).raise_for_status()
    assert as_json(stage, "topology", "check") == []


def own_user(name: str) -> str:
    """Return a name for a user, whom tests that run at the same time on this broker must not have."""
    return f"{name}-{secrets.token_hex(4)}"


@contextmanager
def permitted(stage: Stage, name: str, shown: dict[str, Any]) -> Iterator[str]:
    """Give a user these permissions while the block runs; yields the user's address."""
    with stage.broker.api as api:
        api.put(f"/users/{name}", json={"password": name, "tags": ""}).raise_for_status()
        try:
            for kind in ("permissions", "topic_permissions"):
                for row in shown[kind]:
                    api.put(f"/{kind.replace('_', '-')}/{stage.vhost}/{name}", json=row).raise_for_status()
            yield f"amqp://{name}:{name}@{stage.url.partition('@')[2]}"
        finally:
            api.delete(f"/users/{name}")


def test_the_permissions_shown_are_sufficient_for_a_service_and_allow_nothing_more(stage: Stage) -> None:
    stage.declare(TOPOLOGY)
    user = own_user("service")
    shown = json.loads(wch(stage, "topology", "show", "--as", "permissions", "--user", user, "--vhost", stage.vhost))
    with permitted(stage, user, shown) as url:
        everything, stage.url = stage.url, url

        async def handle(event: Event[ProductRequested]) -> None:
            raise (Reject("no") if event.data.product_id % 2 else Retry("again"))

        queue = WorkQueue("sync.product", (ProductRequested,))
        stage.start_job(Job.with_handlers(queue, {ProductRequested: handle}), declare_topology=False)
        stage.url = everything
        with stage.client() as client:
            client.publish_many(ProductRequested(product_id=number) for number in (1, 2))
        stage.await_depth("sync.product.dlq", 1)
        stage.await_depth("sync.product.retry.60s", 1)
        stage.stop()
        service = everything.replace(everything.partition("@")[0], f"amqp://{user}:{user}")
        with (
            pytest.raises(NoSuchQueue, match="no permission to read"),
            open_mailbox(service, "sync.product.dlq") as box,
        ):
            next(box.take())
        with pytest.raises(TopologyMismatch, match=r"(?i)access"):
            declare(service, Topology((WorkQueue("other.queue"),)))
        foreign = Message(b"{}", STRUCTURED, None, "1")
        publisher = ConfirmedPublisher(service, "test")
        for exchange, key in (("wch.dead", "stock.count"), ("wch.facts", "stock.count.recovered.v1"), ("", "x")):
            (error,) = publisher.publish([Publication(exchange, key, foreign, mandatory=False)])
            assert isinstance(error, Refused), (exchange, key, error)
        publisher.close()


def test_a_typo_of_a_producer_is_refused_rather_than_lost(stage: Stage) -> None:
    stage.declare(TOPOLOGY)
    shop = own_user("shop")
    shown = producer_permissions(shop, stage.vhost, ["sync.product.requested.v1", "shop.cart.updated.v1"])
    with permitted(stage, shop, shown) as url:
        publisher = ConfirmedPublisher(url, "test")

        def publish_error(exchange: str, key: str) -> PublishError | None:
            message = Message(b"{}", STRUCTURED, None, key)
            return publisher.publish([Publication(exchange, key, message, mandatory=False)])[0]

        assert publish_error("wch.requests", "sync.product.requested.v1") is None
        assert publish_error("wch.facts", "shop.cart.updated.v1") is None
        assert publish_error("wch.facts", "shop.cart.updated.v1.carts") is None
        for exchange, key in (
            ("wch.requests", "sync.prodct.requested.v1"),
            ("wch.requests", "sync.product.requested.v11"),
            ("wch.facts", "shop.cart.deleted.v1"),
            ("wch.facts", "shop.cart.updated.v1.a.b"),
            ("wch.retry", "sync.product"),
            ("wch.dead", "sync.product"),
        ):
            assert isinstance(publish_error(exchange, key), Refused), (exchange, key)
        publisher.close()
    assert stage.depth("sync.product") == 1


def test_a_requester_may_read_its_own_answers_and_no_others(stage: Stage) -> None:
    stage.declare(TOPOLOGY)
    shop = own_user("shop")
    shown = producer_permissions(shop, stage.vhost, ["sync.product.requested.v1"], answered=True)
    with permitted(stage, shop, shown) as url:
        connection = kombu.Connection(url)

        def may(exchange: str, key: str, queue: str = f"{shop}.answers") -> bool:
            channel = connection.channel()
            try:
                channel.queue_declare(queue, durable=True, auto_delete=False)
                channel.queue_bind(queue, exchange, key)
            except amqp.AccessRefused:
                return False
            return True

        assert may("wch.facts", f"scheduler.timer.accepted.v1.{shop}")
        assert may("wch.facts", f"*.*.*.v1.{shop}")
        assert not may("wch.facts", "#")
        assert not may("wch.facts", "scheduler.timer.accepted.v1.carts")
        assert not may("wch.requests", "sync.product.requested.v1")
        assert not may("wch.facts", f"scheduler.timer.accepted.v1.{shop}", "sync.product")
        connection.release()


HARM: dict[str, dict[str, Any]] = {
    "sync.product": {"overflow": "drop-head", "delivery-limit": 2},
    "sync.product.dlq": {"overflow": "drop-head", "message-ttl": 60_000, "max-length": 1, "delivery-limit": 50},
    "sync.product.retry.60s": {"delivery-limit": 2},
    "wch.unroutable": {"expires": 3_600_000},
}
FINDINGS = {
    "sync.product": ("messages would be dropped", "lowers the delivery limit to 2"),
    "sync.product.dlq": (
        "messages would be dropped",
        "a message TTL of 60000 ms",
        "publishes are refused",
        "limit to 50",
    ),
    "sync.product.retry.60s": ("lowers the delivery limit to 2",),
    "wch.unroutable": ("expire with its messages",),
}


def test_a_policy_that_breaks_a_promise_is_reported(stage: Stage) -> None:
    stage.declare(TOPOLOGY)
    with stage.broker.api as api:
        for queue, definition in HARM.items():
            policy = {"pattern": f"^{queue}$", "apply-to": "queues", "definition": definition}
            api.put(f"/policies/{stage.vhost}/harm-{queue}", json=policy).raise_for_status()
    wanted = sum(map(len, FINDINGS.values()))
    with Management(stage.url) as management:
        eventually(lambda: len(differences(TOPOLOGY, management)) == wanted, "every policy is in the statistics")
    lines = wch(stage, "topology", "check", code=1).splitlines()
    for queue, texts in FINDINGS.items():
        for text in texts:
            assert [line for line in lines if f"'harm-{queue}'" in line and text in line], (queue, text, lines)


def test_a_full_dead_letter_queue_refuses_and_drops_nothing(stage: Stage) -> None:
    """Without x-overflow a policy's max-length drops the oldest dead letters, which were confirmed."""

    async def handle(_event: Event[ProductRequested]) -> None:
        raise Reject("no")

    running = stage.start_job(Job.with_handlers(QUEUE, {ProductRequested: handle}))
    stage.limit("sync.product.dlq", 2)
    published: list[str] = []

    def full() -> bool:
        with stage.client() as client:
            published.extend(client.publish_many(ProductRequested(product_id=number) for number in range(1, 6)))
        return not running.is_ready

    eventually(full, "the dead-letter queue is full")
    stage.unlimit()
    stage.await_depth("sync.product.dlq", len(published))
    assert stage.depth("sync.product") == 0


def test_wch_unroutable_refuses_when_full_and_keeps_what_it_has(stage: Stage) -> None:
    stage.declare(Topology(()))
    stage.limit("wch.unroutable", 1)
    kept: list[str] = []

    def refused() -> bool:
        try:
            with stage.client() as client:
                kept.append(client.publish(ProductRequested(product_id=7)))
        except Refused:
            return True
        return False

    eventually(refused, "wch.unroutable is full")
    assert [dead_letter.message.message_id for dead_letter in stage.dead_letters("wch.unroutable")] == kept


def test_a_dead_letter_without_a_route_is_kept_and_reported(stage: Stage) -> None:
    """With at-most-once dead-lettering, a message that leaves its delay queue for a missing binding is lost."""
    stage.declare(Topology((QUEUE,)))
    with stage.broker.api as api:
        api.delete(f"/bindings/{stage.vhost}/e/wch.retry/q/sync.product/sync.product").raise_for_status()
    stage.send("wch.retry", "sync.product.retry.200ms", Message(b"{}", STRUCTURED, None, "1"))
    eventually(
        lambda: stage.queue_info("sync.product.retry.200ms").get("messages_dlx") == 1, "the delay queue contains it"
    )
    with Management(stage.url) as management:
        found = {one.object: one.problem for one in differences(Topology((QUEUE,)), management)}
    assert "has 1 dead letters" in found["sync.product.retry.200ms"]


def test_queues_and_parked_events_are_listed(stage: Stage, database_url: str) -> None:
    async def handle(event: Event[ProductRequested], _tx: Transaction) -> None:
        if event.data.product_id == 1:
            raise Reject("no")
        raise Throttled("closed", scope="shop/x", after=3600)

    async def compose(platform: Platform[ServiceSettings]) -> Sequence[Job]:
        store = await platform.open_store(database_url)
        return [Job.in_transaction(QUEUE, {ProductRequested: handle}, store)]

    stage.declare(TOPOLOGY)
    running = stage.start(compose)
    with stage.client() as client:
        client.publish_many(ProductRequested(product_id=number) for number in (1, 2, 3))
    stage.send("wch.retry", "sync.product.retry.60s", Message(b"{}", STRUCTURED, None, "1"))

    def row() -> Any:
        return one_of(as_json(stage, "queues", "list", "--database-url", database_url), "sync.product")

    eventually(lambda: (row()["parked"], row()["retry"], row()["dead"], row()["consumers"]) == (2, 1, 1, 1))
    (parked,) = as_json(stage, "queues", "parked", "--database-url", database_url)
    assert (parked["queue"], parked["scope"], parked["events"]) == ("sync.product", "shop/x", 2)
    assert parked["paused_until"] is not None
    assert "shop/x" in wch(stage, "queues", "parked", "sync.product", WCH_DATABASE_URL=database_url)
    assert "other is not a work queue" in wch(stage, "queues", "parked", "other", code=1, WCH_DATABASE_URL=database_url)
    assert "WCH_DATABASE_URL" in wch(stage, "queues", "list")
    assert "give --database-url" in wch(stage, "queues", "parked", code=1)
    nowhere = "postgresql://user:hidden@127.0.0.1:1/x"
    said = wch(stage, "queues", "parked", code=1, WCH_DATABASE_URL=nowhere)
    assert "tables of the services cannot be read" in said
    assert "hidden" not in said
    others = len(TOPOLOGY.work_queues) > 1  # no service processes them here
    assert "2 events parked for shop/x" in wch(stage, "doctor", code=others, WCH_DATABASE_URL=database_url)
    metric = running.service._metrics.registry.get_sample_value
    eventually(lambda: metric("wch_events_parked", {"queue": "sync.product"}) == 2)


def test_the_doctor_reports_what_works_and_what_does_not(stage: Stage) -> None:
    findings = json.loads(wch(stage, "doctor", "--json", code=1))
    assert any("does not exist" in finding["detail"] for finding in findings)
    stage.declare(TOPOLOGY)
    assert "no consumer, 0 messages: is its service running" in wch(stage, "doctor", code=1)

    async def handle(_event: Event[ProductRequested]) -> None: ...

    stage.start_job(Job.with_handlers(WorkQueue("sync.product", (ProductRequested,)), {ProductRequested: handle}))
    eventually(lambda: one_of(as_json(stage, "queues", "list"), "sync.product")["consumers"] == 1)
    said = wch(stage, "doctor", code=len(TOPOLOGY.work_queues) > 1)
    assert "sync.product: 1 consumer, 0 messages" in said
    text = wch(stage, "doctor", code=1, WCH_AMQP_URL="amqp://user:hidden@127.0.0.1:1/x")
    assert "cannot be reached" in text
    assert "hidden" not in text


def test_any_of_several_nodes_may_answer(stage: Stage) -> None:
    stage.declare(TOPOLOGY)
    nowhere = "amqp://user:hidden@127.0.0.1:1/x"
    assert as_json(stage, "topology", "check") == []
    user = stage.url.partition("@")[0]
    both = f"{user}@127.0.0.1:1/{stage.vhost};{stage.url}"
    assert "the broker matches the topology" in wch(stage, "topology", "check", WCH_AMQP_URL=both)
    said = wch(stage, "topology", "check", code=1, WCH_AMQP_URL=f"{nowhere};{nowhere}")
    assert said.count("127.0.0.1:10001") == 2
    assert "hidden" not in said


def test_permissions_are_imported_as_they_are_shown(stage: Stage) -> None:
    user = own_user("imported")
    words = ("topology", "show", "--as", "permissions", "--user", user, "--vhost", stage.vhost)
    shown = json.loads(wch(stage, *words))
    with stage.broker.api as api:
        api.put(f"/users/{user}", json={"password": user, "tags": ""}).raise_for_status()
        try:
            api.post("/definitions", json=shown).raise_for_status()
            (row,) = api.get(f"/users/{user}/permissions").json()
            assert row["configure"] == "^$"
            topics = {row["exchange"] for row in api.get(f"/users/{user}/topic-permissions").json()}
            assert topics == {"wch.retry", "wch.dead", "wch.facts"}
        finally:
            api.delete(f"/users/{user}")


def test_an_event_is_checked_with_text_and_json_output(stage: Stage, tmp_path: Path) -> None:
    file = tmp_path / "event.json"
    body = {"specversion": "1.0", "id": "1", "source": "/t", "type": "sync.product.requested.v1"}
    file.write_text(json.dumps(body | {"data": {"product_id": 7}}))
    assert as_json(stage, "events", "check", str(file)) == {"ok": True, "type": body["type"], "id": "1"}
    file.write_text(json.dumps(body | {"data": {"product_id": "x"}}))
    output = json.loads(wch(stage, "events", "check", str(file), "--json", code=1))
    assert (output["ok"], output["kind"]) == (False, "invalid_data")
    assert output["fields"][0]["field"] == "data.product_id"
    said = wch(stage, "events", "check", str(file), code=1)
    assert said.count("data.product_id") == 1


def test_permissions_for_an_unknown_type_are_refused(stage: Stage) -> None:
    words = ("topology", "show", "--as", "permissions", "--produces", "sync.product.requestd.v1")
    assert "unknown type: sync.product.requestd.v1" in wch(stage, *words, code=1)


def test_the_versions_of_installed_packages_are_printed() -> None:
    # Runs the installed command; the other tests call it in a process that has the libraries.
    program = Path(sys.executable).with_name("wch")
    said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=300, check=True).stdout
    assert "wch-common 0." in said
    assert "wch-sync 0." in said


def test_lines_of_a_dead_letter_are_not_broken_in_a_pipe(stage: Stage) -> None:
    stage.declare(Topology((QUEUE,)))
    long = "x" * 400
    stage.send("wch.dead", "sync.product", Message(b"{}", "application/json", None, "1", {"wch-error-message": long}))
    assert long in wch(stage, "dlq", "show", "sync.product.dlq", COLUMNS="80")
