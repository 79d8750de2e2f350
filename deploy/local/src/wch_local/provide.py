"""Provides a broker: the given address, Docker, the installed program, apt, or else one clear error."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import httpx
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from wch_local.leftovers import MARK, marked
from wch_local.rabbitmq import LocalBrokerError, PrivateNode, free_port, server_program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

IMAGE = "rabbitmq:4-management"
_PULL_SECONDS = 120
_START_SECONDS = 300
_POLICY = Path("/usr/sbin/policy-rc.d")
_ADVICE = (
    "No broker is available. Install one of these and try again: Docker; or the program rabbitmq-server "
    "(Debian/Ubuntu: `sudo apt-get install rabbitmq-server`, macOS: `brew install rabbitmq`); or name a broker with "
    "WCH_DEMO_AMQP_URL=amqp://user:password@host:5672."
)


@dataclass
class ProvidedBroker:
    """A broker, and in `state` what a later process needs to stop it."""

    amqp_url: str
    described: str
    state: dict[str, Any]

    def management(self) -> httpx.Client:
        """Return a client of its management API."""
        parts = urlsplit(self.amqp_url)
        port = (parts.port or 5672) + 10_000
        auth = (parts.username or "guest", parts.password or "guest")
        return httpx.Client(base_url=f"http://{parts.hostname}:{port}", auth=auth, timeout=30)

    def fresh_vhost(self, name: str) -> str:
        """Create an empty virtual host and return its address."""
        user = quote(urlsplit(self.amqp_url).username or "guest")
        with self.management() as api:
            api.delete(f"/api/vhosts/{name}")
            api.put(f"/api/vhosts/{name}").raise_for_status()
            everything = {"configure": ".*", "write": ".*", "read": ".*"}
            api.put(f"/api/permissions/{name}/{user}", json=everything).raise_for_status()
        return f"{self.amqp_url}/{name}"


def provide_broker(folder: Path, say: Callable[[str], None], given: str | None = None) -> ProvidedBroker:
    """Return a broker, starting one if necessary; raises LocalBrokerError that says what to install."""
    if given:
        return ProvidedBroker(given.rstrip("/"), "the given broker", {"kind": "given"})
    root = Path(os.environ.get("WCH_RABBITMQ_ROOT") or "/")
    if root == Path("/") and (broker := _docker(say)):
        return broker
    if server_program(root) is None and root == Path("/"):
        _install(say)
    if server_program(root) is None:
        raise LocalBrokerError(_ADVICE)
    # Inside another root, the node's folder must be there, too.
    node = PrivateNode.new(folder if root == Path("/") else Path(f"/var/tmp/wch-{secrets.token_hex(4)}"), root)  # noqa: S108 - a random name
    say("starting a private RabbitMQ node on loopback (the system's own broker is not touched)")
    node.start()
    return ProvidedBroker(node.amqp_url, "a private node", {"kind": "node", **node.as_dict()})


def running_broker(state: dict[str, Any]) -> ProvidedBroker | None:
    """Return the broker that a state describes if it is still running."""
    kind = state.get("kind")
    if kind == "node":
        node = PrivateNode(**{key: value for key, value in state.items() if key != "kind"})
        return ProvidedBroker(node.amqp_url, "a private node", state) if node.is_running else None
    if kind == "docker" and _run("docker", "inspect", "-f", "{{.State.Running}}", state["container"]) == "true":
        return ProvidedBroker(state["amqp_url"], f"{IMAGE} in Docker", state)
    return None


def end_broker(state: dict[str, Any]) -> str | None:
    """Stop what `provide_broker` started; returns its description, or None if nothing was running."""
    kind = state.get("kind")
    if kind == "docker":
        _run("docker", "rm", "-f", "-v", state["container"])
        return f"the container {state['container']}"
    if kind == "node":
        node = PrivateNode(**{key: value for key, value in state.items() if key != "kind"})
        was_running = node.is_running
        node.stop()
        node.remove()
        return "the private broker" if was_running else None
    return None


def end_containers(folder: Path) -> list[str]:
    """Remove the containers that a demo of this folder started, also one that was interrupted; returns their names."""
    if shutil.which("docker") is None:
        return []
    names = _run("docker", "ps", "-a", "--filter", f"label={MARK}={folder}", "--format", "{{.Names}}").split()
    for name in names:
        _run("docker", "rm", "-f", "-v", name)
    return names


def docker_offers(image: str, say: Callable[[str], None]) -> bool:
    """Return whether a Docker engine answers and has the image, after pulling it if it is missing."""
    if shutil.which("docker") is None or not _run("docker", "info", "-f", "{{.ServerVersion}}"):
        return False
    if _run("docker", "image", "inspect", "-f", "{{.Id}}", image):
        return True
    say(f"pulling {image}")
    _run("docker", "pull", "-q", image, seconds=_PULL_SECONDS)
    if _run("docker", "image", "inspect", "-f", "{{.Id}}", image):
        return True
    say(f"Docker answers, but {image} is not available; using rabbitmq-server instead")
    return False


def _docker(say: Callable[[str], None]) -> ProvidedBroker | None:
    if not docker_offers(IMAGE, say):
        return None
    port, password = free_port(), secrets.token_urlsafe(9)
    name = f"wch-broker-{secrets.token_hex(3)}"
    say(f"starting {IMAGE} in Docker as {name}")
    command = ["docker", "run", "-d", "--name", name, "--hostname", name]
    command += [word for key, value in marked().items() for word in ("--label", f"{key}={value}")]
    command += ["-p", f"127.0.0.1:{port}:5672", "-p", f"127.0.0.1:{port + 10_000}:15672"]
    command += ["-e", "RABBITMQ_DEFAULT_USER=wch", "-e", f"RABBITMQ_DEFAULT_PASS={password}", IMAGE]
    if not _run(*command, seconds=60):
        return None
    url = f"amqp://wch:{password}@127.0.0.1:{port}"
    broker = ProvidedBroker(url, f"{IMAGE} in Docker", {"kind": "docker", "container": name, "amqp_url": url})
    _await_management(broker)
    return broker


@retry(
    stop=stop_after_delay(_START_SECONDS),
    wait=wait_fixed(0.3),
    retry=retry_if_exception_type(httpx.HTTPError),
    reraise=True,
)
def _await_management(broker: ProvidedBroker) -> None:
    with broker.management() as api:
        api.get("/api/overview").raise_for_status()


def _install(say: Callable[[str], None]) -> None:
    """Install the program with apt if that needs no password; the package's own service is not started."""
    apt = shutil.which("apt-get")
    sudo: list[str] = []
    if apt is None:
        return
    if os.geteuid() != 0:
        if (
            shutil.which("sudo") is None
            or subprocess.run(["sudo", "-n", "true"], check=False, capture_output=True).returncode
        ):
            return
        sudo = ["sudo", "-n"]
    say("installing rabbitmq-server with apt-get (its own service is not started)")
    environment = ["env", "DEBIAN_FRONTEND=noninteractive"]
    with _services_not_started(sudo):
        for words in (["update", "-q"], ["install", "-q", "-y", "--no-install-recommends", "rabbitmq-server"]):
            done = subprocess.run([*sudo, *environment, apt, *words], check=False, capture_output=True, text=True)
            if done.returncode:
                say(f"apt-get {words[0]} failed: {(done.stderr or done.stdout).strip()[-400:]}")
                return


@contextmanager
def _services_not_started(sudo: list[str]) -> Iterator[None]:
    """Keep packages from starting services while they are installed, by Debian's policy-rc.d."""
    if _POLICY.exists():
        yield
        return
    subprocess.run(
        [*sudo, "sh", "-c", f"printf '#!/bin/sh\\nexit 101\\n' > {_POLICY} && chmod 755 {_POLICY}"], check=False
    )
    try:
        yield
    finally:
        subprocess.run([*sudo, "rm", "-f", str(_POLICY)], check=False)


def _run(*command: str, seconds: float = 15) -> str:
    """Run a command and return its output; empty if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


if __name__ == "__main__":
    # `make test` calls this before pytest, so that a necessary installation is announced.
    named = os.environ.get("WCH_RABBITMQ_ROOT") or os.environ.get("WCH_TEST_AMQP_URL")
    if not named and server_program(Path("/")) is None:
        say = partial(print, file=sys.stderr)
        if not docker_offers(IMAGE, say):
            _install(say)
