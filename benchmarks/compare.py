"""Compares the project with other libraries: `make bench`, or `python benchmarks/compare.py --rounds 3`.

Starts a private broker and database, and runs the programs in turn (A B C A B C …), each in its own environment. Writes the results to
benchmarks/results.json; benchmarks/report.py draws the tables and the picture from them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import tempfile
import time
import traceback
import uuid
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psycopg
from contenders import PROGRAMS, Program, install
from losses import FAULTS, count_losses
from running import FIRST, Failed, Run, cpu_seconds, megabytes

from wch_local.postgres import EmbeddedServer
from wch_local.rabbitmq import PrivateNode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

# Takes minutes and hardly varies, so one round is enough.
_ONCE = {"backlog-million"}
RESULTS = Path(__file__).with_name("results.json")


class Bench:
    """The broker, the database and the results."""

    def __init__(self, folder: Path, size: float) -> None:
        self.size = size
        self.results: list[dict[str, Any]] = []
        self.node = PrivateNode.new(folder / "node")
        self.node.start()
        self.database = EmbeddedServer(folder / "postgres")
        self.database_url = self.database.start()
        self._folder = folder

    def close(self) -> None:
        """Stop the broker and the database, and delete their files."""
        self.node.kill()
        self.node.remove()
        self.database.stop()
        self.database.remove()

    def count(self, full: int) -> int:
        """Return a number of jobs scaled by `size`, at least 20."""
        return max(20, int(full * self.size))

    @contextmanager
    def run(self, program: Program, mode: str = "noop", slots: int = 8, **extra: str) -> Iterator[Run]:
        """Yield a run of a program on a new virtual host; stop its processes and delete the host afterwards."""
        name = f"bench-{uuid.uuid4().hex[:8]}"
        permissions = {"configure": ".*", "write": ".*", "read": ".*"}
        with httpx.Client(
            base_url=f"{self.node.management_url}/api", auth=(self.node.user, self.node.password), timeout=30
        ) as api:
            api.put(f"/vhosts/{name}").raise_for_status()
            api.put(f"/permissions/{name}/{self.node.user}", json=permissions).raise_for_status()
            folder = self._folder / name
            folder.mkdir()
            run = Run(f"{self.node.amqp_url}/{name}", folder, program, mode, slots, extra)
            try:
                yield run
            finally:
                run.stop()
                api.delete(f"/vhosts/{name}")
                shutil.rmtree(folder)

    def add(self, program: Program, what: str, **figures: float) -> None:
        """Add the figures of a program to the results, and print them."""
        self.results.append({"program": program.name, "what": what, **figures})
        print(
            f"{what:<22}{program.name:<12}" + "  ".join(f"{key} {value:,.4g}" for key, value in figures.items()),
            flush=True,
        )

    # -- measurements

    def handling(self, program: Program, mode: str, slots: int, full: int, what: str = "", **extra: str) -> None:
        """Measure the events a second and the CPU per event of one worker, without its start."""
        # One thread that mostly sleeps reaches a stable figure after a tenth of the jobs.
        count = self.count(full // 10 if mode == "wait" and program.module == "app_pika" else full)
        with self.run(program, mode, slots, BENCH_DATABASE_URL=self.database_url, **extra) as run:
            run.preload(count)
            self.add(program, what or f"{mode}-{slots}", **self._handle(run, count))

    def batches(self, program: Program, batch: int) -> None:
        """Measure the same for a batch handler."""
        count = self.count(20_000)
        with self.run(program, "noop", 8, BENCH_BATCH=str(batch)) as run:
            run.preload(count)
            self.add(program, f"batch-{batch}", **self._handle(run, count))

    def bare_psycopg(self, program: Program) -> None:
        """Measure the transactions a second of bare psycopg with the same statements."""
        count = self.count(5_000)
        with self.run(program, "database", 5, BENCH_DATABASE_URL=self.database_url) as run:
            run.program = Program("psycopg", "app_psycopg", ("python", "app_psycopg.py", str(count)))
            self.add(run.program, "database-8", **self._handle(run, count))

    def _handle(self, run: Run, count: int) -> dict[str, float]:
        started = time.monotonic()
        worker = run.start_worker()
        run.until(lambda: run.done() >= count // 10, "the first tenth of the jobs")
        done, cpu = run.done(), cpu_seconds(worker)
        run.until(lambda: run.done() >= count, f"all {count} jobs")
        cpu, wall = cpu_seconds(worker) - cpu, time.monotonic() - started
        marks = run.read_marks()
        times = sorted(now for _, _, now in marks)
        if len({number for number, *_ in marks}) != count:
            raise Failed(f"{run.program.name}: {len(marks)} marks, but they do not cover {count} jobs")
        return {
            "rate": (len(times) - 1) / (times[-1] - times[0]) * 1e9, "cpu_us": cpu / max(1, count - done) * 1e6,
            "seconds": wall, "twice": len(marks) - count,
        }  # fmt: skip

    def publishing(self, program: Program, how: str, place: str = "publish", **extra: str) -> None:
        """Measure confirmed publishing in events a second: one at a time, or many at once."""
        count = self.count(2_000 if how == "one" else 20_000)
        with self.run(program, "noop", 8, **extra) as run:
            run.publish("one", FIRST, 1)
            seconds = run.publish(how, FIRST, count)
            run.until(lambda: run.queue()[0] == count + 1, "all jobs in the queue")
            self.add(program, f"{place}-{how}", rate=count / seconds)

    def latency(self, program: Program) -> None:
        """Measure the time from publishing to the handler, in ms, at 200 jobs a second."""
        count = self.count(2_000)
        with self.run(program) as run:
            run.publish("one", FIRST, 1)
            run.start_worker()
            run.until(lambda: run.done() == 1, "the warm-up job")
            run.publish("pace", 200, FIRST, count)
            run.until(lambda: run.done() == count + 1, "all jobs handled")
            delays = sorted((now - sent) / 1e6 for _, sent, now in run.read_marks()[1:])
            self.add(program, "latency", p50_ms=delays[len(delays) // 2], p99_ms=delays[len(delays) * 99 // 100])

    def idle(self, program: Program) -> None:
        """Measure the memory of an idle worker in MB, and the seconds from its start to its first job."""
        with self.run(program) as run:
            run.publish("one", FIRST, 1)
            started = time.time_ns()
            worker = run.start_worker()
            run.until(lambda: run.done() == 1, "the first job")
            first = (run.read_marks()[0][2] - started) / 1e9
            time.sleep(1)  # let the worker finish its start-up work
            self.add(program, "idle", start_seconds=first, mb=megabytes(worker))

    def backlog(self, program: Program, full: int, what: str = "backlog") -> None:
        """Measure the memory with a long backlog in MB: after its first hundredth, and at most until a twentieth."""
        count = self.count(full)
        with self.run(program) as run:
            run.preload(count)
            worker = run.start_worker()
            run.until(lambda: run.done() >= count // 100, "the first hundredth of the jobs")
            before = peak = megabytes(worker)

            def twentieth_handled() -> bool:
                nonlocal peak
                peak = max(peak, megabytes(worker))
                return run.done() >= count // 20

            run.until(twentieth_handled, "a twentieth of the jobs", pause=0.2)
            self.add(program, what, waiting=count, before_mb=before, most_mb=peak)

    def losses(self, program: Program, fault: str) -> None:
        """Count the jobs that are lost, handled twice and dead-lettered under a fault."""
        mode, full = {"sigkill": ("noop", 10_000), "retry": ("retry", 1_000)}.get(fault, ("wait", 1_000))
        with self.run(program, mode) as run:
            self.add(program, f"loss-{fault}", **count_losses(run, self.node, fault, self.count(full)))


Measure = tuple[str, "Callable[[Program], None]"]


def metrics(bench: Bench) -> tuple[list[Measure], list[Measure]]:
    """Return the measurements of every program, and those of this project only."""
    every_program: list[Measure] = [
        ("noop-8", lambda program: bench.handling(program, "noop", 8, 30_000)),
        ("wait-8", lambda program: bench.handling(program, "wait", 8, 3_000)),
        ("wait-100", lambda program: bench.handling(program, "wait", 100, 10_000)),
        ("retry-8", lambda program: bench.handling(program, "retry", 8, 2_000)),
        ("publish-one", lambda program: bench.publishing(program, "one")),
        ("publish-many", lambda program: bench.publishing(program, "many")),
        ("latency", bench.latency),
        ("idle", bench.idle),
        ("backlog", lambda program: bench.backlog(program, 100_000)),
        *((f"loss-{fault}", lambda program, fault=fault: bench.losses(program, fault)) for fault in FAULTS),
    ]
    shared = {"what": "database-shared", "BENCH_SHARE_LIMIT": "16", "BENCH_PREFETCH": "64"}
    wch_only: list[Measure] = [
        ("database-8", lambda program: bench.handling(program, "database", 8, 5_000)),
        ("database-shared", lambda program: bench.handling(program, "database", 8, 5_000, **shared)),
        ("database-8", bench.bare_psycopg),
        ("inside-one", lambda program: bench.publishing(program, "one", "inside", BENCH_INSIDE="1")),
        ("inside-many", lambda program: bench.publishing(program, "many", "inside", BENCH_INSIDE="1")),
        ("backlog-million", lambda program: bench.backlog(program, 1_000_000, "backlog-million")),
        *((f"batch-{size}", lambda program, size=size: bench.batches(program, size)) for size in (1, 10, 100, 1000)),
    ]
    return every_program, wch_only


class _TimeIsUp(BaseException):
    """The time of a measurement is over; clients of a broker catch every other exception."""


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Raise Failed, which names the line that waits, if the block takes longer: clients of a broker can wait without end."""

    def give_up(_number: int, frame: FrameType | None) -> None:
        raise _TimeIsUp("".join(traceback.format_stack(frame, 6)))

    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    except _TimeIsUp as where:
        raise Failed(f"no result within {seconds} s; it waited in\n{where}") from None
    finally:
        signal.alarm(0)


