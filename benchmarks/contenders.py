"""The programs of the comparison: this project, other libraries as their documentation runs them, and bare pika as the baseline."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

APPS = Path(__file__).parent / "peers"
ENVIRONMENTS = Path(__file__).parents[1] / ".bench"
QUEUE = "bench"


@dataclass(frozen=True)
class Program:
    """One program of the comparison: its module, its worker's command and its packages."""

    name: str
    module: str
    worker: tuple[str, ...]
    packages: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    remark: str = ""

    @property
    def folder(self) -> Path:
        """The folder of its virtual environment: its own if it has packages, else this project's."""
        return ENVIRONMENTS / self.name if self.packages else Path(sys.executable).parent.parent

    def command(self, *words: str) -> list[str]:
        """Return the command that runs its module with arguments."""
        return [str(self.folder / "bin" / "python"), f"{self.module}.py", *words]

    def worker_command(self, slots: int) -> list[str]:
        """Return the command that starts its worker with so many slots."""
        first, *others = (word.replace("SLOTS", str(slots)) for word in self.worker)
        return [str(self.folder / "bin" / first), *others]


PROGRAMS = (
    Program("wch", "app_wch", ("python", "app_wch.py", "worker")),
    Program(
        "wch-200", "app_wch", ("python", "app_wch.py", "worker"), environment=(("BENCH_PREFETCH", "200"),),
        remark="wch with WCH_<QUEUE>_PREFETCH=200; the default prefetch is twice the slots, at least 16",
    ),
    Program(
        "pika", "app_pika", ("python", "app_pika.py", "worker"), remark="the baseline: one thread, prefetch 16, acknowledges one by one; has no retry delay, a failed job is requeued at once"
    ),
    Program(
        "pika-50", "app_pika", ("python", "app_pika.py", "worker"), environment=(("BENCH_ACK_BATCH", "50"),),
        remark="pika with prefetch 200, acknowledges in batches of 50",
    ),
    Program(
        "faststream", "app_faststream", ("faststream", "run", "app_faststream:app", "--workers", "1", "--log-level", "warning"),
        packages=("faststream[rabbit,cli]==0.7.8",), remark="has no retry delay, a failed job is requeued at once",
    ),
    Program(
        "taskiq", "app_taskiq",
        ("taskiq", "worker", "app_taskiq:broker", "--workers", "1", "--max-async-tasks", "SLOTS", "--max-prefetch", "SLOTS", "--log-level", "WARNING"),
        packages=("taskiq==0.13.0", "taskiq-aio-pika==0.6.1"),
    ),
    Program(
        "dramatiq", "app_dramatiq", ("dramatiq", "app_dramatiq", "-p", "1", "-t", "SLOTS"),
        packages=("dramatiq[rabbitmq]==2.2.1",), remark="uses a classic queue, the only type it supports",
    ),
    Program(
        "celery", "app_celery",
        ("celery", "-A", "app_celery", "worker", "-Q", QUEUE, "-P", "threads", "-c", "SLOTS",
         "--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "WARNING"),
        packages=("celery==5.7.0",),
    ),
)  # fmt: skip


def install(programs: Sequence[Program]) -> None:
    """Create the missing environments of the libraries."""
    for program in programs:
        if program.packages and not (program.folder / "done").exists():
            print(f"installing {', '.join(program.packages)}", flush=True)
            subprocess.run([sys.executable, "-m", "venv", "--clear", program.folder], check=True)
            python = program.folder / "bin" / "python"
            subprocess.run([python, "-m", "pip", "install", "-q", *program.packages], check=True)
            (program.folder / "done").touch()
