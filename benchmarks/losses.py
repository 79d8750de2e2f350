"""Causes a fault while a worker handles jobs, and counts the jobs that are lost, handled twice or dead-lettered."""

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
_QUIET_SECONDS, _STUCK_SECONDS = 8.0, 300.0
_UNDECODABLE_EVERY = 100


def count_losses(run: Run, node: PrivateNode, fault: str, count: int) -> dict[str, float]:
    """Let a worker handle `count` jobs, cause a fault halfway, and return what became of the jobs."""
    run.preload(count, undecodable_every=_UNDECODABLE_EVERY if fault == "undecodable" else 0)
    run.start_worker()
    recovered = 0.0
    with contextlib.suppress(Failed):  # a worker that stops for good loses the rest, which is a result
        run.until(lambda: run.done() >= count // 2, "half of the jobs handled")
        started, before = time.monotonic(), run.done()
        _cause(run, node, fault)
        run.until(lambda: run.done() > before or run.done() >= count, "the worker continues")
        recovered = time.monotonic() - started
        _until_quiet(run, node, count)
    numbers = [number for number, *_ in run.read_marks()]
    dead_letters, with_reason = _count_dead_letters(run, node)
    return {
        "lost": count - len(set(numbers)), "twice": len(numbers) - len(set(numbers)), "recovered_seconds": recovered,
        "spoilt": -(-count // _UNDECODABLE_EVERY) if fault == "undecodable" else 0, "dead_letters": dead_letters, "with_reason": with_reason,
    }  # fmt: skip


def _cause(run: Run, node: PrivateNode, fault: str) -> None:
    if fault == "sigkill":
        run.stop()
        run.start_worker()
    elif fault == "connection":
        _close_connections(run, node)
    elif fault == "broker":
        node.stop()
        node.start()


def _close_connections(run: Run, node: PrivateNode) -> None:
    """Let the broker close the worker's connections, once the management API lists them."""
    with _api(node) as api:
        names: list[str] = []

        def listed() -> bool:
            connections = api.get(f"/vhosts/{_vhost(run)}/connections").json()
            names[:] = [one["name"] for one in connections]
            return bool(names)

        run.until(listed, "the management API lists the worker's connections", pause=0.2)
        for name in names:
            api.delete(f"/connections/{name}")


def _until_quiet(run: Run, node: PrivateNode, count: int) -> None:
    """Wait until all jobs are done and nothing was handled for 1 s, or until nothing more will be handled.

    That is so if no worker is left, or if for 8 s nothing was handled although the broker waits for nothing; a worker that is
    slow on a busy machine holds jobs for as long as it takes.
    """
    last, since = -1, time.monotonic()
    while run.done() < count or time.monotonic() - since < 1:
        if run.done() != last:
            last, since = run.done(), time.monotonic()
        quiet = time.monotonic() - since
        if quiet > _QUIET_SECONDS and (quiet > _STUCK_SECONDS or not run.is_alive or not _waits(run, node)):
            return
        time.sleep(0.1)


def _waits(run: Run, node: PrivateNode) -> bool:
    """Return whether jobs wait in the queue, or a consumer holds messages; the management API would say so some seconds later."""
    held = node.control("list_queues", "-p", _vhost(run), "messages_unacknowledged")
    return run.queue()[0] > 0 or any(int(one) for one in held.split() if one.isdigit())


def _count_dead_letters(run: Run, node: PrivateNode) -> tuple[int, int]:
    """Return the number of messages in queues other than the work queue, and how many of them name an error."""
    run.stop()
    dead_letters = with_reason = 0
    with _api(node) as api:
        names = [queue["name"] for queue in api.get(f"/queues/{_vhost(run)}").json()]
    connection = pika.BlockingConnection(pika.URLParameters(run.url))
    channel = connection.channel()
    for name in names:
        while name != QUEUE and (found := channel.basic_get(name))[0] is not None:
            _method, properties, body = found
            dead_letters += 1
            with_reason += "rror" in str(properties.headers) or b"rror" in body
    connection.close()
    return dead_letters, with_reason


def _vhost(run: Run) -> str:
    return run.url.rpartition("/")[2]


def _api(node: PrivateNode) -> Any:  # noqa: ANN401 - an HTTP client
    return httpx.Client(base_url=f"{node.management_url}/api", auth=(node.user, node.password), timeout=30)
