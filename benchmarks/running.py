"""Running a contender: a virtual host, a file of marks, and the processes, all ended with it."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pika
import psutil
from contenders import APPS, QUEUE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from contenders import Program

# A number of thirteen digits, so that a copy of a message holds another of the same length.
FIRST = 1_000_000_000_000
_MARK = struct.Struct("<qqq")
_UUID = re.compile(rb"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")
_DEADLINE_SECONDS = 180.0


class Failed(Exception):
    """A run did not end as it should; the figures would mean nothing."""


@dataclass
class Run:
    """One virtual host, one file of marks, one worker."""

    url: str
    folder: Path
    program: Program
    mode: str
    slots: int
    extra: dict[str, str]
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def marks(self) -> Path:
        """Where handled jobs are marked."""
        return self.folder / "marks"

    def environment(self) -> dict[str, str]:
        """What every program is told."""
        own = {
            "BENCH_AMQP_URL": self.url, "BENCH_MARKS": str(self.marks), "BENCH_MODE": self.mode, "BENCH_SLOTS": str(self.slots),
            "WCH_AMQP_URL": self.url, "WCH_HEALTH_HOST": "127.0.0.1", "WCH_HEALTH_PORT": "0", "WCH_LOG_LEVEL": "WARNING",
            "PYTHONPATH": str(APPS), "PYTHONWARNINGS": "ignore",
        }  # fmt: skip
        return os.environ | own | dict(self.program.environment) | self.extra

    def publish(self, *words: object) -> float:
        """Run the program's publisher and return the seconds it says."""
        command = self.program.command(*map(str, words))
        done = subprocess.run(command, cwd=APPS, env=self.environment(), capture_output=True, check=False)
        if done.returncode:
            raise Failed(f"{command}: {done.stderr.decode()[-2000:]}")
        return float(done.stdout.split()[-1])

    def start_worker(self) -> psutil.Process:
        """Start the worker."""
        log = (self.folder / "log").open("ab")
        worker = subprocess.Popen(
            self.program.worker_command(self.slots), cwd=APPS, env=self.environment(), stdout=log, stderr=log
        )
        self.processes.append(worker)
        return psutil.Process(worker.pid)

    def done(self) -> int:
        """How many jobs are marked."""
        return self.marks.stat().st_size // _MARK.size if self.marks.exists() else 0

    def read_marks(self) -> list[tuple[int, int, int]]:
        """Number, time of publishing and of handling of each."""
        return list(_MARK.iter_unpack(self.marks.read_bytes())) if self.marks.exists() else []

    def until(
        self, condition: Callable[[], bool], what: str, *, pause: float = 0.01, seconds: float = _DEADLINE_SECONDS
    ) -> None:
        """Wait, at most three minutes unless told otherwise."""
        deadline = time.monotonic() + seconds
        while not condition():
            ended = any(process.poll() is not None for process in self.processes)
            if (ended and not condition()) or time.monotonic() > deadline:
                log = self.folder / "log"
                told = log.read_text()[-2000:] if log.exists() else ""
                raise Failed(
                    f"{self.program.name} {self.mode}: {what}: {self.done()} done, queue {self.queue()}: {told}"
                )
            time.sleep(pause)

    def queue(self) -> tuple[int, int]:
        """How many messages wait in the queue and how many consume it; both 0 where there is none yet."""
        connection = pika.BlockingConnection(pika.URLParameters(self.url))
        try:
            method = connection.channel().queue_declare(QUEUE, passive=True).method
        except pika.exceptions.ChannelClosedByBroker:
            return 0, 0
        finally:
            if connection.is_open:
                connection.close()
        return method.message_count, method.consumer_count

    def preload(self, count: int, spoilt_every: int = 0) -> None:
        """Let the program publish one job, and fill its queue with copies that differ in their numbers and ids.

        Before every so many of them goes a message that is none: no JSON, in the clothes of one.
        """
        self.publish("one", FIRST, 1)
        connection = pika.BlockingConnection(pika.URLParameters(self.url))
        channel = connection.channel()
        method, properties, body = channel.basic_get(QUEUE)
        while method is None:
            method, properties, body = channel.basic_get(QUEUE)
        channel.basic_ack(method.delivery_tag)
        ids = sorted({*_UUID.findall(body), *_UUID.findall(repr(vars(properties)).encode())})
        spoilt = 0
        for number in range(count):
            if spoilt_every and number % spoilt_every == 0:
                channel.basic_publish(method.exchange, method.routing_key, b"\xff{no JSON", properties)
                spoilt += 1
            fresh = [(old, str(uuid.uuid4()).replace("-", "" if len(old) == 32 else "-").encode()) for old in ids]
            names = [(str(FIRST).encode(), str(FIRST + number).encode()), *fresh]
            channel.basic_publish(method.exchange, method.routing_key, _with(body, names), _copy(properties, names))
        connection.close()
        self.until(lambda: self.queue()[0] == count + spoilt, f"{count + spoilt} messages wait", seconds=900)

    def stop(self) -> None:
        """End what was started."""
        processes, self.processes = self.processes, []
        for process in processes:
            if process.poll() is not None:
                continue
            tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            for one in reversed(tree):
                one.kill()
            process.wait()


def _with(value: bytes, names: Sequence[tuple[bytes, bytes]]) -> bytes:
    for old, new in names:
        value = value.replace(old, new)
    return value


def _copy(properties: pika.BasicProperties, names: Sequence[tuple[bytes, bytes]]) -> pika.BasicProperties:
    def changed(value: Any) -> Any:  # noqa: ANN401 - header values
        if isinstance(value, str):
            return _with(value.encode(), names).decode()
        return {key: changed(one) for key, one in value.items()} if isinstance(value, dict) else value

    return pika.BasicProperties(**{key: changed(value) for key, value in vars(properties).items()})


def cpu_seconds(process: psutil.Process) -> float:
    """Return the CPU that a worker and its children have used."""
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return float(sum(one.user + one.system for one in times))


def megabytes(process: psutil.Process) -> float:
    """Return the memory of a worker and its children, what they share counted once."""
    return float(sum(one.memory_full_info().pss for one in (process, *process.children(recursive=True)))) / 1e6
