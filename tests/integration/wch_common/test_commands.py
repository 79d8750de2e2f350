"""`wch`, as an operator uses it, on a real broker."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.stage import Stage
from support.waiting import eventually
from wch_common.drift import differences
from wch_common.edge.declare import declare, look
from wch_common.errors import TopologyMismatch
from wch_common.event import Event
from wch_common.events.sync import ProductRequested
from wch_common.management import Management
from wch_common.outcome import Reject, Retry
from wch_common.policy import QueuePolicy
from wch_common.runtime.job import Job
from wch_common.topology import Topology, WorkQueue
from wch_sync.topology import TOPOLOGY

QUEUE = WorkQueue("sync.product", (ProductRequested,), policy=QueuePolicy(rungs=(0.2,), tries=1))
WCH = Path(sys.executable).with_name("wch")


def wch(stage: Stage, *words: str, code: int = 0, **environment: str) -> str:
    """Run the command as a person would, and return what it prints."""
    names = {key: value for key, value in os.environ.items() if not key.startswith("WCH_")}
    settings = {"WCH_AMQP_URL": stage.url, "COLUMNS": "200", **environment}
    done = subprocess.run(
        [WCH, *words], env={**names, **settings}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def as_json(stage: Stage, *words: str) -> Any:
    return json.loads(wch(stage, *words, "--json"))


def dead_letters(stage: Stage, count: int) -> list[int]:
    """Have some requests fail: odd ones for good, even ones out of tries. Returns the list of handled products."""
    handled: list[int] = []

    async def handle(event: Event[ProductRequested]) -> None:
        handled.append(event.data.product_id)
        if event.replay:
            return
        await asyncio.sleep(0)
        if event.data.product_id % 2:
            raise Reject("odd")
        raise Retry("even")

    stage.start_job(Job.for_each(QUEUE, {ProductRequested: handle}))
    with stage.client() as client:
        client.publish_many(ProductRequested(product_id=number) for number in range(1, count + 1))
    stage.await_depth("sync.product.dlq", count)
    handled.clear()
    return handled


def test_dead_letters_are_listed_by_cause_and_looking_changes_nothing(stage: Stage) -> None:
    dead_letters(stage, 6)
    groups = as_json(stage, "dlq", "list", "sync.product.dlq")
    assert {group["kind"]: group["count"] for group in groups} == {"rejected": 3, "retries_exhausted": 3}
    assert as_json(stage, "dlq", "list")[0] == {"queue": "sync.product.dlq", "letters": 6}
    (shown,) = as_json(stage, "dlq", "show", "sync.product.dlq", "--limit", "1")
    assert shown["headers"]["wch-queue"] == "sync.product"
    assert "wch-error-message" in wch(stage, "dlq", "show", "sync.product.dlq")
    assert stage.depth("sync.product.dlq") == 6


def test_replay_sends_the_chosen_back_to_their_queue_with_their_tries_begun_anew(stage: Stage) -> None:
    handled = dead_letters(stage, 6)
    assert "would replay 3 letters" in wch(
        stage, "dlq", "replay", "sync.product.dlq", "--kind", "rejected", "--dry-run"
    )
    assert stage.depth("sync.product.dlq") == 6
    wch(stage, "dlq", "replay", "sync.product.dlq", "--kind", "rejected")
    stage.await_depth("sync.product.dlq", 3)
    stage.await_depth("sync.product", 0)
    assert set(handled) == {1, 3, 5}
    id_ = stage.letters("sync.product.dlq")[0].message.message_id
    wch(stage, "dlq", "replay", "sync.product.dlq", "--id", str(id_))
    stage.await_depth("sync.product.dlq", 2)
    assert "say which letters" in wch(stage, "dlq", "replay", "sync.product.dlq", code=1)


def test_a_replayed_letter_that_fails_again_says_how_often_it_was_replayed(stage: Stage) -> None:
    async def handle(_event: Event[ProductRequested]) -> None:
        raise Reject("always")

    stage.start_job(Job.for_each(QUEUE, {ProductRequested: handle}))
    with stage.client() as client:
        client.publish(ProductRequested(product_id=1))
    for _ in range(2):
        stage.await_depth("sync.product.dlq", 1)
        wch(stage, "dlq", "replay", "sync.product.dlq", "--all")
    (letter,) = stage.await_letters("sync.product.dlq")
    assert letter.message.headers["wch-replay"] == 2
    assert letter.message.headers["wch-attempt"] == 1


def test_discard_needs_a_reason_and_can_keep_what_it_removes(stage: Stage, tmp_path: Path) -> None:
    dead_letters(stage, 4)
    assert "--reason" in wch(stage, "dlq", "discard", "sync.product.dlq", "--all", code=2)
    file = tmp_path / "kept.jsonl"
    words = ("dlq", "discard", "sync.product.dlq", "--kind", "rejected", "--reason", "a test", "--keep", str(file))
    assert as_json(stage, *words)["letters"] == 2
    stage.await_depth("sync.product.dlq", 2)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["reason"] for line in lines] == ["a test"] * 2
    assert all("product_id" in line["body"] for line in lines)


def test_events_are_published_and_what_is_wrong_is_named(stage: Stage) -> None:
    stage.declare(TOPOLOGY)
    told = as_json(stage, "events", "publish", "sync.product.requested.v1", '{"product_id": 7}', "--id", "mine")
    assert (told["id"], told["published"]) == ("mine", True)
    stage.await_depth("sync.product", 1)
    wrong = wch(stage, "events", "publish", "sync.product.requested.v1", '{"product_id": "7", "extra": 1}', code=1)
    assert "data.product_id" in wrong
    assert "data.extra" in wrong
    assert "not a type" in wch(stage, "events", "publish", "sync.nothing.requested.v1", "{}", code=1)
    assert "would publish" in wch(
        stage, "events", "publish", "sync.product.requested.v1", '{"product_id": 7}', "--dry-run"
    )
    assert stage.depth("sync.product") == 1


def test_the_topology_is_applied_checked_and_its_differences_are_told(stage: Stage) -> None:
    assert "does not exist" in wch(stage, "topology", "check", code=1)
    assert "5 queues" not in wch(stage, "topology", "apply", "--dry-run")
    wch(stage, "topology", "apply")
    wch(stage, "topology", "apply")
    assert as_json(stage, "topology", "check") == []
    with stage.broker.api as api:
        api.delete(f"/bindings/{stage.vhost}/e/wch.retry/q/sync.product/sync.product").raise_for_status()
        policy = {"pattern": "dlq$", "apply-to": "queues", "definition": {"delivery-limit": 3}}
        api.put(f"/policies/{stage.vhost}/short", json=policy).raise_for_status()
    with Management(stage.url) as management:
        eventually(lambda: len(differences(TOPOLOGY, management)) == 2)
    text = wch(stage, "topology", "check", code=1)
    assert "is not bound to wch.retry" in text
    assert "lowers the delivery limit to 3" in text


def test_a_queue_declared_otherwise_stops_the_start_with_what_to_do(stage: Stage) -> None:
    with stage.broker.api as api:
        api.put(f"/queues/{stage.vhost}/sync.product", json={"durable": True}).raise_for_status()
    with pytest.raises(TopologyMismatch, match=r"(?s)sync\.product exists with other properties.*delete it"):
        declare(stage.url, TOPOLOGY)
    with pytest.raises(TopologyMismatch, match="does not exist"):
        look(stage.url, Topology((WorkQueue("other.queue"),)))


def test_definitions_import_into_a_broker_that_then_passes_the_check(stage: Stage) -> None:
    shown = json.loads(wch(stage, "topology", "show", "--as", "definitions", "--vhost", stage.vhost))
    with stage.broker.api as api:
        api.post(f"/definitions/{stage.vhost}", json=shown).raise_for_status()
    assert as_json(stage, "topology", "check") == []


def test_a_service_with_the_permissions_shown_can_do_all_it_has_to_and_nothing_more(stage: Stage) -> None:
    stage.declare(TOPOLOGY)
    shown = json.loads(
        wch(stage, "topology", "show", "--as", "permissions", "--user", "service", "--vhost", stage.vhost)
    )
    with stage.broker.api as api:
        api.put("/users/service", json={"password": "service", "tags": ""}).raise_for_status()
        try:
            for row in shown["permissions"]:
                api.put(f"/permissions/{stage.vhost}/service", json=row).raise_for_status()
            for row in shown["topic_permissions"]:
                api.put(f"/topic-permissions/{stage.vhost}/service", json=row).raise_for_status()
            everything, stage.url = stage.url, "amqp://service:service@" + stage.url.partition("@")[2]

            async def handle(event: Event[ProductRequested]) -> None:
                raise (Reject("no") if event.data.product_id % 2 else Retry("again"))

            queue = WorkQueue("sync.product", (ProductRequested,))
            stage.start_job(Job.for_each(queue, {ProductRequested: handle}), declare_topology=False)
            stage.url = everything
            with stage.client() as client:
                client.publish_many(ProductRequested(product_id=number) for number in (1, 2))
            stage.await_depth("sync.product.dlq", 1)
            stage.await_depth("sync.product.retry.60s", 1)
            stage.stop()
        finally:
            api.delete("/users/service")


def test_the_doctor_says_what_is_wrong_and_what_is_not(stage: Stage) -> None:
    findings = json.loads(wch(stage, "doctor", "--json", code=1))
    assert any("does not exist" in finding["detail"] for finding in findings)
    stage.declare(TOPOLOGY)
    wch(stage, "doctor")
    text = wch(stage, "doctor", code=1, WCH_AMQP_URL="amqp://user:hidden@127.0.0.1:1/x")
    assert "cannot be reached" in text
    assert "hidden" not in text
