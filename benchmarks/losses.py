"""What breaks while jobs are handled, and what becomes of them: lost, handled twice, dead-lettered with or without a reason."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

import httpx
import pika
from contenders import QUEUE
from running import Failed

if TYPE_CHECKING:
    from running import Run

    from wch_local.rabbitmq import PrivateNode

FAULTS = ("sigkill", "connection", "broker", "undecodable", "retry")
_QUIET_SECONDS = 8.0
_SPOILT_EVERY = 100


def suffered(run: Run, node: PrivateNode, fault: str, count: int) -> dict[str, float]:
    """Let a worker handle so many jobs while something breaks in the middle, and count what came of them."""
    run.preload(count, spoilt_every=_SPOILT_EVERY if fault == "undecodable" else 0)
    run.start_worker()
    recovered = 0.0
    with contextlib.suppress(Failed):  # one that stopped for good is counted as it is
        run.until(lambda: run.done() >= count // 2, "half of them")
        began, before = time.monotonic(), run.done()
        _break(run, node, fault)
        run.until(lambda: run.done() > before or run.done() >= count, "it goes on")
        recovered = time.monotonic() - began
        _until_quiet(run, count)
    numbers = [number for number, *_ in run.read_marks()]
    kept, told = _dead_letters(run, node)
    return {
        "lost": count - len(set(numbers)), "twice": len(numbers) - len(set(numbers)), "recovered_seconds": recovered,
        "spoilt": -(-count // _SPOILT_EVERY) if fault == "undecodable" else 0, "dead_letters": kept, "with_reason": told,
    }  # fmt: skip


def _break(run: Run, node: PrivateNode, fault: str) -> None:
    if fault == "sigkill":
        run.stop()
        run.start_worker()
    elif fault == "connection":
        _cut(run, node)
    elif fault == "broker":
        node.stop()
        node.start()


def _cut(run: Run, node: PrivateNode) -> None:
    """Close the worker's connections from the broker's side, once it lists them."""
    with _api(node) as api:
        ours: list[str] = []

        def listed() -> bool:
            found = api.get(f"/vhosts/{_vhost(run)}/connections").json()
            ours[:] = [one["name"] for one in found]
            return bool(ours)

        run.until(listed, "the broker lists its connections", pause=0.2)
        for name in ours:
            api.delete(f"/connections/{name}")


def _until_quiet(run: Run, count: int) -> None:
    """Wait until all are done, or nothing was for some seconds and the queue is empty."""
    last, since = -1, time.monotonic()
    while run.done() < count or time.monotonic() - since < 1:
        if run.done() != last:
            last, since = run.done(), time.monotonic()
        if time.monotonic() - since > _QUIET_SECONDS:
            return
        time.sleep(0.1)


def _dead_letters(run: Run, node: PrivateNode) -> tuple[int, int]:
    """Return how many messages lie in other queues than the work queue, and how many of them tell of an error."""
    run.stop()
    kept = told = 0
    with _api(node) as api:
        names = [queue["name"] for queue in api.get(f"/queues/{_vhost(run)}").json()]
    connection = pika.BlockingConnection(pika.URLParameters(run.url))
    channel = connection.channel()
    for name in names:
        while name != QUEUE and (found := channel.basic_get(name))[0] is not None:
            _method, properties, body = found
            kept += 1
            told += "rror" in str(properties.headers) or b"rror" in body
    connection.close()
    return kept, told


def _vhost(run: Run) -> str:
    return run.url.rpartition("/")[2]


def _api(node: PrivateNode) -> Any:  # noqa: ANN401 - an HTTP client
    return httpx.Client(base_url=f"{node.management_url}/api", auth=(node.user, node.password), timeout=30)
