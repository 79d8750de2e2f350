"""A RabbitMQ node for the tests: a container if a Docker engine answers, otherwise a private node of the installed program."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Protocol

import httpx
from testcontainers.core.container import DockerContainer

from support.ports import own_port
from support.scratch import new_folder
from support.waiting import eventually
from wch_local.provide import IMAGE, docker_offers
from wch_local.rabbitmq import LocalBrokerError, PrivateNode


class Node(Protocol):
    """A node that tests may stop, crash, stall and put under an alarm."""

    @property
    def amqp_url(self) -> str:
        """The node's address, without a virtual host."""

    def start(self) -> None:
        """Start the node for the first time or after a stop, and wait until it is ready."""

    def stop(self) -> None:
        """Stop the node in an orderly way and keep its data."""

    def kill(self) -> None:
        """Kill the node, as a crash would."""

    def pause(self) -> None:
        """Freeze the node, as a stalled machine would."""

    def resume(self) -> None:
        """Let it go on."""

    def control(self, *words: str) -> str:
        """Run rabbitmqctl on the node."""

    def remove(self) -> None:
        """Remove the node and its data."""


class ContainerNode:
    """A node in Docker with fixed ports on loopback, so that clients find it after a restart."""

    def __init__(self) -> None:
        self._port, self._password = own_port(), secrets.token_urlsafe(9)
        container = DockerContainer(IMAGE)
        container.with_envs(RABBITMQ_DEFAULT_USER="wch", RABBITMQ_DEFAULT_PASS=self._password)
        container.ports = {"5672": ("127.0.0.1", self._port), "15672": ("127.0.0.1", self._port + 10_000)}
        # Otherwise the listings that some tests wait for lag by 5 s.
        container.with_env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-rabbit collect_statistics_interval 1000")
        self._container = container
        self._container.start()
        self._await_ready()

    @property
    def amqp_url(self) -> str:
        """The node's address, without a virtual host."""
        return f"amqp://wch:{self._password}@127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start again and wait until it is ready."""
        self._container.get_wrapped_container().start()
        self._await_ready()

    def stop(self) -> None:
        """Stop the node in an orderly way and keep its data."""
        self._container.get_wrapped_container().stop(timeout=30)

    def kill(self) -> None:
        """Kill the node, as a crash would."""
        self._container.get_wrapped_container().kill()

    def pause(self) -> None:
        """Freeze the node, as a stalled machine would."""
        self._container.get_wrapped_container().pause()

    def resume(self) -> None:
        """Let it go on."""
        self._container.get_wrapped_container().unpause()

    def control(self, *words: str) -> str:
        """Run rabbitmqctl on the node."""
        done = self._container.exec(["rabbitmqctl", "-q", *words])
        assert done.exit_code == 0, done.output
        return str(done.output, "utf-8")

    def remove(self) -> None:
        """Remove the container and its volume."""
        self._container.stop()

    def _await_ready(self) -> None:
        url = f"http://127.0.0.1:{self._port + 10_000}/api/health/checks/port-listener/5672"

        def ready() -> bool:
            try:
                return httpx.get(url, auth=("wch", self._password), timeout=5).is_success
            except httpx.HTTPError:
                return False

        eventually(ready, f"{IMAGE} is ready")


def start_node() -> Node:
    """Start a node: in Docker if an engine has the image and no installation is named, otherwise the installed program."""
    root = Path(os.environ.get("WCH_RABBITMQ_ROOT") or "/")
    if root == Path("/") and docker_offers(IMAGE, print):
        return ContainerNode()
    # The node creates the folder below its root; one created here would remain after a run with another root.
    folder = new_folder("node") if root == Path("/") else Path(f"/var/tmp/wch-node-{secrets.token_hex(4)}")  # noqa: S108 - a name nobody can guess
    node = PrivateNode.new(folder, root, port=own_port)
    try:
        node.start()
    except LocalBrokerError:
        node.remove()
        raise
    return node
