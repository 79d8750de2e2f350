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

from support.waiting import eventually
from wch_local.leftovers import leftovers


def names(folder: Path) -> set[str]:
    """Return the names of the programs that belong to a folder, without those that are only being started."""
    found = set()
    for process in leftovers(folder):
        with suppress(psutil.Error):
            found.add(process.name())
    return found


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    """Start the demo of a checkout, in a group of its own like a program of a terminal."""
    return subprocess.Popen(
        [sys.executable, "-m", "wch_local.demo", *words],
        cwd=folder,
        env={key: value for key, value in os.environ.items() if not key.startswith("WCH_DEMO")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def await_services(folder: Path) -> None:
    """Wait until the last service has begun to start."""
    log = folder / ".wch/logs/scheduler.log"
    eventually(lambda: log.exists() and log.stat().st_size, "the services are being started")


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Path]:
    """An empty folder; what a failed test leaves running is killed."""
    yield tmp_path
    for process in leftovers(tmp_path / ".wch"):
        with suppress(psutil.NoSuchProcess):
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda one: one.name)
def test_an_interrupted_demo_leaves_nothing_running(checkout: Path, number: signal.Signals) -> None:
    demo = start(checkout)
    eventually(lambda: leftovers(checkout / ".wch"), "the broker is being started")
    if number == signal.SIGTERM:
        await_services(checkout)
    demo.send_signal(number)
    printed, _ = demo.communicate(timeout=180)
    assert demo.returncode == 128 + number
    assert "Interrupted; stopping what was started." in printed
    assert "Traceback" not in printed
    assert names(checkout / ".wch") == set()
    assert not (checkout / ".wch/demo.json").exists()


def test_what_a_killed_demo_left_running_is_ended_by_the_next_command(checkout: Path) -> None:
    folder = checkout / ".wch"
    demo = start(checkout)
    await_services(checkout)
    demo.kill()
    demo.communicate(timeout=180)
    assert {"beam.smp", "postgres"} <= names(folder)
    (folder / "demo.json").unlink()  # as if it had been killed before it could write down what it started
    down = start(checkout, "down")
    printed, _ = down.communicate(timeout=180)
    assert down.returncode == 0, printed
    assert "beam.smp" in printed
    assert names(folder) == set()
    again = start(checkout, "down")
    assert "the demo was not running" in again.communicate(timeout=180)[0]