def measure(bench: Bench, programs: Sequence[Program], turn: int, wanted: Sequence[str], limit: int) -> None:
    """Run one round of the wanted measurements, each for all programs in turn and for at most `limit` seconds."""
    every_program, wch_only = metrics(bench)
    for measures, contenders in ((every_program, programs), (wch_only, [one for one in programs if one.name == "wch"])):
        for what, run in measures:
            for program in contenders:
                if (turn == 0 or what not in _ONCE) and any(fnmatchcase(what, pattern) for pattern in wanted):
                    try:
                        with limited(limit):
                            run(program)
                    except Failed as error:
                        # The failure of one program, such as lost jobs, must not end the comparison.
                        bench.add(program, f"failed-{what}", failed=1)
                        print(f"  {error}", flush=True)


def about(bench: Bench) -> dict[str, Any]:
    """Return the machine, the versions and the date of the comparison."""
    with httpx.Client(base_url=bench.node.management_url, auth=(bench.node.user, bench.node.password)) as api:
        rabbitmq = api.get("/api/overview").json()["rabbitmq_version"]
    with psycopg.connect(bench.database_url) as connection:
        postgres = connection.info.server_version // 10_000
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        "",
    )
    return {
        "machine": f"{os.cpu_count()} cores, {cpu}", "python": platform.python_version(), "rabbitmq": rabbitmq,
        "postgresql": postgres, "date": time.strftime("%Y-%m-%d"),
        "versions": {program.name: ", ".join(program.packages) for program in PROGRAMS if program.packages},
        "remarks": {program.name: program.remark for program in PROGRAMS if program.remark},
    }  # fmt: skip


def main() -> None:
    """Run the measurements that the arguments select, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="rounds per program")
    parser.add_argument("--size", type=float, default=1.0, help="factor for the numbers of jobs")
    parser.add_argument(
        "--only", nargs="+", default=[program.name for program in PROGRAMS], help="programs to compare, including wch"
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="file for the results")
    parser.add_argument("--limit", type=int, default=3600, help="seconds after which a measurement has failed")
    parser.add_argument("--what", nargs="+", default=["*"], help="patterns of measurements, such as noop-* latency")
    options = parser.parse_args()
    programs = [program for program in PROGRAMS if program.name in options.only]
    install(programs)
    folder = Path(tempfile.mkdtemp(prefix="wch-bench-", dir="/var/tmp"))
    bench = Bench(folder, options.size)
    try:
        environment = about(bench)
        for turn in range(options.rounds):
            measure(bench, programs, turn, options.what, options.limit)
            # Write after each round, because a round takes long and an interrupted comparison keeps the finished ones.
            results = {"about": environment | {"rounds": turn + 1, "size": options.size}, "results": bench.results}
            options.out.write_text(json.dumps(results, indent=1) + "\n")
    finally:
        bench.close()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
