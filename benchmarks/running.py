"""Runs one program of the comparison: its virtual host, its file of marks and its processes."""

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

# All numbers have thirteen digits, so that copies of a message have the same length.
FIRST = 1_000_000_000_000
_MARK = struct.Struct("<qqq")
_UUID = re.compile(rb"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")
_IDLE_SECONDS = 600.0


class Failed(Exception):
    """A run did not finish, so its figures are invalid."""


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
        """The file to which a program appends a mark for each handled job."""
        return self.folder / "marks"

    def environment(self) -> dict[str, str]:
        """Return the environment variables of the program."""
        own = {
            "BENCH_AMQP_URL": self.url, "BENCH_MARKS": str(self.marks), "BENCH_MODE": self.mode, "BENCH_SLOTS": str(self.slots),
            "WCH_AMQP_URL": self.url, "WCH_HEALTH_HOST": "127.0.0.1", "WCH_HEALTH_PORT": "0", "WCH_LOG_LEVEL": "WARNING",
            "PYTHONPATH": str(APPS), "PYTHONWARNINGS": "ignore",
        }  # fmt: skip
        return os.environ | own | dict(self.program.environment) | self.extra

    def publish(self, *words: object) -> float:
        """Run the program's publisher and return the seconds that it reports."""
        command = self.program.command(*map(str, words))
        done = subprocess.run(command, cwd=APPS, env=self.environment(), capture_output=True, check=False)
        if done.returncode:
            raise Failed(f"{command}: {done.stderr.decode()[-2000:]}")
        return float(done.stdout.split()[-1])

    def start_worker(self) -> psutil.Process:
        """Start the worker and return its process."""
        log = (self.folder / "log").open("ab")
        worker = subprocess.Popen(
            self.program.worker_command(self.slots), cwd=APPS, env=self.environment(), stdout=log, stderr=log
        )
        self.processes.append(worker)
        return psutil.Process(worker.pid)

    @property
    def is_alive(self) -> bool:
        """Whether a process of this run is running."""
        return any(process.poll() is None for process in self.processes)

    def done(self) -> int:
        """Return the number of marks."""
        return self.marks.stat().st_size // _MARK.size if self.marks.exists() else 0

    def read_marks(self) -> list[tuple[int, int, int]]:
        """Return the number of each handled job and the times of publishing and handling, in nanoseconds."""
        return list(_MARK.iter_unpack(self.marks.read_bytes())) if self.marks.exists() else []

    def until(
        self, condition: Callable[[], bool], what: str, *, pause: float = 0.01, seconds: float = _IDLE_SECONDS
    ) -> None:
        """Wait until a condition holds; raise Failed if a process ends before that, or if no job is done for `seconds` (600)."""
        done, since = self.done(), time.monotonic()
        while not condition():
            if (now_done := self.done()) != done:
                done, since = now_done, time.monotonic()
            ended = any(process.poll() is not None for process in self.processes)
            if (ended and not condition()) or time.monotonic() - since > seconds:
                log = self.folder / "log"
                end_of_log = log.read_text()[-2000:] if log.exists() else ""
                raise Failed(
                    f"{self.program.name} {self.mode}: did not reach {what!r}; {self.done()} jobs done, "
                    f"(messages, consumers) of the queue {self.queue()}; its log ends with: {end_of_log}"
                )
            time.sleep(pause)

    def queue(self) -> tuple[int, int]:
        """Return the numbers of waiting messages and of consumers, both 0 if the queue does not exist."""
        connection = pika.BlockingConnection(pika.URLParameters(self.url))
        try:
            method = connection.channel().queue_declare(QUEUE, passive=True).method
        except pika.exceptions.ChannelClosedByBroker:
            return 0, 0
        finally:
            if connection.is_open:
                connection.close()
        return method.message_count, method.consumer_count

    def preload(self, count: int, undecodable_every: int = 0) -> None:
        """Let the program publish one job, and fill its queue with copies that have other numbers and ids.

        A message with the same properties but an undecodable body precedes every `undecodable_every`th copy.
        """
        self.publish("one", FIRST, 1)
        connection = pika.BlockingConnection(pika.URLParameters(self.url))
        channel = connection.channel()
        method, properties, body = channel.basic_get(QUEUE)
        while method is None:
            method, properties, body = channel.basic_get(QUEUE)
        channel.basic_ack(method.delivery_tag)
        ids = sorted({*_UUID.findall(body), *_UUID.findall(repr(vars(properties)).encode())})
        undecodable = 0
        for number in range(count):
            if undecodable_every and number % undecodable_every == 0:
                channel.basic_publish(method.exchange, method.routing_key, b"\xff{no JSON", properties)
                undecodable += 1
            new_ids = [(old, str(uuid.uuid4()).replace("-", "" if len(old) == 32 else "-").encode()) for old in ids]
            changes = [(str(FIRST).encode(), str(FIRST + number).encode()), *new_ids]
            channel.basic_publish(
                method.exchange, method.routing_key, _replace(body, changes), _copy(properties, changes)
            )

        def all_arrived() -> bool:
            connection.process_data_events(0)
            return self.queue()[0] == count + undecodable

        # RabbitMQ 3.10 on a busy machine loses unconfirmed messages to a quorum queue if their connection is closed at once.
        self.until(all_arrived, f"{count + undecodable} messages in the queue", seconds=900)
        connection.close()

    def stop(self) -> None:
        """Kill the processes of this run and their children."""
        processes, self.processes = self.processes, []
        for process in processes:
            if process.poll() is not None:
                continue
            tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            for one in reversed(tree):
                one.kill()
            process.wait()


def _replace(value: bytes, changes: Sequence[tuple[bytes, bytes]]) -> bytes:
    for old, new in changes:
        value = value.replace(old, new)
    return value


def _copy(properties: pika.BasicProperties, changes: Sequence[tuple[bytes, bytes]]) -> pika.BasicProperties:
    def changed(value: Any) -> Any:  # noqa: ANN401 - header values
        if isinstance(value, str):
            return _replace(value.encode(), changes).decode()
        return {key: changed(one) for key, one in value.items()} if isinstance(value, dict) else value

    return pika.BasicProperties(**{key: changed(value) for key, value in vars(properties).items()})


def cpu_seconds(process: psutil.Process) -> float:
    """Return the CPU seconds of a worker and its children."""
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return float(sum(one.user + one.system for one in times))


def megabytes(process: psutil.Process) -> float:
    """Return the memory of a worker and its children in MB, with shared pages counted once."""
    return float(sum(one.memory_full_info().pss for one in (process, *process.children(recursive=True)))) / 1e6
