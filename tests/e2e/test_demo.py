"""`make demo` that is interrupted leaves nothing running, or the next command ends what is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from support.waiting import PATIENCE_SECONDS, eventually
from wch_local.leftovers import leftovers


def names(folder: Path) -> set[str]:
    """Return the names of the programs that belong to a folder, without those that are only being started."""
    found = set()
    for process in leftovers(folder):
        with suppress(psutil.Error):
            found.add(process.name())
    return found


class Checkout:
    """An empty folder in which demos run."""

    def __init__(self, folder: Path) -> None:
        self.place = folder
        self.folder = folder / ".wch"
        self._started: list[subprocess.Popen[str]] = []

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start the demo, in a group of its own like a program of a terminal."""
        process = subprocess.Popen(
            [sys.executable, "-m", "wch_local.demo", *words],
            cwd=self.place,
            env={key: value for key, value in os.environ.items() if not key.startswith("WCH_DEMO")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._started.append(process)
        return process

    def kill_everything(self) -> None:
        """Kill what a failed test has left running."""
        for process in self._started:
            process.kill()
        for left in leftovers(self.folder):
            with suppress(psutil.NoSuchProcess):
                left.kill()
        for process in self._started:
            if process.stdout is not None and not process.stdout.closed:
                process.communicate()


def await_services(checkout: Checkout) -> None:
    """Wait until the last service has begun to start."""
    log = checkout.folder / "logs/scheduler.log"
    eventually(lambda: log.exists() and log.stat().st_size, "the services are being started")


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Checkout]:
    made = Checkout(tmp_path)
    yield made
    made.kill_everything()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda one: one.name)
def test_an_interrupted_demo_leaves_nothing_running(checkout: Checkout, number: signal.Signals) -> None:
    demo = checkout.start()
    eventually(lambda: leftovers(checkout.folder), "the broker is being started")
    if number == signal.SIGTERM:
        await_services(checkout)
    demo.send_signal(number)
    printed, _ = demo.communicate(timeout=PATIENCE_SECONDS)
    assert demo.returncode == 128 + number
    assert "Interrupted; stopping what was started." in printed
    assert "Traceback" not in printed
    assert names(checkout.folder) == set()
    assert not (checkout.folder / "demo.json").exists()


def test_what_a_killed_demo_left_running_is_ended_by_the_next_command(checkout: Checkout) -> None:
    folder = checkout.folder
    demo = checkout.start()
    await_services(checkout)
    demo.kill()
    demo.communicate(timeout=PATIENCE_SECONDS)
    assert {"beam.smp", "postgres"} <= names(folder)
    (folder / "demo.json").unlink()  # as if it had been killed before it could write down what it started
    down = checkout.start("down")
    printed, _ = down.communicate(timeout=PATIENCE_SECONDS)
    assert down.returncode == 0, printed
    assert "beam.smp" in printed
    assert names(folder) == set()
    again = checkout.start("down")
    assert "the demo was not running" in again.communicate(timeout=PATIENCE_SECONDS)[0]
