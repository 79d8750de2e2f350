"""A private RabbitMQ node on loopback, with its own name, ports, cookie and data; it never touches the system's broker."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from wch_local.leftovers import marked

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# A node that cannot start ends, which is noticed at once; this is for a machine with far more to do than it can.
_START_SECONDS = 300
_STOP_SECONDS = 30
_MANAGEMENT_OFFSET = 10_000
_PLUGINS = "[rabbitmq_management]."
# Addresses on loopback have no TLS, and each default context would load the certificate authorities, which takes 25 ms.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class LocalBrokerError(Exception):
    """The demo or the tests cannot run here; the message says what to do."""


def server_program(root: Path) -> Path | None:
    """Return the server's start script below a system root, or None; the one in /usr/sbin is a wrapper that changes user."""
    for folder in [
        *sorted(root.glob("usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin")),
        root / "usr/lib/rabbitmq/bin",
        *sorted(root.glob("opt/homebrew/opt/rabbitmq/sbin")),
        *sorted(root.glob("usr/local/opt/rabbitmq/sbin")),
    ]:
        if (folder / "rabbitmq-server").exists():
            return folder / "rabbitmq-server"
    found = shutil.which("rabbitmq-server") if root == Path("/") else None
    return Path(found) if found else None


def free_port() -> int:
    """Return a port on loopback that is free at present, as is its management port.

    Both lie below the range of ports of outgoing connections (32768 and up on Linux), and above the ports that the tests
    divide among their processes (12000 to 17000).
    """
    for _ in range(200):
        port = 17_000 + secrets.randbelow(5_000)
        if is_free(port):
            return port
    raise LocalBrokerError("no free port was found between 17000 and 22000")


def is_free(port: int) -> bool:
    """Whether a port on loopback and the management port that belongs to it are free."""
    return all(_can_be_had(number) for number in (port, port + _MANAGEMENT_OFFSET))


