"""The project beside its peers: `make bench`, or `python benchmarks/compare.py --rounds 3`.

Starts a broker and a database of its own, runs every program in an environment of its own, in turn (A B C A B C …), and
writes what it measured to benchmarks/results.json; benchmarks/report.py makes the table and the picture of it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import tempfile
import time
import uuid
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psycopg
from contenders import PROGRAMS, Program, install
from losses import FAULTS, suffered
from running import FIRST, Failed, Run, cpu_seconds, megabytes

from wch_local.postgres import EmbeddedServer
from wch_local.rabbitmq import PrivateNode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

# Takes minutes, and says the same each time.
_ONCE = {"backlog-million"}
RESULTS = Path(__file__).with_name("results.json")


class Bench:
    """The broker, the database and what was measured."""

    def __init__(self, folder: Path, size: float) -> None:
        self.size = size
        self.results: list[dict[str, Any]] = []
        self.node = PrivateNode.new(folder / "node")
        self.node.start()
        self.database = EmbeddedServer(folder / "postgres")
        self.database_url = self.database.start()
        self._folder = folder

    def close(self) -> None:
        """Leave nothing behind."""
        self.node.kill()
        self.node.remove()
        self.database.stop()
        self.database.remove()

    def count(self, full: int) -> int:
        """Scale a number of jobs."""
        return max(20, int(full * self.size))

    @contextmanager
    def run(self, program: Program, mode: str = "noop", slots: int = 8, **extra: str) -> Iterator[Run]:
        """Give a program a virtual host of its own, and end all it started."""
        name = f"bench-{uuid.uuid4().hex[:8]}"
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        with httpx.Client(
            base_url=f"{self.node.management_url}/api", auth=(self.node.user, self.node.password), timeout=30
        ) as api:
            api.put(f"/vhosts/{name}").raise_for_status()
            api.put(f"/permissions/{name}/{self.node.user}", json=everything).raise_for_status()
            folder = self._folder / name
            folder.mkdir()
            made = Run(f"{self.node.amqp_url}/{name}", folder, program, mode, slots, extra)
            try:
                yield made
            finally:
                made.stop()
                api.delete(f"/vhosts/{name}")
                shutil.rmtree(folder)

    def note(self, program: Program, what: str, **figures: float) -> None:
        """Keep what was measured."""
        self.results.append({"program": program.name, "what": what, **figures})
        print(
            f"{what:<22}{program.name:<12}" + "  ".join(f"{key} {value:,.4g}" for key, value in figures.items()),
            flush=True,
        )

    # -- what is measured

    def handled(self, program: Program, mode: str, slots: int, full: int, what: str = "", **extra: str) -> None:
        """Events a second and CPU per event of one worker, its start left out."""
        # One thread, asleep most of the time, says the same after a tenth of them.
        count = self.count(full // 10 if mode == "wait" and program.module == "app_pika" else full)
        with self.run(program, mode, slots, BENCH_DATABASE_URL=self.database_url, **extra) as run:
            run.preload(count)
            self.note(program, what or f"{mode}-{slots}", **self._watched(run, count))

    def batches(self, program: Program, batch: int) -> None:
        """The same for batch handlers."""
        count = self.count(20_000)
        with self.run(program, "noop", 8, BENCH_BATCH=str(batch)) as run:
            run.preload(count)
            self.note(program, f"batch-{batch}", **self._watched(run, count))

    def bare_statements(self, program: Program) -> None:
        """Transactions a second of bare psycopg with the same statements."""
        count = self.count(5_000)
        with self.run(program, "database", 5, BENCH_DATABASE_URL=self.database_url) as run:
            run.program = Program("psycopg", "app_psycopg", ("python", "app_psycopg.py", str(count)))
            self.note(run.program, "database-8", **self._watched(run, count))

    def _watched(self, run: Run, count: int) -> dict[str, float]:
        began = time.monotonic()
        worker = run.start_worker()
        run.until(lambda: run.done() >= count // 10, "the first tenth")
        done, cpu = run.done(), cpu_seconds(worker)
        run.until(lambda: run.done() >= count, f"{count} jobs")
        cpu, wall = cpu_seconds(worker) - cpu, time.monotonic() - began
        marks = run.read_marks()
        times = sorted(now for _, _, now in marks)
        if len({number for number, *_ in marks}) != count:
            raise Failed(f"{run.program.name}: {len(marks)} marks are not {count} jobs")
        return {
            "rate": (len(times) - 1) / (times[-1] - times[0]) * 1e9, "cpu_us": cpu / max(1, count - done) * 1e6,
            "seconds": wall, "twice": len(marks) - count,
        }  # fmt: skip

    def published(self, program: Program, how: str, place: str = "publish", **extra: str) -> None:
        """Confirmed publishing: one at a time, or many at once."""
        count = self.count(2_000 if how == "one" else 20_000)
        with self.run(program, "noop", 8, **extra) as run:
            run.publish("one", FIRST, 1)
            seconds = run.publish(how, FIRST, count)
            run.until(lambda: run.queue()[0] == count + 1, "all are there")
            self.note(program, f"{place}-{how}", rate=count / seconds)

    def latency(self, program: Program) -> None:
        """From publishing to the handler, at 200 a second."""
        count = self.count(2_000)
        with self.run(program) as run:
            run.publish("one", FIRST, 1)
            run.start_worker()
            run.until(lambda: run.done() == 1, "the worker is warm")
            run.publish("pace", 200, FIRST, count)
            run.until(lambda: run.done() == count + 1, "all are handled")
            late = sorted((now - sent) / 1e6 for _, sent, now in run.read_marks()[1:])
            self.note(program, "latency", p50_ms=late[len(late) // 2], p99_ms=late[len(late) * 99 // 100])

    def idle(self, program: Program) -> None:
        """Memory of a worker that waits, and the time to its first job."""
        with self.run(program) as run:
            run.publish("one", FIRST, 1)
            began = time.time_ns()
            worker = run.start_worker()
            run.until(lambda: run.done() == 1, "its first job")
            first = (run.read_marks()[0][2] - began) / 1e9
            time.sleep(1)  # what it still does after its first job
            self.note(program, "idle", start_seconds=first, mb=megabytes(worker))

    def backlog(self, program: Program, full: int, what: str = "backlog") -> None:
        """Memory with many waiting, early and while a twentieth of them is handled."""
        count = self.count(full)
        with self.run(program) as run:
            run.preload(count)
            worker = run.start_worker()
            run.until(lambda: run.done() >= count // 100, "the first hundredth")
            before = most = megabytes(worker)

            def over() -> bool:
                nonlocal most
                most = max(most, megabytes(worker))
                return run.done() >= count // 20

            run.until(over, "a twentieth of them", pause=0.2)
            self.note(program, what, waiting=count, before_mb=before, most_mb=most)

    def lost(self, program: Program, fault: str) -> None:
        """What is lost, done twice and dead-lettered when something breaks."""
        mode, full = {"sigkill": ("noop", 10_000), "retry": ("retry", 1_000)}.get(fault, ("wait", 1_000))
        with self.run(program, mode) as run:
            self.note(program, f"loss-{fault}", **suffered(run, self.node, fault, self.count(full)))


Measure = tuple[str, "Callable[[Program], None]"]


def metrics(bench: Bench) -> tuple[list[Measure], list[Measure]]:
    """Return what is measured of everybody, and of this project alone."""
    everybody: list[Measure] = [
        ("noop-8", lambda program: bench.handled(program, "noop", 8, 30_000)),
        ("wait-8", lambda program: bench.handled(program, "wait", 8, 3_000)),
        ("wait-100", lambda program: bench.handled(program, "wait", 100, 10_000)),
        ("retry-8", lambda program: bench.handled(program, "retry", 8, 2_000)),
        ("publish-one", lambda program: bench.published(program, "one")),
        ("publish-many", lambda program: bench.published(program, "many")),
        ("latency", bench.latency),
        ("idle", bench.idle),
        ("backlog", lambda program: bench.backlog(program, 100_000)),
        *((f"loss-{fault}", lambda program, fault=fault: bench.lost(program, fault)) for fault in FAULTS),
    ]
    shared = {"what": "database-shared", "BENCH_TOGETHER": "16", "BENCH_PREFETCH": "64"}
    alone: list[Measure] = [
        ("database-8", lambda program: bench.handled(program, "database", 8, 5_000)),
        ("database-shared", lambda program: bench.handled(program, "database", 8, 5_000, **shared)),
        ("database-8", bench.bare_statements),
        ("inside-one", lambda program: bench.published(program, "one", "inside", BENCH_INSIDE="1")),
        ("inside-many", lambda program: bench.published(program, "many", "inside", BENCH_INSIDE="1")),
        ("backlog-million", lambda program: bench.backlog(program, 1_000_000, "backlog-million")),
        *((f"batch-{size}", lambda program, size=size: bench.batches(program, size)) for size in (1, 10, 100, 1000)),
    ]
    return everybody, alone


def measure(bench: Bench, programs: Sequence[Program], turn: int, wanted: Sequence[str]) -> None:
    """Run one round of what is wanted, each thing for all programs in turn."""
    everybody, alone = metrics(bench)
    for part, contenders in ((everybody, programs), (alone, [one for one in programs if one.name == "wch"])):
        for what, run in part:
            for program in contenders:
                if (turn == 0 or what not in _ONCE) and any(fnmatchcase(what, pattern) for pattern in wanted):
                    try:
                        run(program)
                    except Failed as error:  # one that loses what it published, say, is no reason to measure no other
                        bench.note(program, f"failed-{what}", failed=1)
                        print(f"  {error}", flush=True)


def about(bench: Bench) -> dict[str, Any]:
    """Say on what it was measured."""
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
    """Measure what the arguments say, and keep it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often each program has its turn")
    parser.add_argument("--size", type=float, default=1.0, help="of the numbers of jobs")
    parser.add_argument(
        "--only", nargs="+", default=[program.name for program in PROGRAMS], help="programs, wch among them"
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the results go")
    parser.add_argument("--what", nargs="+", default=["*"], help="patterns of what is measured, like noop-* latency")
    options = parser.parse_args()
    programs = [program for program in PROGRAMS if program.name in options.only]
    install(programs)
    folder = Path(tempfile.mkdtemp(prefix="wch-bench-", dir="/var/tmp"))
    bench = Bench(folder, options.size)
    try:
        measured_on = about(bench)
        for turn in range(options.rounds):
            measure(bench, programs, turn, options.what)
            # After each round, as they take long and one may be enough.
            kept = {"about": measured_on | {"rounds": turn + 1, "size": options.size}, "results": bench.results}
            options.out.write_text(json.dumps(kept, indent=1) + "\n")
    finally:
        bench.close()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