def _can_be_had(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@dataclass
class PrivateNode:
    """One node, described by what is needed to stop it later; the description can be kept in a file."""

    root: str
    folder: str
    port: int = 0
    dist_port: int = 0
    epmd_port: int = 0
    user: str = "wch"
    password: str = field(default_factory=lambda: secrets.token_urlsafe(9))
    pid: int = 0
    epmd_pid: int = 0

    @classmethod
    def new(cls, folder: Path, root: Path = Path("/"), *, port: Callable[[], int] = free_port) -> PrivateNode:
        """Return a new node with its data in a folder; with another root, in a folder of that root."""
        return cls(str(root), str(folder), port(), port(), port())

    def as_dict(self) -> dict[str, Any]:
        """Return the description for a state file."""
        return asdict(self)

    @property
    def amqp_url(self) -> str:
        """Address of the broker, without a virtual host."""
        return f"amqp://{self.user}:{self.password}@127.0.0.1:{self.port}"

    @property
    def management_url(self) -> str:
        """Address of the management UI and API."""
        return f"http://127.0.0.1:{self.port + _MANAGEMENT_OFFSET}"

    @property
    def is_running(self) -> bool:
        """Whether its process runs and is still the one that was started."""
        return self.pid > 0 and is_ours(self.pid, str(self.dist_port))

    def start(self) -> None:
        """Start the node and wait until its management API answers; raises LocalBrokerError with the node's output."""
        inside = Path(self.folder)
        outside = self._outside(inside)
        for name in ("db", "log"):
            (outside / name).mkdir(parents=True, exist_ok=True)
        (outside / "plugins").write_text(_PLUGINS)
        (outside / "rabbitmq.conf").write_text(self._configuration())
        self._ensure_hosts()
        with (outside / "out").open("ab") as out:
            epmd = self._command([str(self._epmd()), "-port", str(self.epmd_port), "-address", "127.0.0.1"], bind=False)
            self.epmd_pid = self._spawn(epmd, out)
            self.pid = self._spawn(self._command([str(self._program())], bind=True), out)
        try:
            self._await_ready()
        except (httpx.HTTPError, LocalBrokerError) as error:
            words = (outside / "out").read_text(errors="replace")[-1500:]
            self.kill()
            raise LocalBrokerError(f"the private RabbitMQ node did not start ({error}). Its output:\n{words}") from None

    def stop(self) -> None:
        """Stop the node in an orderly way; its data stays."""
        self._end(signal.SIGTERM)
        self._end_epmd()

    def kill(self) -> None:
        """Kill the node, as a crash would."""
        self._end(signal.SIGKILL)
        self._end_epmd()

    def pause(self) -> None:
        """Freeze the node, as a stalled machine would; nothing of it runs any more when this returns."""
        os.killpg(self.pid, signal.SIGSTOP)
        beam = self._beam()
        # On a busy machine its other threads go on for a while, and may confirm a message.
        if not _await(lambda: _is_frozen(beam), _STOP_SECONDS):
            raise LocalBrokerError("the node did not freeze")

    def resume(self) -> None:
        """Let a frozen node continue."""
        os.killpg(self.pid, signal.SIGCONT)

    def control(self, *words: str) -> str:
        """Run rabbitmqctl on the node and return what it prints."""
        program = self._program().with_name("rabbitmqctl")
        command = self._command([str(program), "-q", *words], bind=True)
        # On a busy machine the command, which starts a runtime of its own, has taken over a minute.
        done = subprocess.run(
            command, env=self._environment(), capture_output=True, text=True, check=False, timeout=_START_SECONDS
        )
        if done.returncode:
            raise LocalBrokerError(f"rabbitmqctl {' '.join(words)} failed: {done.stderr or done.stdout}")
        return done.stdout

    def remove(self) -> None:
        """Delete its data."""
        shutil.rmtree(self._outside(Path(self.folder)), ignore_errors=True)

    # -- details

    @property
    def _is_elsewhere(self) -> bool:
        return self.root != "/"

    def _outside(self, inside: Path) -> Path:
        return Path(self.root) / str(inside).lstrip("/") if self._is_elsewhere else inside

    def _ensure_hosts(self) -> None:
        """Add localhost to the hosts file of a bare system root, without which the node cannot find itself."""
        hosts = Path(self.root) / "etc/hosts"
        if self._is_elsewhere and (not hosts.exists() or "localhost" not in hosts.read_text()):
            with hosts.open("a") as file:
                file.write("127.0.0.1 localhost\n")

    def _program(self) -> Path:
        found = server_program(Path(self.root))
        if found is None:
            raise LocalBrokerError(f"there is no rabbitmq-server below {self.root}")
        return Path("/") / found.relative_to(self.root) if self._is_elsewhere else found

    def _epmd(self) -> Path:
        if self._is_elsewhere:
            return Path("/usr/bin/epmd")
        found = shutil.which("epmd") or next(iter(Path("/usr/lib/erlang").glob("erts-*/bin/epmd")), None)
        if found is None:
            raise LocalBrokerError("epmd, a part of Erlang, was not found")
        return Path(found)

    def _command(self, command: Sequence[str], *, bind: bool) -> list[str]:
        """Return the command for another root, which needs the host's /proc and /dev in a mount namespace of its own."""
        if not self._is_elsewhere:
            return list(command)
        if os.geteuid() != 0:
            raise LocalBrokerError("WCH_RABBITMQ_ROOT names another system root: only root can run a program inside it")
        if not bind:
            return ["chroot", self.root, *command]
        script = 'mount --rbind /proc "$0/proc" && mount --rbind /dev "$0/dev" && exec chroot "$0" "$@"'
        return ["unshare", "--mount", "sh", "-c", script, self.root, *command]

    def _environment(self) -> dict[str, str]:
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return {
            "PATH": path if self._is_elsewhere else os.environ.get("PATH", path),
            "LANG": "C.UTF-8",
            "HOME": self.folder,
            **marked(),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_NODENAME": f"wch{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(self.dist_port),
            "ERL_EPMD_PORT": str(self.epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_MNESIA_BASE": f"{self.folder}/db",
            # Otherwise a node that fails to start leaves it in the current folder.
            "ERL_CRASH_DUMP": f"{self.folder}/erl_crash.dump",
            "RABBITMQ_LOG_BASE": f"{self.folder}/log",
            "RABBITMQ_CONFIG_FILE": f"{self.folder}/rabbitmq.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{self.folder}/plugins",
            # Without busy waiting, as the node shares a small machine with the programs that use it.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}"
            " +sbwt none +sbwtdcpu none +sbwtdio none",
        }

    def _configuration(self) -> str:
        return "\n".join(
            (
                f"listeners.tcp.1 = 127.0.0.1:{self.port}",
                "management.tcp.ip = 127.0.0.1",
                f"management.tcp.port = {self.port + _MANAGEMENT_OFFSET}",
                f"default_user = {self.user}",
                f"default_pass = {self.password}",
                "log.console = true",
                "log.console.level = warning",
                "log.file = false",
                "disk_free_limit.absolute = 100MB",
                "collect_statistics_interval = 1000",
                "",
            )
        )

    def _spawn(self, command: list[str], out: Any) -> int:  # noqa: ANN401 - an open file
        process = subprocess.Popen(
            command, env=self._environment(), stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
        return adopt(process)

    @retry(
        stop=stop_after_delay(_START_SECONDS),
        wait=wait_fixed(0.2),
        retry=retry_if_exception_type(httpx.HTTPError),
        reraise=True,
    )
    def _await_ready(self) -> None:
        if has_ended(self.pid):
            raise LocalBrokerError("the process ended")
        url = f"{self.management_url}/api/health/checks/port-listener/{self.port}"
        httpx.get(url, auth=(self.user, self.password), timeout=5, verify=NO_TLS).raise_for_status()

    def _end(self, how: signal.Signals) -> None:
        if not self.is_running:
            return
        with contextlib.suppress(ProcessLookupError):
            if how == signal.SIGTERM:
                os.kill(self._beam(), how)
            else:
                os.killpg(self.pid, how)
        if not _await_end(self.pid, _STOP_SECONDS):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            _await_end(self.pid, _STOP_SECONDS)
        self.pid = 0

    def _beam(self) -> int:
        """Return the pid of the Erlang machine, which stops in an orderly way on SIGTERM; it is the start script or its child."""
        done = subprocess.run(["pgrep", "-g", str(self.pid), "beam"], capture_output=True, text=True, check=False)
        return int(done.stdout.split()[0]) if done.stdout.split() else self.pid

    def _end_epmd(self) -> None:
        if self.epmd_pid and is_ours(self.epmd_pid, str(self.epmd_port)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.epmd_pid, signal.SIGTERM)
            _await_end(self.epmd_pid, 5)
        self.epmd_pid = 0


def is_ours(pid: int, mark: str) -> bool:
    """Whether a process is alive and its command line or environment has our mark, as a pid may have been reused."""
    if has_ended(pid):
        return False
    try:
        text = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        done = subprocess.run(["ps", "-Eww", "-o", "command=", "-p", str(pid)], capture_output=True, check=False)
        text = done.stdout
    return mark.encode() in text


# This process must reap its own children; a node from a state file has another parent.
_children: dict[int, subprocess.Popen[bytes]] = {}


def adopt(process: subprocess.Popen[bytes]) -> int:
    """Remember a child, without which its end would not be noticed before this process ends; returns its pid."""
    _children[process.pid] = process
    return process.pid


def has_ended(pid: int) -> bool:
    if (child := _children.get(pid)) is not None:
        return child.poll() is not None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def _await_end(pid: int, seconds: float) -> bool:
    return _await(lambda: has_ended(pid), seconds)


def _is_frozen(pid: int) -> bool:
    """Whether every thread of a process has stopped; True if the system does not say."""
    states = [stat.read_text().rpartition(")")[2].split()[0] for stat in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(state in "Tt" for state in states)


def _await(condition: Callable[[], bool], seconds: float) -> bool:
    @retry(stop=stop_after_delay(seconds), wait=wait_fixed(0.05), retry_error_callback=lambda _: False)
    def holds() -> bool:
        if not condition():
            raise TimeoutError
        return True

    return bool(holds())
